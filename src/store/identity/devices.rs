//! Users, their devices, and revocations.

use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::{
    domain::{
        identity::{Device, Revocation, User},
        ids::{DeviceId, UserId},
    },
    store::{Store, StoreError},
};

impl Store {
    /// A user by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_fetch(
        &self,
        _deadline: Instant,
        _user: UserId,
    ) -> Result<Option<User>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// A user's devices, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_list(
        &self,
        _deadline: Instant,
        _user: UserId,
    ) -> Result<Vec<Device>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Removes a device and revokes its tokens; `None` when it is not one of the user's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_remove(
        &self,
        _deadline: Instant,
        _user: UserId,
        _device: DeviceId,
        _now: DateTime<Utc>,
        _revocation_life: chrono::Duration,
    ) -> Result<Option<Revocation>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Revocations put in force at `since` or later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revocations_since(
        &self,
        _deadline: Instant,
        _since: DateTime<Utc>,
    ) -> Result<Vec<Revocation>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Deletes codes, tickets and revocations that are over at `now`; says how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expired_sweep(
        &self,
        _deadline: Instant,
        _now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        Err(StoreError::Unavailable)
    }
}
