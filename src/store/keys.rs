//! The master key, and the server's keys that are stored sealed under it.

use std::{path::Path, time::Instant};

use super::{Store, StoreError};
use crate::domain::{
    clock::{EntropyError, World},
    identity::Secrets,
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

impl MasterKey {
    /// Reads base64 of 32 bytes.
    ///
    /// # Errors
    /// [`KeysError::BadMasterKey`].
    pub fn from_base64(_text: &str) -> Result<Self, KeysError> {
        Err(KeysError::BadMasterKey)
    }

    /// Reads a file that holds base64 of 32 bytes.
    ///
    /// # Errors
    /// [`KeysError::File`] and [`KeysError::BadMasterKey`].
    pub fn from_file(_path: &Path) -> Result<Self, KeysError> {
        Err(KeysError::BadMasterKey)
    }

    /// Makes a key and a file that holds it, for its owner only. One that is there is kept and an
    /// error.
    ///
    /// # Errors
    /// [`KeysError::File`] and [`KeysError::Randomness`].
    pub fn create_file(_path: &Path, _world: &World) -> Result<Self, KeysError> {
        Err(KeysError::BadMasterKey)
    }
}

impl Store {
    /// Opens the server's keys, and makes them at the first start.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn secrets_load(
        &self,
        _deadline: Instant,
        _master: &MasterKey,
    ) -> Result<Secrets, KeysError> {
        Err(KeysError::BadMasterKey)
    }
}
