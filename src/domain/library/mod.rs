//! What a user keeps: favorites, and later history and playlists.

mod cursor;
mod favorite;

pub use cursor::FavoriteCursor;
pub use favorite::{Favorite, FavoriteKey, FavoriteType, TargetId};
