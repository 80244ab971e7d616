//! The user's playlists: how a session answers what it is asked about them.

use std::time::Instant;

use super::{
    UserSession,
    playlist_messages::{
        AddSongs, Changed, CreatePlaylist, DeletePlaylist, ListPlaylists, MoveSongs, OrderSongs,
        PlaylistTarget, ReadPlaylist, ReadSongs, RemoveSongs, ReplaceSongs, RestorePlaylist,
        UpdatePlaylist,
    },
};
use crate::{
    actors::{
        Failure,
        kernel::{Cx, Reply, Serve},
        library::forget_after,
    },
    domain::{
        ids::{EntryId, Epoch, PlaylistId},
        library::{Playlist, PlaylistRefusal, SongPage, SongsPut},
    },
    store::{
        NewSongs, Once, PlaylistCommand, PlaylistQuery, SongQuery, Store, StoreError, Written,
    },
};

type Answer<T> = Reply<UserSession, Result<T, Failure>>;

impl UserSession {
    /// Runs a change of one playlist in its turn.
    fn change_playlist<F>(
        &mut self,
        target: PlaylistTarget,
        cx: &mut Cx<'_, Self>,
        work: impl FnOnce(Store, Instant, PlaylistCommand) -> F + 'static,
    ) -> Answer<Changed>
    where
        F: Future<Output = Result<Written<Result<Playlist, PlaylistRefusal>>, StoreError>>
            + 'static,
    {
        let PlaylistTarget {
            id,
            expected,
            origin,
        } = target;
        let issued = match self.issued(origin, cx) {
            Ok(issued) => issued,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let command = PlaylistCommand {
            issued,
            id,
            expected,
        };
        let asked_at = cx.world.instant();
        let public = self.parts.public.clone();
        self.in_turn(
            cx,
            move |store, deadline| {
                let work = work(store, deadline, command);
                forget_after(public, id, work, |written| !written.events.is_empty())
            },
            move |session, written, cx| Ok(session.announce(asked_at, written, cx)),
        )
    }
}

impl Serve<CreatePlaylist> for UserSession {
    fn serve(&mut self, it: CreatePlaylist, cx: &mut Cx<'_, Self>) -> Answer<Changed> {
        let CreatePlaylist { new, origin, key } = it;
        let issued = self.issued(origin, cx);
        let ids = issued.and_then(|issued| Ok((issued, PlaylistId(cx.world.uuid()?))));
        let (issued, id) = match ids {
            Ok(ids) => ids,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let command = PlaylistCommand {
            issued,
            id,
            expected: None,
        };
        let asked_at = cx.world.instant();
        self.in_turn(
            cx,
            move |store, deadline| async move {
                store.playlist_create(deadline, command, new, key).await
            },
            move |session, once, cx| session.announce_once(asked_at, once, cx),
        )
    }
}

impl Serve<UpdatePlaylist> for UserSession {
    fn serve(&mut self, it: UpdatePlaylist, cx: &mut Cx<'_, Self>) -> Answer<Changed> {
        let update = it.update;
        self.change_playlist(it.target, cx, move |store, deadline, command| async move {
            store.playlist_update(deadline, command, update).await
        })
    }
}

impl Serve<DeletePlaylist> for UserSession {
    fn serve(&mut self, it: DeletePlaylist, cx: &mut Cx<'_, Self>) -> Answer<Changed> {
        self.change_playlist(it.0, cx, |store, deadline, command| async move {
            store.playlist_delete(deadline, command).await
        })
    }
}

impl Serve<RestorePlaylist> for UserSession {
    fn serve(&mut self, it: RestorePlaylist, cx: &mut Cx<'_, Self>) -> Answer<Changed> {
        self.change_playlist(it.0, cx, |store, deadline, command| async move {
            store.playlist_restore(deadline, command).await
        })
    }
}

impl Serve<AddSongs> for UserSession {
    fn serve(&mut self, it: AddSongs, cx: &mut Cx<'_, Self>) -> Answer<Changed<SongsPut>> {
        let AddSongs {
            target,
            place,
            songs,
            key,
        } = it;
        let PlaylistTarget {
            id,
            expected,
            origin,
        } = target;
        let issued = self.issued(origin, cx);
        let ids = issued.and_then(|issued| Ok((issued, EntryId(cx.world.uuid()?))));
        let (issued, first) = match ids {
            Ok(ids) => ids,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let command = PlaylistCommand {
            issued,
            id,
            expected,
        };
        let new = NewSongs {
            place,
            songs,
            first,
            key,
        };
        let asked_at = cx.world.instant();
        let public = self.parts.public.clone();
        self.in_turn(
            cx,
            move |store, deadline| async move {
                let work = store.playlist_songs_add(deadline, command, new);
                let changed = |once: &Once<_>| match once {
                    Once::Ran(written) => !written.events.is_empty(),
                    Once::Reused => false,
                };
                forget_after(public, id, work, changed).await
            },
            move |session, once, cx| session.announce_once(asked_at, once, cx),
        )
    }
}

impl Serve<RemoveSongs> for UserSession {
    fn serve(&mut self, it: RemoveSongs, cx: &mut Cx<'_, Self>) -> Answer<Changed> {
        let entries = it.entries;
        self.change_playlist(it.target, cx, move |store, deadline, command| async move {
            store
                .playlist_songs_remove(deadline, command, entries)
                .await
        })
    }
}

impl Serve<MoveSongs> for UserSession {
    fn serve(&mut self, it: MoveSongs, cx: &mut Cx<'_, Self>) -> Answer<Changed> {
        let MoveSongs {
            target,
            entries,
            place,
        } = it;
        self.change_playlist(target, cx, move |store, deadline, command| async move {
            store
                .playlist_songs_move(deadline, command, entries, place)
                .await
        })
    }
}

impl Serve<OrderSongs> for UserSession {
    fn serve(&mut self, it: OrderSongs, cx: &mut Cx<'_, Self>) -> Answer<Changed> {
        let entries = it.entries;
        self.change_playlist(it.target, cx, move |store, deadline, command| async move {
            store
                .playlist_songs_reorder(deadline, command, entries)
                .await
        })
    }
}

impl Serve<ReplaceSongs> for UserSession {
    fn serve(&mut self, it: ReplaceSongs, cx: &mut Cx<'_, Self>) -> Answer<Changed> {
        let first = match cx.world.uuid() {
            Ok(id) => EntryId(id),
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let songs = it.songs;
        self.change_playlist(it.target, cx, move |store, deadline, command| async move {
            store
                .playlist_songs_replace(deadline, command, songs, first)
                .await
        })
    }
}

impl Serve<ListPlaylists> for UserSession {
    fn serve(&mut self, it: ListPlaylists, cx: &mut Cx<'_, Self>) -> Answer<Vec<Playlist>> {
        let (store, deadline) = (self.parts.store.clone(), self.deadline(cx));
        let ListPlaylists {
            deleted,
            limit,
            before,
        } = it;
        let query = PlaylistQuery {
            user: self.user,
            deleted,
            limit,
            before,
        };
        Self::read(async move { store.playlist_list(deadline, query).await })
    }
}

impl Serve<ReadPlaylist> for UserSession {
    fn serve(
        &mut self,
        it: ReadPlaylist,
        cx: &mut Cx<'_, Self>,
    ) -> Answer<Option<(Playlist, Epoch)>> {
        let (store, user, deadline) = (self.parts.store.clone(), self.user, self.deadline(cx));
        Self::read(async move { store.playlist_fetch(deadline, it.0, Some(user)).await })
    }
}

impl Serve<ReadSongs> for UserSession {
    fn serve(&mut self, it: ReadSongs, cx: &mut Cx<'_, Self>) -> Answer<Option<SongPage>> {
        let (store, deadline) = (self.parts.store.clone(), self.deadline(cx));
        let ReadSongs { id, limit, after } = it;
        let query = SongQuery {
            id,
            user: Some(self.user),
            limit,
            after,
        };
        Self::read(async move { store.playlist_songs(deadline, query).await })
    }
}
