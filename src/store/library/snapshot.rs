//! The whole library of a user, from one consistent read.
//!
//! The read has a transaction of its own, so that all lines are of the moment that the first one
//! names. It keeps a connection, so only some may run at a time, and one of a user. What fits into
//! memory is read at once, however slow the reader is; a larger one goes at its reader's pace, one at a
//! time, and is given up when that is too slow: a database must not hold an old moment for ever. A
//! newer one of the same user ends it at once, wherever it is.

mod batches;
mod places;
mod turn;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Connection};
use tokio::{sync::oneshot, time::timeout};

pub(in crate::store) use self::places::Places;
pub use self::turn::{CurrentSnapshot, SnapshotLines, SnapshotTurn};
use self::{
    batches::{Batches, Stop},
    turn::Going,
};
use super::{FavoriteRow, history::PlayRow, player::PlayerRow, playlists::PlaylistRow};
use crate::{
    domain::{
        ids::{EntryId, PlaylistId, UserId},
        library::{
            Entry, HistoryState, Playlist, SnapshotEnd, SnapshotEntries, SnapshotHead,
            SnapshotLine, TargetId,
        },
    },
    store::{
        Db, Inner, Store, StoreError, Tx,
        error::sql_error,
        on_tx,
        sync::{HeadRow, pieces, places},
    },
};

/// Songs in one line.
const ENTRIES: usize = 100;
/// Whatever happens, a read is over by then: also one of a database that fell silent.
const LONGEST: Duration = Duration::from_mins(15);
/// The name in logs and metrics.
const NAME: &str = "snapshot";

/// A snapshot that is being read. The last batch ends with [`SnapshotLine::End`]; if none does, the
/// read failed, or it was ended.
#[derive(Debug)]
pub struct Snapshot {
    /// Where in the log it stands.
    pub head: SnapshotHead,
    /// The lines after the first, in batches.
    pub lines: SnapshotLines,
}

/// What became of an ask for a snapshot.
#[derive(Debug)]
pub enum SnapshotOutcome {
    /// It is on its way.
    Begun(Snapshot),
    /// A newer one was asked for before it began.
    Replaced,
    /// There is no such user.
    NoUser,
}

impl Store {
    /// Begins to read everything that a user keeps, until the turn is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshot(
        &self,
        deadline: Instant,
        user: UserId,
        turn: SnapshotTurn,
    ) -> Result<SnapshotOutcome, StoreError> {
        let inner = Arc::clone(&self.inner);
        let asked = inner.world.instant();
        let left = deadline.saturating_duration_since(asked);
        let going = Arc::clone(&turn.going);
        // Whoever asked and no longer waits ends it too.
        let lines = SnapshotLines(Arc::clone(&going));
        let place = timeout(left, inner.snapshots.take());
        let place = match going.unless_ended(place).await {
            Some(Ok(Ok(place))) => place,
            Some(_) => return Err(StoreError::Deadline),
            None => return Ok(SnapshotOutcome::Replaced),
        };
        let (begun, head) = oneshot::channel();
        let run = Run {
            user,
            begun: Some(begun),
            lines: Batches::new(turn, place, &inner.world),
        };
        let working = Arc::clone(&going);
        self.inner.rt.spawn(async move {
            let result = run.until_ended(&inner, deadline, &working).await;
            let took = inner.world.instant().saturating_duration_since(asked);
            inner.metrics.read(NAME, took, result.as_ref().err());
        });
        match head.await {
            Ok(Ok(Some(head))) => Ok(SnapshotOutcome::Begun(Snapshot { head, lines })),
            Ok(Ok(None)) => Ok(SnapshotOutcome::NoUser),
            Ok(Err(e)) => Err(e),
            Err(_) if going.has_ended() => Ok(SnapshotOutcome::Replaced),
            // The task failed, which it said in the log, or took too long.
            Err(_) => Err(StoreError::Unavailable),
        }
    }
}

type Begun = oneshot::Sender<Result<Option<SnapshotHead>, StoreError>>;

struct Run {
    user: UserId,
    begun: Option<Begun>,
    lines: Batches,
}

impl Run {
    async fn until_ended(
        self,
        inner: &Inner,
        deadline: Instant,
        going: &Going,
    ) -> Result<(), StoreError> {
        let run = timeout(LONGEST, Box::pin(self.run(inner, deadline)));
        match going.unless_ended(run).await {
            Some(Ok(result)) => result,
            // Counted alike: it did not come to its end in time.
            Some(Err(_)) | None => Err(StoreError::Deadline),
        }
    }

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
                    // Its reader may pause for longer than a command's transaction may.
                    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
                        SET LOCAL idle_in_transaction_session_timeout = '60s'";
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
