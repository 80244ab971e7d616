//! The frames of `listen-stream.v1` as this client reads and writes them.
//!
//! Fields and types that are not known here are passed over: the server may speak a newer form.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A token. It is written to the state file and to the server, and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(pub(super) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A frame from the server.
#[derive(Debug)]
pub(super) enum ServerFrame {
    Welcome(Welcome),
    Event(Event),
    Resync(Resync),
    Pong,
    Error(Complaint),
    Goodbye(Goodbye),
    /// Of a type that this client does not know.
    Unknown,
}

#[derive(Debug, Deserialize)]
pub(super) struct Welcome {
    pub(super) device_id: String,
    pub(super) epoch: String,
    pub(super) head_seq: u64,
    pub(super) acked_seq: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) seq: u64,
    #[serde(rename = "event_type")]
    pub(super) kind: String,
    pub(super) data: Box<RawValue>,
    #[serde(default)]
    pub(super) origin_device_id: Option<String>,
    pub(super) ack_token: String,
    #[serde(default)]
    pub(super) timestamp: String,
    /// The frame as it came.
    #[serde(skip)]
    pub(super) raw: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Resync {
    pub(super) epoch: String,
    pub(super) head_seq: u64,
    #[serde(default)]
    pub(super) reason: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Complaint {
    pub(super) code: String,
    #[serde(default)]
    pub(super) detail: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Goodbye {
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

impl ServerFrame {
    /// Reads one text frame. The type is read first: serde's tagged enums cannot hold raw JSON,
    /// and the data of an event is shown exactly as it was sent.
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let kind: Kind<'_> = serde_json::from_str(text)?;
        Ok(match kind.kind.as_ref() {
            "welcome" => Self::Welcome(serde_json::from_str(text)?),
            "event" => {
                let mut event: Event = serde_json::from_str(text)?;
                text.clone_into(&mut event.raw);
                Self::Event(event)
            }
            "resync" => Self::Resync(serde_json::from_str(text)?),
            "pong" => Self::Pong,
            "error" => Self::Error(serde_json::from_str(text)?),
            "goodbye" => Self::Goodbye(serde_json::from_str(text)?),
            _ => Self::Unknown,
        })
    }
}

/// A frame to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ClientFrame {
    /// Everything up to the event of this token has been printed and saved.
    Ack { ack_token: String },
    /// The same, for a position that no event named.
    #[serde(rename = "ack")]
    AckUpTo { up_to: u64, epoch: String },
    /// A newer access token for this connection.
    Auth { token: Secret },
    /// Here still.
    Ping,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(frame: &ClientFrame) -> String {
        serde_json::to_string(frame).unwrap()
    }

    #[test]
    fn client_frames_have_the_form_of_the_protocol() {
        let ack = ClientFrame::Ack {
            ack_token: "t".to_owned(),
        };
        let position = ClientFrame::AckUpTo {
            up_to: 7,
            epoch: "e".to_owned(),
        };
        let auth = ClientFrame::Auth {
            token: Secret("jwt".to_owned()),
        };
        assert_eq!(json(&ack), r#"{"type":"ack","ack_token":"t"}"#);
        assert_eq!(json(&position), r#"{"type":"ack","up_to":7,"epoch":"e"}"#);
        assert_eq!(json(&auth), r#"{"type":"auth","token":"jwt"}"#);
        assert_eq!(json(&ClientFrame::Ping), r#"{"type":"ping"}"#);
        assert!(!format!("{auth:?}").contains("jwt"));
    }

    #[test]
    fn an_event_keeps_its_data_as_it_was_sent() {
        let text = r#"{"type":"event","id":"i","seq":3,"event_type":"favorite.added","user_id":"u",
            "data":{"b":1.50,"a":2},"origin_device_id":"d","ack_token":"t","new_field":true,
            "timestamp":"2026-11-20T10:00:00.123456Z"}"#;
        let ServerFrame::Event(event) = ServerFrame::parse(text).unwrap() else {
            panic!("not an event");
        };
        assert_eq!((event.seq, event.data.get()), (3, r#"{"b":1.50,"a":2}"#));
        assert_eq!(event.raw, text);
    }

    #[test]
    fn unknown_types_are_no_error_and_broken_frames_are() {
        let presence = ServerFrame::parse(r#"{"type":"presence","devices":[]}"#).unwrap();
        assert!(matches!(presence, ServerFrame::Unknown));
        assert!(ServerFrame::parse("[]").is_err());
        assert!(ServerFrame::parse(r#"{"type":"event"}"#).is_err());
    }
}
