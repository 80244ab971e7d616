//! Playlists: songs in an order that the user chose.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{favorite::TargetId, version::VersionTag};
use crate::domain::ids::{EntryId, Epoch, PlaylistId};

/// A playlist, without its songs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Playlist {
    /// The server's id.
    pub id: PlaylistId,
    /// What the user calls it.
    pub name: String,
    /// A picture.
    pub cover_url: Option<String>,
    /// Whether everybody who has its link may read it.
    pub is_public: bool,
    /// How many songs it has.
    pub song_count: i64,
    /// The `seq` of the event that changed it last.
    pub version: i64,
    /// When it was made.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it or its songs were changed last.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub updated_at: DateTime<Utc>,
}

/// A playlist as everybody sees who has its link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PublicPlaylist {
    /// The server's id.
    pub id: PlaylistId,
    /// What its user calls it.
    pub name: String,
    /// A picture.
    pub cover_url: Option<String>,
    /// How many songs it has.
    pub song_count: i64,
    /// When it was made.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it or its songs were changed last.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub updated_at: DateTime<Utc>,
}

impl From<Playlist> for PublicPlaylist {
    fn from(it: Playlist) -> Self {
        // The version stays out: it tells how busy the user's log is.
        Self {
            id: it.id,
            name: it.name,
            cover_url: it.cover_url,
            song_count: it.song_count,
            created_at: it.created_at,
            updated_at: it.updated_at,
        }
    }
}

/// A piece of a playlist's songs, and the playlist's version at the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SongPage {
    /// The version.
    pub version: i64,
    /// Of the log that the version is of.
    pub epoch: Epoch,
    /// How many songs there are.
    pub song_count: i64,
    /// In order, each with its rank.
    pub entries: Vec<(Entry, i64)>,
}

impl SongPage {
    /// What `If-Match` calls the version.
    #[must_use]
    pub fn tag(&self) -> VersionTag {
        VersionTag::new(self.version, self.epoch)
    }
}

/// Songs that were added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SongsPut {
    /// How the playlist is now.
    pub playlist: Playlist,
    /// What was added, in order.
    pub entries: Vec<Entry>,
}

/// A song's place in a playlist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// A song may stand twice: each place has its own id.
    pub id: EntryId,
    /// The catalogue's id of the song.
    pub song_id: TargetId,
    /// When it was put there.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub added_at: DateTime<Utc>,
}
