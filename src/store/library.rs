//! What users keep: favorites here, the rest in files of their own.

mod change;
mod history;
mod player;
mod playlists;
mod snapshot;

use std::time::Instant;

use chrono::{DateTime, Utc};

use self::change::{Change, Put, Remove, Restore};
pub use self::history::{
    HistoryAdd, HistoryClear, HistoryQuery, HistoryTrim, HistoryTrimPage, PlayRemoved,
};
pub(super) use self::{player::player_release, snapshot::Places as SnapshotPlaces};
pub use self::{
    player::{ActivatePlayer, PlayerActivation},
    snapshot::{CurrentSnapshot, Snapshot, SnapshotLines, SnapshotOutcome, SnapshotTurn},
};
use super::{Store, StoreError, Written, on_pool};
use crate::domain::{
    identity::ClientDeviceId,
    ids::{EventId, FavoriteId, UserId},
    library::{Favorite, FavoriteKey, FavoriteType, TargetId},
};
pub use playlists::{NewSongs, PlaylistCommand, PlaylistOutcome, PlaylistQuery, SongQuery};

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
        self.write(deadline, Change::<Put>::new(command)).await
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
        self.write(deadline, Change::<Remove>::new(command)).await
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
        self.write(deadline, Change::<Restore>::new(command)).await
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
