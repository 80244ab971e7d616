//! The commands `backup`, `restore` and `renew-epochs`: settings in, the store's work, and what is
//! said about it.
//!
//! Each is a process of its own. A backup takes no lock: the server goes on. A restore takes the
//! data folder's, so that no server runs there.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use super::{BootError, database, finish, keep_files_private, say, with_store_runtime};
use crate::{
    domain::{clock::World, time::rfc3339},
    settings::{self, Settings},
    store::{
        self, BackupError, DataLock, Engine, LockError, MasterKey, Restore, Restored, Summary,
    },
};

/// Where a backup goes to.
const STDOUT: &str = "-";

/// Writes everything that the server has stored into `file`, or to standard output for `-`.
#[must_use]
pub fn backup(settings: &Settings, file: &Path, force: bool) -> ExitCode {
    keep_files_private();
    finish(with_store_runtime(|runtime| {
        runtime.block_on(async {
            let (database, world) = (database(settings), World::system());
            if file == Path::new(STDOUT) {
                let summary = store::backup_to_stdout(&database, &world).await?;
                // The backup itself is on standard output.
                let _ =
                    io::stderr().write_all(made(settings, &summary, "standard output").as_bytes());
            } else {
                let (summary, bytes) =
                    store::backup_to_file(&database, &world, file, force).await?;
                let place = format!("{}, {bytes} bytes", file.display());
                say(&made(settings, &summary, &place));
            }
            Ok(())
        })
    }))
}

/// Puts the state of a backup in the place of what is stored.
#[must_use]
pub fn restore(
    settings: &Settings,
    file: &Path,
    replace: bool,
    sign_out_everyone: bool,
) -> ExitCode {
    keep_files_private();
    finish(with_store_runtime(|runtime| {
        runtime.block_on(async {
            let _lock = lock(settings)?;
            let how = Restore {
                replace,
                sign_out_everyone,
                master: known_master_key(settings)?,
            };
            let (database, world) = (database(settings), World::system());
            let restored = store::restore(&database, &world, file, &how).await?;
            say(&brought_back(settings, &restored, &how));
            Ok(())
        })
    }))
}

/// Renews the epochs of a database that was brought back by other means.
#[must_use]
pub fn renew_epochs(settings: &Settings, sign_out_everyone: bool) -> ExitCode {
    keep_files_private();
    finish(with_store_runtime(|runtime| {
        runtime.block_on(async {
            let (database, world) = (database(settings), World::system());
            // The servers of a PostgreSQL may be running: they notice.
            let _lock = match database.engine() {
                Engine::Sqlite => Some(lock(settings)?),
                Engine::Postgres => None,
            };
            let logs = store::epochs_renew(&database, &world, sign_out_everyone).await?;
            say(&format!(
                "renewed the epochs of {logs} logs: every client loads its data anew, once\n{}\n",
                sessions(sign_out_everyone)
            ));
            Ok(())
        })
    }))
}

fn lock(settings: &Settings) -> Result<DataLock, BootError> {
    DataLock::acquire(&settings.data_dir).map_err(|e| match e {
        LockError::Taken(folder) => BackupError::Locked(folder).into(),
        e @ LockError::Io { .. } => e.into(),
    })
}

/// The master key, if there is one yet.
fn known_master_key(settings: &Settings) -> Result<Option<MasterKey>, BootError> {
    Ok(match &settings.keys.master_key {
        settings::MasterKey::Given(key) => Some(MasterKey::from_base64(key.expose())?),
        settings::MasterKey::DataFolder(path) if path.exists() => Some(MasterKey::from_file(path)?),
        settings::MasterKey::DataFolder(_) => None,
    })
}

fn master_key_place(settings: &Settings) -> String {
    match &settings.keys.master_key {
        settings::MasterKey::Given(_) => "the one of the setting keys.master_key".to_owned(),
        settings::MasterKey::DataFolder(path) => path.display().to_string(),
    }
}

fn counted(summary: &Summary) -> String {
    let counted = [
        ("user", "users"),
        ("device", "devices"),
        ("event", "sync_events"),
    ];
    let counted = counted.map(|(what, table)| match summary.of(table) {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    });
    counted.join(", ")
}

fn made(settings: &Settings, summary: &Summary, place: &str) -> String {
    format!(
        "made a backup of {}: {place}\n  \
         keys        the server's keys are in it, sealed under the master key\n  \
         master key  is NOT in it: {}\n              \
         Keep a copy of it, apart from the backup. Without it no server starts on the restored \
         data.\n",
        counted(summary),
        master_key_place(settings)
    )
}

fn sessions(sign_out_everyone: bool) -> &'static str {
    if sign_out_everyone {
        "  sessions    all ended: every device logs in again"
    } else {
        "  sessions    as they were then: logouts since are undone, and devices that renewed their \
         tokens since log in again"
    }
}

fn brought_back(settings: &Settings, restored: &Restored, how: &Restore) -> String {
    let Restored { summary, kept } = restored;
    let header = &summary.header;
    let mut lines = vec![
        format!(
            "restored {}, as they were at {} (from {}, by listen-stream {})",
            counted(summary),
            rfc3339(header.made_at),
            header.engine,
            header.program
        ),
        "  epochs      renewed: every client loads its data anew, once".to_owned(),
        sessions(how.sign_out_everyone).to_owned(),
    ];
    if let Some(kept) = kept {
        lines.push(format!(
            "  before      the database that was here is {}; remove it when nobody needs it",
            kept.display()
        ));
    }
    let place = master_key_place(settings);
    lines.push(if how.master.is_some() {
        format!("  master key  is in no backup; the one here opens the keys: {place}")
    } else {
        format!(
            "  master key  is in no backup, and MISSING here: before the start, put the one of the \
             server that the backup was made of at {place}"
        )
    });
    lines.join("\n") + "\n"
}
