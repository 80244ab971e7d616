//! Which users have a device attached to this node, and which devices.
//!
//! Sessions write their own user's entry; the head watcher, the cursor keeper and the revocation
//! keeper read. It is a published snapshot: nobody waits for it.

use dashmap::DashMap;
use uuid::Uuid;

use crate::domain::ids::{DeviceId, UserId};

/// A device that is attached here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedDevice {
    /// Whose it is.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Its connection.
    pub attach_epoch: i64,
}

/// The attached devices of each user on this node.
#[derive(Debug, Default)]
pub struct Attached(DashMap<UserId, Vec<(DeviceId, i64)>>);

impl Attached {
    /// Sets a user's attached devices, each with the attach epoch of its connection.
    pub fn set(&self, user: UserId, devices: Vec<(DeviceId, i64)>) {
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

    /// Every attached device.
    #[must_use]
    pub fn devices(&self) -> Vec<AttachedDevice> {
        let mut devices = Vec::with_capacity(self.0.len());
        for entry in &self.0 {
            let user = *entry.key();
            devices.extend(
                entry
                    .value()
                    .iter()
                    .map(|&(device, attach_epoch)| AttachedDevice {
                        user,
                        device,
                        attach_epoch,
                    }),
            );
        }
        devices
    }

    /// Users whom `subject` names, by their own id or by that of an attached device.
    #[must_use]
    pub fn matching(&self, subject: Uuid) -> Vec<UserId> {
        if self.0.contains_key(&UserId(subject)) {
            return vec![UserId(subject)];
        }
        self.0
            .iter()
            .filter(|e| e.value().iter().any(|(device, _)| device.0 == subject))
            .map(|e| *e.key())
            .collect()
    }
}
