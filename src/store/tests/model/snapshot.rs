//! The snapshot has what the lists have, and stands where the log does.

use std::collections::HashMap;

use super::*;
use crate::{
    domain::{
        ids::PlaylistId,
        library::{Entry, SnapshotLine},
    },
    store::{HistoryQuery, PlaylistQuery, SongQuery},
};

/// More than anything that is listed here.
const ALL: u32 = 20_000;

/// `clearing`: up to when the history was cleared.
pub(super) async fn agrees(bed: &Bed, user: UserId, head: i64, clearing: Option<DateTime<Utc>>) {
    let (store, soon) = (&bed.store, bed.soon());
    let mut snapshot = bed.snapshot(user).await;
    assert_eq!(snapshot.head.seq, head);
    let (mut favorites, mut plays, mut playlists) = (Vec::new(), Vec::new(), Vec::new());
    let mut songs: HashMap<PlaylistId, Vec<Entry>> = HashMap::new();
    let (mut count, mut end) = (1, None);
    let (mut cleared_at, mut player) = (None, None);
    while let Some(batch) = snapshot.lines.recv().await {
        for line in batch.lines {
            assert!(end.is_none(), "a line after the last");
            count += 1;
            match line {
                SnapshotLine::Favorite(it) => favorites.push(it),
                SnapshotLine::Play(it) => plays.push(it),
                SnapshotLine::Playlist(it) => playlists.push(it),
                SnapshotLine::Entries(it) => {
                    assert_eq!(playlists.last().unwrap().id, it.playlist_id);
                    songs.entry(it.playlist_id).or_default().extend(it.entries);
                }
                SnapshotLine::History(it) => assert_eq!(cleared_at.replace(it.cleared_at), None),
                SnapshotLine::Player(it) => assert_eq!(player.replace(it), None),
                SnapshotLine::End(it) => end = Some(it.lines),
            }
        }
    }
    assert_eq!(end, Some(count), "it is whole");
    assert_eq!(cleared_at, clearing);
    let (_, stored) = store.player_fetch(soon, user).await.unwrap().unwrap();
    assert_eq!(player.unwrap_or_default(), stored);

    let query = FavoriteQuery {
        user,
        kind: None,
        limit: ALL,
        before: None,
    };
    favorites.reverse();
    assert_eq!(favorites, store.favorite_list(soon, query).await.unwrap());
    let query = HistoryQuery {
        user,
        limit: ALL,
        before: None,
    };
    plays.reverse();
    assert_eq!(plays, store.history_list(soon, query).await.unwrap());
    let query = PlaylistQuery {
        user,
        deleted: false,
        limit: ALL,
        before: None,
    };
    playlists.sort_by_key(|it| std::cmp::Reverse((it.created_at, it.id)));
    assert_eq!(playlists, store.playlist_list(soon, query).await.unwrap());
    for playlist in playlists {
        let query = SongQuery {
            id: playlist.id,
            user: Some(user),
            limit: ALL,
            after: None,
        };
        let page = store.playlist_songs(soon, query).await.unwrap().unwrap();
        let told = songs.remove(&playlist.id).unwrap_or_default();
        assert_eq!(told.len(), usize::try_from(playlist.song_count).unwrap());
        let listed: Vec<_> = page.entries.into_iter().map(|it| it.0).collect();
        assert_eq!(told, listed);
    }
    assert!(songs.is_empty(), "songs of no playlist");
}
