//! How long to wait before the next try. Owns the sequence only: the shell adds the jitter, so
//! that many clients of one server do not come back at the same moment.

use std::time::Duration;

use crate::domain::clock::World;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles from one second to thirty, and starts again when told that all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The wait before the next try, without jitter.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(LONGEST);
        wait
    }

    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// How a pause is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// None at all.
    None,
    /// A fifth less to a fifth more.
    About(Duration),
    /// What the server asked for; it has spread its clients already.
    Exactly(Duration),
}

impl Wait {
    /// The pause to make this time.
    pub(super) fn drawn(self, world: &World) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::About(base) => base / 5 * 4 + world.jitter(base / 5 * 2),
            Self::Exactly(wait) => wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(backoff: &mut Backoff, n: usize) -> Vec<u64> {
        (0..n).map(|_| backoff.next().as_secs()).collect()
    }

    #[test]
    fn doubles_to_thirty_seconds_and_stays_there() {
        let mut backoff = Backoff::new();
        assert_eq!(seconds(&mut backoff, 8), [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn starts_again_after_a_reset() {
        let mut backoff = Backoff::new();
        seconds(&mut backoff, 5);
        backoff.reset();
        assert_eq!(seconds(&mut backoff, 3), [1, 2, 4]);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let world = World::system();
        let base = Duration::from_secs(10);
        for _ in 0..200 {
            let wait = Wait::About(base).drawn(&world);
            assert!(wait >= Duration::from_secs(8) && wait <= Duration::from_secs(12));
        }
        assert_eq!(Wait::Exactly(base).drawn(&world), base);
        assert_eq!(Wait::None.drawn(&world), Duration::ZERO);
    }
}
