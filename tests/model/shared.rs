//! A part of a state that most steps do not touch: states share it, and its hash is known.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// See the module. [`Self::seal`] must be called after it was changed, before it is compared.
#[derive(Debug, Clone)]
pub struct Shared<T> {
    value: Arc<T>,
    hash: Option<u64>,
}

impl<T: Hash> Shared<T> {
    pub fn new(value: T) -> Self {
        let mut it = Self {
            value: Arc::new(value),
            hash: None,
        };
        it.seal();
        it
    }

    pub fn seal(&mut self) {
        if self.hash.is_none() {
            let mut hasher = DefaultHasher::new();
            self.value.hash(&mut hasher);
            self.hash = Some(hasher.finish());
        }
    }

    pub const fn known_hash(&self) -> Option<u64> {
        self.hash
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.hash = None;
        Arc::make_mut(&mut self.value)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
            || self.hash == other.hash && self.value == other.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}
