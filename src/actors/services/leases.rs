//! When another node's lease is over, whatever that node's clock says.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{domain::ids::BroadcastId, store::FreeBroadcast};

/// The leases that the last look found, each with the moment since which it is as it is.
///
/// An end that is written down is of the clock of whoever wrote it. One whose clock is ahead and who
/// dies leaves an end that is far away; so a lease that nobody renewed for its whole length is over too.
#[derive(Debug, Default)]
pub(super) struct Leases(Vec<(BroadcastId, DateTime<Utc>, Instant)>);

impl Leases {
    /// Notes what a look at `at` found.
    pub(super) fn seen(&mut self, found: &[FreeBroadcast], at: Instant) {
        let since = |it: &FreeBroadcast| {
            let is_same = |known: &&(_, _, _)| (known.0, known.1) == (it.id, it.lease_until);
            self.0.iter().find(is_same).map_or(at, |known| known.2)
        };
        self.0 = found
            .iter()
            .map(|it| (it.id, it.lease_until, since(it)))
            .collect();
    }

    /// Whether a lease is over that another node has and [`Self::seen`] noted.
    pub(super) fn is_over(
        &self,
        it: &FreeBroadcast,
        length: TimeDelta,
        now: DateTime<Utc>,
        at: Instant,
    ) -> bool {
        let length = length.to_std().unwrap_or(Duration::MAX);
        let is_stale = |known: &&(_, _, Instant)| {
            known.0 == it.id && at.saturating_duration_since(known.2) >= length
        };
        it.lease_until <= now || self.0.iter().any(|known| is_stale(&known))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use uuid::Uuid;

    use super::*;
    use crate::domain::clock::{Clock as _, System};

    #[test]
    fn a_clock_that_was_ahead_keeps_nobody_waiting() {
        let now = Utc.timestamp_opt(1_000_000, 0).unwrap();
        let (began, length) = (System.instant(), TimeDelta::seconds(5));
        let after = |secs| began + Duration::from_secs(secs);
        let id = BroadcastId(Uuid::from_u128(1));
        let until = |secs| FreeBroadcast {
            id,
            lease_owner: Some("ahead".to_owned()),
            lease_until: now + TimeDelta::seconds(secs),
        };
        let mut leases = Leases::default();
        // Renewed each second, an hour ahead.
        for n in 0..10 {
            let it = until(3600 + n);
            leases.seen(std::slice::from_ref(&it), after(n.unsigned_abs()));
            assert!(!leases.is_over(&it, length, now, after(n.unsigned_abs())));
        }
        let dead = until(3609);
        for (secs, over) in [(10, false), (13, false), (14, true), (20, true)] {
            leases.seen(std::slice::from_ref(&dead), after(secs));
            assert_eq!(
                leases.is_over(&dead, length, now, after(secs)),
                over,
                "{secs}"
            );
        }
        // One whose clock is right is over when it says so.
        let mut leases = Leases::default();
        leases.seen(&[until(0)], began);
        assert!(leases.is_over(&until(0), length, now, began));
    }
}
