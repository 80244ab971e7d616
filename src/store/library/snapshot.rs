//! The whole library of a user, from one consistent read.
//!
//! The read has a transaction of its own, so that all lines are of the moment that the first one
//! names. It keeps a connection, so only some may run at a time. What fits into memory is read at
//! once, however slow the reader is; a larger one goes at its reader's pace, apart from the others,
//! and is given up when that is too slow: a database must not hold an old moment for ever.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Connection};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{FavoriteRow, history::PlayRow, player::PlayerRow, playlists::PlaylistRow};
use crate::{
    domain::{
        clock::World,
        ids::{EntryId, PlaylistId, UserId},
        library::{
            Entry, HistoryState, Playlist, SnapshotEnd, SnapshotEntries, SnapshotHead,
            SnapshotLine, TargetId,
        },
    },
    store::{
        Db, Inner, Store, StoreError, Tx,
        error::{Failed, sql_error},
        on_tx,
        sync::{HeadRow, pieces, places},
    },
};

/// Lines that are handed over at once.
const BATCH: usize = 64;
/// Bytes of lines that may wait for a reader, about.
const WAITING: usize = 4 << 20;
/// Songs in one line.
const ENTRIES: usize = 100;
/// A reader who takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// A reader who takes less than so many bytes a second, after [`GRACE`], is given up too.
const PACE: u64 = 1 << 20;
const GRACE: Duration = Duration::from_secs(30);
/// Whatever happens, a read is over by then: also one of a database that fell silent.
const LONGEST: Duration = Duration::from_mins(15);
/// The name in logs and metrics.
const NAME: &str = "snapshot";

/// A snapshot that is being read. The last batch ends with [`SnapshotLine::End`]; if none does, the
/// read failed.
#[derive(Debug)]
pub struct Snapshot {
    /// Where in the log it stands.
    pub head: SnapshotHead,
    /// The lines after the first, in batches.
    pub lines: mpsc::UnboundedReceiver<Batch>,
}

/// Some lines. Dropping them makes room for others.
#[derive(Debug)]
pub struct Batch {
    /// In order.
    pub lines: Vec<SnapshotLine>,
    _room: OwnedSemaphorePermit,
}

/// Places for reads of snapshots: a connection each.
pub(in crate::store) struct Places {
    any: Arc<Semaphore>,
    /// For one that does not fit into memory: it may take long, and must not keep others from theirs.
    large: Arc<Semaphore>,
}

impl Places {
    /// At most half of `readers`: the other half is for who waits for a short answer.
    pub(in crate::store) fn new(readers: u32) -> Self {
        Self {
            any: Arc::new(Semaphore::new((readers / 2).max(1) as usize)),
            large: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Store {
    /// Begins to read everything that a user keeps. `None` when there is no such user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshot(
        &self,
        deadline: Instant,
        user: UserId,
    ) -> Result<Option<Snapshot>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let asked = inner.world.instant();
        let left = deadline.saturating_duration_since(asked);
        let place = timeout(left, Arc::clone(&inner.snapshots.any).acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(StoreError::Deadline);
        };
        // Bounded by the room that each batch takes.
        let (lines, reader) = mpsc::unbounded_channel();
        let (begun, head) = oneshot::channel();
        let run = Run {
            user,
            begun: Some(begun),
            lines: Batches {
                waiting: Vec::with_capacity(BATCH),
                size: 0,
                count: 1,
                sent: 0,
                begun: asked,
                room: Arc::new(Semaphore::new(WAITING)),
                place: Some(place),
                large: Arc::clone(&inner.snapshots.large),
                world: inner.world.clone(),
                lines,
            },
        };
        self.inner.rt.spawn(async move {
            let run = timeout(LONGEST, run.run(&inner, deadline));
            let result = run.await.unwrap_or(Err(StoreError::Deadline));
            let took = inner.world.instant().saturating_duration_since(asked);
            inner.metrics.read(NAME, took, result.as_ref().err());
        });
        // The sender goes without a word only if the task failed, which it said in the log.
        let head = head.await.unwrap_or(Err(StoreError::Unavailable))?;
        Ok(head.map(|head| Snapshot {
            head,
            lines: reader,
        }))
    }
}

type Begun = oneshot::Sender<Result<Option<SnapshotHead>, StoreError>>;

struct Run {
    user: UserId,
    begun: Option<Begun>,
    lines: Batches,
}

/// Lines on their way to the reader.
struct Batches {
    waiting: Vec<SnapshotLine>,
    /// Bytes of those, about.
    size: usize,
    count: u64,
    /// Bytes that were handed over.
    sent: u64,
    begun: Instant,
    room: Arc<Semaphore>,
    place: Option<OwnedSemaphorePermit>,
    large: Arc<Semaphore>,
    world: World,
    lines: mpsc::UnboundedSender<Batch>,
}

/// Why a snapshot ended early.
enum Stop {
    Failed(Failed),
    /// Nobody reads it, or too slowly.
    Left,
}

impl<E: Into<Failed>> From<E> for Stop {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

impl Batches {
    async fn push(&mut self, line: SnapshotLine) -> Result<(), Stop> {
        self.count += 1;
        self.size += size(&line);
        self.waiting.push(line);
        if self.waiting.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        let lines = std::mem::replace(&mut self.waiting, Vec::with_capacity(BATCH));
        let size = std::mem::take(&mut self.size).min(WAITING);
        let units = u32::try_from(size).unwrap_or(u32::MAX);
        let room = match Arc::clone(&self.room).try_acquire_many_owned(units) {
            Ok(room) => room,
            Err(_) => self.wait_for_room(units).await?,
        };
        self.sent += u64::from(units);
        let batch = Batch { lines, _room: room };
        self.lines.send(batch).map_err(|_| Stop::Left)
    }

