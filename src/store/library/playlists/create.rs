//! Makes playlists.

use std::time::Instant;

use super::{PlaylistCommand, PlaylistOutcome, rows};
use crate::{
    domain::library::{LibraryEvent, MAX_PLAYLISTS, NewPlaylist, Playlist, PlaylistRefusal},
    store::{
        Issued, Tx, Written, command::Command, error::Failed, idempotency::OfUser, sync::OpenLog,
    },
};

/// Makes a playlist with the id of the command.
pub(super) struct Create {
    pub target: PlaylistCommand,
    pub new: NewPlaylist,
}

impl OfUser for Create {
    fn issued(&self) -> &Issued {
        &self.target.issued
    }
}

impl Command for Create {
    const NAME: &'static str = "playlist_create";
    type Out = Written<PlaylistOutcome>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let issued = &self.target.issued;
        let mut log = OpenLog::lock(tx, issued).await?;
        if rows::count(tx, issued.user).await? >= MAX_PLAYLISTS {
            return log.close(tx, Err(PlaylistRefusal::TooMany)).await;
        }
        let NewPlaylist {
            name,
            cover_url,
            is_public,
        } = &self.new;
        let playlist = Playlist {
            id: self.target.id,
            name: name.as_str().to_owned(),
            cover_url: cover_url.as_ref().map(|url| url.as_str().to_owned()),
            is_public: *is_public,
            song_count: 0,
            version: log.next_seq(),
            created_at: issued.now,
            updated_at: issued.now,
        };
        rows::insert(tx, issued.user, &playlist).await?;
        log.append(&LibraryEvent::PlaylistCreated(playlist.clone()))?;
        log.close(tx, Ok(playlist)).await
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }
}
