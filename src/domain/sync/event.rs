//! Events of a user's log, positions in it, and ack tokens.

use std::time::Instant;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytestring::ByteString;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::frame::ServerFrame;
use crate::domain::{
    identity::ClientDeviceId,
    ids::{DeviceId, Epoch, EventId, UserId},
};

/// The ends of a user's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogHead {
    /// The log's life; positions of another one mean nothing.
    pub epoch: Epoch,
    /// The newest event's `seq`; 0 when there is none.
    pub head_seq: i64,
    /// Events up to this one may be gone.
    pub floor_seq: i64,
}

/// The ends of a user's log as somebody saw them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The ends.
    pub log: LogHead,
    /// When the read or the command began that told them: what it found is at least as new.
    pub asked_at: Instant,
}

/// A place in a log of a certain life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The log's life.
    pub epoch: Epoch,
    /// Everything up to this event is meant.
    pub seq: i64,
}

/// What a device acknowledged through its connection of `attach_epoch`: what the keeper stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The device.
    pub device: DeviceId,
    /// The connection that said so: a device's highest is the one that counts.
    pub attach_epoch: i64,
    /// Everything up to here is applied.
    pub position: Position,
}

/// A change that stands in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Unique.
    pub id: EventId,
    /// Its place: 1, 2, 3 … without a gap.
    pub seq: i64,
    /// Such as `favorite.added`.
    pub event_type: String,
    /// Whose log.
    pub user_id: UserId,
    /// A JSON object.
    pub data: serde_json::Value,
    /// The device whose command it was.
    pub origin_device_id: Option<ClientDeviceId>,
    /// When the command came.
    pub created_at: DateTime<Utc>,
}

/// An event as clients see it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct EventView {
    /// Unique.
    pub id: EventId,
    /// Its place: 1, 2, 3 … without a gap.
    pub seq: i64,
    /// Such as `favorite.added`.
    pub event_type: String,
    /// Whose log.
    pub user_id: UserId,
    /// What changed, a JSON object by event type.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    /// The device whose command it was, by its own id.
    pub origin_device_id: Option<ClientDeviceId>,
    /// Acknowledges this event and all before it.
    pub ack_token: String,
    /// When the command came.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub timestamp: DateTime<Utc>,
}

impl Event {
    /// As clients see it in a log of life `epoch`.
    #[must_use]
    pub fn into_view(self, epoch: Epoch) -> EventView {
        EventView {
            ack_token: AckToken(Position {
                epoch,
                seq: self.seq,
            })
            .encode(),
            id: self.id,
            seq: self.seq,
            event_type: self.event_type,
            user_id: self.user_id,
            data: self.data,
            origin_device_id: self.origin_device_id,
            timestamp: self.created_at,
        }
    }
}

/// An event written as a frame once, for all devices of its user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WireEvent {
    /// Its place in the log.
    pub seq: i64,
    /// The frame's text.
    pub text: ByteString,
}

impl WireEvent {
    /// Writes `event` as a frame of a log of life `epoch`.
    #[must_use]
    pub fn new(event: Event, epoch: Epoch) -> Self {
        let seq = event.seq;
        Self {
            seq,
            text: ServerFrame::Event(event.into_view(epoch)).to_text(),
        }
    }
}

/// What acknowledges an event: its epoch and seq, opaque to the client, good on any node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckToken(pub Position);

impl AckToken {
    /// 32 characters of base64url.
    #[must_use]
    pub fn encode(self) -> String {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(self.0.epoch.0.as_bytes());
        bytes[16..].copy_from_slice(&self.0.seq.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() != 32 {
            return None;
        }
        let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let epoch = Epoch(Uuid::from_slice(&bytes[..16]).ok()?);
        let seq = i64::from_be_bytes(bytes[16..].try_into().ok()?);
        (seq >= 0).then_some(Self(Position { epoch, seq }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ack_tokens_come_back(epoch: u128, seq in 0..i64::MAX) {
            let token = AckToken(Position { epoch: Epoch(Uuid::from_u128(epoch)), seq });
            prop_assert_eq!(AckToken::decode(&token.encode()), Some(token));
        }

        #[test]
        fn any_text_is_read_without_harm(text in "\\PC{0,64}") {
            if let Some(token) = AckToken::decode(&text) {
                prop_assert!(token.0.seq >= 0);
            }
        }
    }
}
