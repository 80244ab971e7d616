use std::collections::HashMap;

use super::*;
use crate::{
    domain::{
        ids::{EntryId, PlaylistId},
        library::{
            MAX_DELETED, MAX_PLAYLISTS, MAX_SONGS, NewPlaylist, Place as Spot, Playlist,
            PlaylistName, PlaylistRefusal as Refusal,
        },
    },
    store::{NewSongs, PlaylistCommand, SongQuery},
};

on_both!(
    moves_among_ten_thousand_touch_few_rows,
    a_full_playlist,
    limits_of_a_user,
    every_event_fits,
    strangers
);

/// A user with a playlist, and the way to change it.
struct Desk<'b> {
    bed: &'b Bed,
    user: UserId,
    id: PlaylistId,
}

impl<'b> Desk<'b> {
    async fn new(bed: &'b Bed) -> Self {
        let user = bed.user().await.user.id;
        let mut desk = Self {
            bed,
            user,
            id: PlaylistId(Uuid::nil()),
        };
        desk.id = desk.create().await.unwrap().id;
        desk
    }

    fn command_on(&self, id: PlaylistId) -> PlaylistCommand {
        PlaylistCommand {
            issued: Issued {
                user: self.user,
                origin: None,
                now: t(1),
                event_id: EventId(self.bed.uuid()),
            },
            id,
            expected: None,
        }
    }

    fn command(&self) -> PlaylistCommand {
        self.command_on(self.id)
    }

    async fn create(&self) -> Result<Playlist, Refusal> {
        let command = self.command_on(PlaylistId(self.bed.uuid()));
        let new = NewPlaylist {
            name: PlaylistName::parse("x").unwrap(),
            cover_url: None,
            is_public: false,
        };
        let (store, soon) = (&self.bed.store, self.bed.soon());
        match store
            .playlist_create(soon, command, new, None)
            .await
            .unwrap()
        {
            Once::Ran(written) => written.value,
            Once::Reused => panic!("there is no key"),
        }
    }

    async fn delete(&self, id: PlaylistId) {
        let (store, soon) = (&self.bed.store, self.bed.soon());
        let written = store.playlist_delete(soon, self.command_on(id)).await;
        written.unwrap().value.unwrap();
    }

    async fn restore(&self, id: PlaylistId) -> Result<Playlist, Refusal> {
        let (store, soon) = (&self.bed.store, self.bed.soon());
        let written = store.playlist_restore(soon, self.command_on(id)).await;
        written.unwrap().value
    }

    async fn fill(&self, count: usize) {
        let songs = (0..count).map(|n| TargetId::parse(format!("s{n}")).unwrap());
        let (store, soon) = (&self.bed.store, self.bed.soon());
        let first = EntryId(self.bed.uuid());
        let written = store
            .playlist_songs_replace(soon, self.command(), songs.collect(), first)
            .await;
        written.unwrap().value.unwrap();
    }

    /// Entries in order, each with its rank.
    async fn ranks(&self) -> Vec<(EntryId, i64)> {
        let query = SongQuery {
            id: self.id,
            user: Some(self.user),
            limit: 20_000,
            after: None,
        };
        let page = self.bed.store.playlist_songs(self.bed.soon(), query).await;
        let page = page.unwrap().unwrap();
        let there = i64::try_from(page.entries.len()).unwrap();
        assert_eq!(page.song_count, there);
        page.entries
            .iter()
            .map(|(entry, rank)| (entry.id, *rank))
            .collect()
    }

    async fn relocate(&self, id: EntryId, place: Spot) {
        let (store, soon) = (&self.bed.store, self.bed.soon());
        let written = store
            .playlist_songs_move(soon, self.command(), vec![id], place)
            .await;
        let written = written.unwrap();
        written.value.unwrap();
        assert_eq!(written.events.len(), 1);
        assert_eq!(written.events[0].event_type, "playlist.songs_moved");
    }
}

