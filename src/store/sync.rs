//! The sync log and the devices' cursors.

use std::time::Instant;

use super::{Store, StoreError};
use crate::domain::{
    ids::{DeviceId, Epoch, UserId},
    sync::{Event, LogHead, Position},
};

/// What a device that attaches starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachState {
    /// The device's durable cursor.
    pub acked_seq: i64,
    /// The user's log.
    pub log: LogHead,
}

/// A piece of a log, and the log's ends at the same moment.
#[derive(Debug, Clone, PartialEq)]
pub struct LogPage {
    /// The log's ends.
    pub log: LogHead,
    /// In order, without a gap.
    pub events: Vec<Event>,
}

/// How an ack ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorAck {
    /// The cursor in force.
    Acked(i64),
    /// The position is beyond this head; nothing changed.
    BeyondHead(i64),
    /// The position is of another life of the log than this one; nothing changed.
    EpochChanged(Epoch),
    /// The user has no such device.
    NoDevice,
}

impl Store {
    /// The ends of many users' logs; users without one are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_heads(
        &self,
        _deadline: Instant,
        _users: &[UserId],
    ) -> Result<Vec<(UserId, LogHead)>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// What a device that attaches starts from; `None` when the user has no such device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_attach(
        &self,
        _deadline: Instant,
        _user: UserId,
        _device: DeviceId,
    ) -> Result<Option<AttachState>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// At most `limit` events after `after`; `None` when there is no such user. What the log's
    /// floor means for `after` is for the caller to judge.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Corrupt`] when an event above the floor is missing.
    pub async fn log_page(
        &self,
        _deadline: Instant,
        _user: UserId,
        _after: i64,
        _limit: u32,
    ) -> Result<Option<LogPage>, StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Moves many devices' cursors, forward only; devices that are gone are passed over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cursors_advance(
        &self,
        _deadline: Instant,
        _cursors: &[(DeviceId, i64)],
    ) -> Result<(), StoreError> {
        Err(StoreError::Unavailable)
    }

    /// Moves one device's cursor, forward only; durable when it answers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cursor_ack(
        &self,
        _deadline: Instant,
        _user: UserId,
        _device: DeviceId,
        _position: Position,
    ) -> Result<CursorAck, StoreError> {
        Err(StoreError::Unavailable)
    }
}
