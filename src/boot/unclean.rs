//! The mark of a server whose answered writes may be lost.
//!
//! With `database.synchronous = "normal"` SQLite may fall back when the machine loses its power: to
//! an older state, under the same epochs, and a client that is ahead of it would go on beside it.
//! So a file stands in the data folder from before the first answer until everything is on disk. A
//! start that finds it renews the epochs, whatever the setting is by then. A server with `"full"`
//! never makes one. Owns that file; the caller holds the folder's lock.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{BootError, io_error};
use crate::{
    domain::clock::World,
    settings::{Settings, Synchronous},
    store,
};

const MARK: &str = "unclean";

/// For whoever finds it.
const TEXT: &str = "A listen-stream with database.synchronous = \"normal\" works here, or did not \
                    stop in order.\nKeep this file: the next start sees by it that answered \
                    writes may be lost, and tells the clients.\n";

/// The mark of a data folder with SQLite; there is none with PostgreSQL.
pub(super) struct Unclean {
    folder: PathBuf,
    mark: PathBuf,
    database: PathBuf,
    may_lose: bool,
}

impl Unclean {
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        let of_sqlite = settings.database.url.is_none();
        of_sqlite.then(|| Self {
            folder: settings.data_dir.clone(),
            mark: settings.data_dir.join(MARK),
            database: settings.sqlite_path(),
            may_lose: settings.database.synchronous == Synchronous::Normal,
        })
    }

    /// Renews the epochs if the last server may have lost what it answered. Before the store opens.
    pub(super) async fn make_good(&self, world: &World) -> Result<(), BootError> {
        let found = self.mark.try_exists();
        if !found.map_err(io_error("cannot look at the data folder"))? {
            return Ok(());
        }
        let logs = store::epochs_renew_alone(&self.database, world).await?;
        tracing::warn!(
            logs,
            "renewed the epochs: the last server did not stop in order, and with \
             database.synchronous = \"normal\" answered writes may be lost; every client loads its \
             data anew, once"
        );
        if !self.may_lose {
            let removed = self.remove();
            removed.map_err(io_error("cannot remove the mark of an unclean stop"))?;
        }
        Ok(())
    }

    /// Makes the mark durable, if this server needs one. Before anything is answered.
    pub(super) fn begin(&self) -> Result<(), BootError> {
        let make = || -> io::Result<()> {
            let mut file = File::create(&self.mark)?;
            file.write_all(TEXT.as_bytes())?;
            file.sync_all()?;
            sync(&self.folder)
        };
        if self.may_lose {
            make().map_err(io_error("cannot make the mark of an unclean stop"))?;
        }
        Ok(())
    }

    /// Brings everything to the disk and removes the mark. After the store has closed.
    pub(super) fn end(&self) {
        if !self.may_lose {
            return;
        }
        // The last checkpoint does it as well, but not while a backup reads.
        let mut log = self.database.clone().into_os_string();
        log.push("-wal");
        let synced = sync(&self.database)
            .and_then(|()| match sync(Path::new(&log)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            })
            .and_then(|()| sync(&self.folder))
            .and_then(|()| self.remove());
        if let Err(e) = synced {
            tracing::warn!(cause = %e, "not everything is on disk for sure: the next start renews the epochs");
        }
    }

    fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.mark)?;
        sync(&self.folder)
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
