//! Logins: a code becomes a session, all in one transaction.

use std::{net::IpAddr, sync::Arc, time::Instant};

use chrono::{DateTime, Utc};

use crate::{
    domain::{
        identity::{Device, NewDevice, Phone, RefreshToken, Revocation, Secrets, User},
        ids::{DeviceId, Epoch, TokenFamily, UserId},
    },
    store::{Store, StoreError},
};

/// A try to log in.
#[derive(Debug, Clone)]
pub struct Login {
    /// Who.
    pub phone: Phone,
    /// `Secrets::hash_code` of the code that was typed.
    pub code_hash: String,
    /// The device as it describes itself.
    pub device: NewDevice,
    /// A device to make room: the server's id or the client-made one.
    pub replace: Option<String>,
    /// Where the call came from.
    pub ip: Option<IpAddr>,
    /// When.
    pub now: DateTime<Utc>,
    /// Devices that a user may have.
    pub max_devices: usize,
    /// How long a revocation must be remembered.
    pub revocation_life: chrono::Duration,
    /// Makes the refresh token, of which the hash is stored.
    pub secrets: Arc<Secrets>,
    /// Ids for what the login makes.
    pub ids: LoginIds,
}

/// Ids for what a login may make, drawn before so that it can run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginIds {
    /// For a user who is new.
    pub user: UserId,
    /// For the log of a user who is new.
    pub epoch: Epoch,
    /// For a device that is new.
    pub device: DeviceId,
    /// For the session's refresh tokens.
    pub family: TokenFamily,
}

/// How a login ended.
#[derive(Debug, Clone, PartialEq)]
pub enum LoginOutcome {
    /// The device is in.
    LoggedIn(Box<Session>),
    /// There is no such code.
    CodeInvalid,
    /// The code's tries are used up.
    CodeExhausted,
    /// The user's devices, oldest first: there is no room for another. The code stays good.
    DeviceLimit(Vec<Device>),
}

/// What tokens are made from after a login or a refresh.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Whose.
    pub user: User,
    /// The device.
    pub device: Device,
    /// The user's token version.
    pub user_version: i64,
    /// The device's session version.
    pub device_version: i64,
    /// The refresh token in force.
    pub refresh: RefreshToken,
    /// When this pair was made.
    pub made_at: DateTime<Utc>,
    /// Revocations that this put in force.
    pub revocations: Vec<Revocation>,
    /// The device that made room.
    pub removed: Option<DeviceId>,
}

impl Store {
    /// Exchanges a code for a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn login(
        &self,
        _deadline: Instant,
        _login: Login,
    ) -> Result<LoginOutcome, StoreError> {
        Err(StoreError::Unavailable)
    }
}
