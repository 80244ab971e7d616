//! What a user keeps: favorites, the history of plays, playlists.

mod cursor;
mod event;
mod favorite;
mod play;
mod playlist;

pub use cursor::FavoriteCursor;
pub use event::{
    EventSchema, FavoriteChanged, HistoryAdded, HistoryCleared, HistoryRemoved, HistoryTrimmed,
    LibraryEvent, MAX_EVENT_DATA, PlaylistDeleted, PlaylistReplaced, SongsAdded, SongsMoved,
    SongsRemoved, in_parts,
};
pub use favorite::{Favorite, FavoriteKey, FavoriteType, TargetId};
pub use play::{HistoryPlace, Play};
pub use playlist::{Entry, Playlist};
