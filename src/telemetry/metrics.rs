//! The registry of everything that is counted, and the families of the HTTP surface.
//!
//! Owns the one [`Registry`]; each part registers its own families with [`Metrics::register`]
//! while it is put together. Labels must be bounded: never an id, a path as sent or an address.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// From half a millisecond, a warm read, to the ten seconds after which callers are gone.
const LATENCY_BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// What is counted by `http_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The method, `other` when it is none of the usual ones.
    pub method: &'static str,
    /// The pattern of the route, `unmatched` when there is none.
    pub route: String,
    /// The status of the answer.
    pub status: u16,
}

/// What is measured by `http_request_duration_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// The pattern of the route, `unmatched` when there is none.
    pub route: String,
}

/// The families of the HTTP surface; clones share the same numbers.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from the head of a request to the head of its answer.
    pub duration: Family<RouteLabels, Histogram, fn() -> Histogram>,
}

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
        let http = HttpMetrics {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
        };
        let metrics = Self {
            registry: Arc::default(),
            http: http.clone(),
            sockets: SocketMetrics::default(),
        };
        let sockets = metrics.sockets.clone();
        metrics.register(|registry| {
            // The encoder appends `_total`.
            registry.register("http_requests", "Requests answered", http.requests);
            registry.register(
                "http_request_duration_seconds",
                "Seconds from the head of a request to the head of its answer",
                http.duration,
            );
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
        // A poisoned registry still holds every family that was registered.
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_exposed_with_their_labels() {
        let metrics = Metrics::new();
        metrics
            .http
            .requests
            .get_or_create(&RequestLabels {
                method: "GET",
                route: "/v1/me".to_owned(),
                status: 200,
            })
            .inc();
        metrics
            .http
            .duration
            .get_or_create(&RouteLabels {
                route: "/v1/me".to_owned(),
            })
            .observe(0.003);
        let text = metrics.encode().unwrap();
        assert!(
            text.contains(r#"http_requests_total{method="GET",route="/v1/me",status="200"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"http_request_duration_seconds_bucket{le="0.005",route="/v1/me"} 1"#),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
