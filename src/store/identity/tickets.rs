//! Tickets that open a socket once.

use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::{
    domain::{identity::Caller, ids::UserId},
    store::{Store, StoreError},
};

/// A ticket about to be handed out.
#[derive(Debug, Clone)]
pub struct NewTicket {
    /// SHA-256 of it, hexadecimal.
    pub ticket_hash: String,
    /// Whom it speaks for.
    pub caller: Caller,
    /// When it is over.
    pub expires_at: DateTime<Utc>,
}

impl Store {
    /// Keeps a ticket; `false` when its device is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ticket_put(
        &self,
        _deadline: Instant,
        _ticket: NewTicket,
    ) -> Result<bool, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Uses a ticket up; `None` when it was used, is over, or is another user's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ticket_redeem(
        &self,
        _deadline: Instant,
        _ticket_hash: &str,
        _user: UserId,
        _now: DateTime<Utc>,
    ) -> Result<Option<Caller>, StoreError> {
        Err(StoreError::Unavailable)
    }
}
