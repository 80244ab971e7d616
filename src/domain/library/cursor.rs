//! Places in lists that are sorted by time and id, as clients carry them from page to page.

use chrono::{DateTime, Utc};

use super::{favorite::Favorite, play::HistoryPlace};
use crate::domain::{
    cursor,
    ids::{FavoriteId, PlayId},
};

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
        cursor::encode(self.created_at, self.id.0)
    }

    /// Reads what [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        cursor::decode(text).map(|(created_at, id)| Self {
            created_at,
            id: FavoriteId(id),
        })
    }
}

impl HistoryPlace {
    /// 32 characters of base64url.
    #[must_use]
    pub fn encode(self) -> String {
        cursor::encode(self.played_at, self.id.0)
    }

    /// Reads what [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        cursor::decode(text).map(|(played_at, id)| Self {
            played_at,
            id: PlayId(id),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

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