    /// The reader is slower than the database.
    async fn wait_for_room(&mut self, units: u32) -> Result<OwnedSemaphorePermit, Stop> {
        let now = self.world.instant();
        let due = self.begun + GRACE + Duration::from_secs(self.sent / PACE);
        let left = due.saturating_duration_since(now).min(PATIENCE);
        let wait = async {
            if self.place.take().is_some() {
                // From here on it goes at its reader's pace, and no longer in others' way.
                let place = Arc::clone(&self.large).acquire_owned().await.ok()?;
                self.place = Some(place);
            }
            let room = Arc::clone(&self.room).acquire_many_owned(units);
            tokio::select! {
                room = room => room.ok(),
                () = self.lines.closed() => None,
            }
        };
        timeout(left, wait).await.ok().flatten().ok_or(Stop::Left)
    }
}

/// Bytes that a line takes, about.
fn size(line: &SnapshotLine) -> usize {
    match line {
        SnapshotLine::Favorite(_) | SnapshotLine::History(_) | SnapshotLine::End(_) => 200,
        SnapshotLine::Play(it) => 300 + it.song_name.len() + it.artist_name.len(),
        SnapshotLine::Playlist(_) | SnapshotLine::Player(_) => 2000,
        SnapshotLine::Entries(it) => 100 + 150 * it.entries.len(),
    }
}

impl Run {
    async fn run(mut self, inner: &Inner, deadline: Instant) -> Result<(), StoreError> {
        let result = match &inner.db {
            Db::Sqlite(pool) => match acquired(inner, deadline, pool.acquire()).await {
                Ok(mut conn) => match conn.begin().await {
                    Ok(tx) => self.read(Tx::Sqlite(tx)).await,
                    Err(e) => Err(e.into()),
                },
                Err(e) => Err(e.into()),
            },
            Db::Postgres(pool) => match acquired(inner, deadline, pool.acquire()).await {
                Ok(mut conn) => {
                    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                    match conn.begin_with(begin).await {
                        Ok(tx) => self.read(Tx::Postgres(tx)).await,
                        Err(e) => Err(e.into()),
                    }
                }
                Err(e) => Err(e.into()),
            },
        };
        match result {
            Ok(()) => Ok(()),
            // Counted like a read that took too long.
            Err(Stop::Left) => Err(StoreError::Deadline),
            Err(Stop::Failed(failed)) => {
                let error = failed.into_error(NAME);
                if let Some(begun) = self.begun.take() {
                    let _ = begun.send(Err(error));
                }
                Err(error)
            }
        }
    }

    async fn read(&mut self, mut tx: Tx<'_>) -> Result<(), Stop> {
        let tx = &mut tx;
        let head: Option<HeadRow> = on_tx!(tx, conn => sqlx::query_as(
            "SELECT user_id, epoch, head_seq, floor_seq FROM user_logs WHERE user_id = $1")
            .bind(self.user).fetch_optional(conn).await?);
        let head = head.map(|row| row.head());
        let first = head.map(|log| SnapshotHead {
            epoch: log.epoch,
            seq: log.head_seq,
        });
        let told = self.begun.take().map(|begun| begun.send(Ok(first)));
        if first.is_none() || !matches!(told, Some(Ok(()))) {
            return Ok(());
        }
        self.favorites(tx).await?;
        self.history(tx).await?;
        self.playlists(tx).await?;
        self.player(tx).await?;
        let lines = self.lines.count + 1;
        self.lines
            .push(SnapshotLine::End(SnapshotEnd { lines }))
            .await?;
        self.lines.flush().await
    }

