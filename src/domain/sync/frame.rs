//! Frames of the subprotocol `listen-stream.v1`. `docs/protocol.md` is the contract that this file
//! writes and reads.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    event::{AckToken, EventView, Position},
    signal::{PresentDevice, Signal, SignalData, SignalName},
};
use crate::domain::{
    identity::ClientDeviceId,
    ids::{ConnId, Epoch, UserId},
    text::named_enum,
};

named_enum! {
    /// Why a client must load its data anew.
    ResyncReason {
        /// The log no longer reaches back to the client's position.
        Compacted = "compacted",
        /// The client's position belongs to another life of the log.
        EpochChanged = "epoch_changed",
    }
}

named_enum! {
    /// What was wrong with a frame that did not end the connection.
    FrameErrorCode {
        /// The frame's type is not one that this server takes.
        UnknownType = "unknown_type",
        /// The acknowledged position is beyond the head of the log.
        AckBeyondHead = "ack_beyond_head",
        /// The acknowledged position belongs to another life of the log.
        EpochChanged = "epoch_changed",
        /// The renewed access token was not taken; the old one still counts.
        TokenInvalid = "token_invalid",
        /// The store did not answer; the frame may be sent again.
        StoreUnavailable = "store_unavailable",
        /// Frames or signals came too fast: this one and maybe others were dropped.
        RateLimited = "rate_limited",
        /// The signal's name or data is not what a signal may have.
        InvalidSignal = "invalid_signal",
        /// No device that the signal names is connected.
        DeviceNotAttached = "device_not_attached",
        /// The user has no device of the name in the signal.
        DeviceNotFound = "device_not_found",
        /// Only the device that plays says what plays.
        NotActivePlayer = "not_active_player",
        /// No device plays that could be steered.
        NoActivePlayer = "no_active_player",
    }
}

/// A mark that a client puts on a frame and finds on the answer: a short string or a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ref {
    /// A whole number.
    Number(i64),
    /// A string.
    Text(String),
}

impl Ref {
    /// Characters that a string may have.
    pub const MAX_CHARS: usize = 128;
}

/// A frame for a client.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The first frame of a connection.
    Welcome {
        /// This connection.
        conn_id: ConnId,
        /// Whose it is.
        user_id: UserId,
        /// The device, by its own id.
        device_id: ClientDeviceId,
        /// The node that serves it.
        node: String,
        /// The log's life.
        epoch: Epoch,
        /// The newest event.
        head_seq: i64,
        /// The device's durable cursor.
        acked_seq: i64,
        /// Events that may be in flight.
        window: u32,
        /// Seconds between pings.
        heartbeat_secs: u64,
    },
    /// A change.
    Event(EventView),
    /// The client must load its data anew, then ack the position that its load names.
    Resync {
        /// The log's life.
        epoch: Epoch,
        /// Events up to this one may be gone.
        floor_seq: i64,
        /// The newest event.
        head_seq: i64,
        /// Why.
        reason: ResyncReason,
    },
    /// What another device of the user sent.
    Signal {
        /// Who sent it, by its own id.
        from_device_id: ClientDeviceId,
        /// What it is about.
        name: SignalName,
        /// Whatever the sender put there.
        data: SignalData,
    },
    /// Which devices of the user are connected, whenever that changes.
    Presence {
        /// All of them, the receiver too.
        devices: Vec<PresentDevice>,
    },
    /// Answers a ping.
    Pong {
        /// The ping's mark.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
    },
    /// A frame was not taken; the connection stays.
    Error {
        /// What was wrong.
        code: FrameErrorCode,
        /// For people.
        detail: String,
        /// The frame's mark.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
    },
    /// The server is about to close.
    Goodbye {
        /// Why.
        reason: &'static str,
        /// When to come back.
        retry_after_ms: u64,
    },
}

