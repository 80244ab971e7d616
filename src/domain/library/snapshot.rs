//! The whole library at one moment, line by line.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    favorite::Favorite,
    play::Play,
    player::Player,
    playlist::{Entry, Playlist},
};
use crate::domain::ids::{Epoch, PlaylistId};

/// The snapshot's first line: where in the log it stands. A device that has applied all of it goes on
/// behind `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct SnapshotHead {
    /// The log's life.
    pub epoch: Epoch,
    /// Everything up to this event is in the snapshot, and nothing after it.
    pub seq: i64,
}

/// A line after the first: an object with one member.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotLine {
    /// A favorite in force.
    Favorite(Favorite),
    /// The history was cleared.
    History(HistoryState),
    /// A play in the history.
    Play(Play),
    /// A playlist in force. Its songs follow.
    Playlist(Playlist),
    /// Songs of a playlist, behind those of the line before.
    Entries(SnapshotEntries),
    /// What plays, and where.
    Player(Player),
    /// The last line: without it the snapshot was cut off, and nothing of it counts.
    End(SnapshotEnd),
}

/// When the history was cleared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HistoryState {
    /// Plays that are not newer than this are gone.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub cleared_at: DateTime<Utc>,
}

/// Songs of a playlist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SnapshotEntries {
    /// Which.
    pub playlist_id: PlaylistId,
    /// In order.
    pub entries: Vec<Entry>,
}

/// The snapshot is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct SnapshotEnd {
    /// How many lines there are, with the first and this one.
    pub lines: u64,
}
