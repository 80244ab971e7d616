//! A session that the store opened or renewed, with its tokens.

use chrono::TimeDelta;

use crate::{
    actors::Failure,
    domain::identity::{Caller, Device, Secrets, TokenPair, User},
    store::Session,
};

/// A session that was opened or renewed.
#[derive(Debug)]
pub struct Opened {
    /// Whose it is.
    pub user: User,
    /// The device.
    pub device: Device,
    /// Its tokens.
    pub pair: TokenPair,
}

/// The tokens of a session that the store opened or renewed.
pub(in crate::actors) fn open(
    secrets: &Secrets,
    session: Session,
    life: TimeDelta,
) -> Result<Opened, Failure> {
    let caller = Caller {
        user: session.user.id,
        device: session.device.id,
        device_id: session.device.device_id.clone(),
        user_version: session.user_version,
        device_version: session.device_version,
        expires_at: session.made_at + life,
    };
    let pair = secrets.pair(&caller, &session.refresh, session.made_at, life)?;
    Ok(Opened {
        user: session.user,
        device: session.device,
        pair,
    })
}
