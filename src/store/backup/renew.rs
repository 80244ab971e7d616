//! What must change when an older state of a database comes back.
//!
//! Clients may be ahead of that state, and hold tokens that it does not know of. Owns the
//! statements that keep them from being taken for what they are not.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    domain::{
        clock::World,
        identity::{Revocation, Secrets},
    },
    store::{StoreError, Tx, error::Failed, on_tx},
};

/// Logs that one statement renews.
const CHUNK: usize = 500;

/// Codes first, then logs, then devices: the order in which logins take their locks.
const SPENT: &str = "UPDATE sms_codes SET used = TRUE WHERE used = FALSE";

const LOGS: &str = "SELECT user_id FROM user_logs ORDER BY user_id";

const CURSORS: &str = "UPDATE devices SET acked_seq = \
         (SELECT l.head_seq FROM user_logs l WHERE l.user_id = devices.user_id) \
     WHERE acked_seq > \
         (SELECT l.head_seq FROM user_logs l WHERE l.user_id = devices.user_id)";

// Versions count logins, so the time in milliseconds is beyond any that was handed out since the
// older state, also after an earlier restore.
const DEVICES: &str = "UPDATE devices SET session_version = \
     CASE WHEN session_version < $1 THEN $1 ELSE session_version + 1 END";

const USERS: &str = "UPDATE users SET token_version = \
     CASE WHEN token_version < $1 THEN $1 ELSE token_version + 1 END";

const SIGN_OUT: &str =
    "UPDATE devices SET refresh_token_hash = NULL, refresh_retry_key_hash = NULL";

// `WHERE TRUE`: without it SQLite takes ON for a join's.
const REVOKE: &str = "INSERT INTO revocations (subject, min_version, revoked_at, expires_at) \
     SELECT id, token_version, $1, $2 FROM users WHERE TRUE \
     ON CONFLICT (subject) DO UPDATE SET min_version = excluded.min_version, \
         revoked_at = excluded.revoked_at, expires_at = excluded.expires_at";

/// Makes the state fit to be served again; says how many logs have a new epoch.
///
/// - Every log gets a new epoch: a client that is ahead of it is told to load its data anew.
/// - No cursor is beyond its head.
/// - Codes are spent: one that was used since would be good again.
/// - Token versions jump, without ending a session: a later revocation then refuses tokens that were
///   handed out since, too.
/// - With `sign_out_everyone` every session ends.
pub(super) async fn renew(
    tx: &mut Tx<'_>,
    world: &World,
    sign_out_everyone: bool,
) -> Result<usize, Failed> {
    on_tx!(&mut *tx, conn => sqlx::query(SPENT).execute(conn).await.map(|_| ()))?;
    let renewed = epochs(tx, world).await?;
    on_tx!(&mut *tx, conn => sqlx::query(CURSORS).execute(conn).await.map(|_| ()))?;
    let now = world.now();
    for sql in [DEVICES, USERS] {
        let version = now.timestamp_millis();
        on_tx!(&mut *tx, conn => sqlx::query(sql).bind(version).execute(conn).await.map(|_| ()))?;
    }
    if sign_out_everyone {
        on_tx!(&mut *tx, conn => sqlx::query(SIGN_OUT).execute(conn).await.map(|_| ()))?;
        on_tx!(&mut *tx, conn => sqlx::query(REVOKE)
            .bind(now).bind(over(now)).execute(conn).await.map(|_| ()))?;
    }
    Ok(renewed)
}

/// When no access token is left that was made until now, whatever its life was set to.
fn over(now: DateTime<Utc>) -> DateTime<Utc> {
    let life: TimeDelta = Revocation::life(Secrets::LONGEST_ACCESS);
    now + life
}

async fn epochs(tx: &mut Tx<'_>, world: &World) -> Result<usize, Failed> {
    let users: Vec<Uuid> =
        on_tx!(&mut *tx, conn => sqlx::query_scalar(LOGS).fetch_all(conn).await)?;
    for chunk in users.chunks(CHUNK) {
        let mut rows = String::with_capacity(chunk.len() * 12);
        for n in 0..chunk.len() {
            let comma = if n == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(rows, "{comma}(${}, ${})", 2 * n + 1, 2 * n + 2);
        }
        let sql = AssertSqlSafe(format!(
            "UPDATE user_logs SET epoch = v.column2 FROM (VALUES {rows}) AS v
             WHERE user_logs.user_id = v.column1"
        ));
        let mut epochs = Vec::with_capacity(chunk.len());
        for _ in chunk {
            epochs.push(world.uuid().map_err(StoreError::from)?);
        }
        on_tx!(&mut *tx, conn => {
            let mut query = sqlx::query(sql).persistent(chunk.len() == CHUNK);
            for (user, epoch) in std::iter::zip(chunk, epochs) {
                query = query.bind(*user).bind(epoch);
            }
            query.execute(conn).await.map(|_| ())
        })?;
    }
    Ok(users.len())
}
