//! Bringing a backup back, and making any older state fit to be served again.
//!
//! A backup is read through once before anything is changed, and again while it is put in. On
//! SQLite a new database is built beside the old one; on PostgreSQL everything is one transaction.

use std::{
    fs::File,
    io::{BufReader, Seek},
    path::{Path, PathBuf},
};

use serde_json::value::RawValue;
use sqlx::{
    AssertSqlSafe, Connection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous},
};

use super::{
    BackupError, Header, Summary,
    format::{Piece, Reading, Table, Unsound},
    import::{NotPut, import},
    renew::{not_renewed, renew, writing},
    swap,
    tables::{MIGRATIONS, TABLES, exists, schema_version},
};
use crate::{
    domain::clock::World,
    store::{Database, MasterKey, Tx, keys::KeyRow, migrate, open},
};

/// How a backup is to be restored.
#[derive(Debug, Clone, Default)]
pub struct Restore {
    /// PostgreSQL: users who are there are lost.
    pub replace: bool,
    /// No session goes on.
    pub sign_out_everyone: bool,
    /// Must open the keys of the backup, if it is known.
    pub master: Option<MasterKey>,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup held.
    pub summary: Summary,
    /// Where the old database is kept (SQLite).
    pub kept: Option<PathBuf>,
}

/// No other program has a table of this name.
const SUPPORT: &str = "schema_support";

/// How long a restore waits for locks of others.
const PATIENCE: &str = "SET LOCAL lock_timeout = '10s'";

/// What PostgreSQL shows of a restore's connection.
const NAME: &str = "listen-stream restore";

/// Puts the state of a backup in the place of what is there. For SQLite the caller holds the
/// folder's lock; for PostgreSQL no server is running.
///
/// # Errors
/// [`BackupError`]; nothing was changed then.
pub async fn restore(
    database: &Database,
    world: &World,
    path: &Path,
    how: &Restore,
) -> Result<Restored, BackupError> {
    let file = File::open(path).map_err(BackupError::file(path))?;
    let (summary, keys) = look_through(path, &file)?;
    if let Some(master) = &how.master
        && !keys.iter().all(|key| master.opens(key))
    {
        return Err(BackupError::WrongMasterKey);
    }
    let backup = Backup { path, file: &file };
    let kept = match database {
        Database::Sqlite(place) => backup.put_into_sqlite(place, world, how).await?,
        Database::Postgres(url) => {
            backup.put_into_postgres(url, world, how).await?;
            None
        }
    };
    Ok(Restored { summary, kept })
}

fn unsound(path: &Path, why: Unsound) -> BackupError {
    let path = path.to_path_buf();
    match why {
        Unsound::Foreign => BackupError::Foreign(path),
        Unsound::TooNew(program) => BackupError::TooNew { path, program },
        Unsound::Damaged(why) => BackupError::Damaged { path, why },
        Unsound::Io(reason) => BackupError::File { path, reason },
    }
}

/// Reads a backup from its beginning to its end, and finds nothing wrong.
fn look_through(path: &Path, file: &File) -> Result<(Summary, Vec<KeyRow>), BackupError> {
    let mut reading = read(path, file)?;
    let mut keys = Vec::new();
    let mut table: Option<Table> = None;
    loop {
        match reading.next().map_err(|e| unsound(path, e))? {
            None => break,
            Some(Piece::Table(next)) => table = Some(next),
            Some(Piece::Row(line)) => {
                let of_keys = table.as_ref().filter(|it| it.name == "secret_keys");
                if let Some(table) = of_keys {
                    let key = sealed_key(table, line);
                    let wrong = || Unsound::Damaged("a key is wrong".to_owned());
                    keys.push(key.ok_or_else(|| unsound(path, wrong()))?);
                }
            }
        }
    }
    let (header, rows) = (reading.header().clone(), reading.rows().clone());
    Ok((Summary { header, rows }, keys))
}

fn read<'f>(path: &Path, mut file: &'f File) -> Result<Reading<BufReader<&'f File>>, BackupError> {
    file.rewind().map_err(BackupError::file(path))?;
    let reading = Reading::start(BufReader::new(file)).map_err(|e| unsound(path, e))?;
    let Header {
        schema, program, ..
    } = reading.header();
    if migrate::knows(*schema) {
        return Ok(reading);
    }
    Err(if *schema > migrate::newest() {
        unsound(path, Unsound::TooNew(program.clone()))
    } else {
        let why = format!("there is no schema {schema}");
        unsound(path, Unsound::Damaged(why))
    })
}

fn sealed_key(table: &Table, line: &[u8]) -> Option<KeyRow> {
    let values: Vec<&RawValue> = serde_json::from_slice(line).ok()?;
    let text = |name: &str| -> Option<String> {
        let at = table.columns.iter().position(|it| it.0 == name)?;
        serde_json::from_str(values.get(at)?.get()).ok()
    };
    Some(KeyRow {
        kid: text("kid")?,
        purpose: text("purpose")?,
        sealed: text("sealed")?,
    })
}

/// A backup that was found to be sound.
struct Backup<'a> {
    path: &'a Path,
    file: &'a File,
}

