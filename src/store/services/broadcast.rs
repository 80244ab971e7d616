//! Broadcasts: asked for, shown, cancelled, and taken over by the node that works at them.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize as _;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    domain::{
        idempotency::IdempotencyKey,
        ids::{ApiKeyId, BroadcastId, UserId},
        services::{
            Broadcast, BroadcastCursor, BroadcastStarted, BroadcastState, EventData, EventType,
            Segment,
        },
    },
    store::{
        Store, StoreError, Tx,
        command::Command,
        error::Failed,
        idempotency::{Answer, find, remember},
        on_pool, on_tx,
    },
};

/// Broadcasts of a key that are not finished, at most.
const MOST_UNFINISHED: i64 = 10;
/// For how long one that is finished can be looked at.
const KEPT: TimeDelta = TimeDelta::days(30);
/// Broadcasts that are forgotten in one step.
const SWEEP: i64 = 100;

/// A broadcast that is asked for.
#[derive(Debug, Clone)]
pub struct NewBroadcast {
    /// Its id.
    pub id: BroadcastId,
    /// The key that asks.
    pub key: ApiKeyId,
    /// The event's type.
    pub event_type: EventType,
    /// What it says.
    pub data: EventData,
    /// For whom.
    pub segment: Segment,
    /// When.
    pub now: DateTime<Utc>,
}

/// A broadcast that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct FreeBroadcast {
    /// Which.
    pub id: BroadcastId,
    /// Who works at it.
    pub lease_owner: Option<String>,
    /// Until when nobody else does.
    pub lease_until: DateTime<Utc>,
}

/// A broadcast that a node works at.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenBroadcast {
    /// Which.
    pub id: BroadcastId,
    /// The key that asked.
    pub key: ApiKeyId,
    /// The key's own quota, if it has one.
    pub events_per_hour: Option<i64>,
    /// The event's type.
    pub event_type: String,
    /// What it says.
    pub data: serde_json::Value,
    /// For whom.
    pub segment: Segment,
    /// The last user who is meant.
    pub last_user: UserId,
    /// Everybody up to here was dealt with.
    pub position: UserId,
}

impl Store {
    /// Stores a broadcast; some node begins with it soon.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn broadcast_start(
        &self,
        deadline: Instant,
        new: NewBroadcast,
        key: Option<IdempotencyKey>,
    ) -> Result<BroadcastStarted, StoreError> {
        self.write(deadline, Start { new, key }).await
    }

    /// A broadcast of a key; `None` when the key began no such.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn broadcast_fetch(
        &self,
        deadline: Instant,
        key: ApiKeyId,
        id: BroadcastId,
    ) -> Result<Option<Broadcast>, StoreError> {
        self.read("broadcast_fetch", deadline, async move |db| {
            let row: Option<Row> = on_pool!(&db, pool => sqlx::query_as(FETCH)
                .bind(id).bind(key).fetch_optional(pool).await?);
            Ok(row.map(Row::into_broadcast).transpose()?)
        })
        .await
    }

    /// Broadcasts of a key, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn broadcast_list(
        &self,
        deadline: Instant,
        key: ApiKeyId,
        limit: u32,
        before: Option<BroadcastCursor>,
    ) -> Result<Vec<Broadcast>, StoreError> {
        self.read("broadcast_list", deadline, async move |db| {
            let limit = i64::from(limit);
            let rows: Vec<Row> = match before {
                None => on_pool!(&db, pool => sqlx::query_as(
                    "SELECT id, event_type, state, reached, skipped, missing, position,
                         created_at, started_at, finished_at FROM broadcasts
                     WHERE key_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2")
                    .bind(key).bind(limit).fetch_all(pool).await?),
                Some(it) => on_pool!(&db, pool => sqlx::query_as(
                    "SELECT id, event_type, state, reached, skipped, missing, position,
                         created_at, started_at, finished_at FROM broadcasts
                     WHERE key_id = $1 AND (created_at, id) < ($3, $4)
                     ORDER BY created_at DESC, id DESC LIMIT $2")
                    .bind(key).bind(limit).bind(it.created_at).bind(it.id)
                    .fetch_all(pool).await?),
            };
            let rows: Result<Vec<_>, _> = rows.into_iter().map(Row::into_broadcast).collect();
            Ok(rows?)
        })
        .await
    }

    /// Ends a broadcast of a key, if it is not finished, and answers it. `None`: the key began no such.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn broadcast_cancel(
        &self,
        deadline: Instant,
        key: ApiKeyId,
        id: BroadcastId,
        now: DateTime<Utc>,
    ) -> Result<Option<Broadcast>, StoreError> {
        self.write(deadline, Cancel { key, id, now }).await
    }

    /// Broadcasts that are not finished, those first whose lease ends first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn broadcasts_unfinished(
        &self,
        deadline: Instant,
        limit: u32,
    ) -> Result<Vec<FreeBroadcast>, StoreError> {
        self.read("broadcasts_unfinished", deadline, async move |db| {
            Ok(on_pool!(&db, pool => sqlx::query_as(
                "SELECT id, lease_owner, lease_until FROM broadcasts
                 WHERE finished_at IS NULL ORDER BY lease_until, id LIMIT $1")
                .bind(i64::from(limit)).fetch_all(pool).await?))
        })
        .await
    }

    /// Makes `owner` the one who works at a broadcast until `until`, whose lease is as it was `seen`.
    /// `None`: another one was faster, or it is finished. Whether the lease is over is for the caller to
    /// judge.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn broadcast_take(
        &self,
        deadline: Instant,
        id: BroadcastId,
        owner: &str,
        now: DateTime<Utc>,
        seen: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Option<TakenBroadcast>, StoreError> {
        let owner = owner.to_owned();
        let take = Take {
            id,
            owner,
            now,
            seen,
            until,
        };
        self.write(deadline, take).await
    }

    /// Forgets some of the broadcasts that were finished long ago; says how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn broadcasts_sweep(
        &self,
        deadline: Instant,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        self.write(deadline, Sweep(now - KEPT)).await
    }
}

