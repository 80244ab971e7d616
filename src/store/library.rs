//! Favorites.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::{Store, StoreError, Written};
use crate::domain::{
    identity::ClientDeviceId,
    ids::{EventId, FavoriteId, UserId},
    library::{Favorite, FavoriteKey, FavoriteType},
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
        _deadline: Instant,
        _command: FavoriteCommand,
    ) -> Result<Written<FavoritePut>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Takes a mark away. `false`: there never was one. One that is gone stays gone, without an
    /// event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn favorite_remove(
        &self,
        _deadline: Instant,
        _command: FavoriteCommand,
    ) -> Result<Written<bool>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Brings a mark back as it was. `None`: there never was one. One in force stays as it is,
    /// without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn favorite_restore(
        &self,
        _deadline: Instant,
        _command: FavoriteCommand,
    ) -> Result<Written<Option<Favorite>>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Favorites in force, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn favorite_list(
        &self,
        _deadline: Instant,
        _query: FavoriteQuery,
    ) -> Result<Vec<Favorite>, StoreError> {
        Err(StoreError::Unavailable)
    }
}
