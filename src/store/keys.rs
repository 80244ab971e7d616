//! The master key, and the server's keys that are stored sealed under it.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use aes_gcm::{
    Aes256Gcm,
    aead::{Aead, KeyInit, Nonce, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};

use super::{Store, StoreError, Tx, command::Command, error::Failed, on_pool, on_tx};
use crate::domain::{
    clock::{EntropyError, World},
    identity::{KeyMaterial, Secrets},
};

/// The key that seals all other keys. It never enters the database.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

/// What stands between the server and its keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The stored keys were sealed under another master key.
    #[error(
        "the master key does not open the keys in this database: it belongs to another one. Use \
         the key that was in use when the database was made"
    )]
    WrongMasterKey,
    /// There are keys, and nothing to open them with.
    #[error(
        "the keys in this database are sealed under a master key that is not here: put it at {}",
        .0.display()
    )]
    NoMasterKey(PathBuf),
    /// Not the base64 of 32 bytes.
    #[error("a master key is 32 random bytes in base64, such as `openssl rand -base64 32` makes")]
    BadMasterKey,
    /// The file cannot be read or made.
    #[error("master key file {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The system's random source failed.
    #[error(transparent)]
    Randomness(#[from] EntropyError),
    /// The store did not serve.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes a file that was not there, for its owner only: whole and on disk, or not at all. Half a
/// key would stop every later start.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&part)?;
    file.write_all(bytes).and_then(|()| file.sync_all())?;
    // Unlike a rename this keeps what is there.
    let linked = std::fs::hard_link(&part, path);
    std::fs::remove_file(&part)?;
    linked?;
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Signs access tokens.
const ACCESS: &str = "access_token";
/// The root of all derived keys.
const ROOT: &str = "root";
/// The keys of the first start have these names, so that two processes that start at once make
/// one set.
const FIRST: [(&str, &str); 2] = [(ACCESS, "access-1"), (ROOT, "root-1")];

impl MasterKey {
    /// Reads base64 of 32 bytes.
    ///
    /// # Errors
    /// [`KeysError::BadMasterKey`].
    pub fn from_base64(text: &str) -> Result<Self, KeysError> {
        let bytes = STANDARD
            .decode(text.trim())
            .map_err(|_| KeysError::BadMasterKey)?;
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| KeysError::BadMasterKey)
    }

    /// Reads a file that holds base64 of 32 bytes.
    ///
    /// # Errors
    /// [`KeysError::File`] and [`KeysError::BadMasterKey`].
    pub fn from_file(path: &Path) -> Result<Self, KeysError> {
        let text = std::fs::read_to_string(path).map_err(|e| file_error(path, e))?;
        Self::from_base64(&text)
    }

    /// Makes a key and a file that holds it, for its owner only. One that is there is kept and an
    /// error.
    ///
    /// # Errors
    /// [`KeysError::File`] and [`KeysError::Randomness`].
    pub fn create_file(path: &Path, world: &World) -> Result<Self, KeysError> {
        let key = Self(world.bytes()?);
        let text = STANDARD.encode(key.0) + "\n";
        write_new(path, text.as_bytes()).map_err(|e| file_error(path, e))?;
        Ok(key)
    }

    /// base64 of `nonce ‖ ciphertext ‖ tag`; bound to the key's name and purpose.
    fn seal(&self, row: &NewKey, bytes: &[u8; 32], nonce: [u8; 12]) -> Option<String> {
        let cipher = Aes256Gcm::new(&self.0.into());
        let aad = format!("{}{}", row.kid, row.purpose);
        let payload = Payload {
            msg: bytes,
            aad: aad.as_bytes(),
        };
        let sealed = cipher
            .encrypt(&Nonce::<Aes256Gcm>::from(nonce), payload)
            .ok()?;
        let mut out = nonce.to_vec();
        out.extend_from_slice(&sealed);
        Some(STANDARD.encode(out))
    }

    /// Whether it is the one that the key was sealed under.
    pub(super) fn opens(&self, row: &KeyRow) -> bool {
        self.open(row).is_some()
    }

    /// Opens what [`Self::seal`] made under the same master key, name and purpose.
    fn open(&self, row: &KeyRow) -> Option<[u8; 32]> {
        let sealed = STANDARD.decode(&row.sealed).ok()?;
        let (nonce, rest) = sealed.split_at_checked(12)?;
        let nonce: [u8; 12] = nonce.try_into().ok()?;
        let aad = format!("{}{}", row.kid, row.purpose);
        let payload = Payload {
            msg: rest,
            aad: aad.as_bytes(),
        };
        Aes256Gcm::new(&self.0.into())
            .decrypt(&Nonce::<Aes256Gcm>::from(nonce), payload)
            .ok()?
            .try_into()
            .ok()
    }
}

