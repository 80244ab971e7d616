//! What a user keeps: favorites, the history of plays, playlists, and what plays now.

mod cursor;
mod event;
mod favorite;
mod history;
mod play;
mod player;
mod playlist;
mod snapshot;

pub use cursor::FavoriteCursor;
pub use event::{
    EventSchema, FavoriteChanged, HistoryAdded, HistoryCleared, HistoryRemoved, HistoryTrimmed,
    LibraryEvent, MAX_EVENT_DATA, PlaylistDeleted, PlaylistReplaced, SongsAdded, SongsMoved,
    SongsRemoved, in_parts,
};
pub use favorite::{Favorite, FavoriteKey, FavoriteType, TargetId};
pub use history::{
    Arrivals, IgnoredBecause, KnownPlay, MAX_PLAYS, MAX_REMOVED, PlayResult, PlayStatus,
    REMOVED_FOR, Settled, cleared_at,
};
pub use play::{ArtistName, HistoryPlace, MAX_NEW_PLAYS, NewPlay, Play, SongName};
pub use player::{
    Player, PlayerActivated, PlayerRefusal, PlayerSignal, Playing, Reported, Ruling, Transfer,
};
pub use playlist::{Entry, Playlist};
pub use snapshot::{Entries, HistoryState, SnapshotEnd, SnapshotHead, SnapshotLine};
