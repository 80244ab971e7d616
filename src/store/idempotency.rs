//! Answers to commands that may be repeated.
//!
//! Owns the rows of `idempotency_keys`. The answer is stored in the transaction of the command, so
//! a command that comes again after a lost answer finds either its answer or nothing done.

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Store, StoreError, Tx, Written,
    command::Command,
    error::Failed,
    on_tx,
    sync::{Issued, OpenLog},
};
use crate::domain::idempotency::{IdempotencyKey, REMEMBERED};

/// What became of a command that had a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Once<T> {
    /// It ran, now or the first time that it came. `events` are those of now: none the second time.
    Ran(Written<T>),
    /// Its key was used for something else.
    Reused,
}

/// What is remembered of a command that may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// A repetition is answered the same.
    Answer,
    /// It is decided anew, as after a refusal whose reason may be gone by then; something else under the key
    /// is another call all the same.
    Asked,
    /// Nothing: that is for refusals that must cost nothing, however many there are.
    Nothing,
}

/// What a command brings back that may be repeated.
pub(super) trait Outcome {
    /// What is remembered of it.
    fn kept(&self) -> Kept {
        Kept::Answer
    }
}

/// A command that changes a user's log.
pub(super) trait OfUser {
    /// By whom and when.
    fn issued(&self) -> &Issued;
}

/// Runs `command` once for each key of `owner`. Without a key it always runs.
pub(super) struct OnlyOnce<C> {
    pub owner: Uuid,
    pub key: Option<IdempotencyKey>,
    pub command: C,
}

impl<C, T> Command for OnlyOnce<C>
where
    C: Command<Out = Written<T>> + OfUser,
    T: Outcome + Serialize + DeserializeOwned + Send + 'static,
{
    const NAME: &'static str = C::NAME;
    type Out = Once<T>;

    fn weight(&self) -> usize {
        self.command.weight()
    }

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let Some(key) = &self.key else {
            return self.command.run(tx).await.map(Once::Ran);
        };
        let issued = self.command.issued();
        // The lock first: of two that come at once the second one finds the answer.
        let log = OpenLog::lock(tx, issued).await?;
        if let Some(found) = find(tx, self.owner, key, issued.now).await? {
            if found.asked_hash != key.asked_hash {
                return Ok(Once::Reused);
            }
            if let Some(Answer { value, seq }) = found.answer {
                let value = serde_json::from_value(value)
                    .map_err(|_| StoreError::Corrupt("a remembered answer"))?;
                let mut written = log.close(tx, value).await?;
                written.log.head_seq = seq.unwrap_or(written.log.head_seq);
                return Ok(Once::Ran(written));
            }
        }
        let written = self.command.run(tx).await?;
        let answer = match written.value.kept() {
            Kept::Answer => {
                let value = serde_json::to_value(&written.value);
                Some(Answer {
                    value: value.map_err(|_| StoreError::Corrupt("an answer"))?,
                    seq: Some(written.log.head_seq),
                })
            }
            Kept::Asked => None,
            Kept::Nothing => return Ok(Once::Ran(written)),
        };
        remember(tx, self.owner, key, issued.now, answer).await?;
        Ok(Once::Ran(written))
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        if let Once::Ran(written) = out {
            written.committed_at = Some(at);
        }
    }
}

/// What was answered.
#[derive(Serialize, Deserialize)]
pub(super) struct Answer {
    pub value: serde_json::Value,
    /// The head of the log that was told with it. Rows of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
}

/// A key that was used.
pub(super) struct Found {
    /// What for.
    pub asked_hash: String,
    /// None where it was none that lasts.
    pub answer: Option<Answer>,
}

/// What is known of the key.
pub(super) async fn find(
    tx: &mut Tx<'_>,
    owner: Uuid,
    key: &IdempotencyKey,
    now: DateTime<Utc>,
) -> Result<Option<Found>, Failed> {
    let row: Option<(String, Json<serde_json::Value>)> = on_tx!(tx, conn => sqlx::query_as(
        "SELECT asked_hash, answer FROM idempotency_keys
         WHERE owner = $1 AND key_hash = $2 AND created_at > $3")
        .bind(owner).bind(&key.key_hash).bind(now - REMEMBERED)
        .fetch_optional(conn).await?);
    // JSON columns hold objects or arrays only: `{}` is no answer.
    Ok(row.map(|(asked_hash, Json(answer))| Found {
        asked_hash,
        answer: serde_json::from_value(answer).ok(),
    }))
}

/// Notes what was asked under the key, and the answer, unless it is none that lasts. [`find`] said that the
/// key is free, or open: when another transaction was faster since, this one is to run again.
pub(super) async fn remember(
    tx: &mut Tx<'_>,
    owner: Uuid,
    key: &IdempotencyKey,
    now: DateTime<Utc>,
    answer: Option<Answer>,
) -> Result<(), Failed> {
    let answer = match answer {
        Some(answer) => {
            serde_json::to_value(answer).map_err(|_| StoreError::Corrupt("an answer"))?
        }
        None => serde_json::json!({}),
    };
    // A service's key is not under one user's lock. One that is there may be written over only when it is
    // too old to count, or open and of the same call.
    let written = on_tx!(tx, conn => sqlx::query(
        "INSERT INTO idempotency_keys (owner, key_hash, asked_hash, answer, created_at)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (owner, key_hash) DO UPDATE SET asked_hash = excluded.asked_hash,
             answer = excluded.answer, created_at = excluded.created_at
         WHERE idempotency_keys.created_at <= $6
             OR (idempotency_keys.asked_hash = excluded.asked_hash AND idempotency_keys.answer = '{}')")
        .bind(owner).bind(&key.key_hash).bind(&key.asked_hash)
        .bind(Json(answer)).bind(now).bind(now - REMEMBERED)
        .execute(conn).await?.rows_affected());
    if written == 0 {
        return Err(Failed::Overtaken);
    }
    Ok(())
}

/// Deletes what is too old to count, at most `limit` rows.
struct Sweep {
    before: DateTime<Utc>,
    limit: u32,
}

impl Command for Sweep {
    const NAME: &'static str = "idempotency_sweep";
    type Out = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Failed> {
        Ok(on_tx!(tx, conn => sqlx::query(
            "DELETE FROM idempotency_keys WHERE (owner, key_hash) IN
                 (SELECT owner, key_hash FROM idempotency_keys
                  WHERE created_at <= $1 ORDER BY created_at LIMIT $2)")
            .bind(self.before).bind(i64::from(self.limit))
            .execute(conn).await?.rows_affected()))
    }
}

impl Store {
    /// Forgets at most `limit` answers that are too old to count. Answers how many it forgot.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn idempotency_sweep(
        &self,
        deadline: Instant,
        now: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let before = now - REMEMBERED;
        self.write(deadline, Sweep { before, limit }).await
    }
}
