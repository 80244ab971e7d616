//! How many sockets this node holds: a counter, and a permit for each.
//!
//! A value, not an actor: letting in is one atomic step. The permit is dropped with the
//! connection that holds it, however that ends, and so cannot be lost.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

/// Lets in as many sockets as the node may hold; clones share the count.
#[derive(Debug, Clone)]
pub struct ConnectionGate {
    open: Arc<AtomicUsize>,
    max: usize,
}

/// The right to be a socket of this node; given back on drop.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl ConnectionGate {
    /// Lets in `max` at a time.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            open: Arc::default(),
            max,
        }
    }

    /// Lets one in, if there is room.
    #[must_use]
    pub fn enter(&self) -> Option<Permit> {
        let room = |open: usize| (open < self.max).then_some(open + 1);
        self.open.fetch_update(SeqCst, SeqCst, room).ok()?;
        Some(Permit(Arc::clone(&self.open)))
    }

    /// How many are inside.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_inside_and_each_leaves_once() {
        let gate = ConnectionGate::new(2);
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert!(gate.enter().is_none());
        assert_eq!(gate.open(), 2);
        drop(first);
        let third = gate.clone().enter().unwrap();
        assert!(gate.enter().is_none());
        drop((second, third));
        assert_eq!(gate.open(), 0);
        assert!(ConnectionGate::new(0).enter().is_none());
    }

    #[test]
    fn many_threads_never_hold_more_than_the_limit() {
        let gate = ConnectionGate::new(7);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..10_000 {
                        let held = gate.enter();
                        assert!(gate.open() <= 7);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(gate.open(), 0);
    }
}
