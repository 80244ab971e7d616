//! Plays: what a user listened to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::ToSchema;

use super::favorite::TargetId;
use crate::domain::{ids::PlayId, text::checked_text};

/// Plays that one call may bring.
pub const MAX_NEW_PLAYS: usize = 200;
/// Seconds that a play may have lasted.
const MAX_DURATION: i64 = 86_400;

checked_text! {
    /// A song's name, as it was called when it was played.
    #[derive(Debug)]
    SongName, "1 to 256 characters, no control characters", |s| !s.is_empty() && is_name(s)
}

checked_text! {
    /// Who sings, as they were called when the song was played; empty where nobody is known.
    #[derive(Debug)]
    ArtistName, "at most 256 characters, no control characters", is_name
}

fn is_name(s: &str) -> bool {
    s.chars().count() <= 256 && !s.chars().any(char::is_control)
}

/// A play as a client brings it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPlay {
    /// Made by the client, so that the same play may be sent again.
    pub id: PlayId,
    /// The catalogue's id of the song.
    pub song_id: TargetId,
    /// 1 to 256 characters.
    pub song_name: SongName,
    /// At most 256 characters.
    pub artist_name: ArtistName,
    /// Seconds that were played, 0 to 86400.
    #[serde(deserialize_with = "seconds")]
    #[schema(minimum = 0, maximum = 86_400)]
    pub duration: i64,
    /// RFC 3339, from 1970 on. More than 5 minutes ahead of the server it becomes the server's time.
    #[serde(deserialize_with = "crate::domain::time::deserialize")]
    pub played_at: DateTime<Utc>,
}

impl NewPlay {
    /// The play as it is kept, played at `played_at`.
    #[must_use]
    pub fn at(&self, played_at: DateTime<Utc>) -> Play {
        Play {
            id: self.id,
            song_id: self.song_id.clone(),
            song_name: self.song_name.as_str().to_owned(),
            artist_name: self.artist_name.as_str().to_owned(),
            duration: self.duration,
            played_at,
        }
    }
}

fn seconds<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
    let seconds = i64::deserialize(d)?;
    if (0..=MAX_DURATION).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(D::Error::custom(format!("0 to {MAX_DURATION}")))
    }
}

/// A play in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Play {
    /// Made by the client.
    pub id: PlayId,
    /// The catalogue's id of the song.
    pub song_id: TargetId,
    /// As it was called.
    pub song_name: String,
    /// Who sings.
    pub artist_name: String,
    /// Seconds that were played.
    pub duration: i64,
    /// When it was played.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub played_at: DateTime<Utc>,
}

impl Play {
    /// Where it stands in the history.
    #[must_use]
    pub const fn place(&self) -> HistoryPlace {
        HistoryPlace {
            played_at: self.played_at,
            id: self.id,
        }
    }
}

/// A place in a history, which is sorted by time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct HistoryPlace {
    /// When the play there was played.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub played_at: DateTime<Utc>,
    /// Which it is, among those of the same time.
    pub id: PlayId,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(field: &str, value: Value) -> String {
        let mut play = json!({
            "id": "01900000-0000-4000-8000-000000000001", "song_id": "s:1", "song_name": "S",
            "artist_name": "", "duration": 0, "played_at": "2026-11-20T10:00:00.1234567+08:00",
        });
        let whole: NewPlay = serde_json::from_value(play.clone()).unwrap();
        let kept = serde_json::to_value(whole.at(whole.played_at)).unwrap();
        assert_eq!(kept["played_at"], "2026-11-20T02:00:00.123456Z");
        play[field] = value;
        match serde_json::from_value::<NewPlay>(play) {
            Ok(play) => panic!("taken: {play:?}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (field, value, why) in [
            ("song_name", json!(""), "1 to 256 characters"),
            ("song_name", json!("ä".repeat(257)), "1 to 256 characters"),
            ("song_name", json!("a\nb"), "no control characters"),
            ("artist_name", json!("\u{7f}"), "no control characters"),
            ("artist_name", json!("ä".repeat(257)), "at most 256"),
            ("artist_name", Value::Null, "expected a string"),
            ("duration", json!(-1), "0 to 86400"),
            ("duration", json!(86_401), "0 to 86400"),
            ("duration", json!(1.5), "expected i64"),
            ("song_id", json!("a b"), TargetId::EXPECTED),
            ("id", json!("1"), "UUID"),
            ("played_at", json!("yesterday"), "RFC 3339"),
            ("played_at", json!("2026-11-20T10:00:00"), "RFC 3339"),
            (
                "played_at",
                json!("1969-12-31T23:59:59Z"),
                "RFC 3339 time from 1970",
            ),
            ("mood", json!("good"), "unknown field"),
        ] {
            let text = refused(field, value);
            assert!(text.contains(why), "{field}: {text}");
        }
    }
}
