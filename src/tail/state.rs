//! What `tail` remembers between runs: who it is, its tokens, and the last event it printed.
//!
//! Owns the state file. It is replaced whole, so that a crash leaves the old one or the new one,
//! and locked, because two processes with one refresh token sign each other out.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{error::TailError, steps::Position, wire::Secret};

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The server that the tokens belong to.
    pub(super) server: String,
    /// Made once: the server knows the device by it.
    pub(super) device_id: String,
    pub(super) tokens: Option<Tokens>,
    /// Names the renewal under way. It is on disk before the request leaves, so that a repeated
    /// request gets the pair that the lost answer held, instead of a sign-out for reuse.
    pub(super) renewal_key: Option<String>,
    /// The last event that was printed.
    pub(super) position: Position,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tokens {
    pub(super) refresh: Secret,
    pub(super) access: Secret,
    pub(super) access_expires_at: DateTime<Utc>,
}

/// The state and its file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    /// Held as long as the process uses the file.
    _lock: File,
    pub(super) saved: Saved,
}

impl Store {
    /// Opens the file for `server`, or starts a new one for a device called `device_id`.
    pub(super) fn open(path: PathBuf, server: &str, device_id: String) -> Result<Self, TailError> {
        let failed = |source| TailError::State {
            path: path.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder(&path))
            .map_err(failed)?;
        let lock = private(OpenOptions::new().create(true).truncate(false))
            .open(beside(&path, "lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TailError::StateInUse { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let saved = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Saved>(&bytes)
                .map_err(|_| TailError::StateForm { path: path.clone() })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Saved {
                server: server.to_owned(),
                device_id,
                tokens: None,
                renewal_key: None,
                position: Position::default(),
            },
            Err(source) => return Err(failed(source)),
        };
        if saved.server != server {
            return Err(TailError::OtherServer {
                path,
                server: saved.server,
            });
        }
        Ok(Self {
            path,
            _lock: lock,
            saved,
        })
    }

    /// Writes the state; when this returns, it survives power loss.
    pub(super) fn save(&self) -> Result<(), TailError> {
        self.write().map_err(|source| TailError::State {
            path: self.path.clone(),
            source,
        })
    }

    fn write(&self) -> io::Result<()> {
        let new = beside(&self.path, "new");
        // One that a crash left may have other permissions; the lock says that nobody uses it.
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = private(OpenOptions::new().create_new(true)).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&self.saved)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(folder(&self.path))?.sync_all()
    }
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.write(true).mode(0o600)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Where the state is kept when nobody says: a file for each server and phone, whose name does
/// not show the number.
pub(super) fn default_path(
    xdg_state_home: Option<OsString>,
    home: Option<OsString>,
    server: &str,
    phone: &str,
) -> Result<PathBuf, TailError> {
    let base = xdg_state_home
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| {
            home.filter(|home| !home.is_empty())
                .map(|home| PathBuf::from(home).join(".local/state"))
        })
        .ok_or(TailError::NoStateFolder)?;
    let hash = Sha256::digest(format!("{server}\n{phone}"));
    let name = hash[..8].iter().fold(String::new(), |mut name, byte| {
        use std::fmt::Write as _;
        let _ = write!(name, "{byte:02x}");
        name
    });
    Ok(base.join("listen-stream").join(format!("tail-{name}.json")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SERVER: &str = "http://127.0.0.1:8080";

    fn open(path: &Path) -> Result<Store, TailError> {
        Store::open(path.to_owned(), SERVER, "device".to_owned())
    }

    #[test]
    fn what_is_saved_is_read_again_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/state.json");
        let mut store = open(&path).unwrap();
        store.saved.tokens = Some(Tokens {
            refresh: Secret("lsr_r".to_owned()),
            access: Secret("a".to_owned()),
            access_expires_at: DateTime::from_timestamp(1, 0).unwrap(),
        });
        store.saved.position = Position {
            epoch: Some("e".to_owned()),
            last_seq: 9,
        };
        fs::write(beside(&path, "new"), "left by a crash").unwrap();
        store.save().unwrap();
        let saved = store.saved.clone();
        drop(store);

        let again = Store::open(path.clone(), SERVER, "other".to_owned()).unwrap();
        assert_eq!(again.saved, saved);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(!beside(&path, "new").exists());
        assert!(!format!("{again:?}").contains("lsr_r"));
    }

    #[test]
    fn a_second_process_and_another_server_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let store = open(&path).unwrap();
        assert!(matches!(open(&path), Err(TailError::StateInUse { .. })));
        store.save().unwrap();
        drop(store);
        let other = Store::open(path.clone(), "https://example.com", "d".to_owned());
        assert!(matches!(other, Err(TailError::OtherServer { .. })));
        fs::write(&path, "{}").unwrap();
        assert!(matches!(open(&path), Err(TailError::StateForm { .. })));
    }

    #[test]
    fn the_default_place_follows_the_environment() {
        let xdg = || Some(OsString::from("/x"));
        let home = || Some(OsString::from("/h"));
        let path = default_path(xdg(), home(), SERVER, "+8613800138000").unwrap();
        assert!(path.starts_with("/x/listen-stream") && !path.ends_with("tail-.json"));
        assert!(!path.to_string_lossy().contains("138"));
        let path = default_path(None, home(), SERVER, "+1").unwrap();
        assert!(path.starts_with("/h/.local/state/listen-stream"));
        let relative = Some(OsString::from("x"));
        assert!(default_path(relative, None, SERVER, "+1").is_err());
    }
}
