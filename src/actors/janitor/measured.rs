//! What the janitor measured last, for whoever reads the metrics: nothing before it was.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus_client::registry::Registry;

use crate::{
    store::StoreSize,
    telemetry::metrics::{Named, Sample, sampled},
};

const UNKNOWN: u64 = u64::MAX;

/// A number that may not be known yet.
#[derive(Debug)]
struct Last(AtomicU64);

impl Default for Last {
    fn default() -> Self {
        Self(AtomicU64::new(UNKNOWN))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Measured {
    logs: Last,
    events: Last,
    database: Last,
    wal: Last,
}

impl Measured {
    /// A whole round came by so many.
    pub(super) fn logs(&self, logs: u64, events: u64) {
        self.logs.0.store(logs, Relaxed);
        self.events.0.store(events, Relaxed);
    }

    /// The database takes so much room.
    pub(super) fn size(&self, size: StoreSize) {
        self.database.0.store(size.database, Relaxed);
        self.wal.0.store(size.wal.unwrap_or(UNKNOWN), Relaxed);
    }

    /// Registers the families.
    pub(super) fn register(self: &Arc<Self>, registry: &mut Registry) {
        let it = Arc::clone(self);
        sampled(registry, move || {
            let all: [(Named, &Last); 4] = [
                (
                    ("sync_logs", "Logs, as the last whole round found them"),
                    &it.logs,
                ),
                (
                    (
                        "sync_log_events",
                        "Events stored, as the last whole round found them",
                    ),
                    &it.events,
                ),
                (
                    ("store_database_bytes", "Room that the database takes"),
                    &it.database,
                ),
                (
                    (
                        "store_wal_bytes",
                        "Room that SQLite's write-ahead log takes",
                    ),
                    &it.wal,
                ),
            ];
            let known = all.into_iter().filter_map(|(named, last)| {
                let value = last.0.load(Relaxed);
                (value != UNKNOWN).then(|| (named, Sample::Gauge(gauge(value))))
            });
            known.collect()
        });
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a petabyte to the byte is of no use"
)]
fn gauge(value: u64) -> f64 {
    value as f64
}