impl Backup<'_> {
    async fn put_into_sqlite(
        &self,
        place: &Path,
        world: &World,
        how: &Restore,
    ) -> Result<Option<PathBuf>, BackupError> {
        swap::settle(place)?;
        let built = self.build_sqlite(&swap::building(place), world, how).await;
        if let Err(e) = built {
            // Whatever it left goes; what went wrong first is said.
            let _ = swap::settle(place);
            return Err(e);
        }
        let stamp = world.now().format("%Y%m%dT%H%M%S%.6fZ").to_string();
        swap::put_in_place(place, &stamp)
    }

    async fn build_sqlite(
        &self,
        building: &Path,
        world: &World,
        how: &Restore,
    ) -> Result<(), BackupError> {
        // Nobody reads it before it is whole and on disk: it needs no journal.
        let options = SqliteConnectOptions::new()
            .filename(building)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .locking_mode(SqliteLockingMode::Exclusive);
        let mut conn = writing(options).await?;
        let mut reading = read(self.path, self.file)?;
        let broken = |e| BackupError::database("cannot build the new database")(e);
        migrate::run(&mut conn, Some(reading.header().schema)).await?;
        let mut tx = Tx::Sqlite(conn.begin().await.map_err(broken)?);
        let put = import(&mut tx, &mut reading).await;
        put.map_err(|e| self.not_put(e))?;
        tx.commit().await.map_err(broken)?;
        migrate::run(&mut conn, None).await?;
        let mut tx = Tx::Sqlite(conn.begin().await.map_err(broken)?);
        let renewed = renew(&mut tx, world, how.sign_out_everyone).await;
        renewed.map_err(not_renewed)?;
        tx.commit().await.map_err(broken)?;
        let orphans = sqlx::query("PRAGMA foreign_key_check");
        if !orphans
            .fetch_all(&mut conn)
            .await
            .map_err(broken)?
            .is_empty()
        {
            let why = "a row names one that is not there".to_owned();
            return Err(unsound(self.path, Unsound::Damaged(why)));
        }
        conn.close().await.map_err(broken)
    }

    async fn put_into_postgres(
        &self,
        url: &str,
        world: &World,
        how: &Restore,
    ) -> Result<(), BackupError> {
        let mut conn = open::postgres_alone(url, NAME, world).await?;
        let broken = |e| BackupError::database("cannot restore")(e);
        let mut reading = read(self.path, self.file)?;
        let mut tx = conn.begin().await.map_err(broken)?;
        sqlx::query(PATIENCE)
            .execute(&mut *tx)
            .await
            .map_err(broken)?;
        let mut tx = Tx::Postgres(tx);
        make_room(&mut tx, how.replace).await?;
        let target = Some(reading.header().schema);
        migrate_within(&mut tx, target).await?;
        let put = import(&mut tx, &mut reading).await;
        put.map_err(|e| self.not_put(e))?;
        migrate_within(&mut tx, None).await?;
        let renewed = renew(&mut tx, world, how.sign_out_everyone).await;
        renewed.map_err(not_renewed)?;
        // One may have been started since.
        no_server(&mut tx).await?;
        tx.commit().await.map_err(broken)?;
        // What was restored is durable; how the connection ends does not matter.
        let _ = conn.close().await;
        Ok(())
    }

    fn not_put(&self, why: NotPut) -> BackupError {
        match why {
            NotPut::Unsound(why) => unsound(self.path, why),
            NotPut::Sql(table, e) => BackupError::database(format!("cannot restore {table}"))(e),
        }
    }
}

async fn migrate_within(tx: &mut Tx<'_>, target: Option<i64>) -> Result<(), BackupError> {
    match tx {
        Tx::Sqlite(tx) => migrate::run(&mut **tx, target).await?,
        Tx::Postgres(tx) => migrate::run(&mut **tx, target).await?,
    }
    Ok(())
}

/// Takes the old tables away, unless that would lose what somebody needs.
async fn make_room(tx: &mut Tx<'_>, replace: bool) -> Result<(), BackupError> {
    let broken = || BackupError::database("cannot look at the database");
    let (needs, knows) = (
        schema_version(tx).await.map_err(broken())?.unwrap_or(0),
        migrate::newest(),
    );
    if needs > knows {
        return Err(BackupError::SchemaTooNew { needs, knows });
    }
    let mut there = Vec::new();
    for name in TABLES.iter().map(|(name, _)| *name).chain([MIGRATIONS]) {
        if exists(tx, name).await.map_err(broken())? {
            there.push(name);
        }
    }
    if let Some(name) = there.first()
        && !there.contains(&SUPPORT)
    {
        return Err(BackupError::NotOurs((*name).to_owned()));
    }
    no_server(tx).await?;
    let Tx::Postgres(conn) = tx else {
        return Ok(());
    };
    if there.contains(&"users") {
        let users = sqlx::query("SELECT 1 FROM users LIMIT 1").persistent(false);
        let users = users.fetch_optional(&mut **conn).await.map_err(broken())?;
        if users.is_some() && !replace {
            return Err(BackupError::HasUsers);
        }
    }
    there.reverse();
    for name in there {
        let drop = AssertSqlSafe(format!("DROP TABLE {name}"));
        let dropped = sqlx::query(drop).execute(&mut **conn).await;
        dropped.map_err(BackupError::database(format!("cannot replace {name}")))?;
    }
    Ok(())
}

/// Refuses a database to which servers are connected.
async fn no_server(tx: &mut Tx<'_>) -> Result<(), BackupError> {
    let Tx::Postgres(conn) = tx else {
        return Ok(());
    };
    let broken = || BackupError::database("cannot look for servers");
    // Within a transaction the first look is kept.
    sqlx::query("SELECT pg_stat_clear_snapshot()")
        .execute(&mut **conn)
        .await
        .map_err(broken())?;
    let servers: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'listen-stream'",
    )
    .fetch_one(&mut **conn)
    .await
    .map_err(broken())?;
    if servers > 0 {
        return Err(BackupError::InUse(servers));
    }
    Ok(())
}
