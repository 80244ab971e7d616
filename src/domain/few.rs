//! A map of the few: one or two entries mostly, kept in the order of their keys, in memory for exactly
//! as many as there are.
//!
//! A session has one, and there are as many sessions as users: a tree makes room for eleven entries
//! with the first, a hash map for four.

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Few<K, V> {
    /// Without entries, and without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, by their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// All, by their keys, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values, by their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values, by their keys, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<K, V> From<Few<K, V>> for Vec<(K, V)> {
    fn from(few: Few<K, V>) -> Self {
        few.0
    }
}

impl<K: Ord, V> Few<K, V> {
    fn place(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(key))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|at| &self.0[at].1)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place(key).ok().map(|at| &mut self.0[at].1)
    }

    /// Sets the value of a key; gives back the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a key out; gives back its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (_, value) = self.0.remove(self.place(key).ok()?);
        self.0.shrink_to_fit();
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_holds_memory_for_what_is_in_it() {
        let mut few = Few::new();
        for (key, entries) in [("b", 1), ("a", 2), ("a", 2), ("c", 3)] {
            few.insert(key, [0_u8; 100]);
            assert_eq!((few.0.len(), few.0.capacity()), (entries, entries));
        }
        for (key, left) in [("b", 2), ("b", 2), ("c", 1), ("a", 0)] {
            few.remove(&key);
            assert_eq!((few.0.len(), few.0.capacity()), (left, left));
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_in_the_order_of_keys(
            steps in prop::collection::vec((0..8_u8, prop::option::of(any::<u16>())), 0..64),
        ) {
            let (mut few, mut map) = (Few::new(), BTreeMap::new());
            for (key, set) in steps {
                if let Some(value) = set {
                    prop_assert_eq!(few.insert(key, value), map.insert(key, value));
                } else {
                    prop_assert_eq!(few.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(few.get(&key), map.get(&key));
                prop_assert!(few.iter().eq(map.iter()));
            }
        }
    }
}
