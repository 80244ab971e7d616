//! The registry of everything that is counted, with what every process counts.
//!
//! Owns the one [`Registry`]; each part registers its own families with [`Metrics::register`]
//! while it is put together. Every name begins with `listen_stream_`, and is a promise: a test
//! compares all of them with `docs/operations.md`. Labels must be bounded: never an id, a path as
//! sent or an address.

mod counters;
mod http;
mod process;
mod sampled;
mod sockets;
mod sync;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::{encoding::text::encode, metrics::info::Info, registry::Registry};

pub use counters::Counters;
pub use http::{AuthMetrics, HttpMeter, HttpMetrics};
pub use sampled::{Named, Sample, sampled, sampled_gauge, sampled_gauges};
pub use sockets::SocketMetrics;
pub use sync::{Origin, SyncMetrics};

/// Before every name.
const PREFIX: &str = "listen_stream";

/// The shared registry with the families that every process has; clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// The families of the HTTP surface.
    pub http: HttpMetrics,
    /// What became of logins.
    pub auth: AuthMetrics,
    /// The families of the sockets.
    pub sockets: SocketMetrics,
    /// The families of delivery.
    pub sync: Arc<SyncMetrics>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes the registry with the families of the surface.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "What is running", Info::new(version));
        let http = HttpMetrics::register(&mut registry);
        let auth = AuthMetrics::register(&mut registry);
        let sync = SyncMetrics::register(&mut registry);
        let sockets = SocketMetrics::register(&mut registry, sync.acks_by_socket.clone());
        let sync = Arc::new(sync);
        Self {
            registry: Arc::new(Mutex::new(registry)),
            http,
            auth,
            sockets,
            sync,
        }
    }

    /// Adds what the system knows of this process, which began at `started`: microseconds of Unix
    /// time.
    pub fn register_process(&self, started: i64) {
        self.register(|registry| process::register(registry, started));
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
