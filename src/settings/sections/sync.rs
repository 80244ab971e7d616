//! `[sync]`: sessions, sockets and the log's delivery.

use crate::settings::reader::Reader;

/// How events reach devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Seconds between two pings to a device.
    pub heartbeat_secs: u64,
    /// Seconds without any frame from a device after which it is let go.
    pub heartbeat_timeout_secs: u64,
    /// Milliseconds between two looks at the heads of the attached users' logs.
    pub head_check_ms: u64,
    /// Milliseconds after which an acknowledgement is durable at the latest.
    pub cursor_flush_ms: u64,
    /// Seconds without a device after which a session rests.
    pub idle_secs: u64,
    /// Events on their way to a device that it has not acknowledged, at most.
    pub window_events: u32,
}

impl Sync {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        Self {
            heartbeat_secs: from.number("sync.heartbeat_secs", 30, &(1..=3600)),
            heartbeat_timeout_secs: from.number("sync.heartbeat_timeout_secs", 75, &(2..=7200)),
            head_check_ms: from.number("sync.head_check_ms", 1000, &(10..=60_000)),
            cursor_flush_ms: from.number("sync.cursor_flush_ms", 1000, &(1..=60_000)),
            idle_secs: from.number("sync.idle_secs", 60, &(1..=86_400)),
            window_events: from.number("sync.window_events", 256, &(1..=4096)),
        }
    }
}