const FETCH: &str = "SELECT id, event_type, state, reached, skipped, missing, position, created_at, \
     started_at, finished_at FROM broadcasts WHERE id = $1 AND key_id = $2";

#[derive(sqlx::FromRow)]
struct Row {
    id: BroadcastId,
    event_type: String,
    state: String,
    reached: i64,
    skipped: i64,
    missing: i64,
    position: UserId,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl Row {
    fn into_broadcast(self) -> Result<Broadcast, StoreError> {
        Ok(Broadcast {
            id: self.id,
            event_type: self.event_type,
            state: self
                .state
                .parse()
                .map_err(|_| StoreError::Corrupt("a broadcast"))?,
            reached: self.reached,
            skipped: self.skipped,
            missing: self.missing,
            position: Some(self.position).filter(|it| !it.0.is_nil()),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        })
    }
}

struct Start {
    new: NewBroadcast,
    key: Option<IdempotencyKey>,
}

impl Command for Start {
    const NAME: &'static str = "broadcast_start";
    type Out = BroadcastStarted;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<BroadcastStarted, Failed> {
        let new = &self.new;
        // The key's row is held from here: of two that come at once the second finds the first.
        let in_force: Option<ApiKeyId> = on_tx!(tx, conn => sqlx::query_scalar(
            "UPDATE api_keys SET name = name WHERE id = $1 AND revoked_at IS NULL RETURNING id")
            .bind(new.key).fetch_optional(conn).await?);
        if in_force.is_none() {
            return Ok(BroadcastStarted::KeyRevoked);
        }
        if let Some(key) = &self.key
            && let Some(found) = find(tx, new.key.0, key, new.now).await?
        {
            if found.asked_hash != key.asked_hash {
                return Ok(BroadcastStarted::Reused);
            }
            let id = found.answer.map(|it| serde_json::from_value(it.value));
            return match id {
                Some(Ok(id)) => Ok(BroadcastStarted::Accepted(id)),
                _ => Err(StoreError::Corrupt("a remembered answer").into()),
            };
        }
        let unfinished: i64 = on_tx!(tx, conn => sqlx::query_scalar(
            "SELECT count(*) FROM broadcasts WHERE key_id = $1 AND finished_at IS NULL")
            .bind(new.key).fetch_one(conn).await?);
        if unfinished >= MOST_UNFINISHED {
            return Ok(BroadcastStarted::TooMany);
        }
        let last: Option<UserId> = on_tx!(tx, conn => sqlx::query_scalar(
            "SELECT id FROM users ORDER BY id DESC LIMIT 1").fetch_optional(conn).await?);
        let nobody = UserId(Uuid::nil());
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO broadcasts (id, key_id, event_type, data, segment, state, last_user,
                 position, reached, skipped, missing, lease_until, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, 0, $9, $9)")
            .bind(new.id).bind(new.key).bind(&new.event_type).bind(Json(new.data.to_value()))
            .bind(Json(&new.segment)).bind(BroadcastState::Waiting.as_str())
            .bind(last.unwrap_or(nobody)).bind(nobody).bind(new.now)
            .execute(conn).await?.rows_affected());
        if let Some(key) = &self.key {
            let value = new.id.serialize(serde_json::value::Serializer);
            let value = value.map_err(|_| StoreError::Corrupt("an answer"))?;
            let answer = Answer { value, seq: None };
            remember(tx, new.key.0, key, new.now, Some(answer)).await?;
        }
        Ok(BroadcastStarted::Accepted(new.id))
    }
}

