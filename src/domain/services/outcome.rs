//! What became of what services asked for, and what they are shown.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::quota::Over;
use crate::domain::{
    identity::{ClientDeviceId, DeviceName},
    ids::{BroadcastId, DeviceId, EventId},
    sync::{Event, LogHead},
};

/// What became of an event for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Appended {
    /// It is in the log.
    Stored {
        /// Its place.
        seq: i64,
        /// Its id.
        id: EventId,
    },
    /// There is no room for it.
    OverQuota(Over),
    /// The key was revoked.
    KeyRevoked,
}

/// What became of asking for a broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BroadcastStarted {
    /// It is stored, now or the first time that this came, under this id.
    Accepted(BroadcastId),
    /// The key has as many unfinished ones as it may.
    TooMany,
    /// The idempotency key was used for something else.
    Reused,
    /// The key was revoked.
    KeyRevoked,
}

/// A device, and up to where it has acknowledged its user's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineDevice {
    /// The server's id.
    pub id: DeviceId,
    /// The client's own.
    pub device_id: ClientDeviceId,
    /// Such as `ios`.
    pub platform: String,
    /// What people call it.
    pub name: DeviceName,
    /// Everything up to here is acknowledged and durable.
    pub acked_seq: i64,
    /// When it logged in or renewed its tokens last.
    pub last_active_at: DateTime<Utc>,
    /// The time of the oldest event that the log still has and the device has not acknowledged.
    pub oldest_at: Option<DateTime<Utc>>,
}

/// A user's log and devices, of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineState {
    /// The log.
    pub log: LogHead,
    /// The devices, the oldest first.
    pub devices: Vec<OfflineDevice>,
}

/// A piece of what a device has not acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub struct OfflinePage {
    /// The events come after this one.
    pub after: i64,
    /// The log at that moment.
    pub log: LogHead,
    /// In order, without a gap.
    pub events: Vec<Event>,
}
