//! Putting a restored SQLite database in the place of the old one.
//!
//! The new database is built beside the old one as `….restoring`. Its renaming to
//! `….restored-<time>` decides: a crash before leaves the old database, a crash after it the new
//! one, which whoever opens the folder next puts in place. The old one is kept, with its
//! write-ahead log or rollback journal, as `….before-restore-<time>`. The caller holds the folder's
//! lock.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::BackupError;

const BUILDING: &str = ".restoring";
const DECIDED: &str = ".restored-";
const KEPT: &str = ".before-restore-";

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Makes a folder's renames durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Where the new database is built.
pub(super) fn building(path: &Path) -> PathBuf {
    beside(path, BUILDING)
}

/// Where the old database is kept.
pub(super) fn kept(path: &Path, stamp: &str) -> PathBuf {
    beside(path, &format!("{KEPT}{stamp}"))
}

/// The time of a restore that was decided and is not done, if there is one.
fn decided(path: &Path) -> io::Result<Option<String>> {
    let Some(name) = path.file_name().and_then(|it| it.to_str()) else {
        return Ok(None);
    };
    let entries = match fs::read_dir(folder(path)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let found = entry?.file_name();
        let stamp = found
            .to_str()
            .and_then(|it| it.strip_prefix(name)?.strip_prefix(DECIDED));
        if let Some(stamp) = stamp {
            return Ok(Some(stamp.to_owned()));
        }
    }
    Ok(None)
}

/// What is renamed to what, in order. Each may have happened already.
fn moves(path: &Path, stamp: &str) -> [(PathBuf, PathBuf); 4] {
    let kept = kept(path, stamp);
    [
        // Before the database that they belong to: the new one must never meet them. A journal is
        // there when a write outside the write-ahead log was interrupted.
        (beside(path, "-journal"), beside(&kept, "-journal")),
        (beside(path, "-wal"), beside(&kept, "-wal")),
        (path.to_path_buf(), kept),
        (
            beside(path, &format!("{DECIDED}{stamp}")),
            path.to_path_buf(),
        ),
    ]
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Finishes a restore that was decided, and clears away one that was not.
pub(in crate::store) fn settle(path: &Path) -> Result<(), BackupError> {
    settle_files(path).map_err(BackupError::file(path))
}

fn settle_files(path: &Path) -> io::Result<()> {
    let building = building(path);
    for suffix in ["", "-journal", "-wal", "-shm"] {
        remove_if_there(&beside(&building, suffix))?;
    }
    let Some(stamp) = decided(path)? else {
        return Ok(());
    };
    // An index of the write-ahead log, made anew by whoever opens it.
    remove_if_there(&beside(path, "-shm"))?;
    let [journal, wal, old, new] = moves(path, &stamp);
    for (from, to) in [journal, wal, old] {
        rename_if_there(&from, &to)?;
    }
    sync_folder_of(path)?;
    rename_if_there(&new.0, &new.1)?;
    sync_folder_of(path)
}

/// Refuses a folder in which a restore was decided and is not done.
pub(super) fn check_settled(path: &Path) -> Result<(), BackupError> {
    match decided(path).map_err(BackupError::file(path))? {
        Some(_) => Err(BackupError::Unfinished(folder(path).to_path_buf())),
        None => Ok(()),
    }
}

/// Puts what was built in place of the old database; says where that is kept, if there was one.
pub(super) fn put_in_place(path: &Path, stamp: &str) -> Result<Option<PathBuf>, BackupError> {
    let built = building(path);
    let decide = || {
        File::open(&built)?.sync_all()?;
        fs::rename(&built, beside(path, &format!("{DECIDED}{stamp}")))?;
        sync_folder_of(path)
    };
    decide().map_err(BackupError::file(&built))?;
    settle(path)?;
    let kept = kept(path, stamp);
    Ok(kept.exists().then_some(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in the folder, as `name=text`.
    fn files(folder: &Path) -> Vec<String> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|it| {
                let path = it.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                format!("{}={text}", path.file_name().unwrap().to_str().unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn folder_with(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let db = folder.path().join("db");
        (folder, db)
    }

    const OLD: [(&str, &str); 4] = [
        ("db", "old"),
        ("db-journal", "old journal"),
        ("db-wal", "old wal"),
        ("db-shm", "shm"),
    ];
    const AFTER: [&str; 4] = [
        "db.before-restore-7-journal=old journal",
        "db.before-restore-7-wal=old wal",
        "db.before-restore-7=old",
        "db=new",
    ];

    #[test]
    fn what_was_built_takes_the_place_and_the_old_is_kept() {
        let (folder, db) = folder_with(&OLD);
        fs::write(building(&db), "new").unwrap();
        let kept = put_in_place(&db, "7").unwrap();
        assert_eq!(kept, Some(folder.path().join("db.before-restore-7")));
        assert_eq!(files(folder.path()), AFTER);
        settle(&db).unwrap();
        assert_eq!(files(folder.path()), AFTER, "there is nothing left to do");
    }

    #[test]
    fn a_crash_after_any_step_leaves_one_of_the_two_whole() {
        let (folder, db) = folder_with(&OLD);
        fs::write(building(&db), "half of the new").unwrap();
        fs::write(beside(&building(&db), "-journal"), "journal").unwrap();
        check_settled(&db).unwrap();
        settle(&db).unwrap();
        assert_eq!(
            files(folder.path()),
            [
                "db-journal=old journal",
                "db-shm=shm",
                "db-wal=old wal",
                "db=old"
            ]
        );

        for done in 0..=4 {
            let (folder, db) = folder_with(&OLD);
            fs::write(folder.path().join("db.restored-7"), "new").unwrap();
            for (from, to) in moves(&db, "7").into_iter().take(done) {
                fs::rename(from, to).unwrap();
            }
            assert_eq!(check_settled(&db).is_err(), done < 4);
            settle(&db).unwrap();
            let mut after = files(folder.path());
            // Nobody reads it without the log that it indexes.
            after.retain(|it| it != "db-shm=shm" || done < 4);
            assert_eq!(after, AFTER, "after {done} steps");
        }
    }

    #[test]
    fn a_folder_without_a_database_gets_one() {
        let (folder, db) = folder_with(&[]);
        settle(&db).unwrap();
        fs::write(building(&db), "new").unwrap();
        assert_eq!(put_in_place(&db, "7").unwrap(), None);
        assert_eq!(files(folder.path()), ["db=new"]);
        settle(&folder.path().join("nowhere/db")).unwrap();
    }
}
