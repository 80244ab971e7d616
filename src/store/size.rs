//! How much room the database takes. Asked seldom: a database looks at its files for it.

use std::time::Instant;

use super::{Db, Store, StoreError};

/// The room that a database takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSize {
    /// Bytes of the database: the file with SQLite, all of its relations with PostgreSQL.
    pub database: u64,
    /// Bytes of SQLite's write-ahead log; PostgreSQL's is of the whole server.
    pub wal: Option<u64>,
}

impl Store {
    /// The room that the database takes now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn size(&self, deadline: Instant) -> Result<StoreSize, StoreError> {
        self.read("size", deadline, async |db| match db {
            Db::Sqlite(pool) => {
                let file: String =
                    sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'")
                        .fetch_one(&pool)
                        .await?;
                // There is none before the first write and after the last checkpoint.
                let wal = bytes(&format!("{file}-wal")).await.unwrap_or(0);
                let database = bytes(&file).await.ok_or(StoreError::Unavailable)?;
                let wal = Some(wal);
                Ok(StoreSize { database, wal })
            }
            Db::Postgres(pool) => {
                let bytes: i64 = sqlx::query_scalar("SELECT pg_database_size(current_database())")
                    .fetch_one(&pool)
                    .await?;
                Ok(StoreSize {
                    database: u64::try_from(bytes).unwrap_or(0),
                    wal: None,
                })
            }
        })
        .await
    }

    /// Connections that read, or all of PostgreSQL: how many there are, and how many rest.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        let (all, idle) = super::on_pool!(&self.inner.db, pool => (pool.size(), pool.num_idle()));
        (all, u32::try_from(idle).unwrap_or(u32::MAX))
    }
}

async fn bytes(file: &str) -> Option<u64> {
    Some(tokio::fs::metadata(file).await.ok()?.len())
}
