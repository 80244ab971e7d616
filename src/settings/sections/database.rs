//! `[database]`: where everything durable is kept.

use url::Url;

use crate::settings::{reader::Reader, secret::Secret};

/// When `SQLite` calls a commit done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// On the disk: survives power loss.
    Full,
    /// With the system: survives a crash of the server, not of the machine.
    Normal,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// A `postgres://` URL, from `url` or `url_file`; `None` for `SQLite` in the data folder.
    pub url: Option<Secret>,
    /// Connections to `PostgreSQL` at most.
    pub max_connections: u32,
    /// Connections to `SQLite` that only read, beside the one that writes.
    pub read_connections: u32,
    /// How long a write may wait and run, in milliseconds.
    pub write_timeout_ms: u64,
    /// How long a read may wait and run, in milliseconds.
    pub read_timeout_ms: u64,
    /// When `SQLite` calls a commit done.
    pub synchronous: Synchronous,
}

impl Database {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        Self {
            url: from.secret(
                "database.url",
                "database.url_file",
                "a URL that starts with postgres:// and names a host, or nothing for SQLite",
                is_postgres_url,
            ),
            max_connections: from.number("database.max_connections", 20, &(1..=1000)),
            read_connections: from.number("database.read_connections", 4, &(1..=64)),
            write_timeout_ms: from.number("database.write_timeout_ms", 5000, &(1..=600_000)),
            read_timeout_ms: from.number("database.read_timeout_ms", 5000, &(1..=600_000)),
            synchronous: from.choice(
                "database.synchronous",
                Synchronous::Full,
                &[("full", Synchronous::Full), ("normal", Synchronous::Normal)],
            ),
        }
    }
}

/// A host may also be a query parameter: that is how a Unix socket's folder is given.
fn is_postgres_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "postgres" | "postgresql")
            && (url.host_str().is_some_and(|host| !host.is_empty())
                || url.query_pairs().any(|(name, _)| name == "host"))
    })
}
