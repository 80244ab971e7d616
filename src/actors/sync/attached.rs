//! Which users have a device attached to this node, and which devices.
//!
//! Sessions write their own user's entry; the head watcher and the revocation keeper read. It is a
//! published snapshot: nobody waits for it.

use dashmap::DashMap;
use uuid::Uuid;

use crate::domain::ids::{DeviceId, UserId};

/// The attached devices of each user on this node.
#[derive(Debug, Default)]
pub struct Attached(DashMap<UserId, Vec<DeviceId>>);

impl Attached {
    /// Sets a user's attached devices.
    pub fn set(&self, user: UserId, devices: Vec<DeviceId>) {
        if devices.is_empty() {
            self.0.remove(&user);
        } else {
            self.0.insert(user, devices);
        }
    }

    /// Every user with a device attached.
    #[must_use]
    pub fn users(&self) -> Vec<UserId> {
        self.0.iter().map(|e| *e.key()).collect()
    }

    /// Users whom `subject` names, by their own id or by that of an attached device.
    #[must_use]
    pub fn matching(&self, subject: Uuid) -> Vec<UserId> {
        if self.0.contains_key(&UserId(subject)) {
            return vec![UserId(subject)];
        }
        self.0
            .iter()
            .filter(|e| e.value().contains(&DeviceId(subject)))
            .map(|e| *e.key())
            .collect()
    }
}
