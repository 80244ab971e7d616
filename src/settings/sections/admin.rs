//! `[admin]`: who may look at actors and end their lives.

use crate::settings::{reader::Reader, secret::Secret};

/// The least that a token has.
const LEAST: usize = 32;

/// The admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// From `token` or `token_file`; without it the admin API is off.
    pub token: Option<Secret>,
}

impl Admin {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        Self {
            token: from.secret(
                "admin.token",
                "admin.token_file",
                "at least 32 characters, printable and without spaces (openssl rand -hex 32), or \
                 nothing",
                is_token,
            ),
        }
    }
}

fn is_token(text: &str) -> bool {
    text.len() >= LEAST && text.bytes().all(|byte| byte.is_ascii_graphic())
}
