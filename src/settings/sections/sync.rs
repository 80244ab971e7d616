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
    /// Bytes of events on their way to a device that it has not acknowledged, at most.
    pub window_bytes: u32,
    /// Seconds for which a device may owe an acknowledgement before it is let go.
    pub progress_timeout_secs: u64,
    /// Signals that a device may send a second.
    pub signals_per_second: u32,
    /// Bytes that may wait for a client beyond what the system holds for it.
    pub send_queue_bytes: usize,
    /// Bytes that the system may hold for a client.
    pub send_buffer_bytes: usize,
    /// Frames a second that a client may send in the long run.
    pub frames_per_second: u32,
    /// Frames that a client may send at once.
    pub frames_burst: u32,
    /// Days for which an event is kept for a device that lacks it.
    pub retention_days: u32,
    /// Events of a user that are kept at most.
    pub retention_max_events: u32,
    /// The newest events of a user, kept whether a device lacks them or not.
    pub retention_min_events: u32,
    /// Hours for which an event is kept whether a device lacks it or not.
    pub retention_min_hours: u32,
    /// Milliseconds between two rounds through all logs to trim them.
    pub trim_interval_ms: u64,
}

impl Sync {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        Self {
            heartbeat_secs: from.number("sync.heartbeat_secs", 30, &(1..=3600)),
            heartbeat_timeout_secs: from.number("sync.heartbeat_timeout_secs", 75, &(2..=7200)),
            head_check_ms: from.number("sync.head_check_ms", 800, &(10..=60_000)),
            cursor_flush_ms: from.number("sync.cursor_flush_ms", 1000, &(1..=60_000)),
            idle_secs: from.number("sync.idle_secs", 60, &(1..=86_400)),
            window_events: from.number("sync.window_events", 256, &(1..=4096)),
            window_bytes: from.number("sync.window_bytes", 1 << 20, &(1..=1 << 26)),
            progress_timeout_secs: from.number("sync.progress_timeout_secs", 60, &(1..=7200)),
            signals_per_second: from.number("sync.signals_per_second", 20, &(1..=1000)),
            send_queue_bytes: from.number(
                "sync.send_queue_bytes",
                1_048_576,
                &(65_536..=1_073_741_824),
            ),
            send_buffer_bytes: from.number("sync.send_buffer_bytes", 65_536, &(4096..=16_777_216)),
            frames_per_second: from.number("sync.frames_per_second", 50, &(1..=10_000)),
            frames_burst: from.number("sync.frames_burst", 250, &(1..=100_000)),
            retention_days: from.number("sync.retention_days", 30, &(1..=3650)),
            retention_max_events: from.number(
                "sync.retention_max_events",
                10_000,
                &(1..=1_000_000),
            ),
            retention_min_events: from.number("sync.retention_min_events", 1000, &(0..=1_000_000)),
            retention_min_hours: from.number("sync.retention_min_hours", 24, &(0..=87_600)),
            trim_interval_ms: from.number("sync.trim_interval_ms", 300_000, &(10..=86_400_000)),
        }
    }
}
