//! What the log says about a user's library: a type for each event, and its JSON schema.
//!
//! Another device applies an event without a reload. A client that applies them in order from a
//! snapshot on has what the database has; the schemas are printed into `docs/protocol.md`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    favorite::{FavoriteType, TargetId},
    play::{HistoryPlace, Play},
    player::PlayerActivated,
    playlist::{Entry, Playlist},
};
use crate::domain::ids::{EntryId, FavoriteId, PlayId, PlaylistId};

/// The most bytes that an event's data may have.
pub const MAX_EVENT_DATA: usize = 16 * 1024;

/// An event type, and the schema of its data with the schemas that this one names.
#[derive(Debug)]
pub struct EventSchema {
    /// Such as `favorite.added`.
    pub event_type: &'static str,
    /// What it tells.
    pub about: &'static str,
    /// The schema of `data`.
    pub schema: RefOr<Schema>,
    /// Schemas that it refers to, by name.
    pub parts: Vec<(String, RefOr<Schema>)>,
}

macro_rules! events {
    ($($(#[doc = $doc:literal])+ $name:ident($data:ty) = $event_type:literal;)+) => {
        /// A change of a user's library.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum LibraryEvent { $($(#[doc = $doc])+ $name($data)),+ }

        impl LibraryEvent {
            /// Every event type there is.
            pub const TYPES: &'static [&'static str] = &[$($event_type),+];

            /// Such as `favorite.added`.
            #[must_use]
            pub const fn event_type(&self) -> &'static str {
                match self { $(Self::$name(_) => $event_type),+ }
            }

            /// The schema of each event type's data.
            #[must_use]
            pub fn schemas() -> Vec<EventSchema> {
                vec![$({
                    let mut parts = Vec::new();
                    <$data as ToSchema>::schemas(&mut parts);
                    EventSchema {
                        event_type: $event_type,
                        about: concat!($($doc),+).trim(),
                        schema: <$data as PartialSchema>::schema(),
                        parts,
                    }
                }),+]
            }
        }
    };
}

events! {
    /// Something became a favorite.
    FavoriteAdded(FavoriteChanged) = "favorite.added";
    /// A favorite was removed.
    FavoriteRemoved(FavoriteChanged) = "favorite.removed";
    /// A removed favorite is back, as old as it was.
    FavoriteRestored(FavoriteChanged) = "favorite.restored";
    /// Songs were played.
    HistoryAdded(HistoryAdded) = "history.added";
    /// Plays were removed.
    HistoryRemoved(HistoryRemoved) = "history.removed";
    /// Plays are gone because there were too many.
    HistoryTrimmed(HistoryTrimmed) = "history.trimmed";
    /// The history was cleared.
    HistoryCleared(HistoryCleared) = "history.cleared";
    /// A playlist was made; it has no songs yet.
    PlaylistCreated(Playlist) = "playlist.created";
    /// A playlist's name, cover or visibility changed.
    PlaylistUpdated(Playlist) = "playlist.updated";
    /// A playlist was deleted. It can be restored, with its songs.
    PlaylistDeleted(PlaylistDeleted) = "playlist.deleted";
    /// A deleted playlist is back. Its songs follow, as `playlist.songs_added` or, when they are many, as `playlist.replaced`: until then it is empty.
    PlaylistRestored(Playlist) = "playlist.restored";
    /// Songs were put into a playlist, one behind the other.
    PlaylistSongsAdded(SongsAdded) = "playlist.songs_added";
    /// Songs were taken out of a playlist.
    PlaylistSongsRemoved(SongsRemoved) = "playlist.songs_removed";
    /// Songs of a playlist were moved, to stand one behind the other.
    PlaylistSongsMoved(SongsMoved) = "playlist.songs_moved";
    /// The songs of a playlist or their whole order changed: fetch them.
    PlaylistReplaced(PlaylistReplaced) = "playlist.replaced";
    /// Another device is the one that plays.
    PlayerActivated(PlayerActivated) = "player.activated";
}

/// A favorite after a change of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FavoriteChanged {
    /// The server's id.
    pub id: FavoriteId,
    /// What kind of thing.
    #[serde(rename = "type")]
    pub kind: FavoriteType,
    /// The catalogue's id of the thing.
    pub target_id: TargetId,
    /// When it was marked.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub created_at: DateTime<Utc>,
    /// The `seq` of this event.
    pub version: i64,
}

