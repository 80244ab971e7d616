//! Playlists: their rows, the order of their songs, and what their user's log says about them.
//!
//! `change.rs` has what all changes of one playlist have in common, `ops.rs` the changes of the playlist
//! itself, `songs.rs` those of its songs, `arrange.rs` where they stand, `rows.rs` the statements, and
//! `read.rs` the reads.

mod arrange;
mod change;
mod create;
mod ops;
mod read;
mod rows;
mod songs;

use std::time::Instant;

use serde::{Deserialize, Serialize};

use self::{
    change::Change,
    create::Create,
    ops::{Delete, Restore, Update},
    songs::{Add, Move, Remove, Reorder, Replace},
};
use crate::{
    domain::{
        idempotency::IdempotencyKey,
        ids::{EntryId, PlaylistId},
        library::{
            Expected, NewPlaylist, Place, Playlist, PlaylistRefusal, PlaylistUpdate, SongsPut,
            TargetId,
        },
    },
    store::{Issued, Once, Store, StoreError, Written, idempotency::OnlyOnce},
};
pub use read::{PlaylistQuery, SongQuery};
pub(super) use rows::PlaylistRow;

/// Which playlist a command is about, and who issued it.
#[derive(Debug, Clone)]
pub struct PlaylistCommand {
    /// By whom and when.
    pub issued: Issued,
    /// Which.
    pub id: PlaylistId,
    /// The version that it must have.
    pub expected: Option<Expected>,
}

/// What became of a change: how the playlist is now, or why it is as it was.
pub type PlaylistOutcome = Result<Playlist, PlaylistRefusal>;

/// Songs that are to be added.
#[derive(Debug, Clone)]
pub struct NewSongs {
    /// Where.
    pub place: Place,
    /// In this order.
    pub songs: Vec<TargetId>,
    /// The first entry's id; those of the others are derived from it.
    pub first: EntryId,
    /// What names the command if it may be repeated.
    pub key: Option<IdempotencyKey>,
}

/// What is remembered of [`SongsPut`] for a repetition, which brings the songs with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Added {
    playlist: Playlist,
    first: EntryId,
}

impl Store {
    /// Makes a playlist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_create(
        &self,
        deadline: Instant,
        command: PlaylistCommand,
        new: NewPlaylist,
        key: Option<IdempotencyKey>,
    ) -> Result<Once<PlaylistOutcome>, StoreError> {
        let owner = command.issued.user.0;
        let command = Create {
            target: command,
            new,
        };
        self.write(
            deadline,
            OnlyOnce {
                owner,
                key,
                command,
            },
        )
        .await
    }

    /// Changes what is said about a playlist. What is so already stays, without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_update(
        &self,
        deadline: Instant,
        command: PlaylistCommand,
        update: PlaylistUpdate,
    ) -> Result<Written<PlaylistOutcome>, StoreError> {
        self.write(deadline, Change::of(command, Update(update)))
            .await
    }

    /// Deletes a playlist; it can be restored. One that is deleted stays so, without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_delete(
        &self,
        deadline: Instant,
        command: PlaylistCommand,
    ) -> Result<Written<PlaylistOutcome>, StoreError> {
        self.write(deadline, Change::of(command, Delete)).await
    }

    /// Brings a deleted playlist back with its songs. One in force stays as it is, without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_restore(
        &self,
        deadline: Instant,
        command: PlaylistCommand,
    ) -> Result<Written<PlaylistOutcome>, StoreError> {
        self.write(deadline, Change::of(command, Restore)).await
    }

    /// Puts songs into a playlist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_songs_add(
        &self,
        deadline: Instant,
        command: PlaylistCommand,
        new: NewSongs,
    ) -> Result<Once<Result<SongsPut, PlaylistRefusal>>, StoreError> {
        let NewSongs {
            place,
            songs,
            first,
            key,
        } = new;
        let owner = command.issued.user.0;
        let asked = songs.clone();
        let command = Change::of(
            command,
            Add {
                place,
                songs,
                first,
            },
        );
        let once = self
            .write(
                deadline,
                OnlyOnce {
                    owner,
                    key,
                    command,
                },
            )
            .await?;
        Ok(match once {
            Once::Ran(written) => Once::Ran(written.map(|outcome| {
                outcome.map(|Added { playlist, first }| SongsPut {
                    // A repetition has the same songs.
                    entries: songs::entries(asked, first, playlist.updated_at),
                    playlist,
                })
            })),
            Once::Reused => Once::Reused,
        })
    }

    /// Takes entries out of a playlist. Those that are not there are left out; when none is, nothing
    /// changes, without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_songs_remove(
        &self,
        deadline: Instant,
        command: PlaylistCommand,
        entries: Vec<EntryId>,
    ) -> Result<Written<PlaylistOutcome>, StoreError> {
        self.write(deadline, Change::of(command, Remove(entries)))
            .await
    }

    /// Moves entries of a playlist to one place, where they stand in the order given. When they stand so
    /// already, nothing changes, without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_songs_move(
        &self,
        deadline: Instant,
        command: PlaylistCommand,
        entries: Vec<EntryId>,
        place: Place,
    ) -> Result<Written<PlaylistOutcome>, StoreError> {
        self.write(deadline, Change::of(command, Move { entries, place }))
            .await
    }

    /// Puts all entries of a playlist into another order. In the same order nothing changes, without an
    /// event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_songs_reorder(
        &self,
        deadline: Instant,
        command: PlaylistCommand,
        entries: Vec<EntryId>,
    ) -> Result<Written<PlaylistOutcome>, StoreError> {
        self.write(deadline, Change::of(command, Reorder(entries)))
            .await
    }

    /// Puts these songs in place of all that a playlist has; `first` is the id of the first entry.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_songs_replace(
        &self,
        deadline: Instant,
        command: PlaylistCommand,
        songs: Vec<TargetId>,
        first: EntryId,
    ) -> Result<Written<PlaylistOutcome>, StoreError> {
        self.write(deadline, Change::of(command, Replace { songs, first }))
            .await
    }
}

impl<T> Written<T> {
    /// The same with another outcome.
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Written<U> {
        Written {
            value: f(self.value),
            log: self.log,
            events: self.events,
            committed_at: self.committed_at,
        }
    }
}
