//! The one clock, and what happens next on it.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::rng::Rng;

/// Milliseconds of virtual time since the schedule began.
pub type Ms = u64;

/// Nanoseconds: in one millisecond things happen one after another.
pub type Nanos = u64;

/// One second.
pub const SECOND: Ms = 1000;

/// Things that happen, by time; the seed decides among those of one moment.
#[derive(Debug)]
pub struct Queue<T> {
    order: BinaryHeap<Reverse<(Ms, u32, usize)>>,
    things: Vec<Option<T>>,
}

impl<T> Queue<T> {
    pub const fn new() -> Self {
        Self {
            order: BinaryHeap::new(),
            things: Vec::new(),
        }
    }

    pub fn push(&mut self, at: Ms, thing: T, rng: &mut Rng) {
        let tie = u32::try_from(rng.below(1 << 20)).unwrap_or(0) + 1;
        self.put(at, tie, thing);
    }

    /// Puts back what could not happen yet: before what else happens then, in the order of putting.
    pub fn defer(&mut self, at: Ms, thing: T) {
        self.put(at, 0, thing);
    }

    fn put(&mut self, at: Ms, tie: u32, thing: T) {
        self.order.push(Reverse((at, tie, self.things.len())));
        self.things.push(Some(thing));
    }

    pub fn pop(&mut self) -> Option<(Ms, T)> {
        while let Some(Reverse((at, _, index))) = self.order.pop() {
            if let Some(thing) = self.things[index].take() {
                return Some((at, thing));
            }
        }
        None
    }
}
