//! Events that other services append: their types and their data.

use serde_json::{Map, Value};

use crate::domain::{
    library::MAX_EVENT_DATA,
    text::{checked_text, holds_nul},
};

/// First words of types that only the server makes: a service must not tell a device that its user's
/// library changed, or play for the server in any other way.
const RESERVED: &[&str] = &[
    "account", "auth", "device", "favorite", "history", "library", "player", "playlist",
    "presence", "server", "session", "signal", "sync", "user",
];

checked_text! {
    /// The type of an event that a service appends.
    #[derive(Debug)]
    EventType, "at most 64 of two or more words with dots between, each a-z, then a-z, 0-9 and _; \
        the first word none of the server's own (account, auth, device, favorite, history, library, \
        player, playlist, presence, server, session, signal, sync, user)",
    is_event_type
}

fn is_event_type(s: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    s.len() <= 64
        && s.contains('.')
        && s.split('.').all(is_word)
        && !s.split('.').take(1).any(|first| RESERVED.contains(&first))
}

/// What such an event says: a JSON object of at most 16 KiB.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, utoipa::ToSchema)]
#[serde(try_from = "Map<String, Value>")]
#[schema(value_type = Object)]
pub struct EventData(Map<String, Value>);

impl EventData {
    /// Bytes of JSON that it may have.
    pub const MAX_BYTES: usize = MAX_EVENT_DATA;

    /// As a JSON value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

impl TryFrom<Map<String, Value>> for EventData {
    type Error = &'static str;

    fn try_from(map: Map<String, Value>) -> Result<Self, Self::Error> {
        match serde_json::to_vec(&map) {
            Ok(bytes) if bytes.len() <= Self::MAX_BYTES => {}
            _ => return Err("a JSON object of at most 16384 bytes"),
        }
        if holds_nul(&map) {
            return Err("a JSON object without U+0000");
        }
        Ok(Self(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::library::LibraryEvent;

    #[test]
    fn types_have_their_form() {
        let long = format!("a.{}", "b".repeat(62));
        for good in [
            "billing.paid",
            "a.b",
            "a1_.b_2.c",
            "favorites.x",
            long.as_str(),
        ] {
            assert!(EventType::parse(good).is_ok(), "{good}");
        }
        let longer = format!("{long}b");
        for bad in [
            "",
            "a",
            ".",
            "a.",
            ".a",
            "a..b",
            "A.b",
            "a.B",
            "1a.b",
            "_a.b",
            "a.1",
            "a b.c",
            "a-b.c",
            "a.b\n",
            "ä.b",
            longer.as_str(),
        ] {
            assert!(EventType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_that_the_server_says_can_be_forged() {
        let players = [
            "player.play",
            "device.removed",
            "presence.changed",
            "sync.x.y",
        ];
        for forged in LibraryEvent::TYPES.iter().chain(&players) {
            assert!(EventType::parse(*forged).is_err(), "{forged}");
        }
        for first in RESERVED {
            assert!(EventType::EXPECTED.contains(first), "{first} is not said");
            assert!(EventType::parse(format!("{first}.x")).is_err(), "{first}");
            assert!(EventType::parse(format!("{first}s.x")).is_ok(), "{first}");
        }
    }

    #[test]
    fn data_is_an_object_that_both_engines_can_hold() {
        let taken = |value: Value| serde_json::from_value::<EventData>(value).is_ok();
        assert!(taken(json!({})) && taken(json!({"a": [1, {"b": null}]})));
        for bad in [
            json!([]),
            json!("x"),
            json!(null),
            json!({"a": ["\0"]}),
            json!({"\0": 1}),
        ] {
            assert!(!taken(bad.clone()), "{bad}");
        }
        let around = json!({"a": ""}).to_string().len();
        let of = |bytes: usize| json!({"a": "x".repeat(bytes - around)});
        assert!(taken(of(EventData::MAX_BYTES)) && !taken(of(EventData::MAX_BYTES + 1)));
    }

    proptest! {
        #[test]
        fn what_is_taken_as_a_type_matches_the_form(text in "[a-c_.A1]{0,8}|[a-z]{1,9}\\.[a-z]{1,3}") {
            let form = regex::Regex::new(r"\A[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+\z").unwrap();
            let reserved = RESERVED.contains(&text.split('.').next().unwrap_or_default());
            prop_assert_eq!(EventType::parse(text.clone()).is_ok(), form.is_match(&text) && !reserved);
        }
    }
}
