//! Counts of what actors do: histograms per kind, a few counters per actor, so that ten thousand
//! idle actors stay cheap.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

type Histograms = Family<Kind, Histogram, fn() -> Histogram>;

fn seconds() -> Histogram {
    // 10 µs to 10 s
    Histogram::new(exponential_buckets(1e-5, 4.0, 11))
}

/// The metric families of all actors.
#[derive(Debug, Clone)]
pub struct KernelMetrics {
    live: Family<Kind, Gauge>,
    messages: Family<Kind, Counter>,
    shed: Family<Kind, Counter>,
    expired: Family<Kind, Counter>,
    restarts: Family<Kind, Counter>,
    quarantines: Family<Kind, Counter>,
    handle: Histograms,
    wait: Histograms,
}

impl KernelMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self {
            live: Family::default(),
            messages: Family::default(),
            shed: Family::default(),
            expired: Family::default(),
            restarts: Family::default(),
            quarantines: Family::default(),
            handle: Family::new_with_constructor(seconds),
            wait: Family::new_with_constructor(seconds),
        };
        registry.register("actor_live", "Actors alive", it.live.clone());
        registry.register("actor_messages", "Messages handled", it.messages.clone());
        registry.register(
            "actor_shed",
            "Asks refused because the actor was full",
            it.shed.clone(),
        );
        registry.register(
            "actor_expired",
            "Asks whose caller was gone when their turn came",
            it.expired.clone(),
        );
        registry.register(
            "actor_restarts",
            "Actors made anew after a panic",
            it.restarts.clone(),
        );
        registry.register(
            "actor_quarantines",
            "Actors that failed too often",
            it.quarantines.clone(),
        );
        registry.register(
            "actor_handle_seconds",
            "Time in handlers, without waiting",
            it.handle.clone(),
        );
        registry.register("actor_wait_seconds", "Time in mailboxes", it.wait.clone());
        it
    }

    /// The meters of one kind, looked up once an actor.
    pub(super) fn kind(&self, kind: &'static str) -> KindMeter {
        let label = Kind { kind };
        KindMeter {
            live: self.live.get_or_create_owned(&label),
            messages: self.messages.get_or_create_owned(&label),
            shed: self.shed.get_or_create_owned(&label),
            expired: self.expired.get_or_create_owned(&label),
            restarts: self.restarts.get_or_create_owned(&label),
            quarantines: self.quarantines.get_or_create_owned(&label),
            handle: self.handle.get_or_create_owned(&label),
            wait: self.wait.get_or_create_owned(&label),
        }
    }
}

/// The meters that all actors of a kind share.
#[derive(Debug, Clone)]
pub(super) struct KindMeter {
    pub live: Gauge,
    pub messages: Counter,
    pub shed: Counter,
    pub expired: Counter,
    pub restarts: Counter,
    pub quarantines: Counter,
    pub handle: Histogram,
    pub wait: Histogram,
}

/// One actor's own counters; outlives its restarts.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub handled: AtomicU64,
    pub restarts: AtomicU32,
    pub busy_micros: AtomicU64,
}

impl Meter {
    pub(super) fn handled(&self, kind: &KindMeter, waited: Duration, took: Duration) {
        self.handled.fetch_add(1, Relaxed);
        self.busy_micros
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        kind.messages.inc();
        kind.wait.observe(waited.as_secs_f64());
        kind.handle.observe(took.as_secs_f64());
    }
}

/// A meter shared by an actor's handle and its shell.
pub(super) type Meters = (Arc<Meter>, KindMeter);
