//! `[keys]`: the master key, under which the keys in the database are sealed.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::settings::{reader::Reader, secret::Secret};

/// Bytes of a master key.
const MASTER_KEY_BYTES: usize = 32;

/// Where the master key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKey {
    /// Given by `master_key` or in `master_key_file`: base64 of 32 bytes, checked.
    Given(Secret),
    /// In this file of the data folder, which the first start makes.
    DataFolder(PathBuf),
}

/// The keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The key that seals all others.
    pub master_key: MasterKey,
}

impl Keys {
    pub(in crate::settings) fn read(from: &mut Reader, data_dir: &Path) -> Self {
        let given = from.secret(
            "keys.master_key",
            "keys.master_key_file",
            "base64 of 32 bytes",
            is_master_key,
        );
        Self {
            master_key: given.map_or_else(
                || MasterKey::DataFolder(data_dir.join("master.key")),
                MasterKey::Given,
            ),
        }
    }
}

fn is_master_key(text: &str) -> bool {
    STANDARD
        .decode(text)
        .is_ok_and(|key| key.len() == MASTER_KEY_BYTES)
}
