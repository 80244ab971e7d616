//! What goes over a connection, and how it is written and read.

use listen_stream::domain::{
    ids::Epoch,
    sync::{AckToken, ClientFrame, CloseCode, LogHead, Position, Ref, ResyncReason},
};
use uuid::Uuid;

/// What goes to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Down {
    Welcome {
        epoch: Epoch,
        acked: i64,
    },
    Event {
        at: Position,
        value: u64,
        size: u32,
    },
    Resync(LogHead, ResyncReason),
    Presence(Vec<usize>),
    Signal,
    Pong,
    Error {
        code: String,
        bogus: bool,
    },
    Goodbye,
    Ping,
    Close(CloseCode),
    /// The connection broke.
    Lost,
}

/// What goes to the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Up {
    Frame(ClientFrame),
    /// The answer to a ping of the WebSocket protocol.
    Pong,
    /// A renewed token, good until then.
    Auth(u64),
    End,
}

/// The mark of acks that are refused rightly.
const BOGUS: &str = "bogus";

/// Writes an ack, and reads it again if the wire is real.
pub fn ack(at: Position, bogus: bool, by_token: bool, real: bool) -> Up {
    let reference = bogus.then(|| Ref::Text(BOGUS.into()));
    if !real {
        return Up::Frame(ClientFrame::Ack(at, reference));
    }
    let reference = if bogus { r#","ref":"bogus""# } else { "" };
    let text = if by_token {
        let token = AckToken(at).encode();
        format!(r#"{{"type":"ack","ack_token":"{token}"{reference}}}"#)
    } else {
        let Position { epoch, seq } = at;
        format!(r#"{{"type":"ack","up_to":{seq},"epoch":"{epoch}"{reference}}}"#)
    };
    client_frame(&text)
}

/// Reads what a client wrote, which is always right.
pub fn client_frame(text: &str) -> Up {
    Up::Frame(ClientFrame::parse(text).unwrap_or(ClientFrame::Unknown(None)))
}

/// Reads what a session sends.
///
/// # Errors
/// What about it is wrong.
pub fn read(text: &str) -> Result<Down, String> {
    frame(text).ok_or_else(|| format!("not a frame: {text}"))
}

fn frame(text: &str) -> Option<Down> {
    if let Some(event) = text.strip_prefix("E ") {
        let mut parts = event.split(' ');
        let epoch = Epoch(Uuid::from_u128(parts.next()?.parse().ok()?));
        let seq = parts.next()?.parse().ok()?;
        let value = parts.next()?.parse().ok()?;
        return Some(event_frame(text, Position { epoch, seq }, value));
    }
    Some(match field(text, "type")? {
        "welcome" => Down::Welcome {
            epoch: epoch(text)?,
            acked: number(text, "acked_seq")?,
        },
        "event" => {
            // The token is what a client acks with: it must name the event that it came with.
            let AckToken(at) = AckToken::decode(field(text, "ack_token")?)?;
            let value = u64::try_from(number(text, "value")?).ok()?;
            let whole: serde_json::Value = serde_json::from_str(text).ok()?;
            if whole["seq"].as_i64()? != at.seq {
                return None;
            }
            event_frame(text, at, value)
        }
        "resync" => {
            let reason = match field(text, "reason")? {
                "compacted" => ResyncReason::Compacted,
                _ => ResyncReason::EpochChanged,
            };
            let log = LogHead {
                epoch: epoch(text)?,
                head_seq: number(text, "head_seq")?,
                floor_seq: number(text, "floor_seq")?,
            };
            Down::Resync(log, reason)
        }
        "presence" => Down::Presence(devices(text)?),
        "signal" => Down::Signal,
        "pong" => Down::Pong,
        "goodbye" => Down::Goodbye,
        "error" => Down::Error {
            code: field(text, "code")?.to_owned(),
            bogus: field(text, "ref") == Some(BOGUS),
        },
        _ => return None,
    })
}

fn event_frame(text: &str, at: Position, value: u64) -> Down {
    let size = u32::try_from(text.len()).unwrap_or(u32::MAX);
    Down::Event { at, value, size }
}

/// The devices of a presence, by the number in their ids.
fn devices(text: &str) -> Option<Vec<usize>> {
    let ids = text.split("\"device_id\":\"d").skip(1);
    ids.map(|rest| rest.split('"').next()?.parse().ok())
        .collect()
}

fn after<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let at = text
        .match_indices(name)
        .find(|(at, _)| text[..*at].ends_with('"') && text[at + name.len()..].starts_with("\":"))?;
    Some(&text[at.0 + name.len() + 2..])
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    after(text, name)?.strip_prefix('"')?.split('"').next()
}

fn number(text: &str, name: &str) -> Option<i64> {
    let rest = after(text, name)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn epoch(text: &str) -> Option<Epoch> {
    field(text, "epoch")?.parse().ok()
}

/// The ends of a log in few words; an epoch is a small number here.
pub fn ends(log: &LogHead) -> String {
    let (epoch, floor, head) = (log.epoch.0.as_u128(), log.floor_seq, log.head_seq);
    format!("log {epoch}: {floor}..{head}")
}

/// A frame in few words.
pub fn brief(down: &Down) -> String {
    match down {
        Down::Event { at, .. } => format!("event {} of {}", at.seq, at.epoch.0.as_u128()),
        Down::Welcome { epoch, acked } => {
            format!("welcome, acked {acked} of {}", epoch.0.as_u128())
        }
        Down::Resync(log, reason) => format!("resync {}, {}", reason.as_str(), ends(log)),
        other => format!("{other:?}"),
    }
}