impl ServerFrame {
    /// Whether a frame's text is that of an [`Event`](Self::Event).
    #[must_use]
    pub fn is_event(text: &str) -> bool {
        text.starts_with(r#"{"type":"event","#)
    }

    /// The epoch and the floor that a frame's text names, where it is that of a
    /// [`Resync`](Self::Resync).
    #[must_use]
    pub fn resync(text: &str) -> Option<Position> {
        #[derive(Deserialize)]
        struct Told {
            epoch: Epoch,
            floor_seq: i64,
        }
        if !text.starts_with(r#"{"type":"resync","#) {
            return None;
        }
        let Told { epoch, floor_seq } = serde_json::from_str(text).ok()?;
        let seq = floor_seq;
        Some(Position { epoch, seq })
    }

    /// The reason that a frame's text gives, where it is that of a [`Resync`](Self::Resync).
    #[must_use]
    pub fn resync_reason(text: &str) -> Option<ResyncReason> {
        let rest = text.strip_prefix(r#"{"type":"resync","#)?;
        // It is the last of the fields.
        let reason = rest.strip_suffix(r#""}"#)?.rsplit('"').next()?;
        reason.parse().ok()
    }

    /// Whether a frame's text is that of a [`Signal`](Self::Signal).
    #[must_use]
    pub fn is_signal(text: &str) -> bool {
        text.starts_with(r#"{"type":"signal","#)
    }

    /// Whether a frame's text says that something came too fast.
    #[must_use]
    pub fn is_rate_limited(text: &str) -> bool {
        text.strip_prefix(r#"{"type":"error","code":""#)
            .is_some_and(|rest| rest.starts_with(FrameErrorCode::RateLimited.as_str()))
    }

    /// Whether a frame's text is the answer to an ack that was not taken because of its position.
    #[must_use]
    pub fn refuses_position(text: &str) -> bool {
        let refusals = [FrameErrorCode::AckBeyondHead, FrameErrorCode::EpochChanged];
        text.strip_prefix(r#"{"type":"error","code":""#)
            .is_some_and(|rest| refusals.iter().any(|code| rest.starts_with(code.as_str())))
    }

    /// The frame's text.
    #[must_use]
    pub fn to_text(&self) -> ByteString {
        // Maps with string keys and plain values always serialise.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

/// An access token as it came in, not yet checked. It does not show itself in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerText(pub String);

impl std::fmt::Debug for BearerText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A frame of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientFrame {
    /// Everything up to here is applied.
    Ack(Position, Option<Ref>),
    /// A renewed access token.
    Auth(BearerText, Option<Ref>),
    /// Something for other devices of the user.
    Signal(Signal, Option<Ref>),
    /// Asks for a pong.
    Ping(Option<Ref>),
    /// It was read, and its content is refused; the connection stays.
    Invalid(FrameErrorCode, &'static str, Option<Ref>),
    /// A type that this server does not know.
    Unknown(Option<Ref>),
}

/// The frame cannot be read: the connection closes with [`CloseCode::BadFrame`](super::CloseCode::BadFrame).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FrameError(pub &'static str);

/// What frames of one type need may mean something else in those of another, so it is read by type.
#[derive(Deserialize)]
struct RawFrame<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "ref")]
    reference: Option<Ref>,
    #[serde(borrow)]
    ack_token: Option<&'a RawValue>,
    #[serde(borrow)]
    up_to: Option<&'a RawValue>,
    #[serde(borrow)]
    epoch: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

fn read<'a, T: Deserialize<'a>>(field: Option<&'a RawValue>) -> Result<Option<T>, FrameError> {
    field
        .map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map_err(|_| FrameError("a field of a wrong type"))
}

impl ClientFrame {
    /// Bytes that a frame may have.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// Reads a text frame.
    ///
    /// # Errors
    /// [`FrameError`] when it is not an object with a `type`, or lacks what its type needs.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        // A struct would also be read from an array, by the order of its fields: that is no contract.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(FrameError("not a JSON object with a type"));
        }
        let raw: RawFrame =
            serde_json::from_str(text).map_err(|_| FrameError("not a JSON object with a type"))?;
        let reference = raw.reference;
        if matches!(&reference, Some(Ref::Text(s)) if s.chars().count() > Ref::MAX_CHARS) {
            return Err(FrameError("ref: at most 128 characters"));
        }
        match raw.kind.as_str() {
            "ack" => match (
                read::<String>(raw.ack_token)?,
                read(raw.up_to)?,
                read(raw.epoch)?,
            ) {
                (Some(token), None, None) => AckToken::decode(&token)
                    .map(|token| Self::Ack(token.0, reference))
                    .ok_or(FrameError("ack: ack_token is not one of ours")),
                (None, Some(seq), Some(epoch)) if seq >= 0 => {
                    Ok(Self::Ack(Position { epoch, seq }, reference))
                }
                _ => Err(FrameError("ack: needs ack_token, or up_to and epoch")),
            },
            "auth" => read(raw.token)?
                .map(|token| Self::Auth(BearerText(token), reference))
                .ok_or(FrameError("auth: needs token")),
            "signal" => match (read::<String>(raw.to)?, read::<String>(raw.name)?) {
                (Some(to), Some(name)) => Ok(match Signal::parse(to, name, raw.data) {
                    Ok(signal) => Self::Signal(signal, reference),
                    Err(detail) => Self::Invalid(FrameErrorCode::InvalidSignal, detail, reference),
                }),
                _ => Err(FrameError("signal: needs to and name")),
            },
            "ping" => Ok(Self::Ping(reference)),
            _ => Ok(Self::Unknown(reference)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_resync_is_known_by_its_text() {
        let epoch: Epoch = "01936f3e-0000-7000-8000-000000000001".parse().unwrap();
        let resync = ServerFrame::Resync {
            epoch,
            floor_seq: 1,
            head_seq: 2,
            reason: ResyncReason::Compacted,
        };
        let told = Position { epoch, seq: 1 };
        assert_eq!(ServerFrame::resync(&resync.to_text()), Some(told));
        let reason = ServerFrame::resync_reason(&resync.to_text());
        assert_eq!(reason, Some(ResyncReason::Compacted));
        let pong = ServerFrame::Pong { reference: None };
        assert_eq!(ServerFrame::resync_reason(&pong.to_text()), None);
        assert_eq!(ServerFrame::resync(&pong.to_text()), None);
        for code in FrameErrorCode::ALL {
            let error = ServerFrame::Error {
                code: *code,
                detail: String::new(),
                reference: None,
            };
            let limited = matches!(code, FrameErrorCode::RateLimited);
            assert_eq!(ServerFrame::is_rate_limited(&error.to_text()), limited);
            let refusal = matches!(code.as_str(), "ack_beyond_head" | "epoch_changed");
            assert_eq!(ServerFrame::refuses_position(&error.to_text()), refusal);
        }
    }

    #[test]
    fn every_client_frame_is_read() {
        let epoch: Epoch = "01936f3e-0000-7000-8000-000000000001".parse().unwrap();
        let at = Position { epoch, seq: 7 };
        let token = AckToken(at).encode();
        let cases = [
            (
                format!(r#"{{"type":"ack","ack_token":"{token}"}}"#),
                ClientFrame::Ack(at, None),
            ),
            (
                format!(r#"{{"type":"ack","up_to":7,"epoch":"{epoch}","ref":1}}"#),
                ClientFrame::Ack(at, Some(Ref::Number(1))),
            ),
            (
                r#"{"type":"ping","ref":"a","later":1}"#.into(),
                ClientFrame::Ping(Some(Ref::Text("a".into()))),
            ),
            (
                r#"{"type":"auth","token":"t"}"#.into(),
                ClientFrame::Auth(BearerText("t".into()), None),
            ),
            (r#"{"type":"dance"}"#.into(), ClientFrame::Unknown(None)),
            (
                r#"{"type":"dance","token":7,"epoch":{},"up_to":"x","ack_token":[],"ref":3}"#
                    .into(),
                ClientFrame::Unknown(Some(Ref::Number(3))),
            ),
            (
                r#"{"type":"ping","epoch":"x","ref":null}"#.into(),
                ClientFrame::Ping(None),
            ),
        ];
        for (text, frame) in cases {
            assert_eq!(ClientFrame::parse(&text), Ok(frame), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in [
            "",
            "{",
            "[]",
            r#"["ping",null,null,null,null,null]"#,
            "7",
            r#"{"type":7}"#,
            r#"{"type":"ack"}"#,
            r#"{"type":"ack","up_to":1}"#,
            r#"{"type":"ack","ack_token":"x"}"#,
            r#"{"type":"auth"}"#,
            r#"{"type":"auth","token":7}"#,
            r#"{"type":"ack","up_to":"1","epoch":"01936f3e-0000-7000-8000-000000000001"}"#,
            r#"{"type":"ack","up_to":1,"epoch":"x"}"#,
            r#"{"type":"ack","ack_token":"x","up_to":1}"#,
            r#"{"type":"ping","ref":{}}"#,
            r#"{"type":"ack","up_to":-1,"epoch":"01936f3e-0000-7000-8000-000000000001"}"#,
        ] {
            assert!(ClientFrame::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "\\PC{0,200}") {
            let _ = ClientFrame::parse(&text);
        }
    }
}
