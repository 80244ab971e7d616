//! When the store last answered, and whether tokens may be trusted while it does not.
//!
//! Published snapshots: the revocation keeper writes, readiness and token checks read.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// When something last went well.
#[derive(Debug)]
pub struct Pulse(Mutex<Instant>);

impl Pulse {
    /// It did at `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self(Mutex::new(now))
    }

    pub(super) fn beat(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// How long ago it did.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(last)
    }
}

/// Whether it is known what was revoked, and what is done while it is not.
#[derive(Debug)]
pub struct Trust {
    /// When revocations were last read.
    pulse: Pulse,
    /// Tokens are refused while they may have been revoked without this node knowing.
    closed: bool,
}

impl Trust {
    /// What is revoked is not known any more when it was last read so long ago.
    pub const PATIENCE: Duration = Duration::from_secs(5);

    /// Revocations were read at `now`.
    #[must_use]
    pub const fn new(now: Instant, closed: bool) -> Self {
        let pulse = Pulse::new(now);
        Self { pulse, closed }
    }

    pub(super) fn read(&self, now: Instant) {
        self.pulse.beat(now);
    }

    /// How long ago revocations were read.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        self.pulse.age(now)
    }

    /// Whether it is known what is revoked.
    #[must_use]
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < Self::PATIENCE
    }

    /// Whether a token may be trusted that nothing is known against.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        !self.closed || self.is_fresh(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn only_a_closed_node_distrusts_and_only_while_it_does_not_know() {
        let begun = Instant::now();
        let late = begun + Trust::PATIENCE;
        let soon = begun + Duration::from_millis(4999);
        for (closed, at, holds) in [
            (false, soon, true),
            (false, late, true),
            (true, soon, true),
            (true, late, false),
        ] {
            let trust = Trust::new(begun, closed);
            assert_eq!(trust.holds(at), holds, "{closed}");
            trust.read(late);
            assert!(trust.holds(late) && trust.is_fresh(late));
        }
    }
}
