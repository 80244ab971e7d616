//! Codes sent to phones.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::{
    domain::identity::Phone,
    store::{Store, StoreError},
};

/// A code about to be sent.
#[derive(Debug, Clone)]
pub struct NewSmsCode {
    /// To whom.
    pub phone: Phone,
    /// `Secrets::hash_code` of it.
    pub code_hash: String,
    /// How often it may be guessed.
    pub tries: i64,
    /// When it is sent.
    pub sent_at: DateTime<Utc>,
    /// When it is over.
    pub expires_at: DateTime<Utc>,
    /// How long the last code of this phone keeps another from being sent.
    pub cooldown: chrono::Duration,
}

/// Whether a code may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmsCodePut {
    /// It took the place of the one before.
    Stored,
    /// The last one was sent too short a time ago.
    TooSoon {
        /// For how long.
        wait: Duration,
    },
}

impl Store {
    /// Puts a code in force, unless the last one is too young.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sms_code_put(
        &self,
        _deadline: Instant,
        _code: NewSmsCode,
    ) -> Result<SmsCodePut, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Takes back a code that could not be sent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sms_code_discard(
        &self,
        _deadline: Instant,
        _phone: &Phone,
        _code_hash: &str,
    ) -> Result<(), StoreError> {
        Err(StoreError::Unavailable)
    }
}