/// Plays that are new in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HistoryAdded {
    /// In no order that matters: a history is sorted by `played_at`, then `id`.
    pub plays: Vec<Play>,
    /// Plays before this place are gone, because there were too many; null when there were not.
    pub oldest: Option<HistoryPlace>,
    /// The `seq` of this event.
    pub version: i64,
}

/// Plays that were deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HistoryRemoved {
    /// Which.
    pub ids: Vec<PlayId>,
    /// The `seq` of this event.
    pub version: i64,
}

/// The history is shorter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HistoryTrimmed {
    /// Plays before this place are gone.
    pub oldest: HistoryPlace,
    /// The `seq` of this event.
    pub version: i64,
}

/// The history is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HistoryCleared {
    /// Plays that are not newer than this are ignored when they come late.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub cleared_at: DateTime<Utc>,
    /// The `seq` of this event.
    pub version: i64,
}

/// A playlist that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlaylistDeleted {
    /// Which.
    pub id: PlaylistId,
    /// The playlist's version now: the `seq` of this event.
    pub version: i64,
    /// When.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub deleted_at: DateTime<Utc>,
}

/// Entries that are new in a playlist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SongsAdded {
    /// Which playlist.
    pub id: PlaylistId,
    /// The playlist's version now: the `seq` of this event.
    pub version: i64,
    /// How many songs it has now.
    pub song_count: i64,
    /// When it changed.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub updated_at: DateTime<Utc>,
    /// The entry behind which they stand; null: at the beginning.
    pub after: Option<EntryId>,
    /// In this order.
    pub entries: Vec<Entry>,
}

/// Entries that are gone from a playlist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SongsRemoved {
    /// Which playlist.
    pub id: PlaylistId,
    /// The playlist's version now: the `seq` of this event.
    pub version: i64,
    /// How many songs it has now.
    pub song_count: i64,
    /// When it changed.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub updated_at: DateTime<Utc>,
    /// Which entries.
    pub entry_ids: Vec<EntryId>,
}

/// Entries of a playlist that stand elsewhere now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SongsMoved {
    /// Which playlist.
    pub id: PlaylistId,
    /// The playlist's version now: the `seq` of this event.
    pub version: i64,
    /// When it changed.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub updated_at: DateTime<Utc>,
    /// The entry behind which they stand, which is none of them; null: at the beginning.
    pub after: Option<EntryId>,
    /// In this order.
    pub entry_ids: Vec<EntryId>,
}

/// A playlist whose songs are to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlaylistReplaced {
    /// Which playlist.
    pub id: PlaylistId,
    /// The playlist's version now: the `seq` of this event. What is fetched may be newer.
    pub version: i64,
}

/// Parts `items` so that each part, written as JSON, has at most `budget` bytes, or one item.
#[must_use]
pub fn in_parts<T: Serialize>(items: Vec<T>, budget: usize) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<T>> = Vec::new();
    let mut left = 0;
    for item in items {
        // What cannot be written is found when its event is.
        let size = serde_json::to_vec(&item).map_or(0, |text| text.len()) + 1;
        match parts.last_mut() {
            Some(part) if size <= left => part.push(item),
            _ => {
                left = budget;
                parts.push(vec![item]);
            }
        }
        left = left.saturating_sub(size);
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_hold_everything_in_order_and_fit(items: Vec<String>, budget in 1_usize..200) {
            let parts = in_parts(items.clone(), budget);
            prop_assert_eq!(parts.concat(), items);
            for part in parts {
                let size = serde_json::to_vec(&part).unwrap().len();
                // Brackets, without the last comma.
                prop_assert!(part.len() == 1 || size <= budget + 1, "{size} of {budget}");
            }
        }
    }

    #[test]
    fn each_type_has_its_schema() {
        let schemas = LibraryEvent::schemas();
        let types: Vec<_> = schemas.iter().map(|it| it.event_type).collect();
        assert_eq!(types, LibraryEvent::TYPES);
        for it in schemas {
            assert!(!it.about.is_empty(), "{}", it.event_type);
            let schema = serde_json::to_value(&it.schema).unwrap();
            assert!(schema["properties"].is_object(), "{schema}");
        }
    }
}
