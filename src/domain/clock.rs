//! Time and randomness, passed in so that tests own them.
//!
//! Owns the only calls to the system's clocks and random source. Everything else takes a
//! [`Clock`] and an [`Entropy`], or a time that was read from one.

use std::{
    cell::RefCell,
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

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks for randomness"
)]
fn ask_system(buf: &mut [u8]) -> Result<(), EntropyError> {
    getrandom::fill(buf).map_err(|_| EntropyError)
}

/// Random bytes of a thread, asked for many at once: each request needs some, and a call of the
/// system costs more than most of what a request does.
struct Stock {
    bytes: [u8; Self::SIZE],
    /// Those before it were handed out, and are zero.
    used: usize,
}

impl Stock {
    const SIZE: usize = 512;
    /// Whoever wants more asks the system.
    const MOST: usize = 64;

    const fn empty() -> Self {
        Self {
            bytes: [0; Self::SIZE],
            used: Self::SIZE,
        }
    }

    /// Hands out bytes that nobody else gets; `ask` is for new ones.
    fn fill(
        &mut self,
        buf: &mut [u8],
        ask: impl Fn(&mut [u8]) -> Result<(), EntropyError>,
    ) -> Result<(), EntropyError> {
        if buf.len() > Self::MOST {
            return ask(buf);
        }
        if Self::SIZE - self.used < buf.len() {
            // Empty until it is known to be full: what a failure leaves is not random.
            self.used = Self::SIZE;
            ask(&mut self.bytes)?;
            self.used = 0;
        }
        let taken = &mut self.bytes[self.used..][..buf.len()];
        buf.copy_from_slice(taken);
        taken.fill(0);
        self.used += buf.len();
        Ok(())
    }
}

thread_local! {
    static STOCK: RefCell<Stock> = const { RefCell::new(Stock::empty()) };
}

impl Entropy for System {
    fn fill(&self, buf: &mut [u8]) -> Result<(), EntropyError> {
        STOCK
            .try_with(|stock| stock.borrow_mut().fill(buf, ask_system))
            // The thread ends, and its stock is gone.
            .unwrap_or(Err(EntropyError))
            .or_else(|EntropyError| ask_system(buf))
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A source of 1, 2, 3 … that counts how often it was asked.
    #[derive(Default)]
    struct Source {
        next: Cell<u8>,
        asked: Cell<usize>,
    }

    impl Source {
        fn give(&self, buf: &mut [u8]) {
            self.asked.set(self.asked.get() + 1);
            for byte in buf {
                self.next.set(self.next.get().wrapping_add(1));
                *byte = self.next.get();
            }
        }

        /// Fills `buf` from `stock`, which asks this source.
        fn fill(&self, stock: &mut Stock, buf: &mut [u8]) {
            let ask = |buf: &mut [u8]| {
                self.give(buf);
                Ok(())
            };
            stock.fill(buf, ask).unwrap();
        }
    }

    #[test]
    fn bytes_are_handed_out_once_and_wiped() {
        let (source, mut stock) = (Source::default(), Stock::empty());
        let mut expected = 0_u8;
        // A power of two fits the stock, so that no byte is left over.
        for _ in 0..Stock::SIZE / 16 {
            let mut buf = [0; 16];
            source.fill(&mut stock, &mut buf);
            for byte in buf {
                expected = expected.wrapping_add(1);
                assert_eq!(byte, expected);
            }
            assert!(stock.bytes[..stock.used].iter().all(|b| *b == 0));
        }
        assert_eq!(source.asked.get(), 1);
        source.fill(&mut stock, &mut [0; 1]);
        assert_eq!(source.asked.get(), 2);
    }

    #[test]
    fn what_is_left_over_is_not_handed_out_in_part() {
        let (source, mut stock) = (Source::default(), Stock::empty());
        for _ in 0..=Stock::SIZE / 48 {
            let mut buf = [0; 48];
            source.fill(&mut stock, &mut buf);
            let rising = buf.windows(2).all(|it| it[1] == it[0].wrapping_add(1));
            assert!(rising, "{buf:?}");
        }
        assert_eq!(source.asked.get(), 2);
    }

    #[test]
    fn much_comes_from_the_system_at_once() {
        let (source, mut stock) = (Source::default(), Stock::empty());
        let mut buf = [0; Stock::MOST + 1];
        source.fill(&mut stock, &mut buf);
        assert_eq!(stock.used, Stock::SIZE, "no stock was taken in");
        assert_eq!(buf[0], 1);
    }

    #[test]
    fn a_failing_source_gives_nothing_then_and_something_later() {
        let mut stock = Stock::empty();
        let fails = |buf: &mut [u8]| {
            buf.fill(7);
            Err(EntropyError)
        };
        let mut buf = [0; 16];
        assert_eq!(stock.fill(&mut buf, fails), Err(EntropyError));
        assert_eq!(stock.fill(&mut buf, fails), Err(EntropyError), "again");
        assert_eq!(buf, [0; 16]);
        Source::default().fill(&mut stock, &mut buf);
        assert_eq!(buf[0], 1);
    }

    #[test]
    fn no_two_of_any_thread_are_the_same() {
        let draw = || -> Vec<Uuid> {
            let world = World::system();
            (0..1000).map(|_| world.uuid().unwrap()).collect()
        };
        let threads: Vec<_> = (0..2).map(|_| std::thread::spawn(draw)).collect();
        let mut all: Vec<_> = threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2000);
    }
}
