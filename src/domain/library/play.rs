//! Plays: what a user listened to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::favorite::TargetId;
use crate::domain::ids::PlayId;

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

/// A place in a history, which is sorted by time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct HistoryPlace {
    /// When the play there was played.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub played_at: DateTime<Utc>,
    /// Which it is, among those of the same time.
    pub id: PlayId,
}
