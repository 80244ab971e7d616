use super::*;
use crate::domain::library::SnapshotLine;

on_both!(
    slow_readers_keep_nobody_waiting,
    a_reader_may_pause_longer_than_a_command
);

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
        let snapshot = bed.store.snapshot(bed.soon(), user).await.unwrap();
        unread.push(snapshot.unwrap());
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
    let snapshot = store.snapshot(bed.soon(), user).await.unwrap().unwrap();
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
