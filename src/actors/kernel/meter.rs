//! Counts of what an actor does: a few words each, so that ten thousand idle actors stay cheap.
//!
//! An actor's own [`Meter`] is written by the one thread that the actor lives on, and read by whoever
//! inspects it: plain loads and stores of atomics, without locks. What is rare (a failure) allocates
//! when it first happens.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::{
    Class,
    kinds::{KernelMetrics, KindMeter},
    timing::nanos,
};

/// The bits of a slowest answer that name it; the others are its time in microseconds.
pub(super) const NAME: u64 = (1 << 16) - 1;
/// Slowest answers are kept for this one and the one before.
const WINDOW: Duration = Duration::from_secs(30);
/// Failures that are remembered.
const FAILURES: usize = 8;

/// One actor's own counters; outlives its restarts.
#[derive(Debug)]
pub(super) struct Meter {
    /// All times below are counted from here, in nanoseconds; 0 is none.
    started: Instant,
    handled: AtomicU64,
    busy: AtomicU64,
    last: AtomicU64,
    /// Since when asks are in hand and none was answered: commands, reads.
    owed: [AtomicU64; 2],
    /// The slowest answer of the window, and of the one before.
    slowest: [AtomicU64; 2],
    window: AtomicU32,
    pub restarts: AtomicU32,
    failures: OnceLock<Box<Mutex<VecDeque<Failure>>>>,
}

/// When a message was sent that is timed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub at: Instant,
    /// How many messages its times stand for, itself among them.
    pub stands_for: u32,
}

impl Sent {
    /// One that stands for itself.
    pub(super) const fn at(at: Instant) -> Self {
        Self { at, stands_for: 1 }
    }
}

/// An end that an actor's life came to before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: DateTime<Utc>,
    /// Which life it was, the first being 0.
    pub life: u32,
    /// What the panic said, if that is text of the program; nothing of what may be a user's.
    pub reason: &'static str,
    /// Whether it was one too many.
    pub quarantined: bool,
}

/// An answer that was slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slowest {
    /// What was asked.
    pub what: &'static str,
    /// From the ask to the answer.
    pub took: Duration,
}

