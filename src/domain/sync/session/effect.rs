//! What a session works by, what attaches to it, and what it decides.

use std::time::{Duration, Instant};

use bytestring::ByteString;

use crate::domain::{
    identity::ClientDeviceId,
    ids::{ConnId, DeviceId, Epoch},
    sync::{
        CloseCode, FrameErrorCode, Load, LogHead, Position, Ref, ResyncReason, ServerFrame,
        WireEvent,
    },
};

/// What every session works by.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// This node's name, for the welcome.
    pub node: String,
    /// Events that may be in flight to a device.
    pub window: u32,
    /// Time between pings.
    pub heartbeat: Duration,
    /// A device from which nothing was heard for so long is let go.
    pub heartbeat_timeout: Duration,
}

/// A device that attaches.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Its connection.
    pub conn: ConnId,
    /// The device.
    pub device: DeviceId,
    /// The device, by its own id.
    pub device_id: ClientDeviceId,
    /// Its durable cursor.
    pub acked_seq: i64,
    /// Where the client says it is.
    pub since: Option<Position>,
    /// The connection was attached to an earlier life of the session: its client knows it already.
    pub resumed: Option<Epoch>,
    /// When its token is over.
    pub token_until: Instant,
}

/// Something for the shell to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send text frames, in this order.
    Send(ConnId, Vec<ByteString>),
    /// Send a ping.
    Ping(ConnId),
    /// Close the connection; the core has forgotten it.
    Close(ConnId, CloseCode),
    /// Read a piece of the log; answer with `loaded` or `load_failed`.
    Load(ConnId, Load),
    /// Read the log's ends; answer with `head_read` or `head_failed`.
    ReadHead,
    /// The device's cursor moved: make it durable.
    Acked(DeviceId, i64),
    /// The device is no longer attached: make its cursor durable soon.
    Detached(DeviceId),
}

pub(super) fn resync_frame(log: LogHead, reason: ResyncReason) -> ByteString {
    let LogHead {
        epoch,
        head_seq,
        floor_seq,
    } = log;
    ServerFrame::Resync {
        epoch,
        floor_seq,
        head_seq,
        reason,
    }
    .to_text()
}

pub(super) fn error(
    conn: ConnId,
    code: FrameErrorCode,
    detail: &str,
    reference: Option<Ref>,
) -> Effect {
    let frame = ServerFrame::Error {
        code,
        detail: detail.to_owned(),
        reference,
    };
    Effect::Send(conn, vec![frame.to_text()])
}

pub(super) fn texts(events: &[WireEvent]) -> Vec<ByteString> {
    events.iter().map(|e| e.text.clone()).collect()
}
