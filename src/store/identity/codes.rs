//! Codes sent to phones.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::{
    domain::identity::Phone,
    store::{Store, StoreError, Tx, command::Command, error::Failed, on_tx},
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
        deadline: Instant,
        code: NewSmsCode,
    ) -> Result<SmsCodePut, StoreError> {
        self.write(deadline, code).await
    }

    /// Takes back a code that could not be sent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sms_code_discard(
        &self,
        deadline: Instant,
        phone: &Phone,
        code_hash: &str,
    ) -> Result<(), StoreError> {
        let discard = Discard {
            phone: phone.clone(),
            code_hash: code_hash.to_owned(),
        };
        self.write(deadline, discard).await
    }
}

impl Command for NewSmsCode {
    const NAME: &'static str = "sms_code_put";
    type Out = SmsCodePut;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<SmsCodePut, Failed> {
        // The age is judged by the row's lock, so that two nodes send one code.
        let stored = on_tx!(tx, conn => sqlx::query(
            "INSERT INTO sms_codes (phone, code_hash, tries_left, used, sent_at, expires_at)
             VALUES ($1, $2, $3, FALSE, $4, $5)
             ON CONFLICT (phone) DO UPDATE
             SET code_hash = excluded.code_hash, tries_left = excluded.tries_left, used = FALSE,
                 sent_at = excluded.sent_at, expires_at = excluded.expires_at
             WHERE sms_codes.sent_at <= $6")
            .bind(&self.phone).bind(&self.code_hash).bind(self.tries)
            .bind(self.sent_at).bind(self.expires_at).bind(self.sent_at - self.cooldown)
            .execute(conn).await?.rows_affected());
        if stored > 0 {
            return Ok(SmsCodePut::Stored);
        }
        let last: DateTime<Utc> = on_tx!(tx, conn => sqlx::query_scalar(
            "SELECT sent_at FROM sms_codes WHERE phone = $1")
            .bind(&self.phone).fetch_one(conn).await?);
        let wait = last + self.cooldown - self.sent_at;
        Ok(SmsCodePut::TooSoon {
            wait: wait.to_std().unwrap_or_default(),
        })
    }
}

struct Discard {
    phone: Phone,
    code_hash: String,
}

impl Command for Discard {
    const NAME: &'static str = "sms_code_discard";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        on_tx!(tx, conn => sqlx::query("DELETE FROM sms_codes WHERE phone = $1 AND code_hash = $2")
            .bind(&self.phone).bind(&self.code_hash).execute(conn).await?.rows_affected());
        Ok(())
    }
}

/// A code as it is stored, its row locked.
#[derive(sqlx::FromRow)]
pub(super) struct CodeRow {
    pub(super) code_hash: String,
    pub(super) tries_left: i64,
    pub(super) used: bool,
    pub(super) expires_at: DateTime<Utc>,
}

/// Locks a phone's code: of two logins with one code the second sees what the first left.
pub(super) async fn code_lock(tx: &mut Tx<'_>, phone: &Phone) -> Result<Option<CodeRow>, Failed> {
    Ok(on_tx!(tx, conn => sqlx::query_as(
        "UPDATE sms_codes SET tries_left = tries_left WHERE phone = $1
         RETURNING code_hash, tries_left, used, expires_at")
        .bind(phone).fetch_optional(conn).await?))
}

/// Counts a wrong guess.
pub(super) async fn code_missed(tx: &mut Tx<'_>, phone: &Phone) -> Result<(), Failed> {
    on_tx!(tx, conn => sqlx::query(
        "UPDATE sms_codes SET tries_left = tries_left - 1 WHERE phone = $1")
        .bind(phone).execute(conn).await?.rows_affected());
    Ok(())
}

/// Uses a code up.
pub(super) async fn code_consume(tx: &mut Tx<'_>, phone: &Phone) -> Result<(), Failed> {
    on_tx!(tx, conn => sqlx::query("UPDATE sms_codes SET used = TRUE WHERE phone = $1")
        .bind(phone).execute(conn).await?.rows_affected());
    Ok(())
}
