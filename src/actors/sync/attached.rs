//! Which users have a device attached to this node, and which devices.
//!
//! Sessions write their own user's entry; the head watcher, the cursor keeper, the revocation keeper
//! and whoever reads the metrics read. It is a published snapshot: nobody waits for it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

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

/// Since when one of a user's devices has owed an ack: shared by the session, which writes it with
/// each step, and the snapshot, so that a step takes no lock. Milliseconds on the snapshot's own
/// scale, from 1 on; 0 while none is owed.
#[derive(Debug, Default)]
pub struct Owed(AtomicU64);

/// The attached devices of each user on this node.
#[derive(Debug, Default)]
pub struct Attached {
    users: DashMap<UserId, Here>,
    /// Where the scale of [`Owed`] begins.
    began: OnceLock<Instant>,
}

/// What is attached of one user.
#[derive(Debug)]
struct Here {
    devices: Vec<(DeviceId, i64)>,
    owed: Arc<Owed>,
}

/// How it stands with all users together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Users with a device attached.
    pub users: usize,
    /// Attached devices.
    pub devices: usize,
    /// Users with a device that owes an ack.
    pub owing: usize,
    /// For how long the one that waits longest has owed it.
    pub longest: Duration,
}

impl Attached {
    /// Sets a user's attached devices, each with the attach epoch of its connection.
    pub fn set(&self, user: UserId, devices: Vec<(DeviceId, i64)>, owed: &Arc<Owed>) {
        if devices.is_empty() {
            self.users.remove(&user);
        } else {
            let owed = Arc::clone(owed);
            self.users.insert(user, Here { devices, owed });
        }
    }

    /// Forgets what a session set, unless another set it anew.
    pub fn forget(&self, user: UserId, owed: &Arc<Owed>) {
        let is_its = |_: &UserId, here: &Here| Arc::ptr_eq(&here.owed, owed);
        self.users.remove_if(&user, is_its);
    }

    /// Notes since when a device of a user owes an ack.
    pub fn owed(&self, owed: &Owed, since: Option<Instant>) {
        let millis = since.map_or(0, |since| self.millis(since));
        owed.0.store(millis, Relaxed);
    }

    fn millis(&self, at: Instant) -> u64 {
        let began = *self.began.get_or_init(|| at);
        let passed = at.saturating_duration_since(began).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Looks at all users at once; asks none.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        let now = self.millis(now);
        let mut all = Standing::default();
        for here in &self.users {
            all.users += 1;
            all.devices += here.devices.len();
            let owed = here.owed.0.load(Relaxed);
            if owed > 0 {
                all.owing += 1;
                let waited = Duration::from_millis(now.saturating_sub(owed));
                all.longest = all.longest.max(waited);
            }
        }
        all
    }

    /// Every user with a device attached.
    #[must_use]
    pub fn users(&self) -> Vec<UserId> {
        self.users.iter().map(|e| *e.key()).collect()
    }

    /// Every attached device.
    #[must_use]
    pub fn devices(&self) -> Vec<AttachedDevice> {
        let mut devices = Vec::with_capacity(self.users.len());
        for entry in &self.users {
            let user = *entry.key();
            devices.extend(
                entry
                    .devices
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
        if self.users.contains_key(&UserId(subject)) {
            return vec![UserId(subject)];
        }
        self.users
            .iter()
            .filter(|e| e.devices.iter().any(|(device, _)| device.0 == subject))
            .map(|e| *e.key())
            .collect()
    }
}
