//! Turns, one after another, in the order of asking.
//!
//! Remembers who has the turn and who waits for it, and since when: that is what makes a session slow.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// What wants a turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The message's type.
    pub what: &'static str,
    /// Since when it waits.
    pub asked: Instant,
}

/// What has the turn, or had it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub wanted: Wanted,
    /// Since when.
    pub granted: Instant,
}

/// Hands out turns. Whoever has had one calls [`Self::done`].
#[derive(Debug, Default)]
pub(super) struct Fifo {
    /// Boxed: a session that does nothing stays small.
    held: Option<Box<Held>>,
    waiting: VecDeque<(oneshot::Sender<()>, Wanted)>,
}

impl Fifo {
    /// Resolves when it is the caller's turn.
    pub(super) fn turn(&mut self, wanted: Wanted) -> oneshot::Receiver<()> {
        let (grant, turn) = oneshot::channel();
        if self.held.is_some() {
            self.waiting.push_back((grant, wanted));
        } else if grant.send(()).is_ok() {
            let granted = wanted.asked;
            self.held = Some(Box::new(Held { wanted, granted }));
        }
        turn
    }

    /// The turn is over: the next one begins. Gives back whose it was.
    pub(super) fn done(&mut self, now: Instant) -> Option<Held> {
        let had = self.held.as_deref().copied();
        while let Some((grant, wanted)) = self.waiting.pop_front() {
            // One who no longer waits is passed over.
            if grant.send(()).is_ok() {
                let next = Held {
                    wanted,
                    granted: now,
                };
                match &mut self.held {
                    Some(held) => **held = next,
                    none => *none = Some(Box::new(next)),
                }
                return had;
            }
        }
        self.held = None;
        had
    }

    /// What has the turn.
    pub(super) fn held(&self) -> Option<Held> {
        self.held.as_deref().copied()
    }

    /// What has waited longest for a turn.
    pub(super) fn first_waiting(&self) -> Option<Wanted> {
        self.waiting.front().map(|(_, wanted)| *wanted)
    }

    /// How many wait for a turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many turns `what` has and waits for.
    pub(super) fn wanted(&self, what: &'static str) -> usize {
        let waiting = self.waiting.iter().filter(|(grant, _)| !grant.is_closed());
        let waiting = waiting.map(|(_, wanted)| wanted);
        let held = self.held.as_deref().map(|held| &held.wanted);
        waiting.chain(held).filter(|it| it.what == what).count()
    }

    /// Whether nobody has a turn or waits for one.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_none()
    }
}

impl Held {
    /// How long it waited for its turn.
    pub(super) fn waited(&self) -> Duration {
        self.granted.saturating_duration_since(self.wanted.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::{Clock as _, System};

    #[test]
    fn turns_come_in_order_and_skip_who_left() {
        let asked = System.instant();
        let later = |secs| asked + Duration::from_secs(secs);
        let mut fifo = Fifo::default();
        let [mut a, b, mut c] = ["a", "b", "c"].map(|what| fifo.turn(Wanted { what, asked }));
        assert!(a.try_recv().is_ok());
        assert!(c.try_recv().is_err());
        assert_eq!(fifo.held().unwrap().wanted.what, "a");
        assert_eq!(fifo.first_waiting().unwrap().what, "b");
        assert_eq!(fifo.waiting(), 2);
        assert_eq!(["a", "b", "d"].map(|what| fifo.wanted(what)), [1, 1, 0]);
        drop(b);
        assert_eq!(fifo.wanted("b"), 0);
        assert_eq!(fifo.done(later(1)).unwrap().wanted.what, "a");
        assert!(c.try_recv().is_ok());
        let had = fifo.done(later(3)).unwrap();
        assert_eq!(
            (had.wanted.what, had.waited()),
            ("c", Duration::from_secs(1))
        );
        assert!(fifo.is_empty() && fifo.held().is_none());
    }
}
