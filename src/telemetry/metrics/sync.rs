//! What is counted of the delivery of events, of acks and of signals.
//!
//! Sessions and connections count here with each frame: the counters of every label are looked up
//! once, at the start.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::counters::Counters;
use crate::domain::sync::ResyncReason;

/// Where an event that is delivered came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the command that made it, at once.
    Live,
    /// From the log, by a read.
    Log,
}

/// Frames of one origin.
#[derive(Debug)]
struct Delivered {
    frames: Counter,
    bytes: Counter,
}

/// The families of delivery.
#[derive(Debug)]
pub struct SyncMetrics {
    live: Delivered,
    log: Delivered,
    delay: Histogram,
    resyncs: Counters,
    /// Acks that came over sockets, before any is merged with another.
    pub acks_by_socket: Counter,
    /// Acks that came as a request.
    pub acks_by_http: Counter,
    /// Signals handed to a connection.
    pub signals_delivered: Counter,
    /// Signals that were not sent to a socket which does not take what it is sent.
    pub signals_unread: Counter,
    /// Signals of a device that sent too many.
    pub signals_limited: Counter,
    /// Cursors stored.
    pub cursors_stored: Counter,
    /// Batches of cursors that could not be stored and wait for the next.
    pub cursor_failures: Counter,
    cursor_delay: Histogram,
}

impl SyncMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let both = ["live", "log"];
        let frames = Counters::register(
            registry,
            "sync_deliveries",
            "Event frames handed to connections",
            "source",
            both,
        );
        let bytes = Counters::register(
            registry,
            "sync_delivery_bytes",
            "Bytes of event frames handed to connections",
            "source",
            both,
        );
        let [live, log] = both.map(|source| Delivered {
            frames: frames.of(source),
            bytes: bytes.of(source),
        });
        let acks = Counters::register(registry, "sync_acks", "Acks received", "via", []);
        let signals = Counters::register(
            registry,
            "sync_signals_dropped",
            "Signals that were not delivered",
            "reason",
            [],
        );
        let it = Self {
            live,
            log,
            // 0.1 ms to 6.6 s
            delay: Histogram::new(exponential_buckets(1e-4, 2.0, 17)),
            resyncs: Counters::register(
                registry,
                "sync_resyncs",
                "Resyncs told to clients",
                "reason",
                ResyncReason::ALL.iter().map(|reason| reason.as_str()),
            ),
            acks_by_socket: acks.of("socket"),
            acks_by_http: acks.of("http"),
            signals_delivered: Counter::default(),
            signals_unread: signals.of("not_reading"),
            signals_limited: signals.of("rate_limited"),
            cursors_stored: Counter::default(),
            cursor_failures: Counter::default(),
            // 10 ms to 41 s
            cursor_delay: Histogram::new(exponential_buckets(0.01, 2.0, 13)),
        };
        it.register_others(registry);
        it
    }

    fn register_others(&self, registry: &mut Registry) {
        registry.register(
            "sync_delivery_seconds",
            "From the commit of a change to its frames being handed to connections at once",
            self.delay.clone(),
        );
        registry.register(
            "sync_signals_delivered",
            "Signals handed to connections",
            self.signals_delivered.clone(),
        );
        registry.register(
            "sync_cursors_stored",
            "Cursors stored",
            self.cursors_stored.clone(),
        );
        registry.register(
            "sync_cursor_failures",
            "Batches of cursors that could not be stored",
            self.cursor_failures.clone(),
        );
        registry.register(
            "sync_cursor_seconds",
            "From the oldest ack of a batch of cursors to its being stored",
            self.cursor_delay.clone(),
        );
    }

    /// Event frames went to connections.
    pub fn delivered(&self, from: Origin, frames: u64, bytes: u64) {
        let of = match from {
            Origin::Live => &self.live,
            Origin::Log => &self.log,
        };
        of.frames.inc_by(frames);
        of.bytes.inc_by(bytes);
    }

    /// A change went to connections so long after its commit.
    pub fn pushed_after(&self, delay: Duration) {
        self.delay.observe(delay.as_secs_f64());
    }

    /// A client was told to load its data anew.
    pub fn resync(&self, reason: ResyncReason) {
        self.resyncs.inc(reason.as_str());
    }

    /// A batch of cursors was stored, so long after the oldest of its acks.
    pub fn cursors_stored(&self, count: u64, delay: Duration) {
        self.cursors_stored.inc_by(count);
        self.cursor_delay.observe(delay.as_secs_f64());
    }
}