/// What a meter shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// How long ago it was started first.
    pub age: Duration,
    /// Messages handled.
    pub handled: u64,
    /// Time in handlers.
    pub busy: Duration,
    /// How long ago it handled its last message.
    pub idle: Option<Duration>,
    /// For how long asks have been in hand without an answer to any: the longer of commands and reads.
    pub owing: Option<Duration>,
    /// The slowest answer of the last half minute to minute.
    pub slowest: Option<Slowest>,
    /// How often it was made anew.
    pub restarts: u32,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            handled: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            last: AtomicU64::new(0),
            owed: Default::default(),
            slowest: Default::default(),
            window: AtomicU32::new(0),
            restarts: AtomicU32::new(0),
            failures: OnceLock::new(),
        }
    }

    /// Never 0, which means none.
    fn at(&self, time: Instant) -> u64 {
        nanos(time.saturating_duration_since(self.started)).max(1)
    }

    fn ago(&self, at: u64, now: Instant) -> Option<Duration> {
        (at > 0).then(|| Duration::from_nanos(self.at(now).saturating_sub(at)))
    }

    /// Counts a message.
    pub(super) fn handled(&self, kind: &KindMeter) {
        // Only this thread writes: no other addition can come between.
        self.handled.store(self.handled.load(Relaxed) + 1, Relaxed);
        kind.messages.inc();
    }

    /// The times of a message that was handled.
    pub(super) fn timed(&self, kind: &KindMeter, sent: Sent, begun: Instant, ended: Instant) {
        let took = ended.saturating_duration_since(begun);
        let all = nanos(took).saturating_mul(u64::from(sent.stands_for));
        let busy = self.busy.load(Relaxed).saturating_add(all);
        self.busy.store(busy, Relaxed);
        self.last.store(self.at(ended), Relaxed);
        let waited = begun.saturating_duration_since(sent.at);
        kind.wait.observe(waited, sent.stands_for);
        kind.handle.observe(took, sent.stands_for);
    }

    /// An ask is in hand and will be answered later.
    pub(super) fn owes(&self, class: Class, begun: Instant) {
        if let Some(owed) = self.owed(class)
            && owed.load(Relaxed) == 0
        {
            owed.store(self.at(begun), Relaxed);
        }
    }

    /// An ask that was owed is answered at `now`; `others` are still in hand.
    pub(super) fn settled(&self, class: Class, now: Instant, others: bool) {
        if let Some(owed) = self.owed(class) {
            owed.store(if others { self.at(now) } else { 0 }, Relaxed);
        }
    }

    fn owed(&self, class: Class) -> Option<&AtomicU64> {
        match class {
            Class::Command => Some(&self.owed[0]),
            Class::Read => Some(&self.owed[1]),
            Class::Control => None,
        }
    }

    /// An ask called `what`, sent at `sent`, is answered at `now`.
    pub(super) fn answered(
        &self,
        kind: &KindMeter,
        what: &'static str,
        sent: Instant,
        now: Instant,
    ) {
        let took = now.saturating_duration_since(sent).as_micros();
        let took = u64::try_from(took)
            .unwrap_or(u64::MAX)
            .clamp(1, u64::MAX >> 16);
        let (window, known) = (self.window_at(now), self.window.load(Relaxed));
        let [slowest, before] = &self.slowest;
        if window != known {
            let follows = window == known.wrapping_add(1);
            before.store(if follows { slowest.load(Relaxed) } else { 0 }, Relaxed);
            slowest.store(0, Relaxed);
            self.window.store(window, Relaxed);
        }
        if took > slowest.load(Relaxed) >> 16 {
            slowest.store(took << 16 | kind.place_of(what), Relaxed);
        }
    }

    fn window_at(&self, now: Instant) -> u32 {
        let windows = self.at(now) / nanos(WINDOW);
        u32::try_from(windows).unwrap_or(u32::MAX)
    }

    fn slowest(&self, kind: &KindMeter, now: Instant) -> Option<Slowest> {
        let [slowest, before] = self.slowest.each_ref().map(|it| it.load(Relaxed));
        let worst = match self.window_at(now).checked_sub(self.window.load(Relaxed)) {
            // A reader may be a little behind the writer.
            None | Some(0) => slowest.max(before),
            Some(1) => slowest,
            Some(_) => 0,
        };
        (worst > 0).then(|| Slowest {
            what: kind.ask_at(worst & NAME),
            took: Duration::from_micros(worst >> 16),
        })
    }

    /// A life ended: what was in hand will not be answered.
    pub(super) fn life_over(&self) {
        for owed in &self.owed {
            owed.store(0, Relaxed);
        }
    }

    pub(super) fn failed(&self, failure: Failure) {
        let failures = self.failures.get_or_init(Box::default);
        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() == FAILURES {
            failures.pop_front();
        }
        failures.push_back(failure);
    }

    /// The last failures, the newest last.
    pub(super) fn failures(&self) -> Vec<Failure> {
        self.failures.get().map_or_else(Vec::new, |failures| {
            let failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.iter().copied().collect()
        })
    }

    pub(super) fn handled_so_far(&self) -> u64 {
        self.handled.load(Relaxed)
    }

    pub(super) fn read(&self, kind: &KindMeter, now: Instant) -> Reading {
        let owed = self.owed.iter().map(|owed| owed.load(Relaxed));
        Reading {
            age: now.saturating_duration_since(self.started),
            handled: self.handled_so_far(),
            busy: Duration::from_nanos(self.busy.load(Relaxed)),
            idle: self.ago(self.last.load(Relaxed), now),
            owing: owed.filter_map(|at| self.ago(at, now)).max(),
            slowest: self.slowest(kind, now),
            restarts: self.restarts.load(Relaxed),
        }
    }
}

/// What the kernel writes down of each message, for benchmarks: with it, and without it.
#[derive(Debug)]
pub struct Bookkeeping(Meters);

impl Bookkeeping {
    /// Of one actor.
    #[must_use]
    pub fn new(metrics: &KernelMetrics, now: Instant) -> Self {
        Self((Arc::new(Meter::new(now)), metrics.kind("benchmark")))
    }

    /// What is written of a message that is told, and timed.
    pub fn told(&self, sent: Instant, begun: Instant, ended: Instant) {
        let (meter, kind) = &self.0;
        meter.handled(kind);
        meter.timed(kind, Sent::at(sent), begun, ended);
    }

    /// What is written of an ask that is answered at once.
    pub fn asked(&self, sent: Instant, begun: Instant, ended: Instant) {
        self.told(sent, begun, ended);
        self.0.0.answered(&self.0.1, "Benchmark", sent, ended);
    }

    /// What is written of an ask that is answered later, at `answered`.
    pub fn asked_for_later(
        &self,
        sent: Instant,
        begun: Instant,
        ended: Instant,
        answered: Instant,
    ) {
        let (meter, kind) = &self.0;
        self.told(sent, begun, ended);
        meter.owes(Class::Command, begun);
        meter.answered(kind, "Benchmark", sent, answered);
        meter.settled(Class::Command, answered, false);
    }
}

/// A meter shared by an actor's handle and its shell.
pub(super) type Meters = (Arc<Meter>, Arc<KindMeter>);

#[cfg(test)]
mod tests;
