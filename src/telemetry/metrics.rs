//! The registry of everything that is counted, with what every process counts.
//!
//! Owns the one [`Registry`]; each part registers its own families with [`Metrics::register`]
//! while it is put together. Labels must be bounded: never an id, a path as sent or an address.

mod http;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use http::{HttpMeter, HttpMetrics};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Why a socket ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// One of the reasons of the close codes, `peer_gone` or `send_queue_full`.
    pub reason: &'static str,
}

/// The families of the sockets; clones share the same numbers.
#[derive(Debug, Clone, Default)]
pub struct SocketMetrics {
    /// Sockets open now.
    pub open: Gauge,
    /// Sockets that ended.
    pub ended: Family<ReasonLabels, Counter>,
    /// Signals that were not sent to a socket which does not take what it is sent.
    pub signals_dropped: Counter,
    /// Closing handshakes that the client did not finish in time.
    pub close_timeouts: Counter,
}

impl SocketMetrics {
    /// A socket ended.
    pub fn ended(&self, reason: &'static str) {
        self.open.dec();
        self.ended.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// The shared registry with the families that every process has; clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// The families of the HTTP surface.
    pub http: HttpMetrics,
    /// The families of the sockets.
    pub sockets: SocketMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes an empty registry and puts the HTTP families into it.
    #[must_use]
    pub fn new() -> Self {
        let registry = Arc::<Mutex<Registry>>::default();
        let http = HttpMetrics::register(&mut lock(&registry));
        let metrics = Self {
            registry,
            http,
            sockets: SocketMetrics::default(),
        };
        let sockets = metrics.sockets.clone();
        metrics.register(|registry| {
            // The encoder appends `_total`.
            registry.register("sockets_open", "Sockets open now", sockets.open);
            registry.register("sockets_ended", "Sockets that ended", sockets.ended);
            registry.register(
                "signals_dropped",
                "Signals not sent to a socket that does not take what it is sent",
                sockets.signals_dropped,
            );
            registry.register(
                "socket_close_timeouts",
                "Closing handshakes that the client did not finish in time",
                sockets.close_timeouts,
            );
        });
        metrics
    }

    /// Hands the registry out to add families to it.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut lock(&self.registry))
    }

    /// Writes every family in the `OpenMetrics` text format.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        self.register(|registry| encode(&mut out, registry))?;
        Ok(out)
    }
}

/// A poisoned registry still holds every family that was registered.
fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}
