//! What the actors of each kind did between two moments.

use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

use crate::actors::kernel::{Class, Directory, Kind, Powers, Totals};

/// What all kinds had done at some moment.
#[derive(Debug)]
pub(super) struct Sample {
    at: Instant,
    kinds: Vec<Counted>,
}

#[derive(Debug)]
struct Counted {
    name: &'static str,
    live: usize,
    in_progress: u64,
    powers: Powers,
    totals: Option<Totals>,
}

/// The kinds of actors.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Kinds {
    /// Over how long rates and times were taken, in milliseconds.
    rates_over_ms: u64,
    /// Each kind.
    kinds: Vec<KindRow>,
}

/// A kind of actors. What is not counted for a kind is null.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct KindRow {
    /// The kind's name.
    kind: &'static str,
    /// How many live.
    live: usize,
    /// Messages in progress: waiting, handled or not answered yet.
    in_progress: u64,
    /// Messages handled, a second.
    messages_per_second: Option<f64>,
    /// Asks refused because an actor was full, a second.
    shed_per_second: Option<f64>,
    /// Asks whose caller was gone when their turn came, a second.
    expired_per_second: Option<f64>,
    /// Half of the handlers took no longer, in microseconds; null where nothing was handled. Times are
    /// the bounds of buckets: up to twice too long.
    handler_p50_us: Option<f64>,
    /// 99 of 100 handlers took no longer.
    handler_p99_us: Option<f64>,
    /// Half of the messages waited no longer in the mailbox.
    mailbox_p50_us: Option<f64>,
    /// 99 of 100 messages waited no longer.
    mailbox_p99_us: Option<f64>,
    /// Messages handled since the start of the server.
    messages: Option<u64>,
    /// Asks refused since the start.
    shed: Option<u64>,
    /// Asks that expired since the start.
    expired: Option<u64>,
    /// Restarts after a panic since the start.
    restarts: Option<u64>,
    /// Quarantines since the start.
    quarantines: Option<u64>,
    /// Whether its actors may be stopped.
    may_stop: bool,
    /// Whether its actors may be restarted.
    may_restart: bool,
}

impl Sample {
    pub(super) fn take(directory: &Directory, now: Instant) -> Self {
        let kinds = directory.kinds();
        let kinds = kinds.iter().map(|kind| Counted::of(kind.as_ref()));
        Self {
            at: now,
            kinds: kinds.collect(),
        }
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// How much later it was taken.
    pub(super) fn after(&self, earlier: &Self) -> Duration {
        earlier.age(self.at)
    }

    pub(super) fn since(&self, earlier: &Self) -> Kinds {
        let over = self.after(earlier);
        let kinds = self.kinds.iter().map(|kind| {
            let before = earlier.kinds.iter().find(|it| it.name == kind.name);
            kind.row(before.and_then(|it| it.totals.as_ref()), over)
        });
        Kinds {
            rates_over_ms: u64::try_from(over.as_millis()).unwrap_or(u64::MAX),
            kinds: kinds.collect(),
        }
    }
}

impl Counted {
    fn of(kind: &dyn Kind) -> Self {
        let mut in_progress = 0;
        kind.visit(&mut |_, actor| {
            let classes = [Class::Command, Class::Read, Class::Control];
            in_progress += classes
                .map(|class| actor.in_progress(class))
                .iter()
                .sum::<u64>();
        });
        Self {
            name: kind.name(),
            live: kind.live(),
            in_progress,
            powers: super::powers(kind),
            totals: kind.totals(),
        }
    }

    fn row(&self, before: Option<&Totals>, over: Duration) -> KindRow {
        let totals = self.totals.as_ref();
        let rate = |count: fn(&Totals) -> u64| {
            let more = count(totals?).saturating_sub(count(before?));
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            (!over.is_zero()).then(|| rounded(f64::from(more) / over.as_secs_f64()))
        };
        let handle = totals.zip(before).map(|(it, b)| it.handle.since(&b.handle));
        let wait = totals.zip(before).map(|(it, b)| it.wait.since(&b.wait));
        let micros = |time: Option<Duration>| time.map(|time| rounded(time.as_secs_f64() * 1e6));
        let of = |timed: &Option<_>, per_mille| {
            let timed: &Option<crate::actors::kernel::Timed> = timed;
            micros(timed.as_ref().and_then(|timed| timed.within(per_mille)))
        };
        KindRow {
            kind: self.name,
            live: self.live,
            in_progress: self.in_progress,
            messages_per_second: rate(|it| it.messages),
            shed_per_second: rate(|it| it.shed),
            expired_per_second: rate(|it| it.expired),
            handler_p50_us: of(&handle, 500),
            handler_p99_us: of(&handle, 990),
            mailbox_p50_us: of(&wait, 500),
            mailbox_p99_us: of(&wait, 990),
            messages: totals.map(|it| it.messages),
            shed: totals.map(|it| it.shed),
            expired: totals.map(|it| it.expired),
            restarts: totals.map(|it| it.restarts),
            quarantines: totals.map(|it| it.quarantines),
            may_stop: self.powers.stop,
            may_restart: self.powers.restart,
        }
    }
}

/// With as many digits as mean something.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
