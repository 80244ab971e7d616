//! Favorites.

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{
    Store, StoreError, Tx, Written,
    command::Command,
    error::Failed,
    on_pool, on_tx,
    sync::{log_append, log_require},
};
use crate::domain::{
    identity::ClientDeviceId,
    ids::{EventId, FavoriteId, UserId},
    library::{Favorite, FavoriteKey, FavoriteType, TargetId},
    sync::{LogHead, NewEvent},
    time::rfc3339,
};

/// A change of one favorite.
#[derive(Debug, Clone)]
pub struct FavoriteCommand {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub key: FavoriteKey,
    /// The device that asks.
    pub origin: Option<ClientDeviceId>,
    /// When.
    pub now: DateTime<Utc>,
    /// For a favorite that is new.
    pub favorite_id: FavoriteId,
    /// For the event, if there is one.
    pub event_id: EventId,
}

/// What putting a favorite did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FavoritePut {
    /// The favorite in force.
    pub favorite: Favorite,
    /// Whether it was not in force before.
    pub added: bool,
}

/// A piece of a user's favorites.
#[derive(Debug, Clone)]
pub struct FavoriteQuery {
    /// Whose.
    pub user: UserId,
    /// Only this kind.
    pub kind: Option<FavoriteType>,
    /// At most so many.
    pub limit: u32,
    /// Only older ones than this.
    pub before: Option<(DateTime<Utc>, FavoriteId)>,
}

