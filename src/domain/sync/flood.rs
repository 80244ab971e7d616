//! How many frames a client may send: a bucket of tokens for each connection.
//!
//! Owns the count, nothing else: time is passed in. Every frame takes a token, control frames and
//! parts of messages too. An event that is sent gives its client one frame for free, so that a
//! client that catches up and acks each event by itself is never slowed down by its own server.

use std::time::{Duration, Instant};

/// How much is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodLimit {
    /// Frames a second in the long run; zero counts as one.
    pub per_second: u32,
    /// Frames at once after a quiet time; zero counts as one.
    pub burst: u32,
    /// Free frames that a client may keep: as many as events may be on their way to it.
    pub free: u32,
}

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Take,
    /// Drop it, and tell the client: it is the first since the bucket was full.
    Warn,
    /// Drop it.
    Drop,
    /// As many as the burst were dropped, and the bucket was never full again: close.
    Close,
}

/// The bucket of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flood {
    limit: FloodLimit,
    /// When the bucket will be full again, if nothing more is taken.
    full_at: Instant,
    /// Frames that cost nothing.
    free: u32,
    /// Frames dropped since the bucket was full.
    dropped: u32,
}

impl Flood {
    /// A full bucket.
    #[must_use]
    pub fn new(limit: FloodLimit, now: Instant) -> Self {
        let limit = FloodLimit {
            per_second: limit.per_second.max(1),
            burst: limit.burst.max(1),
            free: limit.free,
        };
        Self {
            limit,
            full_at: now,
            free: 0,
            dropped: 0,
        }
    }

    /// So many events were sent to the client.
    pub fn sent(&mut self, events: usize) {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        self.free = self.free.saturating_add(events).min(self.limit.free);
    }

    /// A frame came in.
    pub fn frame(&mut self, now: Instant) -> Verdict {
        if self.free > 0 {
            self.free -= 1;
            return Verdict::Take;
        }
        let one = Duration::from_secs(1) / self.limit.per_second;
        let full = self.full_at <= now;
        if full {
            self.full_at = now;
            self.dropped = 0;
        }
        let after = self.full_at + one;
        if after.saturating_duration_since(now) <= one * self.limit.burst {
            self.full_at = after;
            return Verdict::Take;
        }
        self.dropped += 1;
        match self.dropped {
            n if n >= self.limit.burst => Verdict::Close,
            1 => Verdict::Warn,
            _ => Verdict::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Verdict::{Close, Drop, Take, Warn};

    const LIMIT: FloodLimit = FloodLimit {
        per_second: 10,
        burst: 5,
        free: 4,
    };

    fn start() -> Instant {
        crate::domain::clock::World::system().instant()
    }

    fn verdicts(flood: &mut Flood, now: Instant, frames: usize) -> Vec<Verdict> {
        (0..frames).map(|_| flood.frame(now)).collect()
    }

    #[test]
    fn a_burst_is_taken_then_warned_of_once_then_closed() {
        let now = start();
        let mut flood = Flood::new(LIMIT, now);
        assert_eq!(
            verdicts(&mut flood, now, 10),
            [Take, Take, Take, Take, Take, Warn, Drop, Drop, Drop, Close]
        );
    }

    #[test]
    fn a_client_that_pauses_is_forgiven() {
        let now = start();
        let mut flood = Flood::new(LIMIT, now);
        assert_eq!(verdicts(&mut flood, now, 9)[5..], [Warn, Drop, Drop, Drop]);
        // Full again after half a second.
        let later = now + Duration::from_millis(500);
        assert_eq!(
            verdicts(&mut flood, later, 7),
            [Take, Take, Take, Take, Take, Warn, Drop]
        );
    }

    #[test]
    fn a_client_that_only_slows_down_is_not_forgiven() {
        let mut now = start();
        let mut flood = Flood::new(LIMIT, now);
        let mut seen = Vec::new();
        // Twice the rate: every second frame is dropped, but the count goes on.
        for _ in 0..40 {
            seen.push(flood.frame(now));
            now += Duration::from_millis(50);
        }
        assert_eq!(seen.iter().filter(|v| **v == Warn).count(), 1);
        assert!(seen.contains(&Close), "{seen:?}");
    }

    #[test]
    fn of_free_frames_only_so_many_are_kept() {
        let now = start();
        let mut flood = Flood::new(LIMIT, now);
        flood.sent(1000);
        let taken = verdicts(&mut flood, now, 20)
            .iter()
            .filter(|v| **v == Take)
            .count();
        assert_eq!(taken, 4 + 5);
    }

    #[test]
    fn zero_limits_still_let_one_pass() {
        let now = start();
        let none = FloodLimit {
            per_second: 0,
            burst: 0,
            free: 0,
        };
        let mut flood = Flood::new(none, now);
        assert_eq!(verdicts(&mut flood, now, 2), [Take, Close]);
        assert_eq!(flood.frame(now + Duration::from_secs(1)), Take);
    }

    fn limits() -> impl Strategy<Value = FloodLimit> {
        (1..1000u32, 1..500u32, 0..300u32).prop_map(|(per_second, burst, free)| FloodLimit {
            per_second,
            burst,
            free,
        })
    }

    proptest! {
        #[test]
        fn a_client_at_its_rate_is_never_limited(limit in limits(), frames in 1..2000u32) {
            let mut now = start();
            let mut flood = Flood::new(limit, now);
            let step = Duration::from_secs(1) / limit.per_second;
            for _ in 0..frames {
                prop_assert_eq!(flood.frame(now), Take);
                now += step;
            }
        }

        #[test]
        fn acks_one_by_one_are_never_limited(limit in limits(), events in prop::collection::vec(1..300usize, 1..50)) {
            let now = start();
            let mut flood = Flood::new(limit, now);
            for sent in events {
                // No more are on their way than may be.
                let sent = sent.min(limit.free as usize);
                flood.sent(sent);
                for _ in 0..sent {
                    prop_assert_eq!(flood.frame(now), Take);
                }
            }
        }

        #[test]
        fn in_any_span_no_more_than_burst_and_rate_and_free_frames_are_taken(
            limit in limits(),
            steps in prop::collection::vec((0..40u64, 0..20usize, 1..30usize), 1..60),
        ) {
            let begin = start();
            let (mut now, mut given, mut taken) = (begin, 0, 0u64);
            let mut flood = Flood::new(limit, now);
            for (wait, sent, frames) in steps {
                now += Duration::from_millis(wait);
                flood.sent(sent);
                given += sent as u64;
                taken += verdicts(&mut flood, now, frames).iter().filter(|v| **v == Take).count() as u64;
                let millis = u64::try_from((now - begin).as_millis()).unwrap();
                let allowed = u64::from(limit.burst) + u64::from(limit.per_second) * millis / 1000 + 1 + given;
                prop_assert!(taken <= allowed, "{} of {}", taken, allowed);
            }
        }

        #[test]
        fn who_never_stops_is_closed_in_the_end(limit in limits()) {
            let mut now = start();
            let mut flood = Flood::new(limit, now);
            let step = Duration::from_secs(1) / limit.per_second / 3;
            let mut warned = 0;
            let closed = (0..10_000u32).any(|_| {
                now += step;
                let verdict = flood.frame(now);
                warned += u32::from(verdict == Warn);
                verdict == Close
            });
            prop_assert!(closed);
            prop_assert!(warned <= 1);
        }
    }
}
