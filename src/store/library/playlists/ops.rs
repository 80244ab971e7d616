//! Changes of a playlist itself: what is said about it, whether it is there.

use super::{
    change::{Op, Open, refuse},
    rows,
    songs::tell_added,
};
use crate::{
    domain::library::{
        LibraryEvent, MAX_DELETED, MAX_PLAYLISTS, MOST_TOLD, Playlist, PlaylistDeleted,
        PlaylistRefusal, PlaylistUpdate,
    },
    store::error::Failed,
};

type Outcome = Result<Result<Playlist, PlaylistRefusal>, Failed>;

/// Changes name, cover or visibility.
pub(super) struct Update(pub PlaylistUpdate);
/// Deletes it; it can be restored.
pub(super) struct Delete;
/// Brings it back with its songs.
pub(super) struct Restore;

impl Op for Update {
    const NAME: &'static str = "playlist_update";
    type Value = Playlist;

    async fn apply(&self, open: &mut Open<'_, '_, '_>) -> Outcome {
        refuse!(open.in_force());
        if let Some(next) = self.0.applied(&open.playlist) {
            open.playlist = next;
            open.touch();
            let what = LibraryEvent::PlaylistUpdated(open.playlist.clone());
            open.log.append(&what)?;
            open.store().await?;
        }
        Ok(Ok(open.playlist.clone()))
    }
}

impl Op for Delete {
    const NAME: &'static str = "playlist_delete";
    type Value = Playlist;

    async fn apply(&self, open: &mut Open<'_, '_, '_>) -> Outcome {
        // What is so already is so for whoever expects an older version, too: the answer to the first
        // call may have been lost.
        if open.deleted_at.is_some() {
            return Ok(Ok(open.playlist.clone()));
        }
        refuse!(open.expected());
        let deleted_at = open.target.issued.now;
        open.deleted_at = Some(deleted_at);
        let (id, version) = (open.playlist.id, open.touch());
        open.log
            .append(&LibraryEvent::PlaylistDeleted(PlaylistDeleted {
                id,
                version,
                deleted_at,
            }))?;
        open.store().await?;
        rows::purge(open.tx, open.target.issued.user, MAX_DELETED).await?;
        Ok(Ok(open.playlist.clone()))
    }
}

impl Op for Restore {
    const NAME: &'static str = "playlist_restore";
    type Value = Playlist;

    async fn apply(&self, open: &mut Open<'_, '_, '_>) -> Outcome {
        if open.deleted_at.is_none() {
            return Ok(Ok(open.playlist.clone()));
        }
        refuse!(open.expected());
        if rows::count(open.tx, open.target.issued.user).await? >= MAX_PLAYLISTS {
            return Ok(Err(PlaylistRefusal::TooMany));
        }
        open.deleted_at = None;
        open.touch();
        // Without songs: they follow.
        let empty = Playlist {
            song_count: 0,
            ..open.playlist.clone()
        };
        open.log.append(&LibraryEvent::PlaylistRestored(empty))?;
        let count = usize::try_from(open.playlist.song_count).unwrap_or(usize::MAX);
        if count > MOST_TOLD {
            open.tell_replaced()?;
        } else if count > 0 {
            let entries = rows::entries(open.tx, open.playlist.id).await?;
            open.playlist.song_count = 0;
            tell_added(open, None, entries)?;
        }
        open.store().await?;
        Ok(Ok(open.playlist.clone()))
    }
}
