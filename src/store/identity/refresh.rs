//! Rotation of refresh tokens.

use std::{sync::Arc, time::Instant};

use chrono::{DateTime, Utc};

use super::Session;
use crate::{
    domain::identity::{Presented, RefreshToken, Revocation, Secrets},
    store::{Store, StoreError},
};

/// A refresh token that came in.
#[derive(Debug, Clone)]
pub struct Rotate {
    /// What it says; its seal was found good.
    pub token: RefreshToken,
    /// What is compared with the stored state.
    pub presented: Presented,
    /// When.
    pub now: DateTime<Utc>,
    /// How long a revocation must be remembered.
    pub revocation_life: chrono::Duration,
    /// Makes the next refresh token, of which the hash is stored.
    pub secrets: Arc<Secrets>,
}

/// How a rotation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RotateOutcome {
    /// The pair to hand out; the same again for a repeated call.
    Fresh(Box<Session>),
    /// The token was used before: the device is signed out.
    Reused(Revocation),
    /// The token opens nothing.
    Invalid,
}

impl Store {
    /// Exchanges a refresh token for the next one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refresh_rotate(
        &self,
        _deadline: Instant,
        _rotate: Rotate,
    ) -> Result<RotateOutcome, StoreError> {
        Err(StoreError::Unavailable)
    }
}