    async fn favorites(&mut self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let rows: Vec<FavoriteRow> = on_tx!(tx, conn => sqlx::query_as(
            "SELECT id, type, target_id, created_at FROM favorites
             WHERE user_id = $1 AND deleted_at IS NULL ORDER BY created_at, id")
            .bind(self.user).fetch_all(conn).await?);
        for row in rows {
            let favorite = row.into_favorite()?;
            self.lines.push(SnapshotLine::Favorite(favorite)).await?;
        }
        Ok(())
    }

    async fn history(&mut self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let cleared_at: Option<DateTime<Utc>> = on_tx!(tx, conn => sqlx::query_scalar(
            "SELECT cleared_at FROM histories WHERE user_id = $1")
            .bind(self.user).fetch_optional(conn).await?);
        if let Some(cleared_at) = cleared_at {
            let state = HistoryState { cleared_at };
            self.lines.push(SnapshotLine::History(state)).await?;
        }
        let rows: Vec<PlayRow> = on_tx!(tx, conn => sqlx::query_as(
            "SELECT id, song_id, song_name, artist_name, duration, played_at FROM plays
             WHERE user_id = $1 AND deleted_at IS NULL ORDER BY played_at, id")
            .bind(self.user).fetch_all(conn).await?);
        for row in rows {
            self.lines.push(SnapshotLine::Play(row.into_play())).await?;
        }
        Ok(())
    }

    async fn playlists(&mut self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let rows: Vec<PlaylistRow> = on_tx!(tx, conn => sqlx::query_as(
            "SELECT id, name, cover_url, is_public, song_count, version, created_at, updated_at
             FROM playlists WHERE user_id = $1 AND deleted_at IS NULL ORDER BY id")
            .bind(self.user).fetch_all(conn).await?);
        let playlists: Vec<_> = rows.into_iter().map(Playlist::from).collect();
        // In groups of about so many songs: a statement for each playlist would cost most, and one
        // for all of them could bring millions of rows at once.
        for group in groups(&playlists, 10_000) {
            self.group(tx, group).await?;
        }
        Ok(())
    }

    async fn group(&mut self, tx: &mut Tx<'_>, playlists: &[Playlist]) -> Result<(), Stop> {
        for piece in pieces(playlists) {
            let sql = format!(
                "SELECT playlist_id, id, song_id, added_at FROM playlist_entries
                 WHERE playlist_id IN ({}) ORDER BY playlist_id, rank, id",
                places(piece.len(), 1)
            );
            let rows: Vec<EntryRow> = on_tx!(tx, conn => {
                let mut query = sqlx::query_as(AssertSqlSafe(sql));
                for playlist in piece {
                    query = query.bind(playlist.id);
                }
                query.fetch_all(conn).await?
            });
            let mut rows = rows.into_iter().peekable();
            for playlist in piece {
                let id = playlist.id;
                self.lines
                    .push(SnapshotLine::Playlist(playlist.clone()))
                    .await?;
                loop {
                    let mine = std::iter::from_fn(|| rows.next_if(|row| row.playlist_id == id));
                    let entries: Vec<_> = mine.take(ENTRIES).map(EntryRow::into_entry).collect();
                    if entries.is_empty() {
                        break;
                    }
                    let entries = SnapshotEntries {
                        playlist_id: id,
                        entries,
                    };
                    self.lines.push(SnapshotLine::Entries(entries)).await?;
                }
            }
        }
        Ok(())
    }

    async fn player(&mut self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let row: Option<PlayerRow> = on_tx!(tx, conn => sqlx::query_as(
            "SELECT d.device_id AS active_device_id, p.version, p.playing, p.reported_at
             FROM players p LEFT JOIN devices d ON d.id = p.active_device WHERE p.user_id = $1")
            .bind(self.user).fetch_optional(conn).await?);
        if let Some(row) = row {
            let player = row.into_player();
            self.lines.push(SnapshotLine::Player(player)).await?;
        }
        Ok(())
    }
}

async fn acquired<T>(
    inner: &Inner,
    deadline: Instant,
    acquire: impl Future<Output = sqlx::Result<T>>,
) -> Result<T, StoreError> {
    let left = deadline.saturating_duration_since(inner.world.instant());
    match timeout(left, acquire).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(e)) => Err(sql_error(NAME, &e)),
        Err(_) => Err(StoreError::Deadline),
    }
}

/// `all` in pieces of about so many songs.
fn groups(mut all: &[Playlist], songs: i64) -> impl Iterator<Item = &[Playlist]> {
    std::iter::from_fn(move || {
        let mut count = 0;
        let fit = all.iter().take_while(|it| {
            count += it.song_count;
            count <= songs
        });
        let length = fit.count().max(1).min(all.len());
        let (group, rest) = all.split_at(length);
        all = rest;
        (!group.is_empty()).then_some(group)
    })
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    playlist_id: PlaylistId,
    id: EntryId,
    song_id: TargetId,
    added_at: DateTime<Utc>,
}

impl EntryRow {
    fn into_entry(self) -> Entry {
        Entry {
            id: self.id,
            song_id: self.song_id,
            added_at: self.added_at,
        }
    }
}
