//! What is counted of sockets, from the handshake to the end.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::counters::Counters;
use crate::domain::sync::CloseCode;

/// The families of the sockets; clones share the same numbers.
#[derive(Debug, Clone)]
pub struct SocketMetrics {
    /// Sockets open now.
    pub open: Gauge,
    /// Handshakes, by `admitted` or the code of the refusal.
    pub upgrades: Counters,
    /// Sockets that ended.
    ended: Counters,
    /// Closing handshakes that the client did not finish in time.
    pub close_timeouts: Counter,
    /// Acks that came over sockets, before any is merged with another.
    pub acks: Counter,
    /// Bytes that clients sent over sockets, before what encryption adds.
    pub received_bytes: Counter,
    /// Bytes that the system took to send over sockets.
    pub sent_bytes: Counter,
}

impl SocketMetrics {
    /// Ended without a close frame.
    pub const PEER_GONE: &str = "peer_gone";
    /// Dropped because it did not read.
    pub const SEND_QUEUE_FULL: &str = "send_queue_full";
    /// The result of a handshake that was not refused.
    pub const ADMITTED: &str = "admitted";

    pub(super) fn register(registry: &mut Registry, acks: Counter) -> Self {
        let codes = CloseCode::ALL.iter().map(|code| code.reason());
        let reasons = codes.chain([Self::PEER_GONE, Self::SEND_QUEUE_FULL]);
        let it = Self {
            open: Gauge::default(),
            upgrades: Counters::register(
                registry,
                "socket_upgrades",
                "Handshakes for a socket by result",
                "result",
                [Self::ADMITTED],
            ),
            ended: Counters::register(
                registry,
                "sockets_ended",
                "Sockets that ended",
                "reason",
                reasons,
            ),
            close_timeouts: Counter::default(),
            acks,
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
        };
        registry.register("sockets_open", "Sockets open now", it.open.clone());
        registry.register(
            "socket_close_timeouts",
            "Closing handshakes that the client did not finish in time",
            it.close_timeouts.clone(),
        );
        registry.register(
            "socket_received_bytes",
            "Bytes that came over sockets",
            it.received_bytes.clone(),
        );
        registry.register(
            "socket_sent_bytes",
            "Bytes that went over sockets",
            it.sent_bytes.clone(),
        );
        it
    }

    /// A socket ended.
    pub fn ended(&self, reason: &'static str) {
        self.open.dec();
        self.ended.inc(reason);
    }
}