impl Store {
    /// Marks a thing. One that is marked stays as it is, without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn favorite_put(
        &self,
        deadline: Instant,
        command: FavoriteCommand,
    ) -> Result<Written<FavoritePut>, StoreError> {
        self.write(deadline, Put(command)).await
    }

    /// Takes a mark away. `false`: there never was one. One that is gone stays gone, without an
    /// event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn favorite_remove(
        &self,
        deadline: Instant,
        command: FavoriteCommand,
    ) -> Result<Written<bool>, StoreError> {
        self.write(deadline, Remove(command)).await
    }

    /// Brings a mark back as it was. `None`: there never was one. One in force stays as it is,
    /// without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn favorite_restore(
        &self,
        deadline: Instant,
        command: FavoriteCommand,
    ) -> Result<Written<Option<Favorite>>, StoreError> {
        self.write(deadline, Restore(command)).await
    }

    /// Favorites in force, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn favorite_list(
        &self,
        deadline: Instant,
        query: FavoriteQuery,
    ) -> Result<Vec<Favorite>, StoreError> {
        self.read("favorite_list", deadline, async move |db| {
            let kind = query.kind.map(FavoriteType::as_str);
            let limit = i64::from(query.limit);
            let rows: Vec<FavoriteRow> = match query.before {
                None => on_pool!(&db, pool => sqlx::query_as(
                    "SELECT id, type, target_id, created_at FROM favorites
                     WHERE user_id = $1 AND deleted_at IS NULL AND ($2 IS NULL OR type = $2)
                     ORDER BY created_at DESC, id DESC LIMIT $3")
                    .bind(query.user).bind(kind).bind(limit).fetch_all(pool).await?),
                Some((at, id)) => on_pool!(&db, pool => sqlx::query_as(
                    "SELECT id, type, target_id, created_at FROM favorites
                     WHERE user_id = $1 AND deleted_at IS NULL AND ($2 IS NULL OR type = $2)
                         AND (created_at, id) < ($4, $5)
                     ORDER BY created_at DESC, id DESC LIMIT $3")
                    .bind(query.user).bind(kind).bind(limit).bind(at).bind(id)
                    .fetch_all(pool).await?),
            };
            let rows: Result<Vec<_>, _> =
                rows.into_iter().map(FavoriteRow::into_favorite).collect();
            Ok(rows?)
        })
        .await
    }
}

#[derive(sqlx::FromRow)]
struct FavoriteRow {
    id: FavoriteId,
    #[sqlx(rename = "type")]
    kind: String,
    target_id: TargetId,
    created_at: DateTime<Utc>,
}

impl FavoriteRow {
    fn into_favorite(self) -> Result<Favorite, StoreError> {
        Ok(Favorite {
            id: self.id,
            kind: self
                .kind
                .parse()
                .map_err(|_| StoreError::Corrupt("a favorite's type"))?,
            target_id: self.target_id,
            created_at: self.created_at,
        })
    }
}

/// Marks a thing, or finds that it is marked.
struct Put(FavoriteCommand);
/// Takes a mark away.
struct Remove(FavoriteCommand);
/// Brings a mark back.
struct Restore(FavoriteCommand);

impl FavoriteCommand {
    /// The row, in force or not; the second is whether it is in force.
    async fn find(&self, tx: &mut Tx<'_>) -> Result<Option<(Favorite, bool)>, Failed> {
        #[derive(sqlx::FromRow)]
        struct Found {
            #[sqlx(flatten)]
            row: FavoriteRow,
            deleted_at: Option<DateTime<Utc>>,
        }
        let found: Option<Found> = on_tx!(tx, conn => sqlx::query_as(
            "SELECT id, type, target_id, created_at, deleted_at FROM favorites
             WHERE user_id = $1 AND type = $2 AND target_id = $3")
            .bind(self.user).bind(self.key.kind.as_str()).bind(&self.key.target_id)
            .fetch_optional(conn).await?);
        let Some(found) = found else {
            return Ok(None);
        };
        Ok(Some((
            found.row.into_favorite()?,
            found.deleted_at.is_none(),
        )))
    }

    /// Sets a row's state to what `favorite` and `deleted_at` say.
    async fn change(
        &self,
        tx: &mut Tx<'_>,
        favorite: &Favorite,
        version: i64,
        deleted_at: Option<DateTime<Utc>>,
    ) -> Result<(), Failed> {
        on_tx!(tx, conn => sqlx::query(
            "UPDATE favorites SET version = $2, created_at = $3, deleted_at = $4 WHERE id = $1")
            .bind(favorite.id).bind(version).bind(favorite.created_at).bind(deleted_at)
            .execute(conn).await?.rows_affected());
        Ok(())
    }

    /// Appends what happened to `favorite`.
    async fn record<T>(
        &self,
        tx: &mut Tx<'_>,
        mut log: LogHead,
        event_type: &'static str,
        favorite: &Favorite,
        value: T,
    ) -> Result<Written<T>, Failed> {
        let event = NewEvent {
            id: self.event_id,
            event_type,
            data: json!({
                "id": favorite.id,
                "type": favorite.kind,
                "target_id": favorite.target_id,
                "created_at": rfc3339(favorite.created_at),
                "version": log.head_seq + 1,
            }),
            origin_device_id: self.origin.clone(),
            created_at: self.now,
        };
        let events = log_append(tx, self.user, &mut log, vec![event]).await?;
        Ok(Written {
            value,
            log,
            events,
            committed_at: None,
        })
    }
}

/// Nothing changed.
fn unchanged<T>(log: LogHead, value: T) -> Written<T> {
    Written {
        value,
        log,
        events: Vec::new(),
        committed_at: None,
    }
}

impl Command for Put {
    const NAME: &'static str = "favorite_put";
    type Out = Written<FavoritePut>;

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let command = &self.0;
        let log = log_require(tx, command.user).await?;
        let version = log.head_seq + 1;
        let favorite = match command.find(tx).await? {
            Some((favorite, true)) => {
                let added = false;
                return Ok(unchanged(log, FavoritePut { favorite, added }));
            }
            Some((removed, false)) => {
                let favorite = Favorite {
                    created_at: command.now,
                    ..removed
                };
                command.change(tx, &favorite, version, None).await?;
                favorite
            }
            None => {
                let favorite = Favorite {
                    id: command.favorite_id,
                    kind: command.key.kind,
                    target_id: command.key.target_id.clone(),
                    created_at: command.now,
                };
                on_tx!(tx, conn => sqlx::query(
                    "INSERT INTO favorites
                         (id, user_id, type, target_id, version, created_at, deleted_at)
                     VALUES ($1, $2, $3, $4, $5, $6, NULL)")
                    .bind(favorite.id).bind(command.user).bind(favorite.kind.as_str())
                    .bind(&favorite.target_id).bind(version).bind(favorite.created_at)
                    .execute(conn).await?.rows_affected());
                favorite
            }
        };
        let put = FavoritePut {
            favorite: favorite.clone(),
            added: true,
        };
        command
            .record(tx, log, "favorite.added", &favorite, put)
            .await
    }
}

impl Command for Remove {
    const NAME: &'static str = "favorite_remove";
    type Out = Written<bool>;

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let command = &self.0;
        let log = log_require(tx, command.user).await?;
        let favorite = match command.find(tx).await? {
            None => return Ok(unchanged(log, false)),
            Some((_, false)) => return Ok(unchanged(log, true)),
            Some((favorite, true)) => favorite,
        };
        let version = log.head_seq + 1;
        command
            .change(tx, &favorite, version, Some(command.now))
            .await?;
        command
            .record(tx, log, "favorite.removed", &favorite, true)
            .await
    }
}

impl Command for Restore {
    const NAME: &'static str = "favorite_restore";
    type Out = Written<Option<Favorite>>;

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let command = &self.0;
        let log = log_require(tx, command.user).await?;
        let favorite = match command.find(tx).await? {
            None => return Ok(unchanged(log, None)),
            Some((favorite, true)) => return Ok(unchanged(log, Some(favorite))),
            Some((favorite, false)) => favorite,
        };
        command
            .change(tx, &favorite, log.head_seq + 1, None)
            .await?;
        let value = Some(favorite.clone());
        command
            .record(tx, log, "favorite.restored", &favorite, value)
            .await
    }
}
