//! Favorites: things of a catalogue that a user marked.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::{
    ids::FavoriteId,
    text::{checked_text, is_token, named_enum},
};

named_enum! {
    /// What kind of thing was marked.
    FavoriteType {
        /// A song.
        Song = "song",
        /// An album.
        Album = "album",
        /// An artist.
        Artist = "artist",
        /// A music video.
        Mv = "mv",
    }
}

checked_text! {
    /// The catalogue's id of the thing.
    #[derive(Debug)]
    TargetId, "1 to 128 of letters, digits, : _ - .", |s| is_token(s, b":_-.")
}

/// Names a favorite among those of its user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[serde(deny_unknown_fields)]
pub struct FavoriteKey {
    /// What kind of thing.
    #[serde(rename = "type")]
    pub kind: FavoriteType,
    /// The catalogue's id of the thing.
    pub target_id: TargetId,
}

/// A favorite in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Favorite {
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
}
