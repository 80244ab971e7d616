//! Logins: a code becomes a session, all in one transaction.

use std::{net::IpAddr, sync::Arc, time::Instant};

use chrono::{DateTime, Utc};
use subtle::ConstantTimeEq;

use super::{
    codes::{code_consume, code_lock, code_missed},
    rows::{device_rows, revocation_put, user_by_phone},
};
use crate::{
    domain::{
        identity::{Device, NewDevice, Phone, RefreshToken, Revocation, Role, Secrets, User},
        ids::{DeviceId, Epoch, EventId, TokenFamily, UserId},
        sync::LogHead,
    },
    store::{
        Issued, Store, StoreError, Tx,
        command::Command,
        error::Failed,
        library::player_release,
        on_tx,
        sync::{OpenLog, log_lock},
    },
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
    /// For the event, if a device that plays makes room.
    pub event: EventId,
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
    /// The ends of the user's log, if this appended to it.
    pub log: Option<LogHead>,
}

impl Store {
    /// Exchanges a code for a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn login(&self, deadline: Instant, login: Login) -> Result<LoginOutcome, StoreError> {
        self.write(deadline, login).await
    }
}

/// What becomes of the devices of a user who logs in.
enum Place {
    /// The device was here before.
    Again(Device),
    /// It is new, after this one made room.
    New { removed: Option<DeviceId> },
    /// There is no room.
    Full,
}

impl Command for Login {
    const NAME: &'static str = "login";
    type Out = LoginOutcome;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<LoginOutcome, Failed> {
        if let Some(refused) = self.judge_code(tx).await? {
            return Ok(refused);
        }
        let known = user_by_phone(tx, &self.phone).await?;
        let mut devices = Vec::new();
        if let Some((user, _)) = &known {
            // Whoever adds or removes devices of a user does so under the log's lock.
            let log = log_lock(tx, user.id).await?;
            log.ok_or(StoreError::Corrupt("user without a log"))?;
            devices = device_rows(tx, user.id).await?;
        }
        let place = self.place(&devices);
        if matches!(place, Place::Full) {
            return Ok(LoginOutcome::DeviceLimit(devices));
        }
        let (user, user_version) = match known {
            Some(known) => known,
            None => self.first(tx).await?,
        };
        let mut session = Session {
            device: Device {
                id: self.ids.device,
                user_id: user.id,
                device_id: self.device.device_id.clone(),
                platform: self.device.platform,
                name: self.device.display_name().to_owned(),
                last_active_at: self.now,
                created_at: self.now,
            },
            refresh: RefreshToken {
                user: user.id,
                device: self.ids.device,
                family: self.ids.family,
                counter: 0,
            },
            user,
            user_version,
            device_version: 1,
            made_at: self.now,
            revocations: Vec::new(),
            log: None,
        };
        match place {
            Place::Again(before) => self.sign_in_again(tx, &before, &mut session).await?,
            Place::New { removed } => self.sign_in_new(tx, removed, &mut session).await?,
            Place::Full => {}
        }
        for revocation in &session.revocations {
            revocation_put(tx, revocation, self.now).await?;
        }
        code_consume(tx, &self.phone).await?;
        Ok(LoginOutcome::LoggedIn(Box::new(session)))
    }
}

impl Login {
    /// Why the code is not taken; a wrong guess is counted.
    async fn judge_code(&self, tx: &mut Tx<'_>) -> Result<Option<LoginOutcome>, Failed> {
        let Some(code) = code_lock(tx, &self.phone).await? else {
            return Ok(Some(LoginOutcome::CodeInvalid));
        };
        if code.used || code.expires_at <= self.now {
            return Ok(Some(LoginOutcome::CodeInvalid));
        }
        if code.tries_left <= 0 {
            return Ok(Some(LoginOutcome::CodeExhausted));
        }
        if bool::from(code.code_hash.as_bytes().ct_eq(self.code_hash.as_bytes())) {
            return Ok(None);
        }
        code_missed(tx, &self.phone).await?;
        Ok(Some(LoginOutcome::CodeInvalid))
    }

    fn place(&self, devices: &[Device]) -> Place {
        if let Some(same) = devices
            .iter()
            .find(|d| d.device_id == self.device.device_id)
        {
            return Place::Again(same.clone());
        }
        let named = self.replace.as_deref().and_then(|name| {
            let id: Option<DeviceId> = name.parse().ok();
            let by_id = devices.iter().find(|d| Some(d.id) == id);
            by_id.or_else(|| devices.iter().find(|d| d.device_id.as_str() == name))
        });
        match named {
            Some(device) => Place::New {
                removed: Some(device.id),
            },
            None if devices.len() < self.max_devices => Place::New { removed: None },
            None => Place::Full,
        }
    }

