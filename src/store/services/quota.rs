//! What services appended to users' logs: in the last hour, and of what the logs hold. Read and written
//! under the logs' locks. What was trimmed of a log is deleted with it.

use std::{collections::HashMap, time::Instant};

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use crate::{
    domain::{
        ids::{ApiKeyId, UserId},
        services::{Count, Counts, hour_of},
    },
    store::{
        Store, StoreError, Tx,
        command::Command,
        error::Failed,
        on_tx,
        sync::{pieces, places, rows},
    },
};

/// Hours for which a count is kept, though one that is over means nothing: a node whose clock is days
/// ahead must not forget the hour in which the others are. Four weeks.
const KEPT: i64 = 24 * 28;
/// Counts that one sweep forgets.
const SWEEP: i64 = 500;

/// Places of a log that are counted together.
const PIECE: i64 = 128;

/// The counts of these users; one who has none is left out.
pub(super) async fn counts_find(
    tx: &mut Tx<'_>,
    users: &[UserId],
    key: ApiKeyId,
) -> Result<HashMap<UserId, Counts>, Failed> {
    let mut all: HashMap<UserId, Counts> = HashMap::new();
    for (user, held) in shares_find(tx, users).await? {
        all.entry(user).or_default().held = held;
    }
    for piece in pieces(users) {
        let sql = format!(
            "SELECT user_id, key_id, hour, events FROM service_quotas WHERE user_id IN ({})",
            places(piece.len(), 1)
        );
        let found: Vec<(UserId, ApiKeyId, i64, i64)> = on_tx!(tx, conn => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql));
            for user in piece {
                query = query.bind(*user);
            }
            query.fetch_all(conn).await?
        });
        for (user, of, hour, events) in found {
            let counts = all.entry(user).or_default();
            let count = Count { hour, events };
            if of == key {
                counts.own = Some(count);
            } else {
                counts.others.push(count);
            }
        }
    }
    Ok(all)
}

/// Puts a key's counts of these users in the place of those before.
pub(super) async fn counts_store(
    tx: &mut Tx<'_>,
    key: ApiKeyId,
    counts: &[(UserId, Count)],
) -> Result<(), Failed> {
    for piece in pieces(counts) {
        let sql = format!(
            "INSERT INTO service_quotas (user_id, key_id, hour, events) VALUES {}
             ON CONFLICT (user_id, key_id) DO UPDATE
                 SET hour = excluded.hour, events = excluded.events",
            rows(piece.len(), 4)
        );
        on_tx!(tx, conn => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (user, count) in piece {
                query = query.bind(*user).bind(key).bind(count.hour).bind(count.events);
            }
            query.execute(conn).await?;
        });
    }
    Ok(())
}

/// How many events of services the logs of these users hold; one whose log holds none is left out. Of a piece
/// that is trimmed in part no more than the places that are left.
async fn shares_find(tx: &mut Tx<'_>, users: &[UserId]) -> Result<Vec<(UserId, i64)>, Failed> {
    let mut all = Vec::new();
    for piece in pieces(users) {
        let sql = format!(
            "SELECT s.user_id, CAST(sum(CASE WHEN s.events < s.last_seq - l.floor_seq
                 THEN s.events ELSE s.last_seq - l.floor_seq END) AS BIGINT)
             FROM service_shares s JOIN user_logs l ON l.user_id = s.user_id
             WHERE s.user_id IN ({}) GROUP BY s.user_id",
            places(piece.len(), 1)
        );
        let found: Vec<(UserId, i64)> = on_tx!(tx, conn => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql));
            for user in piece {
                query = query.bind(*user);
            }
            query.fetch_all(conn).await?
        });
        all.extend(found);
    }
    Ok(all)
}

/// Counts an event at each of these places, one a user, as a service's.
pub(super) async fn shares_add(tx: &mut Tx<'_>, events: &[(UserId, i64)]) -> Result<(), Failed> {
    for piece in pieces(events) {
        let sql = format!(
            "INSERT INTO service_shares (user_id, piece, events, last_seq) VALUES {}
             ON CONFLICT (user_id, piece) DO UPDATE
                 SET events = service_shares.events + 1, last_seq = excluded.last_seq",
            rows(piece.len(), 4)
        );
        on_tx!(tx, conn => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (user, seq) in piece {
                query = query.bind(*user).bind(seq / PIECE).bind(1_i64).bind(*seq);
            }
            query.execute(conn).await?;
        });
    }
    Ok(())
}

/// Deletes some counts of hours before this one.
struct Sweep(i64);

impl Command for Sweep {
    const NAME: &'static str = "service_quotas_sweep";
    type Out = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Failed> {
        // The hour is looked at twice: a count that begins anew just now stays.
        Ok(on_tx!(tx, conn => sqlx::query(
            "DELETE FROM service_quotas WHERE hour < $1 AND (user_id, key_id) IN
                 (SELECT user_id, key_id FROM service_quotas WHERE hour < $1
                  ORDER BY hour LIMIT $2)")
            .bind(self.0).bind(SWEEP).execute(conn).await?.rows_affected()))
    }
}

impl Store {
    /// Forgets some of the counts of hours that are long over; says how many, and whether there may be
    /// more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn service_quotas_sweep(
        &self,
        deadline: Instant,
        now: DateTime<Utc>,
    ) -> Result<(u64, bool), StoreError> {
        let swept = self.write(deadline, Sweep(hour_of(now) - KEPT)).await?;
        Ok((swept, swept == SWEEP.unsigned_abs()))
    }
}
