//! What of the schema a backup holds: the tables, and the types that their columns may have.
//!
//! Owns the list of tables, in the order in which their rows can be put back, and one name for each
//! column type, whatever an engine calls it. A table that is in neither engine's schema, or in a
//! schema but not in the list, fails a test.

use serde::{Deserialize, Serialize};

use crate::store::{Tx, on_tx};

/// Whether a table's rows are in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// They are.
    Rows,
    /// They are not: they mean nothing half a minute later, as tickets, the nodes that run, and an
    /// hour's quota.
    Over,
    /// They are not: the migrations make them.
    Made,
}

/// Every table of ours, parents before children.
pub(super) const TABLES: &[(&str, Part)] = &[
    ("secret_keys", Part::Rows),
    ("users", Part::Rows),
    ("user_logs", Part::Rows),
    ("sync_events", Part::Rows),
    ("devices", Part::Rows),
    ("favorites", Part::Rows),
    ("players", Part::Rows),
    ("plays", Part::Rows),
    ("histories", Part::Rows),
    ("playlists", Part::Rows),
    ("playlist_entries", Part::Rows),
    ("idempotency_keys", Part::Rows),
    ("janitor_runs", Part::Rows),
    ("api_keys", Part::Rows),
    ("service_shares", Part::Rows),
    ("broadcasts", Part::Rows),
    ("sms_codes", Part::Rows),
    ("revocations", Part::Rows),
    ("sync_tickets", Part::Over),
    ("service_quotas", Part::Over),
    ("nodes", Part::Over),
    ("schema_support", Part::Made),
];

/// Where sqlx keeps which migrations ran.
pub(super) const MIGRATIONS: &str = "_sqlx_migrations";

/// The tables whose rows are in a backup.
pub(super) fn kept() -> impl Iterator<Item = &'static str> {
    let rows = TABLES.iter().filter(|(_, part)| *part == Part::Rows);
    rows.map(|(name, _)| *name)
}

/// The name in the list, if a backup holds rows of it.
pub(super) fn known(name: &str) -> Option<&'static str> {
    kept().find(|it| *it == name)
}

/// A column's type, by the name that it has in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Uuid,
    Text,
    Bigint,
    Boolean,
    Timestamptz,
    Jsonb,
}

impl Kind {
    /// By what either engine calls it.
    fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "uuid" => Self::Uuid,
            "text" => Self::Text,
            "bigint" => Self::Bigint,
            "boolean" => Self::Boolean,
            "timestamptz" | "timestamp with time zone" => Self::Timestamptz,
            "jsonb" => Self::Jsonb,
            _ => return None,
        })
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column(pub(super) String, pub(super) Kind);

/// A table's columns in the schema's order; none when there is no such table.
pub(super) async fn columns(tx: &mut Tx<'_>, table: &str) -> sqlx::Result<Vec<Column>> {
    let named: Vec<(String, String)> = match tx {
        Tx::Sqlite(tx) => {
            sqlx::query_as("SELECT name, type FROM pragma_table_info($1) ORDER BY cid")
                .bind(table)
                .fetch_all(&mut **tx)
                .await?
        }
        Tx::Postgres(tx) => {
            sqlx::query_as(
                "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
                 WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
                 ORDER BY attnum",
            )
            .bind(table)
            .fetch_all(&mut **tx)
            .await?
        }
    };
    let columns = named.into_iter().map(|(name, kind)| {
        let known = Kind::named(&kind);
        let unknown = || sqlx::Error::Protocol(format!("{table}.{name} has the type {kind}"));
        Ok(Column(name.clone(), known.ok_or_else(unknown)?))
    });
    columns.collect()
}

/// The newest migration that ran; none when there is no schema of ours.
pub(super) async fn schema_version(tx: &mut Tx<'_>) -> sqlx::Result<Option<i64>> {
    if !exists(tx, MIGRATIONS).await? {
        return Ok(None);
    }
    on_tx!(tx, conn => {
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(conn).await
    })
}

/// Whether there is such a table.
pub(super) async fn exists(tx: &mut Tx<'_>, table: &str) -> sqlx::Result<bool> {
    match tx {
        Tx::Sqlite(tx) => {
            let n: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1",
            )
            .bind(table)
            .fetch_one(&mut **tx)
            .await?;
            Ok(n > 0)
        }
        Tx::Postgres(tx) => {
            sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
                .bind(table)
                .fetch_one(&mut **tx)
                .await
        }
    }
}
