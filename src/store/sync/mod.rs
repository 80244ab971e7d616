//! The sync log: its ends, its events, and how a command appends to it.
//!
//! `append.rs` has what a command of one user needs to change something and say so in the log,
//! `cursors.rs` the devices' places in it, `retention.rs` what is deleted from it.

mod append;
mod cursors;
mod retention;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    time::Instant,
};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, types::Json};

use super::{Store, StoreError, Tx, error::Failed, on_pool, on_tx};
use crate::domain::{
    identity::ClientDeviceId,
    ids::{Epoch, EventId, UserId},
    sync::{Event, LogHead},
};
pub use append::Issued;
pub(super) use append::OpenLog;
pub use cursors::{AttachState, CursorAck, Superseded};
pub use retention::{TrimPage, Trimmed};

/// Rows that one statement names.
pub(super) const CHUNK: usize = 500;

/// A piece of a log, and the log's ends at the same moment.
#[derive(Debug, Clone, PartialEq)]
pub struct LogPage {
    /// The log's ends.
    pub log: LogHead,
    /// In order, without a gap.
    pub events: Vec<Event>,
}

impl Store {
    /// The ends of many users' logs; users without one are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_heads(
        &self,
        deadline: Instant,
        users: &[UserId],
    ) -> Result<Vec<(UserId, LogHead)>, StoreError> {
        let users = users.to_vec();
        self.read("log_heads", deadline, async move |db| {
            let mut heads = Vec::with_capacity(users.len());
            for chunk in users.chunks(CHUNK) {
                let sql = format!(
                    "SELECT user_id, epoch, head_seq, floor_seq FROM user_logs WHERE user_id IN ({})",
                    places(chunk.len(), 1)
                );
                let rows: Vec<HeadRow> = on_pool!(&db, pool => {
                    let mut query = sqlx::query_as(AssertSqlSafe(sql)).persistent(false);
                    for user in chunk {
                        query = query.bind(*user);
                    }
                    query.fetch_all(pool).await?
                });
                heads.extend(rows.iter().map(|row| (row.user_id, row.head())));
            }
            Ok(heads)
        })
        .await
    }

    /// At most `limit` events after `after`; `None` when there is no such user. What the log's
    /// floor means for `after` is for the caller to judge.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Corrupt`] when an event above the floor is missing.
    pub async fn log_page(
        &self,
        deadline: Instant,
        user: UserId,
        after: i64,
        limit: u32,
    ) -> Result<Option<LogPage>, StoreError> {
        self.read("log_page", deadline, async move |db| {
            // One statement, so that the events and the ends are of one moment.
            let rows: Vec<PageRow> = on_pool!(&db, pool => sqlx::query_as(
                "SELECT l.user_id, l.epoch, l.head_seq, l.floor_seq,
                     e.seq, e.id, e.event_type, e.data, e.origin_device_id, e.created_at
                 FROM user_logs l
                 LEFT JOIN (SELECT user_id, seq, id, event_type, data, origin_device_id, created_at
                            FROM sync_events WHERE user_id = $1 AND seq > $2
                            ORDER BY seq LIMIT $3) e ON e.user_id = l.user_id
                 WHERE l.user_id = $1 ORDER BY e.seq")
                .bind(user).bind(after).bind(i64::from(limit)).fetch_all(pool).await?);
            let Some(log) = rows.first().map(|row| row.log.head()) else {
                return Ok(None);
            };
            let events: Vec<Event> = rows.into_iter().filter_map(PageRow::into_event).collect();
            check_page(&log, after, limit, &events)?;
            Ok(Some(LogPage { log, events }))
        })
        .await
    }
}

/// `$1, $2 …` for `count` bound values from `$first` on.
pub(super) fn places(count: usize, first: usize) -> String {
    let mut text = String::with_capacity(count * 5);
    for n in first..first + count {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}${n}", if n == first { "" } else { ", " });
    }
    text
}

/// `($1, $2), ($3, $4) …` for `count` rows of `width` bound values.
pub(super) fn rows(count: usize, width: usize) -> String {
    let mut text = String::with_capacity(count * width * 6);
    for n in 0..count {
        let comma = if n == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}({})", places(width, width * n + 1));
    }
    text
}

/// `all` in pieces of 64, 32, 16 … 1: few lengths, so that the statements for them stay prepared.
pub(super) fn pieces<T>(all: &[T]) -> impl Iterator<Item = &[T]> {
    pieces_up_to(6, all)
}

/// The same up to 512, for rows that come by the thousand.
pub(super) fn large_pieces<T>(all: &[T]) -> impl Iterator<Item = &[T]> {
    pieces_up_to(9, all)
}

fn pieces_up_to<T>(most: u32, mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = 1 << all.len().checked_ilog2()?.min(most);
        let (piece, rest) = all.split_at(length);
        all = rest;
        Some(piece)
    })
}

