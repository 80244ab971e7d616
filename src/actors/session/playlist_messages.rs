//! What a session is asked about the user's playlists.

use chrono::{DateTime, Utc};

use super::messages::Done;
use crate::{
    actors::{Failure, kernel::asks},
    domain::{
        idempotency::IdempotencyKey,
        identity::ClientDeviceId,
        ids::{EntryId, Epoch, PlaylistId},
        library::{
            Expected, NewPlaylist, Place, Playlist, PlaylistRefusal, PlaylistUpdate, SongPage,
            SongsPut, TargetId,
        },
    },
};

/// What a change did, or why it was refused.
pub(super) type Changed<T = Playlist> = Done<Result<T, PlaylistRefusal>>;

asks! {
    Read ListPlaylists -> Result<Vec<Playlist>, Failure>;
    Read ReadPlaylist -> Result<Option<(Playlist, Epoch)>, Failure>;
    Read ReadSongs -> Result<Option<SongPage>, Failure>;
    Command CreatePlaylist -> Result<Changed, Failure>;
    Command UpdatePlaylist -> Result<Changed, Failure>;
    Command DeletePlaylist -> Result<Changed, Failure>;
    Command RestorePlaylist -> Result<Changed, Failure>;
    Command AddSongs -> Result<Changed<SongsPut>, Failure>;
    Command RemoveSongs -> Result<Changed, Failure>;
    Command MoveSongs -> Result<Changed, Failure>;
    Command OrderSongs -> Result<Changed, Failure>;
    Command ReplaceSongs -> Result<Changed, Failure>;
}

/// Which playlist a command is about.
#[derive(Debug)]
pub struct PlaylistTarget {
    /// Which.
    pub id: PlaylistId,
    /// The version that it must have.
    pub expected: Option<Expected>,
    /// The device whose command it is.
    pub origin: ClientDeviceId,
}

/// Make a playlist.
#[derive(Debug)]
pub struct CreatePlaylist {
    /// What it is to be.
    pub new: NewPlaylist,
    /// The device whose command it is.
    pub origin: ClientDeviceId,
    /// Names the command if it may be repeated.
    pub key: Option<IdempotencyKey>,
}

/// Change what is said about a playlist.
#[derive(Debug)]
pub struct UpdatePlaylist {
    /// Which.
    pub target: PlaylistTarget,
    /// What is to be different.
    pub update: PlaylistUpdate,
}

/// Delete a playlist; it can be restored.
#[derive(Debug)]
pub struct DeletePlaylist(pub PlaylistTarget);

/// Bring a deleted playlist back.
#[derive(Debug)]
pub struct RestorePlaylist(pub PlaylistTarget);

/// Add songs to a playlist.
#[derive(Debug)]
pub struct AddSongs {
    /// Which.
    pub target: PlaylistTarget,
    /// Where.
    pub place: Place,
    /// In this order.
    pub songs: Vec<TargetId>,
    /// Names the command if it may be repeated.
    pub key: Option<IdempotencyKey>,
}

/// Take entries out of a playlist.
#[derive(Debug)]
pub struct RemoveSongs {
    /// Which playlist.
    pub target: PlaylistTarget,
    /// Which entries; those that are not there are left out.
    pub entries: Vec<EntryId>,
}

/// Move entries of a playlist to one place.
#[derive(Debug)]
pub struct MoveSongs {
    /// Which playlist.
    pub target: PlaylistTarget,
    /// Which entries, in the order in which they are to stand.
    pub entries: Vec<EntryId>,
    /// Where; an entry that it names does not move.
    pub place: Place,
}

/// Put all entries of a playlist into another order.
#[derive(Debug)]
pub struct OrderSongs {
    /// Which playlist.
    pub target: PlaylistTarget,
    /// All its entries.
    pub entries: Vec<EntryId>,
}

/// Put songs in place of all that a playlist has.
#[derive(Debug)]
pub struct ReplaceSongs {
    /// Which playlist.
    pub target: PlaylistTarget,
    /// In this order.
    pub songs: Vec<TargetId>,
}

/// A page of the user's playlists, newest first.
#[derive(Debug)]
pub struct ListPlaylists {
    /// Those that are deleted, not those in force.
    pub deleted: bool,
    /// At most so many.
    pub limit: u32,
    /// Only those before this one.
    pub before: Option<(DateTime<Utc>, PlaylistId)>,
}

/// A playlist in force, and the epoch of the log that its version is of. None: the user has no such.
#[derive(Debug)]
pub struct ReadPlaylist(pub PlaylistId);

/// A page of the songs of a playlist in force. None: the user has no such.
#[derive(Debug)]
pub struct ReadSongs {
    /// Which.
    pub id: PlaylistId,
    /// At most so many.
    pub limit: u32,
    /// Only behind the entry of this rank.
    pub after: Option<i64>,
}