    /// Makes the user and the log.
    async fn first(&self, tx: &mut Tx<'_>) -> Result<(User, i64), Failed> {
        let user = User {
            id: self.ids.user,
            phone: self.phone.clone(),
            role: Role::User,
            created_at: self.now,
        };
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO users (id, phone, role, token_version, created_at, updated_at)
             VALUES ($1, $2, $3, 1, $4, $4)")
            .bind(user.id).bind(&user.phone).bind(user.role.as_str()).bind(self.now)
            .execute(conn).await?.rows_affected());
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO user_logs (user_id, epoch, head_seq, floor_seq) VALUES ($1, $2, 0, 0)")
            .bind(user.id).bind(self.ids.epoch).execute(conn).await?.rows_affected());
        Ok((user, 1))
    }

    fn ip_text(&self) -> Option<String> {
        self.ip.map(|ip| ip.to_string())
    }

    /// The device's row stays, with its cursor; its older tokens end.
    async fn sign_in_again(
        &self,
        tx: &mut Tx<'_>,
        before: &Device,
        session: &mut Session,
    ) -> Result<(), Failed> {
        session.device.id = before.id;
        session.device.created_at = before.created_at;
        session.refresh.device = before.id;
        let version: Option<i64> = on_tx!(tx, conn => sqlx::query_scalar(
            "UPDATE devices
             SET platform = $2, name = $3, fingerprint = $4, ip_address = $5, refresh_family = $6,
                 refresh_counter = 0, refresh_token_hash = $7, refresh_retry_key_hash = NULL,
                 refreshed_at = $8, last_active_at = $8, session_version = session_version + 1
             WHERE id = $1 RETURNING session_version")
            .bind(before.id).bind(session.device.platform.as_str()).bind(&session.device.name)
            .bind(self.device.fingerprint.to_value()).bind(self.ip_text())
            .bind(self.ids.family).bind(self.token_hash(session)).bind(self.now)
            .fetch_optional(conn).await?);
        session.device_version = version.ok_or(StoreError::Corrupt("a locked device changed"))?;
        session.revocations.push(Revocation {
            subject: before.id.0,
            min_version: session.device_version,
            expires_at: Revocation::end(self.now, before.last_active_at, self.revocation_life),
        });
        Ok(())
    }

    async fn sign_in_new(
        &self,
        tx: &mut Tx<'_>,
        removed: Option<DeviceId>,
        session: &mut Session,
    ) -> Result<(), Failed> {
        if let Some(id) = removed {
            let issued = Issued {
                user: session.user.id,
                origin: None,
                now: self.now,
                event_id: self.ids.event,
            };
            // Not that the user is gone: something is written by now.
            let log = OpenLog::try_lock(tx, &issued).await?;
            let mut log = log.ok_or(StoreError::Corrupt("a user without a log"))?;
            player_release(tx, &mut log, issued.user, id).await?;
            let written = log.close(tx, ()).await?;
            session.log = (!written.events.is_empty()).then_some(written.log);
            let made_at: DateTime<Utc> = on_tx!(tx, conn => sqlx::query_scalar(
                "DELETE FROM devices WHERE id = $1 RETURNING refreshed_at")
                .bind(id).fetch_one(conn).await?);
            session.revocations.push(Revocation {
                subject: id.0,
                min_version: Revocation::ALL,
                expires_at: Revocation::end(self.now, made_at, self.revocation_life),
            });
        }
        let device = &session.device;
        // What happened before the device was here is in the snapshot that it loads.
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO devices (id, user_id, device_id, platform, name, fingerprint, ip_address,
                 refresh_family, refresh_counter, refresh_token_hash, refresh_retry_key_hash,
                 refreshed_at, session_version, acked_seq, last_active_at, created_at)
             SELECT $1, l.user_id, $3, $4, $5, $6, $7, $8, 0, $9, NULL, $10, 1, l.head_seq, $10, $10
             FROM user_logs l WHERE l.user_id = $2")
            .bind(device.id).bind(device.user_id).bind(&device.device_id)
            .bind(device.platform.as_str()).bind(&device.name)
            .bind(self.device.fingerprint.to_value()).bind(self.ip_text())
            .bind(self.ids.family).bind(self.token_hash(session)).bind(self.now)
            .execute(conn).await?.rows_affected());
        Ok(())
    }

    fn token_hash(&self, session: &Session) -> String {
        Secrets::sha256(&session.refresh.seal(&self.secrets))
    }
}
