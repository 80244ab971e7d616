//! Bringing a schema up to date, and refusing one that is too new.

use sqlx::{
    PgConnection, SqliteConnection,
    migrate::{Migrate, Migrator},
};

use super::error::OpenError;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The newest migration that this binary knows.
pub(super) fn newest() -> i64 {
    MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0)
}

/// Whether there is a migration of this number.
pub(super) fn knows(version: i64) -> bool {
    MIGRATIONS.version_exists(version)
}

fn unreadable(e: &sqlx::Error) -> OpenError {
    OpenError::Schema(e.to_string())
}

/// Refuses a schema that asks for a migration which this binary does not know.
fn check(needs: sqlx::Result<Option<i64>>) -> Result<(), OpenError> {
    let knows = newest();
    match needs.map_err(|e| unreadable(&e))? {
        Some(needs) if needs > knows => Err(OpenError::SchemaTooNew { needs, knows }),
        _ => Ok(()),
    }
}

/// Runs what is missing, up to the migration `target` if one is named. A newer schema is let through
/// here: [`check`] has judged it.
pub(super) async fn run<C: Migrate>(conn: &mut C, target: Option<i64>) -> Result<(), OpenError> {
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    migrator.set_ignore_missing(true);
    migrator
        .run_direct(target, conn, false)
        .await
        .map_err(|e| OpenError::Migrate(e.to_string()))
}

const SUPPORT: &str = "SELECT oldest_known FROM schema_support WHERE id = 1";

/// Brings an SQLite schema up to date. The caller holds the data folder's lock: sqlx takes none.
pub(super) async fn sqlite(conn: &mut SqliteConnection) -> Result<(), OpenError> {
    let there: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_support'",
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(|e| unreadable(&e))?;
    if there > 0 {
        let needs = sqlx::query_scalar(SUPPORT).fetch_optional(&mut *conn).await;
        check(needs)?;
    }
    run(conn, None).await?;
    let needs = sqlx::query_scalar(SUPPORT).fetch_optional(conn).await;
    check(needs)
}

/// Brings a PostgreSQL schema up to date, under sqlx's advisory lock.
pub(super) async fn postgres(conn: &mut PgConnection) -> Result<(), OpenError> {
    let there: bool = sqlx::query_scalar("SELECT to_regclass('schema_support') IS NOT NULL")
        .fetch_one(&mut *conn)
        .await
        .map_err(|e| unreadable(&e))?;
    if there {
        let needs = sqlx::query_scalar(SUPPORT).fetch_optional(&mut *conn).await;
        check(needs)?;
    }
    run(conn, None).await?;
    let needs = sqlx::query_scalar(SUPPORT).fetch_optional(conn).await;
    check(needs)
}
