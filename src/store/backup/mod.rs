//! Backups that either engine makes and either takes, and what a state that comes back needs.
//!
//! Owns the commands `backup`, `restore` and `renew-epochs` as far as they touch database and
//! files. They run in processes of their own, never inside a server. A backup holds the server's
//! keys as they are stored, sealed; the master key is never in it.

mod error;
mod export;
mod format;
mod import;
mod renew;
mod restore;
mod swap;
mod tables;
mod target;
mod value;

use std::{
    io::{self, Write},
    path::Path,
};

pub use error::BackupError;
pub use format::Header;
pub use renew::{epochs_renew, epochs_renew_alone};
pub use restore::{Restore, Restored, restore};
pub(super) use swap::settle;

use super::Database;
use crate::domain::clock::World;
use export::{Conn, export};
use target::Target;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Where it came from, and when.
    pub header: Header,
    /// Rows of each table.
    pub rows: std::collections::BTreeMap<String, u64>,
}

impl Summary {
    /// Rows of a table.
    #[must_use]
    pub fn of(&self, table: &str) -> u64 {
        self.rows.get(table).copied().unwrap_or(0)
    }
}

/// Writes a backup into a file, which is there whole or not at all; says also how many bytes.
///
/// # Errors
/// [`BackupError`].
pub async fn backup_to_file(
    database: &Database,
    world: &World,
    path: &Path,
    replace: bool,
) -> Result<(Summary, u64), BackupError> {
    let (target, file) = Target::open(path, replace)?;
    let mut conn = Conn::reading(database, world).await?;
    let unwritable = |e: io::Error| BackupError::file(path)(e);
    let (file, header, rows) = export(&mut conn, world, file, unwritable).await?;
    let bytes = target.keep(file)?;
    Ok((Summary { header, rows }, bytes))
}

/// Writes a backup to standard output.
///
/// # Errors
/// [`BackupError`].
pub async fn backup_to_stdout(database: &Database, world: &World) -> Result<Summary, BackupError> {
    let mut conn = Conn::reading(database, world).await?;
    let unwritable = |e: io::Error| BackupError::file("standard output")(e);
    let (mut out, header, rows) = export(&mut conn, world, io::stdout(), unwritable).await?;
    out.flush().map_err(unwritable)?;
    Ok(Summary { header, rows })
}

#[cfg(test)]
mod tests;
