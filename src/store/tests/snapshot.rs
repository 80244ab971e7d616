use super::*;
use crate::{domain::library::SnapshotLine, store::CurrentSnapshot};

on_both!(
    one_user_keeps_nobody_waiting,
    a_newer_one_ends_what_lies_unread,
    slow_readers_keep_nobody_waiting,
    a_reader_may_pause_longer_than_a_command
);

impl Bed {
    /// A snapshot that no newer one ends.
    pub(super) async fn snapshot(&self, user: UserId) -> Snapshot {
        self.in_turn(user, SnapshotTurn::default()).await
    }

    async fn in_turn(&self, user: UserId, turn: SnapshotTurn) -> Snapshot {
        let outcome = self.store.snapshot(self.soon(), user, turn).await;
        let SnapshotOutcome::Begun(snapshot) = outcome.unwrap() else {
            panic!("it did not begin");
        };
        snapshot
    }

    /// Waits until so many places are free, and that of large ones, or not.
    async fn until_free(&self, places: usize, large: bool) {
        let waiting = async {
            while self.store.inner.snapshots.free() != (places, large) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Less than a reader is waited for.
        let waited = tokio::time::timeout(Duration::from_secs(1), waiting).await;
        let free = self.store.inner.snapshots.free();
        assert!(waited.is_ok(), "free: {free:?}, not {:?}", (places, large));
    }

    fn places(&self) -> usize {
        match self.store.engine() {
            Engine::Sqlite => 2,
            Engine::Postgres => 4,
        }
    }
}

async fn one_user_keeps_nobody_waiting(bed: &Bed) {
    let user = hoarder(bed, 40_000).await;
    let modest = bed.user().await.user.id;
    bed.favorites(modest, 3).await;
    let mut current = CurrentSnapshot::default();
    // As many as a session lets in. Nobody reads what begins.
    let (mut unread, mut asked) = (Vec::new(), Vec::new());
    for n in 0..64 {
        let (store, soon, turn) = (bed.store.clone(), bed.soon(), current.replace());
        let ask = tokio::spawn(async move { store.snapshot(soon, user, turn).await });
        if n % 4 != 3 {
            asked.push(ask);
        } else if let SnapshotOutcome::Begun(begun) = ask.await.unwrap().unwrap() {
            // It waits for its reader, or is about to.
            unread.push(begun);
        }
    }
    let began = bed.world.instant();
    let (songs, whole) = songs(bed.snapshot(modest).await).await;
    assert_eq!((songs, whole), (0, true));
    // No longer than one that does not fit into memory waits for another such.
    assert!(bed.world.instant() - began < Duration::from_secs(1));
    // The last one is there, and nothing of the others.
    assert_eq!(unread.len(), 16);
    bed.until_free(bed.places() - 1, false).await;
    for ended in &mut unread[..15] {
        assert!(ended.lines.recv().await.is_none());
    }
    for ask in asked {
        match ask.await.unwrap().unwrap() {
            SnapshotOutcome::Begun(mut ended) => assert!(ended.lines.recv().await.is_none()),
            outcome => assert!(matches!(outcome, SnapshotOutcome::Replaced)),
        }
    }
    assert!(unread[15].lines.recv().await.is_some());
    assert!(current.is_going());
    // The session ends, and so does it.
    drop(current);
    bed.until_free(bed.places(), true).await;
    assert!(unread[15].lines.recv().await.is_none());
}

async fn a_newer_one_ends_what_lies_unread(bed: &Bed) {
    let user = bed.user().await.user.id;
    bed.favorites(user, 3).await;
    let mut current = CurrentSnapshot::default();
    let mut unread = bed.in_turn(user, current.replace()).await;
    // All of it is in memory.
    bed.until_free(bed.places(), true).await;
    assert!(current.is_going());
    let newer = bed.in_turn(user, current.replace()).await;
    assert!(unread.lines.recv().await.is_none());
    assert_eq!(songs(newer).await, (0, true));
    drop(unread);
    // Nobody reads it, and who worked for it is done.
    let over = async {
        while current.is_going() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let over = tokio::time::timeout(Duration::from_secs(1), over).await;
    assert!(over.is_ok(), "it is still on its way");
    // A reader who waits hears of it.
    let large = hoarder(bed, 40_000).await;
    let reading = bed.in_turn(large, current.replace()).await;
    let reading = tokio::spawn(songs(reading));
    let newer = bed.in_turn(large, current.replace()).await;
    let (_, whole) = reading.await.unwrap();
    assert!(!whole);
    assert_eq!(songs(newer).await, (40_000, true));
}

/// A user with one playlist of many songs.
async fn hoarder(bed: &Bed, songs: u32) -> UserId {
    let user = bed.user().await.user.id;
    let list = bed.uuid();
    let (open, close) = match bed.store.engine() {
        Engine::Sqlite => ("X'", "'"),
        Engine::Postgres => ("'", "'::uuid"),
    };
    let id = |it: Uuid| format!("{open}{}{close}", it.simple());
    let now = "'2026-11-20T10:00:00+00:00'";
    bed.sql(&format!(
        "INSERT INTO playlists VALUES ({}, {}, 'n', NULL, FALSE, {songs}, 1, {now}, {now}, NULL)",
        id(list),
        id(user.0)
    ))
    .await
    .unwrap();
    for from in (0..songs).step_by(1000) {
        let rows: Vec<_> = (from..songs.min(from + 1000))
            .map(|n| format!("({}, {}, 'song', {n}, {now})", id(list), id(bed.uuid())))
            .collect();
        let rows = rows.join(", ");
        bed.sql(&format!("INSERT INTO playlist_entries VALUES {rows}"))
            .await
            .unwrap();
    }
    user
}

async fn slow_readers_keep_nobody_waiting(bed: &Bed) {
    let hoarders = [hoarder(bed, 40_000).await, hoarder(bed, 40_000).await];
    let modest = bed.user().await.user.id;
    bed.favorites(modest, 3).await;
    // More than there are places, none of them read: two do not fit into memory.
    let mut unread = Vec::new();
    for user in hoarders.into_iter().chain([modest; 8]) {
        unread.push(bed.snapshot(user).await);
    }
    // What fits is there in whole.
    let mut last = unread.pop().unwrap();
    let mut lines = Vec::new();
    while let Some(batch) = last.lines.recv().await {
        lines.extend(batch.lines);
    }
    assert!(matches!(lines.last(), Some(SnapshotLine::End(end)) if end.lines == 5));
    // One of the large ones goes on when it is read, and is whole. The other was perhaps given up
    // by then: there is one place for what does not fit into memory.
    let mut large = unread.into_iter();
    let (first, second) = (large.next().unwrap(), large.next().unwrap());
    let read = tokio::join!(songs(first), songs(second));
    let whole = (40_000, true);
    assert!(read.0 == whole || read.1 == whole, "{read:?}");
}

/// Commands may take a second here, so other transactions may pause for two.
async fn a_reader_may_pause_longer_than_a_command(bed: &Bed) {
    let user = hoarder(bed, 40_000).await;
    let mut config = bed.config.clone();
    config.write_timeout = Duration::from_secs(1);
    let store = open(&config).await.unwrap();
    let turn = SnapshotTurn::default();
    let outcome = store.snapshot(bed.soon(), user, turn).await.unwrap();
    let SnapshotOutcome::Begun(snapshot) = outcome else {
        panic!("it did not begin");
    };
    // The pause is what this is about; nothing can be waited for.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(songs(snapshot).await, (40_000, true));
    store.close().await;
}

/// Reads it: how many songs it has, and whether it is whole.
async fn songs(mut snapshot: Snapshot) -> (usize, bool) {
    let (mut songs, mut ended) = (0, false);
    while let Some(batch) = snapshot.lines.recv().await {
        for line in batch.lines {
            match line {
                SnapshotLine::Entries(it) => songs += it.entries.len(),
                SnapshotLine::End(_) => ended = true,
                _ => {}
            }
        }
    }
    (songs, ended)
}
