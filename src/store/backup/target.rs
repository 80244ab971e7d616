//! The file that a backup is written to: whole under its name, or not there.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{BackupError, swap::sync_folder_of};

/// A file on its way to its name. Dropped before [`Self::keep`] it leaves nothing.
pub(super) struct Target {
    path: PathBuf,
    part: PathBuf,
    /// The same open file as the caller's: locked until this is dropped.
    _lock: File,
    kept: bool,
}

/// The owner's alone: a backup holds phone numbers.
const MODE: u32 = 0o600;

impl Target {
    /// Opens `….part`. With `replace` the name may be taken.
    pub(super) fn open(path: &Path, replace: bool) -> Result<(Self, BufWriter<File>), BackupError> {
        Self::open_with(path, replace, open_part)
    }

    fn open_with(
        path: &Path,
        replace: bool,
        mut open: impl FnMut(&Path) -> io::Result<File>,
    ) -> Result<(Self, BufWriter<File>), BackupError> {
        let free = || {
            if path.is_dir() || (path.exists() && !replace) {
                return Err(BackupError::Exists(path.to_path_buf()));
            }
            Ok(())
        };
        free()?;
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = || BackupError::file(&part);
        let file = loop {
            let file = open(&part).map_err(failed())?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(BackupError::Busy(path.to_path_buf())),
                Err(TryLockError::Error(e)) => return Err(failed()(e)),
            }
            // Another backup may have ended since it was opened: then it is that one's whole file,
            // or none any more.
            if is_at(&file, &part).map_err(failed())? {
                break file;
            }
        };
        let target = Self {
            path: path.to_path_buf(),
            _lock: file.try_clone().map_err(failed())?,
            part: part.clone(),
            kept: false,
        };
        free()?;
        // One that a crash left may be longer, and another's to read.
        file.set_permissions(Permissions::from_mode(MODE))
            .and_then(|()| file.set_len(0))
            .map_err(failed())?;
        Ok((target, BufWriter::new(file)))
    }

    /// Makes the file durable and gives it its name; says how many bytes it has.
    pub(super) fn keep(mut self, mut file: BufWriter<File>) -> Result<u64, BackupError> {
        let mut finish = || -> io::Result<u64> {
            file.flush()?;
            file.get_ref().sync_all()?;
            let bytes = file.get_ref().metadata()?.len();
            fs::rename(&self.part, &self.path)?;
            sync_folder_of(&self.path)?;
            Ok(bytes)
        };
        let bytes = finish().map_err(BackupError::file(&self.part))?;
        self.kept = true;
        Ok(bytes)
    }
}

fn open_part(part: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(part)
}

/// Whether the path still names this open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.kept {
            // What is left of it, the next backup to this name takes over.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_name_is_given_to_what_is_whole_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        let part = folder.path().join("b.part");

        let (target, mut file) = Target::open(&path, false).unwrap();
        file.write_all(b"half").unwrap();
        file.flush().unwrap();
        assert_eq!(mode(&part), 0o600);
        let second = Target::open(&path, false).map(|_| ()).unwrap_err();
        assert!(matches!(second, BackupError::Busy(_)), "{second}");
        drop(target);
        assert!(!part.exists() && !path.exists());

        // A crash left more than there will be, open to all.
        drop(file);
        fs::write(&part, "a longer half").unwrap();
        fs::set_permissions(&part, Permissions::from_mode(0o644)).unwrap();
        let (target, mut file) = Target::open(&path, false).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(target.keep(file).unwrap(), 5);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(mode(&path), 0o600);
        assert!(!part.exists());

        let refused = Target::open(&path, false).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("--force"), "{refused}");
        let (target, mut file) = Target::open(&path, true).unwrap();
        file.write_all(b"new").unwrap();
        target.keep(file).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(Target::open(folder.path(), true).is_err(), "a folder");
    }

    #[test]
    fn a_backup_that_ended_meanwhile_is_left_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        for replace in [true, false] {
            // The second opens the file of the first, which ends before the second asks for the lock.
            let (first, mut file) = Target::open(&path, true).unwrap();
            file.write_all(b"first").unwrap();
            let mut first = Some((first, file));
            let second = Target::open_with(&path, replace, |part| {
                let opened = open_part(part);
                if let Some((first, file)) = first.take() {
                    first.keep(file).unwrap();
                }
                opened
            });
            assert_eq!(fs::read(&path).unwrap(), b"first");
            match second {
                Ok((second, mut file)) if replace => {
                    file.write_all(b"second").unwrap();
                    second.keep(file).unwrap();
                    assert_eq!(fs::read(&path).unwrap(), b"second");
                }
                Ok(_) => panic!("the first is not to be replaced"),
                Err(e) => assert!(!replace && matches!(e, BackupError::Exists(_)), "{e}"),
            }
            assert!(!folder.path().join("b.part").exists());
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn one_that_failed_holds_the_lock_until_its_file_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        let (failed, file) = Target::open(&path, false).unwrap();
        drop(file);
        let second = Target::open(&path, false).map(|_| ()).unwrap_err();
        assert!(matches!(second, BackupError::Busy(_)), "{second}");
        drop(failed);
        assert!(Target::open(&path, false).is_ok());
    }
}
