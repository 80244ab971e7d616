//! Places in lists that are sorted by time and id, as clients carry them from page to page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{favorite::Favorite, play::HistoryPlace};
use crate::domain::ids::{FavoriteId, PlayId};

/// A place in a list that is sorted by time and id, opaque to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FavoriteCursor {
    /// When the last favorite of the page was marked.
    pub created_at: DateTime<Utc>,
    /// Which it is, among those of the same time.
    pub id: FavoriteId,
}

impl FavoriteCursor {
    /// The page after `favorite`.
    #[must_use]
    pub const fn after(favorite: &Favorite) -> Self {
        Self {
            created_at: favorite.created_at,
            id: favorite.id,
        }
    }

    /// 32 characters of base64url.
    #[must_use]
    pub fn encode(self) -> String {
        encode(self.created_at, self.id.0)
    }

    /// Reads what [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        decode(text).map(|(created_at, id)| Self {
            created_at,
            id: FavoriteId(id),
        })
    }
}

impl HistoryPlace {
    /// 32 characters of base64url.
    #[must_use]
    pub fn encode(self) -> String {
        encode(self.played_at, self.id.0)
    }

    /// Reads what [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        decode(text).map(|(played_at, id)| Self {
            played_at,
            id: PlayId(id),
        })
    }
}

pub(super) fn encode(at: DateTime<Utc>, id: Uuid) -> String {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&at.timestamp_micros().to_be_bytes());
    bytes[8..].copy_from_slice(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn decode(text: &str) -> Option<(DateTime<Utc>, Uuid)> {
    if text.len() != 32 {
        return None;
    }
    let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    // Nothing is older; before the year -4713 the database would fail.
    let micros = i64::from_be_bytes(bytes[..8].try_into().ok()?);
    if micros < 0 {
        return None;
    }
    let at = DateTime::from_timestamp_micros(micros)?;
    Some((at, Uuid::from_slice(&bytes[8..]).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_come_back(micros in 0_i64..4_102_444_800_000_000, id: u128) {
            let cursor = FavoriteCursor {
                created_at: DateTime::from_timestamp_micros(micros).unwrap(),
                id: FavoriteId(Uuid::from_u128(id)),
            };
            prop_assert_eq!(FavoriteCursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn any_cursor_is_read_without_harm(text in "\\PC{0,64}") {
            let _ = FavoriteCursor::decode(&text);
        }
    }
}
