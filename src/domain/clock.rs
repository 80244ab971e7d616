//! Time and randomness, passed in so that tests own them.
//!
//! Owns the only calls to the system's clocks and random source. Everything else takes a
//! [`Clock`] and an [`Entropy`], or a time that was read from one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use uuid::Uuid;

/// How much longer than their time rows are kept that would be missed: more than a clock that is
/// wrong, and goes right again, is believed to be ahead.
pub const CLOCK_MARGIN: TimeDelta = TimeDelta::hours(48);

/// Reads the wall clock and the monotonic clock.
pub trait Clock: Send + Sync {
    /// The wall clock, cut to microseconds: what both database engines keep.
    fn now(&self) -> DateTime<Utc>;
    /// The monotonic clock, for deadlines and intervals.
    fn instant(&self) -> Instant;
}

/// Fills buffers with bytes that nobody can predict.
pub trait Entropy: Send + Sync {
    /// Fills `buf` from the system's random source.
    ///
    /// # Errors
    /// [`EntropyError`] when the system has no randomness to give.
    fn fill(&self, buf: &mut [u8]) -> Result<(), EntropyError>;
}

/// The system's random source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source failed")]
pub struct EntropyError;

/// The machine's own clocks and random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the monotonic clock"
    )]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

impl Entropy for System {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks for randomness"
    )]
    fn fill(&self, buf: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(buf).map_err(|_| EntropyError)
    }
}

/// What a part of the system is given instead of the machine: a clock and a random source.
#[derive(Clone)]
pub struct World {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl World {
    /// The real machine.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Arc::new(System), Arc::new(System))
    }

    /// A world made of the given clock and random source.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy }
    }

    /// The wall clock, cut to microseconds.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// The monotonic clock.
    #[must_use]
    pub fn instant(&self) -> Instant {
        self.clock.instant()
    }

    /// `N` random bytes.
    ///
    /// # Errors
    /// [`EntropyError`] when the system has no randomness to give.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], EntropyError> {
        let mut buf = [0; N];
        self.entropy.fill(&mut buf)?;
        Ok(buf)
    }

    /// A new UUID v7: sorts by the time it was made.
    ///
    /// # Errors
    /// [`EntropyError`] when the system has no randomness to give.
    pub fn uuid(&self) -> Result<Uuid, EntropyError> {
        let millis = u64::try_from(self.now().timestamp_millis()).unwrap_or(0);
        Ok(uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()?).into_uuid())
    }

    /// A whole number in `0..bound`, without bias that matters for `bound` far below 2^64.
    ///
    /// # Errors
    /// [`EntropyError`] when the system has no randomness to give.
    pub fn below(&self, bound: u64) -> Result<u64, EntropyError> {
        Ok(u64::from_le_bytes(self.bytes()?) % bound.max(1))
    }

    /// A random part of `max`; all of it when the random source fails.
    #[must_use]
    pub fn jitter(&self, max: Duration) -> Duration {
        let nanos = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        self.below(nanos.saturating_add(1))
            .map_or(max, Duration::from_nanos)
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}
