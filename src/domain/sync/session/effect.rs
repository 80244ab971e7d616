//! What a session works by, what attaches to it, and what it decides.

use std::time::{Duration, Instant};

use bytestring::ByteString;

use crate::domain::{
    identity::ClientDeviceId,
    ids::{ConnId, DeviceId, Epoch},
    library::PlayerSignal,
    sync::{
        CloseCode, Cursor, Load, LogHead, Position, Ref, ResyncReason, ServerFrame, Signal, Window,
        WireEvent,
    },
};

/// What every session works by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionConfig {
    /// This node's name, for the welcome.
    pub node: String,
    /// What may be in flight to a device.
    pub window: Window,
    /// Time between pings.
    pub heartbeat: Duration,
    /// A device from which nothing was heard for so long is let go.
    pub heartbeat_timeout: Duration,
    /// A device that owes an ack for so long is let go.
    pub progress_timeout: Duration,
    /// Signals that a device may send.
    pub signals_per_second: u32,
    /// Frames that a connection may have left unread before signals to it are dropped.
    pub side_frames: usize,
}

/// A device that attaches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attachment {
    /// Its connection.
    pub conn: ConnId,
    /// The device.
    pub device: DeviceId,
    /// The device, by its own id.
    pub device_id: ClientDeviceId,
    /// Its durable cursor.
    pub acked_seq: i64,
    /// Which of the device's attachments, on whatever node, this is: the highest wins.
    pub attach_epoch: i64,
    /// Where the client says it is.
    pub since: Option<Position>,
    /// The connection was attached to an earlier life of the session: its client knows it already.
    pub resumed: Option<Epoch>,
    /// The epoch and the floor of a resync that its client was told by then, and has not acknowledged.
    pub resyncing: Option<Position>,
    /// When its token is over.
    pub token_until: Instant,
}

/// What a device says of the player.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlayerAsk {
    /// Its connection.
    pub conn: ConnId,
    /// The device.
    pub from: ClientDeviceId,
    /// As it came.
    pub signal: Signal,
    /// What it means.
    pub meaning: PlayerSignal,
    /// The frame's mark.
    pub reference: Option<Ref>,
}

/// Something for the shell to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    Acked(Cursor),
    /// The device is no longer attached: make its cursor durable soon.
    Detached(DeviceId),
    /// Hand the device's signal to the user's sessions at other nodes.
    Relay(ClientDeviceId, Signal),
    /// Tell the user's sessions at other nodes which devices are attached here.
    Present(Vec<ClientDeviceId>),
    /// A device says something of the player: answer with `pass` or `refuse`.
    Player(Box<PlayerAsk>),
    /// A signal was not sent to a connection that does not take what it is sent.
    SignalDropped(ConnId),
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

pub(super) fn texts(events: &[WireEvent]) -> Vec<ByteString> {
    events.iter().map(|e| e.text.clone()).collect()
}
