//! Turns, one after another, in the order of asking.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// Hands out turns. Whoever has had one calls [`Self::done`].
#[derive(Debug, Default)]
pub(super) struct Fifo {
    taken: bool,
    waiting: VecDeque<oneshot::Sender<()>>,
}

impl Fifo {
    /// Resolves when it is the caller's turn.
    pub(super) fn turn(&mut self) -> oneshot::Receiver<()> {
        let (grant, turn) = oneshot::channel();
        if self.taken {
            self.waiting.push_back(grant);
        } else {
            self.taken = grant.send(()).is_ok();
        }
        turn
    }

    /// The turn is over: the next one begins.
    pub(super) fn done(&mut self) {
        self.taken = false;
        while let Some(grant) = self.waiting.pop_front() {
            // One who no longer waits is passed over.
            if grant.send(()).is_ok() {
                self.taken = true;
                return;
            }
        }
    }

    /// How many wait for a turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody has a turn or waits for one.
    pub(super) fn is_empty(&self) -> bool {
        !self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_order_and_skip_who_left() {
        let mut fifo = Fifo::default();
        let (mut a, b, mut c) = (fifo.turn(), fifo.turn(), fifo.turn());
        assert!(a.try_recv().is_ok());
        assert!(c.try_recv().is_err());
        drop(b);
        fifo.done();
        assert!(c.try_recv().is_ok());
        fifo.done();
        assert!(fifo.is_empty());
    }
}
