//! How much one may hold at a time: of sockets a user, of connections a network.
//!
//! A value, not an actor. A place is given back when it is dropped, however that comes about, and
//! who holds none is not remembered.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Gives each key as many places as it may hold; clones share the count.
#[derive(Debug)]
pub struct Places<K> {
    held: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

impl<K> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self {
            held: Arc::clone(&self.held),
            most: self.most,
        }
    }
}

/// One place of a key; given back on drop.
#[derive(Debug)]
pub struct Place<K: Hash + Eq> {
    held: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Hash + Eq + Copy> Places<K> {
    /// Each key may hold `most` at a time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            held: Arc::default(),
            most,
        }
    }

    /// A place for `key`, if it has one left.
    #[must_use]
    pub fn enter(&self, key: K) -> Option<Place<K>> {
        let mut all = lock(&self.held);
        let held = all.get(&key).copied().unwrap_or_default();
        if held >= self.most {
            return None;
        }
        all.insert(key, held + 1);
        drop(all);
        let held = Arc::clone(&self.held);
        Some(Place { held, key })
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut all = lock(&self.held);
        if let Some(held) = all.get_mut(&self.key) {
            *held -= 1;
            if *held == 0 {
                all.remove(&self.key);
            }
        }
    }
}

/// A count is whole whoever panicked beside it.
fn lock<K>(held: &Mutex<HashMap<K, usize>>) -> MutexGuard<'_, HashMap<K, usize>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_places_and_who_left_is_forgotten() {
        let places = Places::new(2);
        let (first, second) = (places.enter('a').unwrap(), places.enter('a').unwrap());
        assert!(places.clone().enter('a').is_none());
        let other = places.enter('b').unwrap();
        drop(first);
        let third = places.enter('a').unwrap();
        assert!(places.enter('a').is_none());
        drop((second, third, other));
        assert!(lock(&places.held).is_empty());
        assert!(Places::new(0).enter('a').is_none());
    }
}
