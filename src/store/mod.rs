//! The truth on disk: SQLite or PostgreSQL, from one SQL text.
//!
//! Owns every connection to a database and all SQL. Actors ask it through [`Store`], whose methods
//! each are one read or one transaction. It decides nothing that `domain` can decide, and no
//! driver type leaves it.

mod backup;
mod command;
mod constraint;
mod error;
mod group;
mod idempotency;
mod identity;
mod janitor;
mod keys;
mod library;
mod lock;
mod metrics;
mod migrate;
mod nodes;
mod open;
mod redis;
mod services;
mod size;
mod sync;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use backup::{
    BackupError, Header, Restore, Restored, Summary, backup_to_file, backup_to_stdout,
    epochs_renew, epochs_renew_alone, restore,
};
pub use command::Written;
pub use constraint::Constraint;
pub use error::{OpenError, StoreError};
pub use idempotency::Once;
pub use identity::{
    Login, LoginIds, LoginOutcome, NewSmsCode, NewTicket, Rotate, RotateOutcome, Session,
    SmsCodePut,
};
pub use janitor::{Claim, DueJob, Progress, Removed, RunReport};
pub use keys::{KeysError, MasterKey};
pub use library::{
    ActivatePlayer, CurrentSnapshot, FavoriteCommand, FavoritePut, FavoriteQuery, HistoryAdd,
    HistoryClear, HistoryQuery, HistoryTrim, HistoryTrimPage, NewSongs, PlayRemoved,
    PlayerActivation, PlaylistCommand, PlaylistOutcome, PlaylistQuery, Snapshot, SnapshotLines,
    SnapshotOutcome, SnapshotTurn, SongQuery,
};
pub use lock::{DataLock, LockError};
pub use metrics::{HintMetrics, StoreMetrics};
pub use redis::{
    Hint, Hints, LimitMetrics, Mode, Redis, RedisUrlError, SharedLimits, mode as redis_mode,
};
pub use services::{
    BroadcastPage, BroadcastStep, FreeBroadcast, NewBroadcast, ServiceAppend, Stepped,
    TakenBroadcast,
};
pub use size::StoreSize;
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};
pub use sync::{AttachState, CursorAck, Issued, LogPage, Superseded, TrimPage, Trimmed};
use tokio::{runtime::Handle, time::timeout};

use self::{error::Failed, group::Writer};
use crate::domain::clock::World;

/// How long [`Store::close`] waits for connections that are in use.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Which database serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file of this machine.
    Sqlite,
    /// A server, shared by many nodes.
    Postgres,
}

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file, made when it is not there. The caller holds the [`DataLock`] of its folder.
    Sqlite(PathBuf),
    /// `postgres://…`, with a password in it.
    Postgres(String),
}

impl Database {
    /// Which engine it is.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "Sqlite({})", path.display()),
            Self::Postgres(_) => f.write_str("Postgres(***)"),
        }
    }
}

/// How the store is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where the database is.
    pub database: Database,
    /// Connections to PostgreSQL.
    pub max_connections: u32,
    /// Connections that read from SQLite.
    pub read_connections: u32,
    /// The longest that a write may wait, and that PostgreSQL may work on one statement.
    pub write_timeout: Duration,
    /// The longest that a read may take.
    pub read_timeout: Duration,
    /// SQLite: an acknowledged write survives power loss.
    pub synchronous_full: bool,
}

/// The store. Clones share one set of connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({:?})", self.engine())
    }
}

struct Inner {
    db: Db,
    writes: Writes,
    /// Connections belong to this runtime's reactor, whoever asks.
    rt: Handle,
    world: World,
    metrics: StoreMetrics,
    snapshots: library::SnapshotPlaces,
    write_timeout: Duration,
    read_timeout: Duration,
}

/// Where reads go.
#[derive(Debug, Clone)]
enum Db {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Where writes go.
enum Writes {
    /// SQLite has one writer; commands share its transactions.
    Group(Writer),
    /// PostgreSQL groups commits by itself.
    Pool(PgPool),
}

/// A transaction of either engine.
enum Tx<'c> {
    Sqlite(Transaction<'c, Sqlite>),
    Postgres(Transaction<'c, Postgres>),
}

/// Compiles a query on a pool once for each engine.
macro_rules! on_pool {
    ($db:expr, $pool:ident => $body:expr) => {
        match $db {
            $crate::store::Db::Sqlite($pool) => $body,
            $crate::store::Db::Postgres($pool) => $body,
        }
    };
}

/// Compiles a query in a transaction once for each engine.
macro_rules! on_tx {
    ($tx:expr, $conn:ident => $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(t) => {
                let $conn = &mut **t;
                $body
            }
            $crate::store::Tx::Postgres(t) => {
                let $conn = &mut **t;
                $body
            }
        }
    };
}

use on_pool;
use on_tx;

impl Store {
    /// Connects, brings the schema up to date and starts the writer.
    ///
    /// # Errors
    /// [`OpenError`], which names what stands in the way and hides passwords.
    pub async fn open(
        config: StoreConfig,
        world: World,
        rt: Handle,
        metrics: StoreMetrics,
    ) -> Result<Self, OpenError> {
        let task = rt.clone().spawn(open::open(config, world, rt, metrics));
        let inner = task.await.map_err(|e| OpenError::Connect {
            place: "of the configuration".into(),
            reason: e.to_string(),
        })??;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Which database serves.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.inner.db {
            Db::Sqlite(_) => Engine::Sqlite,
            Db::Postgres(_) => Engine::Postgres,
        }
    }

    /// Whether the database answers and the writer lives.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ping(&self, deadline: Instant) -> Result<(), StoreError> {
        if let Writes::Group(writer) = &self.inner.writes
            && !writer.is_alive()
        {
            return Err(StoreError::Unavailable);
        }
        self.read("ping", deadline, async |db| {
            // The literal's type differs: INTEGER here, int4 there.
            on_pool!(&db, pool => sqlx::query("SELECT 1").execute(pool).await.map(|_| ()))
                .map_err(Failed::from)
        })
        .await
    }

    /// Ends the work that was taken on, then closes every connection. Later calls fail. Does not
    /// wait for ever for a database that is silent.
    pub async fn close(&self) {
        let inner = self.inner.clone();
        let task = self.inner.rt.spawn(async move {
            // Readers first: the writer's last checkpoint needs the file for itself.
            let closing = async { on_pool!(&inner.db, pool => pool.close().await) };
            if timeout(CLOSE_WITHIN, closing).await.is_err() {
                tracing::warn!("connections to the database did not close in time");
            }
            if let Writes::Group(writer) = &inner.writes {
                writer.close().await;
            }
        });
        if let Err(e) = task.await {
            tracing::error!(cause = %e, "closing the store failed");
        }
    }
}
