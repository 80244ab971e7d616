//! Places in lists of playlists and of their songs, as clients carry them from page to page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};

use super::playlist::Playlist;
use crate::domain::{cursor, ids::PlaylistId};

/// A place in a user's playlists, the newest of which come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaylistCursor {
    /// When the last playlist of the page was made.
    pub created_at: DateTime<Utc>,
    /// Which it is, among those of the same time.
    pub id: PlaylistId,
}

impl PlaylistCursor {
    /// The page after `playlist`.
    #[must_use]
    pub const fn after(playlist: &Playlist) -> Self {
        Self {
            created_at: playlist.created_at,
            id: playlist.id,
        }
    }

    /// 32 characters of base64url.
    #[must_use]
    pub fn encode(self) -> String {
        cursor::encode(self.created_at, self.id.0)
    }

    /// Reads what [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        cursor::decode(text).map(|(created_at, id)| Self {
            created_at,
            id: PlaylistId(id),
        })
    }
}

/// One version of one playlist in one life of its user's log, as a keyed hash: cursors of public playlists
/// are for everybody, and a version tells how busy the user's log is.
pub type Edition = [u8; 8];

/// A place in the songs of one version of a playlist: in another version it may be anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SongCursor {
    /// Of the playlist when the page was read.
    pub edition: Edition,
    /// The rank of the last entry of the page.
    pub rank: i64,
}

impl SongCursor {
    /// 22 characters of base64url.
    #[must_use]
    pub fn encode(self) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.edition);
        bytes[8..].copy_from_slice(&self.rank.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() != 22 {
            return None;
        }
        let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let edition = bytes[..8].try_into().ok()?;
        let rank = i64::from_be_bytes(bytes[8..].try_into().ok()?);
        (rank >= 0).then_some(Self { edition, rank })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn cursors_come_back(micros in 0_i64..4_102_444_800_000_000, id: u128, rank in 0..i64::MAX) {
            let cursor = PlaylistCursor {
                created_at: DateTime::from_timestamp_micros(micros).unwrap(),
                id: PlaylistId(Uuid::from_u128(id)),
            };
            prop_assert_eq!(PlaylistCursor::decode(&cursor.encode()), Some(cursor));
            let cursor = SongCursor { edition: micros.to_be_bytes(), rank };
            prop_assert_eq!(SongCursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn any_cursor_is_read_without_harm(text in "\\PC{0,64}") {
            let _ = PlaylistCursor::decode(&text);
            let _ = SongCursor::decode(&text);
        }
    }
}