fn file_error(path: &Path, reason: std::io::Error) -> KeysError {
    KeysError::File {
        path: path.display().to_string(),
        reason,
    }
}

impl Store {
    /// Opens the server's keys, and makes them at the first start.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn secrets_load(
        &self,
        deadline: Instant,
        master: &MasterKey,
    ) -> Result<Secrets, KeysError> {
        let mut rows = self.key_rows(deadline).await?;
        let missing: Vec<_> = FIRST
            .into_iter()
            .filter(|(purpose, _)| !rows.iter().any(|row| row.purpose == *purpose))
            .collect();
        if !missing.is_empty() {
            // A wrong master key must not add keys of its own beside those it cannot open.
            opened(master, &rows)?;
            let missing: Result<Vec<_>, _> = missing
                .into_iter()
                .map(|(purpose, kid)| self.new_key(master, kid, purpose))
                .collect();
            self.write(deadline, NewKeys(missing?)).await?;
            rows = self.key_rows(deadline).await?;
        }
        let mut keys = opened(master, &rows)?;
        let is_root = |row: &KeyRow| row.purpose == ROOT;
        let root = rows
            .iter()
            .position(is_root)
            .map(|at| keys[at].bytes)
            .ok_or(StoreError::Corrupt("no root key"))?;
        let mut rows = rows.iter();
        keys.retain(|_| rows.next().is_some_and(|row| !is_root(row)));
        Ok(Secrets::new(keys, &root))
    }

    /// Whether there are any keys: only one master key opens them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keys_exist(&self, deadline: Instant) -> Result<bool, StoreError> {
        Ok(!self.key_rows(deadline).await?.is_empty())
    }

    fn new_key(
        &self,
        master: &MasterKey,
        kid: &'static str,
        purpose: &'static str,
    ) -> Result<NewKey, KeysError> {
        let world = &self.inner.world;
        let mut row = NewKey {
            kid,
            purpose,
            sealed: String::new(),
            created_at: world.now(),
        };
        row.sealed = master
            .seal(&row, &world.bytes()?, world.bytes()?)
            .ok_or(KeysError::BadMasterKey)?;
        Ok(row)
    }

    /// Every key, the newest first.
    async fn key_rows(&self, deadline: Instant) -> Result<Vec<KeyRow>, StoreError> {
        self.read("secret_keys", deadline, async |db| {
            Ok(on_pool!(&db, pool => sqlx::query_as(
                "SELECT kid, purpose, sealed FROM secret_keys ORDER BY created_at DESC, kid DESC")
                .fetch_all(pool).await?))
        })
        .await
    }
}

/// The rows' keys, in their order.
fn opened(master: &MasterKey, rows: &[KeyRow]) -> Result<Vec<KeyMaterial>, KeysError> {
    rows.iter()
        .map(|row| {
            let bytes = master.open(row).ok_or(KeysError::WrongMasterKey)?;
            Ok(KeyMaterial {
                kid: row.kid.clone(),
                bytes,
            })
        })
        .collect()
}

/// A key as it is stored.
#[derive(sqlx::FromRow)]
pub(super) struct KeyRow {
    pub(super) kid: String,
    pub(super) purpose: String,
    pub(super) sealed: String,
}

struct NewKey {
    kid: &'static str,
    purpose: &'static str,
    sealed: String,
    created_at: DateTime<Utc>,
}

/// Made together or not at all: of two first starts with different master keys one wins whole, and
/// the database never holds keys that no single master key opens.
struct NewKeys(Vec<NewKey>);

impl Command for NewKeys {
    const NAME: &'static str = "secret_keys_make";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        for key in &self.0 {
            on_tx!(tx, conn => sqlx::query(
                "INSERT INTO secret_keys (kid, purpose, sealed, created_at)
                 VALUES ($1, $2, $3, $4) ON CONFLICT (kid) DO NOTHING")
                .bind(key.kid).bind(key.purpose).bind(&key.sealed).bind(key.created_at)
                .execute(conn).await?.rows_affected());
        }
        Ok(())
    }
}
