//! Keys of other services.

use std::time::Instant;

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use crate::{
    domain::{
        ids::ApiKeyId,
        services::{ApiKey, BroadcastState, KeyName, StoredKey},
    },
    store::{Store, StoreError, Tx, command::Command, error::Failed, on_pool, on_tx},
};

impl Store {
    /// Stores a new key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_key_create(
        &self,
        deadline: Instant,
        key: StoredKey,
    ) -> Result<(), StoreError> {
        self.write(deadline, Create(key)).await
    }

    /// Every key there ever was, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_key_list(&self, deadline: Instant) -> Result<Vec<StoredKey>, StoreError> {
        self.read("api_key_list", deadline, async |db| {
            let rows: Vec<KeyRow> = on_pool!(&db, pool => sqlx::query_as(
                "SELECT id, name, hash, scopes, events_per_hour, created_at, revoked_at
                 FROM api_keys ORDER BY created_at, id")
                .fetch_all(pool).await?);
            Ok(rows.into_iter().map(KeyRow::into_key).collect())
        })
        .await
    }

    /// Ends a key, and with it the broadcasts that it began. `None`: there is no such key. One that was
    /// revoked stays as it is. Answers since when it opens nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_key_revoke(
        &self,
        deadline: Instant,
        id: ApiKeyId,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.write(deadline, Revoke { id, now }).await
    }
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: ApiKeyId,
    name: KeyName,
    hash: String,
    scopes: Json<Vec<String>>,
    events_per_hour: Option<i64>,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

impl KeyRow {
    fn into_key(self) -> StoredKey {
        // A scope that only newer binaries know opens nothing here.
        let scopes = self.scopes.0.iter().filter_map(|name| name.parse().ok());
        StoredKey {
            key: ApiKey {
                id: self.id,
                name: self.name,
                scopes: scopes.collect(),
                events_per_hour: self.events_per_hour,
                created_at: self.created_at,
                revoked_at: self.revoked_at,
            },
            hash: self.hash,
        }
    }
}

struct Create(StoredKey);

impl Command for Create {
    const NAME: &'static str = "api_key_create";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        let StoredKey { key, hash } = &self.0;
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO api_keys (id, name, hash, scopes, events_per_hour, created_at, revoked_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(key.id).bind(&key.name).bind(hash).bind(Json(&key.scopes))
            .bind(key.events_per_hour).bind(key.created_at).bind(key.revoked_at)
            .execute(conn).await?.rows_affected());
        Ok(())
    }
}

struct Revoke {
    id: ApiKeyId,
    now: DateTime<Utc>,
}

impl Command for Revoke {
    const NAME: &'static str = "api_key_revoke";
    type Out = Option<DateTime<Utc>>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let revoked: Option<DateTime<Utc>> = on_tx!(tx, conn => sqlx::query_scalar(
            "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1
             RETURNING revoked_at")
            .bind(self.id).bind(self.now).fetch_optional(conn).await?);
        // The key's row is held: no broadcast of its begins any more.
        on_tx!(tx, conn => sqlx::query(
            "UPDATE broadcasts SET state = $2, finished_at = $3
             WHERE key_id = $1 AND finished_at IS NULL")
            .bind(self.id).bind(BroadcastState::Cancelled.as_str()).bind(self.now)
            .execute(conn).await?.rows_affected());
        Ok(revoked)
    }
}
