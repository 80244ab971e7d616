//! Connecting to either engine.

use std::{path::Path, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{runtime::Handle, time::timeout};

use super::{
    Database, Db, Inner, OpenError, StoreConfig, StoreMetrics, Writes, backup, group::Writer,
    library::SnapshotPlaces, migrate,
};
use crate::domain::clock::World;

/// How long PostgreSQL may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest that a call waits for a connection, whatever its own deadline.
const ACQUIRE: Duration = Duration::from_secs(3);

/// How long a connection may take to be ready for another call, before it is given up.
const RELEASE: Duration = Duration::from_secs(3);

pub(super) async fn open(
    config: StoreConfig,
    world: World,
    rt: Handle,
    metrics: StoreMetrics,
) -> Result<Inner, OpenError> {
    let (db, writes) = match &config.database {
        Database::Sqlite(path) => sqlite(&config, path, &world, &metrics).await?,
        Database::Postgres(url) => {
            let pool = postgres(&config, url, &world).await?;
            (Db::Postgres(pool.clone()), Writes::Pool(pool))
        }
    };
    let readers = match db {
        Db::Sqlite(_) => config.read_connections,
        Db::Postgres(_) => config.max_connections,
    };
    Ok(Inner {
        db,
        writes,
        snapshots: SnapshotPlaces::new(readers),
        rt,
        world,
        metrics,
        write_timeout: config.write_timeout,
        read_timeout: config.read_timeout,
    })
}

async fn sqlite(
    config: &StoreConfig,
    path: &Path,
    world: &World,
    metrics: &StoreMetrics,
) -> Result<(Db, Writes), OpenError> {
    let failed = |e: sqlx::Error| OpenError::Connect {
        place: path.display().to_string(),
        reason: e.to_string(),
    };
    let common = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(config.write_timeout)
        .disable_statement_logging();
    let writing = common
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(if config.synchronous_full {
            SqliteSynchronous::Full
        } else {
            SqliteSynchronous::Normal
        });
    // What an interrupted restore left, before the file is looked at.
    backup::settle(path).map_err(|e| OpenError::Connect {
        place: path.display().to_string(),
        reason: e.to_string(),
    })?;
    let mut conn = writing.connect().await.map_err(failed)?;
    migrate::sqlite(&mut conn).await?;
    let reads = SqlitePoolOptions::new()
        .max_connections(config.read_connections.max(1))
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .connect_with(common.read_only(true))
        .await
        .map_err(failed)?;
    let writer = Writer::start(conn, writing, world.clone(), metrics.clone());
    Ok((Db::Sqlite(reads), Writes::Group(writer)))
}

async fn postgres(config: &StoreConfig, url: &str, world: &World) -> Result<PgPool, OpenError> {
    let options = postgres_options(url)?;
    // Migrations may take longer than a statement of a command.
    let mut conn = connect_patiently(&options, world).await?;
    migrate::postgres(&mut conn).await?;
    drop(conn);
    let millis = config.write_timeout.as_millis();
    let limited = options.clone().options([
        ("statement_timeout", millis),
        ("lock_timeout", millis),
        (
            "idle_in_transaction_session_timeout",
            millis.saturating_mul(2),
        ),
    ]);
    PgPoolOptions::new()
        .max_connections(config.max_connections.max(1))
        .acquire_timeout(ACQUIRE.min(config.write_timeout))
        // A read whose deadline passed leaves its connection in the middle of a question. The pool
        // waits for the answer for ever, and for as long the place is taken: a server that fell
        // silent would take all of them until the system gives its connections up.
        .after_release(|conn, _| {
            Box::pin(async move {
                let answered = timeout(RELEASE, conn.ping()).await;
                answered.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
                Ok(true)
            })
        })
        .connect_with(limited)
        .await
        .map_err(|e| unreachable(&options, &e))
}

fn postgres_options(url: &str) -> Result<PgConnectOptions, OpenError> {
    Ok(PgConnectOptions::from_str(url)
        .map_err(|_| OpenError::BadUrl)?
        .application_name("listen-stream")
        .disable_statement_logging())
}

/// A connection without limits for a command that is no server's; it shows itself by `name`.
pub(super) async fn postgres_alone(
    url: &str,
    name: &str,
    world: &World,
) -> Result<PgConnection, OpenError> {
    let options = postgres_options(url)?.application_name(name);
    connect_patiently(&options, world).await
}

fn unreachable(options: &PgConnectOptions, e: &sqlx::Error) -> OpenError {
    OpenError::Connect {
        place: format!(
            "{} at {}:{}",
            options.get_database().unwrap_or("postgres"),
            options.get_host(),
            options.get_port()
        ),
        reason: e.to_string(),
    }
}

/// Waits for a PostgreSQL that is not there yet; any other refusal is final.
async fn connect_patiently(
    options: &PgConnectOptions,
    world: &World,
) -> Result<PgConnection, OpenError> {
    let give_up = world.instant() + PATIENCE;
    loop {
        let left = give_up.saturating_duration_since(world.instant());
        let e = match timeout(left, options.connect()).await {
            Ok(Ok(conn)) => return Ok(conn),
            Ok(Err(e)) => e,
            Err(_) => sqlx::Error::PoolTimedOut,
        };
        let coming = match &e {
            sqlx::Error::Io(_) => true,
            sqlx::Error::Database(d) => d.code().is_some_and(|code| code == "57P03"),
            _ => false,
        };
        if !coming || world.instant() >= give_up {
            return Err(unreachable(options, &e));
        }
        tracing::info!(host = options.get_host(), "waiting for PostgreSQL");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
