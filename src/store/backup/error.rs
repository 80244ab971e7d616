//! Why a backup was not made, or not restored.

use std::{io, path::PathBuf};

use crate::store::OpenError;

/// Why a backup was not made, or not restored. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no way to the database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no database file.
    #[error("there is no database at {}: is --data the server's folder?", .0.display())]
    NoDatabase(PathBuf),
    /// The database has no tables of ours.
    #[error("the database is empty: no server has used it yet")]
    NoSchema,
    /// A restore was interrupted after its new database was whole.
    #[error(
        "a restore into {} was interrupted: start the server, which finishes it, or run \
         listen-stream migrate",
        .0.display()
    )]
    Unfinished(PathBuf),
    /// A restore put another database there while a backup began.
    #[error(
        "a restore put another database at {} meanwhile: nothing was written, try again when it is \
         done",
        .0.display()
    )]
    Replaced(PathBuf),
    /// The database failed.
    #[error("{what}: the database says: {reason}")]
    Database {
        /// What was tried.
        what: String,
        /// What the driver said.
        reason: String,
    },
    /// A file failed.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// There is a file of this name.
    #[error("{} is there already: choose another name, or say --force to replace it", .0.display())]
    Exists(PathBuf),
    /// Another backup is being written to the same file.
    #[error("another backup is being written to {}", .0.display())]
    Busy(PathBuf),
    /// Something else than a backup.
    #[error("{} is not a backup of listen-stream", .0.display())]
    Foreign(PathBuf),
    /// A backup that is not what was written.
    #[error("{} is damaged: {why}. Use another backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Made by a newer program.
    #[error("{} was made by listen-stream {program}, which is newer: restore it with that one", .path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The version of the program that made it.
        program: String,
    },
    /// The schema has more than this program knows of.
    #[error(
        "the database has migration {needs}, this listen-stream knows up to {knows}: use the one \
         that serves from it"
    )]
    SchemaTooNew {
        /// The newest migration that ran.
        needs: i64,
        /// The newest migration that is known.
        knows: i64,
    },
    /// The master key of the settings is not the one of the backup.
    #[error(
        "the master key of these settings does not open the keys in the backup. Set \
         keys.master_key_file (or master.key in the data folder) to the master key of the server \
         that the backup was made of"
    )]
    WrongMasterKey,
    /// A server, or another command, works on the data folder.
    #[error("another listen-stream works on {}: stop it first", .0.display())]
    Locked(PathBuf),
    /// The target holds users.
    #[error("the database has users, who would be lost: make a backup of it, then say --replace")]
    HasUsers,
    /// The target is another program's.
    #[error(
        "the database has a table {0} that is not listen-stream's: give it a database of its own"
    )]
    NotOurs(String),
    /// Servers work on the target.
    #[error("{0} connections of servers are open to the database: stop them first")]
    InUse(i64),
}

impl BackupError {
    /// The database failed at `what`.
    pub(super) fn database(what: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let what = what.into();
        move |e| Self::Database {
            what,
            reason: e.to_string(),
        }
    }

    /// A file failed.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |reason| Self::File { path, reason }
    }
}
