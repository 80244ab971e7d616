//! What a user keeps: favorites, and later history and playlists.

mod favorite;

pub use favorite::{Favorite, FavoriteKey, FavoriteType, TargetId};