/// How many of `before` have another rank in `after`.
fn changed(before: &[(EntryId, i64)], after: &[(EntryId, i64)]) -> usize {
    let was: HashMap<_, _> = before.iter().copied().collect();
    after.iter().filter(|(id, rank)| was[id] != *rank).count()
}

async fn moves_among_ten_thousand_touch_few_rows(bed: &Bed) {
    let desk = Desk::new(bed).await;
    desk.fill(MAX_SONGS).await;
    let mut before = desk.ranks().await;
    assert_eq!(before.len(), MAX_SONGS);
    // To any place: the row itself, no other.
    for (from, to) in [(9_999, 0), (0, 9_999), (5_000, 17), (1, 2)] {
        let (id, place) = (before[from].0, Spot::After(before[to].0));
        desk.relocate(id, place).await;
        let after = desk.ranks().await;
        assert_eq!(changed(&before, &after), 1, "{from} behind {to}");
        let at = after.iter().position(|row| row.0 == id).unwrap();
        assert_eq!(Spot::After(after[at - 1].0), place);
        before = after;
    }
    // Always between the same two: few neighbours each, in the long run.
    bed.sql("CREATE TABLE was (id UUID PRIMARY KEY, rank BIGINT NOT NULL)")
        .await
        .unwrap();
    let moves: u16 = 150;
    let mut rows = 0;
    let (low, high) = (before[4_000].0, before[4_001].0);
    for n in 0..moves {
        let id = before[usize::from(if n % 2 == 0 { n } else { 9_999 - n })].0;
        let place = if n % 3 == 0 {
            Spot::Before(high)
        } else {
            Spot::After(low)
        };
        let now = "DELETE FROM was; INSERT INTO was SELECT id, rank FROM playlist_entries";
        bed.sql(now).await.unwrap();
        desk.relocate(id, place).await;
        rows += bed
            .count(
                "SELECT COUNT(*) FROM playlist_entries e JOIN was ON was.id = e.id
                 WHERE was.rank <> e.rank",
            )
            .await;
    }
    assert!(rows <= 8 * i64::from(moves), "{rows} rows by {moves} moves");
    assert!(rows > i64::from(moves), "the gap was never used up");
}

async fn a_full_playlist(bed: &Bed) {
    let desk = Desk::new(bed).await;
    desk.fill(MAX_SONGS - 1).await;
    let add = async |n: usize| {
        let new = NewSongs {
            place: Spot::Beginning,
            songs: vec![TargetId::parse("x").unwrap(); n],
            first: EntryId(bed.uuid()),
            key: None,
        };
        let once = bed
            .store
            .playlist_songs_add(bed.soon(), desk.command(), new)
            .await;
        match once.unwrap() {
            Once::Ran(written) => written.value.map(|put| put.playlist.song_count),
            Once::Reused => panic!("there is no key"),
        }
    };
    let count = i64::try_from(MAX_SONGS).unwrap();
    assert_eq!(
        add(2).await,
        Err(Refusal::Full {
            song_count: count - 1
        })
    );
    assert_eq!(add(1).await, Ok(count));
    assert_eq!(add(1).await, Err(Refusal::Full { song_count: count }));
    assert_eq!(desk.ranks().await.len(), MAX_SONGS);
}

