//! What must change when an older state of a database comes back.
//!
//! Clients may be ahead of that state, and hold tokens that it does not know of. Owns the
//! statements that keep them from being taken for what they are not.

use std::{fmt::Write as _, path::Path, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use uuid::Uuid;

use super::{BackupError, swap};
use crate::{
    domain::{
        clock::World,
        identity::{Revocation, Secrets},
    },
    store::{Database, StoreError, Tx, error::Failed, migrate, on_tx, open},
};

/// What PostgreSQL shows of the connection.
const NAME: &str = "listen-stream renew-epochs";

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

/// Makes the state of a database that was brought back by other means fit to be served: new epochs,
/// and what [`restore`] does beside them. Says how many logs there are. For SQLite the caller holds
/// the folder's lock; on PostgreSQL servers may be running.
///
/// # Errors
/// [`BackupError`]; nothing was changed then.
pub async fn epochs_renew(
    database: &Database,
    world: &World,
    sign_out_everyone: bool,
) -> Result<usize, BackupError> {
    match database {
        Database::Sqlite(path) => renew_file(path, world, sign_out_everyone).await,
        Database::Postgres(url) => {
            let mut conn = open::postgres_alone(url, NAME, world).await?;
            migrate::postgres(&mut conn).await?;
            let mut tries = 0;
            loop {
                tries += 1;
                match renew_postgres(&mut conn, world, sign_out_everyone).await {
                    // Servers take the same locks.
                    Err(e) if e.is_transient() && tries < 5 => {
                        tokio::time::sleep(world.jitter(Duration::from_millis(100))).await;
                    }
                    result => return result.map_err(not_renewed),
                }
            }
        }
    }
}

async fn renew_file(
    path: &Path,
    world: &World,
    sign_out_everyone: bool,
) -> Result<usize, BackupError> {
    swap::settle(path)?;
    if !path.exists() {
        return Err(BackupError::NoDatabase(path.to_path_buf()));
    }
    let mut conn = writing(SqliteConnectOptions::new().filename(path)).await?;
    migrate::sqlite(&mut conn).await?;
    let renewed = renew_sqlite(&mut conn, world, sign_out_everyone).await;
    let renewed = renewed.map_err(not_renewed)?;
    // What was renewed is durable; how the connection ends does not matter.
    let _ = conn.close().await;
    Ok(renewed)
}

async fn renew_sqlite(
    conn: &mut SqliteConnection,
    world: &World,
    sign_out_everyone: bool,
) -> Result<usize, Failed> {
    let mut tx = Tx::Sqlite(conn.begin().await?);
    let renewed = renew(&mut tx, world, sign_out_everyone).await?;
    tx.commit().await?;
    Ok(renewed)
}

async fn renew_postgres(
    conn: &mut PgConnection,
    world: &World,
    sign_out_everyone: bool,
) -> Result<usize, Failed> {
    let mut tx = Tx::Postgres(conn.begin().await?);
    let renewed = renew(&mut tx, world, sign_out_everyone).await?;
    tx.commit().await?;
    Ok(renewed)
}

/// Renews the epochs of an SQLite file, and nothing else: for a state that lacks only its last
/// moments and is consistent in itself. Tokens and codes stay as they are. No file has no logs. The
/// caller holds the folder's lock.
///
/// # Errors
/// [`BackupError`]; nothing was changed then.
pub async fn epochs_renew_alone(path: &Path, world: &World) -> Result<usize, BackupError> {
    swap::settle(path)?;
    if !path.exists() {
        return Ok(0);
    }
    let options = SqliteConnectOptions::new().filename(path);
    let mut conn = writing(options.synchronous(SqliteSynchronous::Full)).await?;
    migrate::sqlite(&mut conn).await?;
    let renewed = sqlite_epochs(&mut conn, world).await;
    let renewed = renewed.map_err(not_renewed)?;
    // What was renewed is durable; how the connection ends does not matter.
    let _ = conn.close().await;
    Ok(renewed)
}

async fn sqlite_epochs(conn: &mut SqliteConnection, world: &World) -> Result<usize, Failed> {
    let mut tx = Tx::Sqlite(conn.begin().await?);
    let renewed = epochs(&mut tx, world).await?;
    tx.commit().await?;
    Ok(renewed)
}

/// Says why [`renew`] did not succeed.
pub(super) fn not_renewed(failed: Failed) -> BackupError {
    let reason = match failed {
        Failed::Sql(e) => e.to_string(),
        Failed::Store(e) => e.to_string(),
        Failed::Overtaken => "other transactions were faster".to_owned(),
        Failed::Panicked => "it panicked".to_owned(),
    };
    BackupError::Database {
        what: "cannot renew the epochs".to_owned(),
        reason,
    }
}

/// A connection that writes to an SQLite file.
pub(super) async fn writing(
    options: SqliteConnectOptions,
) -> Result<SqliteConnection, BackupError> {
    let options = options.foreign_keys(true).disable_statement_logging();
    let connected = options.connect().await;
    connected.map_err(BackupError::database("cannot open the database file"))
}

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