/// An event above the floor that is missing would be a change that a device never sees.
fn check_page(log: &LogHead, after: i64, limit: u32, events: &[Event]) -> Result<(), StoreError> {
    if after < log.floor_seq {
        return Ok(());
    }
    let due = (log.head_seq - after).clamp(0, i64::from(limit));
    // A caller may name any number as the position, also the greatest.
    let whole = i64::try_from(events.len()) == Ok(due)
        && events.iter().zip(1..).all(|(e, n)| e.seq - after == n);
    if whole {
        Ok(())
    } else {
        Err(StoreError::Corrupt("a log with a missing event"))
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct HeadRow {
    user_id: UserId,
    epoch: Epoch,
    head_seq: i64,
    floor_seq: i64,
}

impl HeadRow {
    pub(super) fn head(&self) -> LogHead {
        LogHead {
            epoch: self.epoch,
            head_seq: self.head_seq,
            floor_seq: self.floor_seq,
        }
    }
}

/// The log's ends, beside an event if there is one.
#[derive(sqlx::FromRow)]
struct PageRow {
    #[sqlx(flatten)]
    log: HeadRow,
    seq: Option<i64>,
    id: Option<EventId>,
    event_type: Option<String>,
    data: Option<Json<serde_json::Value>>,
    origin_device_id: Option<ClientDeviceId>,
    created_at: Option<DateTime<Utc>>,
}

impl PageRow {
    fn into_event(self) -> Option<Event> {
        Some(Event {
            id: self.id?,
            seq: self.seq?,
            event_type: self.event_type?,
            user_id: self.log.user_id,
            data: self.data?.0,
            origin_device_id: self.origin_device_id,
            created_at: self.created_at?,
        })
    }
}

/// Locks a user's log until the transaction ends: what is decided after this stays true, and the
/// next `seq` is free. `None` when there is no such user.
pub(super) async fn log_lock(tx: &mut Tx<'_>, user: UserId) -> Result<Option<LogHead>, Failed> {
    let row: Option<HeadRow> = on_tx!(tx, conn => sqlx::query_as(
        "UPDATE user_logs SET head_seq = head_seq WHERE user_id = $1
         RETURNING user_id, epoch, head_seq, floor_seq")
        .bind(user).fetch_optional(conn).await?);
    Ok(row.map(|row| row.head()))
}

/// Locks many users' logs as [`log_lock`] does one; users without one are left out.
pub(super) async fn logs_lock(
    tx: &mut Tx<'_>,
    users: &BTreeSet<UserId>,
) -> Result<HashMap<UserId, LogHead>, Failed> {
    let users: Vec<_> = users.iter().copied().collect();
    // In one order everywhere, against deadlocks. An UPDATE of many rows locks them in the order of
    // its plan, so PostgreSQL is told to sort first; the lock is the one that an UPDATE takes. Who
    // writes to SQLite has the whole file.
    let lock = match tx {
        Tx::Sqlite(_) => "",
        Tx::Postgres(_) => "ORDER BY user_id FOR NO KEY UPDATE",
    };
    let mut logs = HashMap::with_capacity(users.len());
    for piece in pieces(&users) {
        let sql = format!(
            "SELECT user_id, epoch, head_seq, floor_seq FROM user_logs
             WHERE user_id IN ({}) {lock}",
            places(piece.len(), 1)
        );
        let found: Vec<HeadRow> = on_tx!(tx, conn => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql));
            for user in piece {
                query = query.bind(*user);
            }
            query.fetch_all(conn).await?
        });
        logs.extend(found.iter().map(|row| (row.user_id, row.head())));
    }
    Ok(logs)
}

/// Appends to logs that [`logs_lock`] locked, and moves their heads to those in `logs`.
pub(super) async fn logs_append(
    tx: &mut Tx<'_>,
    logs: &HashMap<UserId, LogHead>,
    events: &[Event],
) -> Result<(), Failed> {
    for piece in pieces(events) {
        let sql = format!(
            "INSERT INTO sync_events
                 (user_id, seq, id, event_type, data, origin_device_id, created_at)
             VALUES {}",
            rows(piece.len(), 7)
        );
        on_tx!(tx, conn => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for e in piece {
                query = query.bind(e.user_id).bind(e.seq).bind(e.id).bind(&e.event_type)
                    .bind(Json(&e.data)).bind(&e.origin_device_id).bind(e.created_at);
            }
            query.execute(conn).await?;
        });
    }
    let users: BTreeSet<_> = events.iter().map(|e| e.user_id).collect();
    let users: Vec<_> = users.into_iter().collect();
    for piece in pieces(&users) {
        let sql = format!(
            "UPDATE user_logs SET head_seq = v.column2 FROM (VALUES {}) AS v
             WHERE user_logs.user_id = v.column1",
            rows(piece.len(), 2)
        );
        on_tx!(tx, conn => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for user in piece {
                query = query.bind(*user).bind(logs.get(user).map(|log| log.head_seq));
            }
            query.execute(conn).await?;
        });
    }
    Ok(())
}