async fn limits_of_a_user(bed: &Bed) {
    let desk = Desk::new(bed).await;
    let mut ids = vec![desk.id];
    for _ in 1..MAX_PLAYLISTS {
        ids.push(desk.create().await.unwrap().id);
    }
    assert_eq!(desk.create().await, Err(Refusal::TooMany));
    let other = Desk::new(bed).await;
    // Deleted ones make room, but come back only where there is some.
    desk.delete(ids[0]).await;
    let new = desk.create().await.unwrap().id;
    assert_eq!(desk.restore(ids[0]).await, Err(Refusal::TooMany));
    desk.delete(new).await;
    assert_eq!(desk.restore(ids[0]).await.unwrap().id, ids[0]);
    // Of more than can be kept, the one that was deleted first is gone, with its songs.
    other.fill(3).await;
    other.delete(other.id).await;
    let second = other.create().await.unwrap().id;
    other.delete(second).await;
    for _ in 2..MAX_DELETED {
        let id = other.create().await.unwrap().id;
        other.delete(id).await;
    }
    assert_eq!(other.restore(other.id).await.unwrap().song_count, 3);
    other.delete(other.id).await;
    let one_more = other.create().await.unwrap().id;
    other.delete(one_more).await;
    assert_eq!(other.restore(second).await, Err(Refusal::NotFound));
    assert_eq!(other.restore(other.id).await.unwrap().song_count, 3);
    let deleted = bed
        .count("SELECT COUNT(*) FROM playlists WHERE deleted_at IS NOT NULL")
        .await;
    // Without the one that came back, and with the one of the first user.
    assert_eq!(deleted, MAX_DELETED);
}

/// The longest names and songs there may be.
async fn every_event_fits(bed: &Bed) {
    let desk = Desk::new(bed).await;
    let songs = vec![TargetId::parse("x".repeat(128)).unwrap(); 400];
    let new = NewSongs {
        place: Spot::End,
        songs,
        first: EntryId(bed.uuid()),
        key: None,
    };
    let once = bed
        .store
        .playlist_songs_add(bed.soon(), desk.command(), new)
        .await;
    let Once::Ran(written) = once.unwrap() else {
        panic!("there is no key")
    };
    assert!(written.events.len() > 4);
    let told: usize = written
        .events
        .iter()
        .map(|it| {
            assert_eq!(it.event_type, "playlist.songs_added");
            it.data["entries"].as_array().unwrap().len()
        })
        .sum();
    assert_eq!(told, 400);
    let ids: Vec<_> = desk.ranks().await.iter().map(|row| row.0).collect();
    let mut back = ids.clone();
    back.reverse();
    let (store, soon) = (&bed.store, bed.soon());
    let moved = store
        .playlist_songs_move(soon, desk.command(), back, Spot::End)
        .await;
    let moved = moved.unwrap();
    assert_eq!(moved.events[0].event_type, "playlist.songs_moved");
    let removed = store
        .playlist_songs_remove(soon, desk.command(), ids)
        .await
        .unwrap();
    assert_eq!(removed.events[0].event_type, "playlist.songs_removed");
    assert_eq!(removed.value.unwrap().song_count, 0);
}

/// Nobody changes or reads another's; the public ones everybody reads.
async fn strangers(bed: &Bed) {
    let (mine, theirs) = (Desk::new(bed).await, Desk::new(bed).await);
    mine.fill(2).await;
    let (store, soon) = (&bed.store, bed.soon());
    let written = store
        .playlist_delete(soon, theirs.command_on(mine.id))
        .await
        .unwrap();
    assert_eq!(
        (written.value, written.events.len()),
        (Err(Refusal::NotFound), 0)
    );
    let read = async |user: Option<UserId>| {
        let query = SongQuery {
            id: mine.id,
            user,
            limit: 9,
            after: None,
        };
        let songs = store.playlist_songs(soon, query).await.unwrap().is_some();
        let itself = store.playlist_fetch(soon, mine.id, user).await.unwrap();
        assert_eq!(itself.is_some(), songs);
        songs
    };
    assert!(read(Some(mine.user)).await);
    assert!(!read(Some(theirs.user)).await && !read(None).await);
    let public = crate::domain::library::PlaylistUpdate {
        is_public: Some(true),
        ..Default::default()
    };
    store
        .playlist_update(soon, mine.command(), public)
        .await
        .unwrap()
        .value
        .unwrap();
    assert!(read(None).await && !read(Some(theirs.user)).await);
    mine.delete(mine.id).await;
    assert!(!read(None).await && !read(Some(mine.user)).await);
}
