//! What is fuzzed: each function takes any bytes and panics when a promise does not hold.
//!
//! `fuzz_targets/` runs them under the fuzzer, `tests/fuzz_corpora.rs` on the inputs that are kept
//! in `corpus/`. A new one is a function here, a file in `fuzz_targets/`, a `[[bin]]`, a line in
//! [`TARGETS`] and a folder of inputs.

mod body;
pub mod library;
pub mod services;

use std::{collections::BTreeMap, str};

use listen_stream::domain::{
    identity::ClientDeviceId,
    ids::Epoch,
    library::{FavoriteCursor, HistoryPlace, PlaylistCursor, SongCursor},
    services::BroadcastCursor,
    sync::{AckToken, ClientFrame, Position, Ref, ServerFrame, Signal, SignalData, SignalTo},
};
use serde_json::{json, value::RawValue};

/// Takes any bytes; panics when a promise does not hold.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("client_frame", client_frame),
    ("ack_token", ack_token),
    ("list_cursor", list_cursor),
    ("player_signal", library::player_signal),
    ("new_plays", library::new_plays),
    ("playlist_edits", library::playlist_edits),
    ("service_event", services::service_event),
];

/// A text frame of a client. What is accepted is an object that says what was read from it, holds
/// no more than came in, and is read the same when it is written plainly.
pub fn client_frame(data: &[u8]) {
    // The connection judges both before a frame is parsed.
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if text.len() > ClientFrame::MAX_BYTES {
        return;
    }
    let Ok(frame) = ClientFrame::parse(text) else {
        return;
    };
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).expect("what is accepted is a JSON object");
    let kind: String = serde_json::from_str(fields["type"].get()).expect("its type is a string");
    let reference = match &frame {
        ClientFrame::Ack(at, reference) => {
            assert_eq!(kind, "ack");
            assert!(at.seq >= 0);
            reference
        }
        ClientFrame::Auth(token, reference) => {
            assert_eq!(kind, "auth");
            assert!(token.0.len() <= text.len());
            assert_eq!(format!("{token:?}"), "***");
            reference
        }
        ClientFrame::Ping(reference) => {
            assert_eq!(kind, "ping");
            reference
        }
        ClientFrame::Signal(signal, reference) => {
            assert_eq!(kind, "signal");
            relayed(signal);
            reference
        }
        ClientFrame::Invalid(_, _, reference) => {
            assert_eq!(kind, "signal");
            reference
        }
        ClientFrame::Unknown(reference) => {
            assert!(!["ack", "auth", "ping", "signal"].contains(&kind.as_str()));
            reference
        }
    };
    match reference {
        Some(Ref::Text(mark)) => assert!(mark.chars().count() <= Ref::MAX_CHARS),
        Some(Ref::Number(_)) => {}
        None => {
            let given = fields.get("ref").map(|raw| raw.get());
            assert!(matches!(given, None | Some("null")), "the mark was lost");
        }
    }
    for plain in written(&frame, &kind) {
        assert_eq!(ClientFrame::parse(&plain).as_ref(), Ok(&frame), "{plain}");
    }
}

