//! What services appended to users' logs in the last hour. Read and written under the logs' locks.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;

use crate::{
    domain::{
        ids::{ApiKeyId, UserId},
        services::Count,
    },
    store::{
        Tx,
        error::Failed,
        on_tx,
        sync::{pieces, places, rows},
    },
};

/// The counts of a user, as they concern one key.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// The key's own.
    pub own: Option<Count>,
    /// Those of all other keys.
    pub others: Vec<Count>,
}

/// The counts of these users; one who has none is left out.
pub(super) async fn counts_find(
    tx: &mut Tx<'_>,
    users: &[UserId],
    key: ApiKeyId,
) -> Result<HashMap<UserId, Counts>, Failed> {
    let mut all: HashMap<UserId, Counts> = HashMap::new();
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
