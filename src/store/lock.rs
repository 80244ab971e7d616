//! The lock on a data folder: one server at a time serves from it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Why a data folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("another listen-stream serves from {}", .0.display())]
    Taken(PathBuf),
    /// The folder cannot be used.
    #[error("cannot use the data folder {}: {reason}", .dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

/// Holds a data folder until it is dropped, also when the process dies.
#[derive(Debug)]
pub struct DataLock {
    /// The system releases the lock with the file.
    _file: File,
}

impl DataLock {
    /// Locks `dir`, which is made (for its owner only) when it is not there.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let failed = |reason| LockError::Io {
            dir: dir.to_path_buf(),
            reason,
        };
        make_private_dir(dir).map_err(failed)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken(dir.to_path_buf())),
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }
}

/// Makes a folder that only its owner may enter; one that is there stays as it is.
fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        let held = DataLock::acquire(&dir).unwrap();
        let refused = DataLock::acquire(&dir).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("another listen-stream serves from {}", dir.display())
        );
        drop(held);
        assert!(DataLock::acquire(&dir).is_ok());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }
}
