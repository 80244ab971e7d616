//! What a user keeps: favorites, the history of plays, playlists, and what plays now.

mod cursor;
mod event;
mod favorite;
mod history;
mod order;
mod play;
mod player;
mod playlist;
mod playlist_cursor;
mod playlist_edit;
mod published;
mod snapshot;
mod version;

pub use cursor::FavoriteCursor;
pub use event::{
    EventSchema, FavoriteChanged, HistoryAdded, HistoryCleared, HistoryRemoved, HistoryTrimmed,
    LibraryEvent, MAX_EVENT_DATA, PlaylistDeleted, PlaylistReplaced, SongsAdded, SongsMoved,
    SongsRemoved, in_parts,
};
pub use favorite::{Favorite, FavoriteKey, FavoriteType, TargetId};
pub use history::{
    AHEAD, Arrivals, IgnoredBecause, KnownPlay, MAX_PLAYS, MAX_REMOVED, PlayResult, PlayStatus,
    REMOVED_FOR, Settled, cleared_at,
};
pub use order::{Around, LEAST, MOST, Room, make_room};
pub use play::{ArtistName, HistoryPlace, MAX_NEW_PLAYS, NewPlay, Play, SongName};
pub use player::{
    Player, PlayerActivated, PlayerRefusal, PlayerSignal, Playing, Reported, Ruling, Transfer,
};
pub use playlist::{Entry, Playlist, PublicPlaylist, SongPage, SongsPut};
pub use playlist_cursor::{Edition, PlaylistCursor, SongCursor};
pub use playlist_edit::{
    CoverUrl, Entries, Expected, MAX_AT_ONCE, MAX_DELETED, MAX_PLAYLISTS, MAX_SONGS, MOST_TOLD,
    NewPlaylist, Nullable, Place, PlaylistName, PlaylistRefusal, PlaylistUpdate, Songs, given,
};
pub use published::{Bounds, Look, Published};
pub use snapshot::{HistoryState, SnapshotEnd, SnapshotEntries, SnapshotHead, SnapshotLine};
pub use version::VersionTag;
