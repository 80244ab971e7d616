//! What other services of the operator say: events for the logs of users.

use std::{collections::BTreeMap, str};

use listen_stream::domain::{
    identity::Platform,
    library::LibraryEvent,
    services::{EventData, EventType, Segment},
    sync::ClientFrame,
    time::rfc3339,
};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::body::plain_id;

/// An event for many users, member by member. Its type is none of the server's own, its data fits into
/// the log and comes out as it went in, and whom it is for is stored as it was said.
pub fn service_event(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let Ok(body) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else {
        return;
    };
    if let Some(raw) = body.get("event_type") {
        event_type(raw.get());
    }
    if let Some(raw) = body.get("data") {
        event_data(raw.get());
    }
    if let Some(raw) = body.get("segment") {
        segment(raw.get());
    }
}

fn event_type(text: &str) {
    // What the server says of its own begins so; clients act on it.
    const OWN: &[&str] = &["device", "player", "presence", "session", "signal", "sync"];
    let Ok(kind) = serde_json::from_str::<EventType>(text) else {
        return;
    };
    let kind = kind.as_str();
    assert_eq!(
        serde_json::from_str::<String>(text).ok().as_deref(),
        Some(kind)
    );
    assert!(kind.len() <= 64);
    let words: Vec<&str> = kind.split('.').collect();
    assert!(words.len() > 1);
    for word in &words {
        assert!(word.starts_with(|c: char| c.is_ascii_lowercase()), "{kind}");
        let good = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
        assert!(word.bytes().all(good), "{kind}");
    }
    let mut own = LibraryEvent::TYPES
        .iter()
        .filter_map(|it| it.split('.').next());
    assert!(
        !own.any(|first| first == words[0]) && !OWN.contains(&words[0]),
        "{kind}"
    );
}

fn event_data(text: &str) {
    let value: Option<Value> = serde_json::from_str(text).ok();
    let written = value.as_ref().map(Value::to_string).unwrap_or_default();
    let nul = written.replace(r"\\", "").contains(r"\u0000");
    let fits = value.as_ref().is_some_and(Value::is_object) && written.len() <= 16 * 1024 && !nul;
    let Ok(data) = serde_json::from_str::<EventData>(text) else {
        assert!(!fits, "it has the form of data");
        return;
    };
    assert!(fits, "data that a log cannot take");
    assert_eq!(Some(data.to_value()), value);
    // From the store, from a node, in a frame: it is read and written on its way.
    assert_eq!(
        serde_json::from_str::<EventData>(&written).ok().as_ref(),
        Some(&data)
    );
    let raw = to_raw_value(&data.to_value()).expect("what was read can be written");
    assert_eq!(raw.get(), written);
    assert!(raw.get().len() < ClientFrame::MAX_BYTES);
}

fn segment(text: &str) {
    let Ok(segment) = serde_json::from_str::<Segment>(text) else {
        return;
    };
    let sent: Value = serde_json::from_str(text).expect("it was read");
    let members = sent.as_object().expect("a segment is an object");
    let stored = serde_json::to_value(&segment).expect("what was read can be written");
    // Both engines hold objects.
    assert!(stored.is_object());
    let back = serde_json::from_value::<Segment>(stored).expect("what was stored can be read");
    assert_eq!(back, segment);
    let list = |name: &str| sent[name].as_array().map(Vec::as_slice).unwrap_or_default();
    match &segment {
        Segment::Everybody => {
            assert!(members.values().all(Value::is_null), "{sent} is everybody");
            assert!(segment.named().is_err());
        }
        Segment::Users(users) => {
            assert!((1..=10_000).contains(&users.len()));
            assert!(users.is_sorted_by(|a, b| a < b), "one is named twice");
            let mut ids: Vec<String> = list("user_ids").iter().filter_map(plain_id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert!(users.iter().map(ToString::to_string).eq(ids));
            assert!(sent["platforms"].is_null() && sent["active_since"].is_null());
        }
        Segment::Devices {
            platforms,
            active_since,
        } => {
            assert!(!platforms.is_empty() || active_since.is_some());
            assert!(platforms.is_sorted_by(|a, b| a < b), "one is named twice");
            let named = |it: &&Platform| list("platforms").contains(&it.as_str().into());
            assert_eq!(platforms.iter().filter(named).count(), platforms.len());
            assert!(sent["user_ids"].is_null());
            assert_eq!(active_since.is_none(), sent["active_since"].is_null());
            if let Some(at) = active_since {
                // One engine compares times as texts.
                assert!(("1970".."9999-12-31T23:59:60").contains(&rfc3339(*at).as_str()));
                assert_eq!(
                    at.timestamp_subsec_nanos() % 1000,
                    0,
                    "finer than the store"
                );
            }
        }
    }
}
