//! The database of a server, looked at and filled behind its back.

use chrono::SubsecRound as _;
use listen_stream::domain::clock::World;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use std::{path::Path, time::Duration};
use uuid::Uuid;

use super::Res;

/// A connection of its own.
pub enum Rows {
    /// To the file in a data folder.
    Sqlite(SqliteConnection),
    /// To a database.
    Postgres(PgConnection),
}

/// Compiles a query once for each engine.
macro_rules! on_rows {
    ($rows:expr, $db:ident => $body:expr) => {
        match $rows {
            Rows::Sqlite($db) => $body,
            Rows::Postgres($db) => $body,
        }
    };
}

/// Rows of one statement.
const AT_ONCE: usize = 500;

impl Rows {
    /// Of the server whose data folder this is, or which has this database.
    pub async fn open(data: &Path, database: Option<&str>) -> Res<Self> {
        if let Some(url) = database {
            return Ok(Self::Postgres(PgConnection::connect(url).await?));
        }
        let options = SqliteConnectOptions::new()
            .filename(data.join("listen-stream.db"))
            .busy_timeout(Duration::from_secs(10));
        Ok(Self::Sqlite(
            SqliteConnection::connect_with(&options).await?,
        ))
    }

    async fn run(&mut self, sql: String) -> Res<()> {
        on_rows!(self, db => { db.execute(AssertSqlSafe(sql)).await?; });
        Ok(())
    }

    /// Remembers the places of a playlist's entries.
    pub async fn remember(&mut self, playlist: Uuid) -> Res<()> {
        self.run("CREATE TEMP TABLE IF NOT EXISTS was (id UUID PRIMARY KEY, rank BIGINT)".into())
            .await?;
        self.run("DELETE FROM was".into()).await?;
        let sql = "INSERT INTO was SELECT id, rank FROM playlist_entries WHERE playlist_id = $1";
        on_rows!(self, db => { sqlx::query(sql).bind(playlist).execute(db).await?; });
        Ok(())
    }

    /// How many of them have another place since.
    pub async fn moved(&mut self, playlist: Uuid) -> Res<i64> {
        let sql = "SELECT COUNT(*) FROM playlist_entries e JOIN was ON was.id = e.id
                   WHERE e.playlist_id = $1 AND was.rank <> e.rank";
        Ok(on_rows!(self, db => sqlx::query_scalar(sql).bind(playlist).fetch_one(db).await?))
    }

    /// Makes so many users without devices, as their logins would.
    pub async fn add_users(&mut self, count: usize) -> Res<()> {
        let world = World::system();
        let now = world.now().trunc_subsecs(6);
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            ids.push(world.uuid()?);
        }
        self.run("BEGIN".into()).await?;
        for some in ids.chunks(AT_ONCE) {
            let places = |width: usize, more: &str| {
                let rows = (0..some.len()).map(|n| {
                    let places: Vec<_> =
                        (1..=width).map(|k| format!("${}", n * width + k)).collect();
                    format!("({}{more})", places.join(", "))
                });
                rows.collect::<Vec<_>>().join(", ")
            };
            let sql = format!(
                "INSERT INTO users (id, phone, created_at, updated_at, role, token_version)
                 VALUES {}",
                places(4, ", 'USER', 1")
            );
            on_rows!(&mut *self, db => {
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for id in some {
                    query = query.bind(id).bind(format!("+{}", id.simple())).bind(now).bind(now);
                }
                query.execute(db).await?;
            });
            let sql = format!(
                "INSERT INTO user_logs (user_id, epoch, head_seq, floor_seq) VALUES {}",
                places(2, ", 0, 0")
            );
            on_rows!(&mut *self, db => {
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for id in some {
                    query = query.bind(id).bind(id);
                }
                query.execute(db).await?;
            });
        }
        self.run("COMMIT".into()).await
    }
}
