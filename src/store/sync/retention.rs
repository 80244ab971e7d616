//! What is deleted from a log: by the rule of `domain`, in steps, each a transaction of its own that
//! deletes and raises the floor.

use std::time::Instant;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{HeadRow, log_lock};
use crate::{
    domain::{
        ids::UserId,
        sync::{Ages, LogHead, Retention},
    },
    store::{Store, StoreError, Tx, command::Command, error::Failed, on_pool, on_tx},
};

/// Events that one step looks at and deletes at most: a few milliseconds of SQLite's one writer.
const STEP: i64 = 500;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// Events deleted.
    pub events: u64,
    /// There may be more to delete.
    pub more: bool,
}

/// A piece of the list of all logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrimPage {
    /// Those of the piece of which a step would delete something.
    pub users: Vec<UserId>,
    /// All logs of the piece.
    pub logs: u64,
    /// Events that they hold.
    pub events: u64,
    /// Where the next piece begins; none after the last.
    pub next: Option<UserId>,
}

impl Store {
    /// The next `limit` logs after `after`, in the order of their users: those with something to
    /// delete. Reads so many at most, however few there are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn logs_to_trim(
        &self,
        deadline: Instant,
        after: Option<UserId>,
        limit: u32,
        rule: Retention,
        now: DateTime<Utc>,
    ) -> Result<TrimPage, StoreError> {
        self.read("logs_to_trim", deadline, async move |db| {
            let after = after.unwrap_or(UserId(Uuid::nil()));
            // Short logs, which most are, cost no look at their events and devices.
            let rows: Vec<EndRow> = on_pool!(&db, pool => sqlx::query_as(
                "SELECT l.user_id, l.epoch, l.head_seq, l.floor_seq,
                     CASE WHEN l.head_seq - l.floor_seq > $3 THEN
                         (SELECT e.created_at FROM sync_events e
                          WHERE e.user_id = l.user_id AND e.seq > l.floor_seq
                          ORDER BY e.seq LIMIT 1) END AS oldest_at,
                     CASE WHEN l.head_seq - l.floor_seq > $3 THEN
                         (SELECT min(d.acked_seq) FROM devices d
                          WHERE d.user_id = l.user_id AND d.acked_seq >= l.floor_seq)
                         END AS lowest_cursor
                 FROM (SELECT user_id, epoch, head_seq, floor_seq FROM user_logs
                       WHERE user_id > $1 ORDER BY user_id LIMIT $2) l
                 ORDER BY l.user_id")
                .bind(after).bind(i64::from(limit)).bind(rule.min_events)
                .fetch_all(pool).await?);
            let full = u32::try_from(rows.len()).is_ok_and(|n| n == limit);
            let next = rows.last().filter(|_| full).map(|row| row.log.user_id);
            let logs = rows.iter().map(|row| row.log.head());
            let held = logs.map(|log| log.head_seq.saturating_sub(log.floor_seq));
            let worth = rows.iter().filter(|row| row.is_worth(&rule, now));
            Ok(TrimPage {
                users: worth.map(|row| row.log.user_id).collect(),
                logs: rows.len() as u64,
                events: held.map(|n| u64::try_from(n).unwrap_or(0)).sum(),
                next,
            })
        })
        .await
    }

    /// Deletes what of a user's log the rule does not keep, a step of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_trim(
        &self,
        deadline: Instant,
        user: UserId,
        rule: Retention,
        now: DateTime<Utc>,
    ) -> Result<Trimmed, StoreError> {
        self.write(deadline, Trim { user, rule, now }).await
    }
}

/// A log's ends, its oldest event's time, and the lowest cursor that is not behind it.
#[derive(sqlx::FromRow)]
struct EndRow {
    #[sqlx(flatten)]
    log: HeadRow,
    oldest_at: Option<DateTime<Utc>>,
    lowest_cursor: Option<i64>,
}

impl EndRow {
    /// Whether the oldest event may go. A log without events above its floor has none.
    fn is_worth(&self, rule: &Retention, now: DateTime<Utc>) -> bool {
        let log = self.log.head();
        let Some(oldest_at) = self.oldest_at else {
            return false;
        };
        let from = |is_young: bool| log.floor_seq + if is_young { 1 } else { 2 };
        let ages = Ages {
            recent_from: from(oldest_at > rule.recent_after(now)),
            held_from: from(oldest_at > rule.held_after(now)),
        };
        rule.floor(&log, self.lowest_cursor, ages) > log.floor_seq
    }
}

struct Trim {
    user: UserId,
    rule: Retention,
    now: DateTime<Utc>,
}

impl Trim {
    /// The first event of the step that is younger than `moment`; one beyond the step if none is.
    async fn first_after(
        &self,
        tx: &mut Tx<'_>,
        log: &LogHead,
        moment: DateTime<Utc>,
    ) -> Result<i64, Failed> {
        let end = log.floor_seq + STEP;
        let first: Option<i64> = on_tx!(tx, conn => sqlx::query_scalar(
            "SELECT seq FROM sync_events
             WHERE user_id = $1 AND seq > $2 AND seq <= $3 AND created_at > $4
             ORDER BY seq LIMIT 1")
            .bind(self.user).bind(log.floor_seq).bind(end).bind(moment)
            .fetch_optional(conn).await?);
        Ok(first.unwrap_or(end + 1))
    }
}

impl Command for Trim {
    const NAME: &'static str = "log_trim";
    type Out = Trimmed;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Trimmed, Failed> {
        let nothing = Trimmed {
            events: 0,
            more: false,
        };
        let Some(log) = log_lock(tx, self.user).await? else {
            return Ok(nothing);
        };
        // Cursors move without the log's lock, but only up: what is lacked can only become less.
        let lowest: Option<i64> = on_tx!(tx, conn => sqlx::query_scalar(
            "SELECT min(acked_seq) FROM devices WHERE user_id = $1 AND acked_seq >= $2")
            .bind(self.user).bind(log.floor_seq).fetch_one(conn).await?);
        let ages = Ages {
            recent_from: self
                .first_after(tx, &log, self.rule.recent_after(self.now))
                .await?,
            held_from: self
                .first_after(tx, &log, self.rule.held_after(self.now))
                .await?,
        };
        let end = log.floor_seq + STEP;
        let floor = self.rule.floor(&log, lowest, ages).min(end);
        if floor == log.floor_seq {
            return Ok(nothing);
        }
        let events = on_tx!(tx, conn => sqlx::query(
            "DELETE FROM sync_events WHERE user_id = $1 AND seq <= $2")
            .bind(self.user).bind(floor).execute(conn).await?.rows_affected());
        on_tx!(tx, conn => sqlx::query(
            "DELETE FROM service_shares WHERE user_id = $1 AND last_seq <= $2")
            .bind(self.user).bind(floor).execute(conn).await?.rows_affected());
        on_tx!(tx, conn => sqlx::query("UPDATE user_logs SET floor_seq = $2 WHERE user_id = $1")
            .bind(self.user).bind(floor).execute(conn).await?.rows_affected());
        // A device that this step left behind lacks nothing any more.
        let fewer_lack = lowest.is_some_and(|cursor| cursor < floor);
        Ok(Trimmed {
            events,
            more: floor == end || fewer_lack,
        })
    }
}
