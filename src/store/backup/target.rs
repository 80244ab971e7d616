//! The file that a backup is written to: whole under its name, or not there.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, BufWriter, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{BackupError, swap::sync_folder_of};

/// A file on its way to its name. Dropped before [`Self::keep`] it leaves nothing.
pub(super) struct Target {
    path: PathBuf,
    part: PathBuf,
    kept: bool,
}

/// The owner's alone: a backup holds phone numbers.
const MODE: u32 = 0o600;

impl Target {
    /// Opens `….part`. With `replace` the name may be taken.
    pub(super) fn open(path: &Path, replace: bool) -> Result<(Self, BufWriter<File>), BackupError> {
        if path.is_dir() || (path.exists() && !replace) {
            return Err(BackupError::Exists(path.to_path_buf()));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = || BackupError::file(&part);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .open(&part)
            .map_err(failed())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::Busy(path.to_path_buf())),
            Err(TryLockError::Error(e)) => return Err(failed()(e)),
        }
        // One that a crash left may be longer, and another's to read.
        file.set_permissions(Permissions::from_mode(MODE))
            .and_then(|()| file.set_len(0))
            .map_err(failed())?;
        let target = Self {
            path: path.to_path_buf(),
            part,
            kept: false,
        };
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
}
