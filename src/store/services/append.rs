//! An event that a service appends to one user's log.

use std::time::Instant;

use super::quota::{counts_find, counts_store, shares_add};
use crate::{
    domain::{
        idempotency::IdempotencyKey,
        ids::ApiKeyId,
        services::{Appended, EventData, EventType, Quotas, decide},
    },
    store::{
        Once, Store, StoreError, Tx, Written,
        command::Command,
        error::Failed,
        idempotency::{Kept, OfUser, OnlyOnce, Outcome},
        on_tx,
        sync::{Issued, OpenLog},
    },
};

/// An event of a service for one user.
#[derive(Debug, Clone)]
pub struct ServiceAppend {
    /// For whom, and when.
    pub issued: Issued,
    /// The key that asks.
    pub key: ApiKeyId,
    /// What it may append in an hour.
    pub quotas: Quotas,
    /// The event's type.
    pub event_type: EventType,
    /// What it says.
    pub data: EventData,
}

impl Store {
    /// Appends a service's event to a user's log. With a key, a repetition finds what became of the
    /// first.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::NoUser`] when there is no such user.
    pub async fn service_append(
        &self,
        deadline: Instant,
        command: ServiceAppend,
        key: Option<IdempotencyKey>,
    ) -> Result<Once<Appended>, StoreError> {
        let owner = command.key.0;
        let once = OnlyOnce {
            owner,
            key,
            command,
        };
        self.write(deadline, once).await
    }
}

impl Outcome for Appended {
    fn kept(&self) -> Kept {
        match self {
            Self::Stored { .. } => Kept::Answer,
            // A service that is over its quota must not fill the database with its keys.
            Self::OverQuota(_) | Self::KeyRevoked => Kept::Nothing,
        }
    }
}

impl OfUser for ServiceAppend {
    fn issued(&self) -> &Issued {
        &self.issued
    }
}

impl Command for ServiceAppend {
    const NAME: &'static str = "service_append";
    type Out = Written<Appended>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let mut log = OpenLog::lock(tx, &self.issued).await?;
        // Snapshots of keys are a little old. Here the key is looked at as it is.
        let in_force: Option<ApiKeyId> = on_tx!(tx, conn => sqlx::query_scalar(
            "SELECT id FROM api_keys WHERE id = $1 AND revoked_at IS NULL")
            .bind(self.key).fetch_optional(conn).await?);
        if in_force.is_none() {
            return log.close(tx, Appended::KeyRevoked).await;
        }
        let user = self.issued.user;
        let mut counts = counts_find(tx, &[user], self.key).await?;
        let found = counts.remove(&user).unwrap_or_default();
        let count = match decide(self.issued.now, &found, self.quotas) {
            Ok(count) => count,
            Err(over) => return log.close(tx, Appended::OverQuota(over)).await,
        };
        let seq = log.next_seq();
        let stored = Appended::Stored {
            seq,
            id: self.issued.event_id,
        };
        log.append_named(self.event_type.as_str(), self.data.to_value())?;
        counts_store(tx, self.key, &[(user, count)]).await?;
        shares_add(tx, &[(user, seq)]).await?;
        log.close(tx, stored).await
    }
}