/// The ways to write a frame; none for one whose content was refused.
fn written(frame: &ClientFrame, kind: &str) -> Vec<String> {
    let (bodies, reference) = match frame {
        ClientFrame::Ack(at, reference) => (
            vec![
                format!(r#""ack_token":"{}""#, AckToken(*at).encode()),
                format!(r#""up_to":{},"epoch":"{}""#, at.seq, at.epoch),
            ],
            reference,
        ),
        ClientFrame::Auth(token, reference) => {
            (vec![format!(r#""token":{}"#, json!(token.0))], reference)
        }
        ClientFrame::Signal(signal, reference) => {
            let to = match &signal.to {
                SignalTo::All => "all",
                SignalTo::Device(id) => id.as_str(),
            };
            let (name, data) = (signal.name.as_str(), plain(&signal.data));
            let body = format!(r#""to":"{to}","name":"{name}","data":{data}"#);
            (vec![body], reference)
        }
        ClientFrame::Ping(reference) | ClientFrame::Unknown(reference) => {
            (vec![r#""more":{}"#.to_owned()], reference)
        }
        ClientFrame::Invalid(..) => return Vec::new(),
    };
    let mark = json!(reference);
    let head = format!(r#"{{"type":{},"ref":{mark}"#, json!(kind));
    let whole = |body: String| format!("{head},{body}}}");
    bodies.into_iter().map(whole).collect()
}

fn plain(data: &SignalData) -> String {
    serde_json::to_string(data).expect("what was read can be written")
}

/// What other devices and other nodes are sent of a signal is what its sender wrote.
fn relayed(signal: &Signal) {
    let data = plain(&signal.data);
    assert!(data.len() <= SignalData::MAX_BYTES);
    let frame = ServerFrame::Signal {
        from_device_id: ClientDeviceId::parse("a").expect("an id"),
        name: signal.name.clone(),
        data: signal.data.clone(),
    }
    .to_text();
    assert!(frame.len() <= ClientFrame::MAX_BYTES);
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(&frame).expect("what is sent is a JSON object");
    assert_eq!(fields["data"].get(), data);
    let hint = serde_json::to_string(signal).expect("what was read can be written");
    let arrived: Signal = serde_json::from_str(&hint).expect("what was written can be read");
    assert_eq!(&arrived, signal);
}

/// The last 128 bits of a token or cursor: bytes as `chars` characters of base64url, told apart from
/// anything else without the decoder that is tested.
fn bits(text: &str, chars: usize) -> Option<u128> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    if text.len() != chars {
        return None;
    }
    // The last 128 of them, which is as many as the checks need.
    text.bytes().try_fold(0_u128, |bits, char| {
        let value = ALPHABET.iter().position(|a| *a == char)?;
        Some(bits << 6 | value as u128)
    })
}

/// An ack token, as text of a client and as 24 bytes of ours.
pub fn ack_token(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        let token = AckToken::decode(text);
        // Positions are not negative: that is the first bit of the last eight bytes.
        let good = bits(text, 32).is_some_and(|bits| bits >> 63 & 1 == 0);
        assert_eq!(token.is_some(), good);
        if let Some(token) = token {
            assert_eq!(token.encode(), text, "two texts, one meaning");
            assert!(token.0.seq >= 0);
        }
    }
    if let Ok(bytes) = <[u8; 24]>::try_from(data) {
        let (epoch, seq) = (&bytes[..16], &bytes[16..]);
        let at = Position {
            epoch: uuid(epoch),
            seq: i64::from_be_bytes(seq.try_into().expect("eight bytes")),
        };
        let back = AckToken::decode(&AckToken(at).encode());
        assert_eq!(back, (at.seq >= 0).then_some(AckToken(at)));
    }
}

fn uuid(bytes: &[u8]) -> Epoch {
    let number = u128::from_be_bytes(bytes.try_into().expect("sixteen bytes"));
    format!("{number:032x}").parse().expect("a UUID")
}

/// The cursor of a list, as text of a client: of favorites, plays, playlists or broadcasts, which are
/// sorted by time, or of the songs of a playlist.
pub fn list_cursor(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let cursor = FavoriteCursor::decode(text);
    match (cursor, bits(text, 32)) {
        (Some(cursor), Some(_)) => {
            assert_eq!(cursor.encode(), text, "two texts, one meaning");
            assert!(cursor.created_at.timestamp_micros() >= 0);
        }
        (Some(_), None) => panic!("not one of ours"),
        // Times of the years that databases know are taken: they begin with 0, and then a few.
        (None, Some(_)) => assert!(!text.starts_with("AA"), "one of ours"),
        (None, None) => {}
    }
    same_cursor(cursor, text);
    song_cursor(text);
}

/// What is no cursor of one list is none of another.
fn same_cursor(cursor: Option<FavoriteCursor>, text: &str) {
    let expected = cursor.map(|it| (it.created_at, it.id.0));
    let plays = HistoryPlace::decode(text).inspect(|it| assert_eq!(it.encode(), text));
    assert_eq!(plays.map(|it| (it.played_at, it.id.0)), expected);
    let playlists = PlaylistCursor::decode(text).inspect(|it| assert_eq!(it.encode(), text));
    assert_eq!(playlists.map(|it| (it.created_at, it.id.0)), expected);
    let broadcasts = BroadcastCursor::decode(text).inspect(|it| assert_eq!(it.encode(), text));
    assert_eq!(broadcasts.map(|it| (it.created_at, it.id.0)), expected);
}

fn song_cursor(text: &str) {
    let cursor = SongCursor::decode(text);
    // 16 bytes are 132 bits less the last four, which say nothing. Ranks are not negative: that is the
    // first bit of the last eight bytes.
    let good = bits(text, 22).is_some_and(|bits| bits.trailing_zeros() >= 4 && bits >> 67 & 1 == 0);
    assert_eq!(cursor.is_some(), good);
    if let Some(cursor) = cursor {
        assert_eq!(cursor.encode(), text, "two texts, one meaning");
        assert!(cursor.rank >= 0);
    }
}
