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
    /// Codes that a phone may be sent within an hour.
    pub per_hour: i64,
}

/// How long sent codes are counted. Neither a cool-down nor a code may be longer.
pub(super) const COUNTED: chrono::Duration = chrono::Duration::hours(1);

/// How far clocks of nodes may differ. What was sent later than that was sent by a clock that was
/// wrong: it keeps nobody waiting until its time has come.
const SKEW: chrono::Duration = chrono::Duration::minutes(1);

/// Whether a code may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmsCodePut {
    /// It took the place of the one before.
    Stored,
    /// The last one was sent too short a time ago, or too many were sent.
    TooSoon {
        /// For how long.
        wait: Duration,
    },
}

impl Store {
    /// Puts a code in force, unless the last one is too young or too many were sent.
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
        // Age and number are judged under the row's lock, so that two nodes send one code.
        let window = self.sent_at - COUNTED;
        let stored = on_tx!(tx, conn => sqlx::query(
            "INSERT INTO sms_codes
                 (phone, code_hash, tries_left, used, sent_at, expires_at, counted_since, sent_count)
             VALUES ($1, $2, $3, FALSE, $4, $5, $4, 1)
             ON CONFLICT (phone) DO UPDATE
             SET code_hash = excluded.code_hash, tries_left = excluded.tries_left, used = FALSE,
                 sent_at = excluded.sent_at, expires_at = excluded.expires_at,
                 counted_since = CASE
                     WHEN sms_codes.counted_since > $7 AND sms_codes.counted_since <= $9
                     THEN sms_codes.counted_since ELSE excluded.counted_since END,
                 sent_count = CASE
                     WHEN sms_codes.counted_since > $7 AND sms_codes.counted_since <= $9
                     THEN sms_codes.sent_count + 1 ELSE 1 END
             WHERE (sms_codes.sent_at <= $6 OR sms_codes.sent_at > $9)
                 AND (sms_codes.sent_count < $8
                     OR sms_codes.counted_since <= $7 OR sms_codes.counted_since > $9)")
            .bind(&self.phone).bind(&self.code_hash).bind(self.tries)
            .bind(self.sent_at).bind(self.expires_at).bind(self.sent_at - self.cooldown)
            .bind(window).bind(self.per_hour).bind(self.sent_at + SKEW)
            .execute(conn).await?.rows_affected());
        if stored > 0 {
            return Ok(SmsCodePut::Stored);
        }
        let (last, since, count): (DateTime<Utc>, DateTime<Utc>, i64) = on_tx!(tx, conn => sqlx::query_as(
                "SELECT sent_at, counted_since, sent_count FROM sms_codes WHERE phone = $1")
                .bind(&self.phone).fetch_one(conn).await?);
        let mut wait = last + self.cooldown - self.sent_at;
        if count >= self.per_hour {
            wait = wait.max(since - window);
        }
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
        // The row stays: it counts the codes that were sent before this one.
        on_tx!(tx, conn => sqlx::query(
            "UPDATE sms_codes SET used = TRUE, sent_at = $3, sent_count = sent_count - 1
             WHERE phone = $1 AND code_hash = $2 AND used = FALSE")
            .bind(&self.phone).bind(&self.code_hash).bind(DateTime::UNIX_EPOCH)
            .execute(conn).await?.rows_affected());
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