struct Cancel {
    key: ApiKeyId,
    id: BroadcastId,
    now: DateTime<Utc>,
}

impl Command for Cancel {
    const NAME: &'static str = "broadcast_cancel";
    type Out = Option<Broadcast>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        on_tx!(tx, conn => sqlx::query(
            "UPDATE broadcasts SET state = $3, finished_at = $4
             WHERE id = $1 AND key_id = $2 AND finished_at IS NULL")
            .bind(self.id).bind(self.key).bind(BroadcastState::Cancelled.as_str()).bind(self.now)
            .execute(conn).await?.rows_affected());
        let row: Option<Row> = on_tx!(tx, conn => sqlx::query_as(FETCH)
            .bind(self.id).bind(self.key).fetch_optional(conn).await?);
        Ok(row.map(Row::into_broadcast).transpose()?)
    }
}

struct Take {
    id: BroadcastId,
    owner: String,
    now: DateTime<Utc>,
    seen: DateTime<Utc>,
    until: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct TakenRow {
    key_id: ApiKeyId,
    events_per_hour: Option<i64>,
    event_type: String,
    data: Json<serde_json::Value>,
    segment: Json<Segment>,
    last_user: UserId,
    position: UserId,
}

impl Command for Take {
    const NAME: &'static str = "broadcast_take";
    type Out = Option<TakenBroadcast>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let taken = on_tx!(tx, conn => sqlx::query(
            "UPDATE broadcasts SET state = $5, lease_owner = $2, lease_until = $4,
                 started_at = COALESCE(started_at, $3)
             WHERE id = $1 AND finished_at IS NULL AND lease_until = $6")
            .bind(self.id).bind(&self.owner).bind(self.now).bind(self.until)
            .bind(BroadcastState::Running.as_str()).bind(self.seen)
            .execute(conn).await?.rows_affected());
        if taken == 0 {
            return Ok(None);
        }
        let row: TakenRow = on_tx!(tx, conn => sqlx::query_as(
            "SELECT b.key_id, k.events_per_hour, b.event_type, b.data, b.segment, b.last_user,
                 b.position
             FROM broadcasts b JOIN api_keys k ON k.id = b.key_id WHERE b.id = $1")
            .bind(self.id).fetch_one(conn).await?);
        Ok(Some(TakenBroadcast {
            id: self.id,
            key: row.key_id,
            events_per_hour: row.events_per_hour,
            event_type: row.event_type,
            data: row.data.0,
            segment: row.segment.0,
            last_user: row.last_user,
            position: row.position,
        }))
    }
}

struct Sweep(DateTime<Utc>);

impl Command for Sweep {
    const NAME: &'static str = "broadcasts_sweep";
    type Out = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Failed> {
        Ok(on_tx!(tx, conn => sqlx::query(
            "DELETE FROM broadcasts WHERE id IN (SELECT id FROM broadcasts
                 WHERE finished_at < $1 ORDER BY finished_at LIMIT $2)")
            .bind(self.0).bind(SWEEP).execute(conn).await?.rows_affected()))
    }
}
