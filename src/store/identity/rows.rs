//! Rows of users, devices and revocations, as both engines give them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    domain::{
        identity::{ClientDeviceId, Device, Phone, Revocation, User},
        ids::{DeviceId, UserId},
    },
    store::{StoreError, Tx, error::Failed, on_tx},
};

#[derive(sqlx::FromRow)]
pub(super) struct UserRow {
    id: UserId,
    phone: Phone,
    role: String,
    created_at: DateTime<Utc>,
    token_version: i64,
}

impl UserRow {
    /// The user and the token version.
    pub(super) fn into_user(self) -> Result<(User, i64), StoreError> {
        let user = User {
            id: self.id,
            phone: self.phone,
            role: self
                .role
                .parse()
                .map_err(|_| StoreError::Corrupt("a user's role"))?,
            created_at: self.created_at,
        };
        Ok((user, self.token_version))
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct DeviceRow {
    id: DeviceId,
    user_id: UserId,
    device_id: ClientDeviceId,
    platform: String,
    name: String,
    last_active_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl DeviceRow {
    pub(super) fn into_device(self) -> Result<Device, StoreError> {
        Ok(Device {
            id: self.id,
            user_id: self.user_id,
            device_id: self.device_id,
            platform: self
                .platform
                .parse()
                .map_err(|_| StoreError::Corrupt("a device's platform"))?,
            name: self.name,
            last_active_at: self.last_active_at,
            created_at: self.created_at,
        })
    }
}

pub(super) fn into_devices(rows: Vec<DeviceRow>) -> Result<Vec<Device>, Failed> {
    let devices: Result<Vec<_>, _> = rows.into_iter().map(DeviceRow::into_device).collect();
    Ok(devices?)
}

/// A user's devices, oldest first.
pub(super) const DEVICES: &str = "SELECT id, user_id, device_id, platform, name, last_active_at, \
     created_at FROM devices WHERE user_id = $1 ORDER BY created_at, id";

/// A user by id.
pub(super) const USER: &str =
    "SELECT id, phone, role, created_at, token_version FROM users WHERE id = $1";

pub(super) async fn device_rows(tx: &mut Tx<'_>, user: UserId) -> Result<Vec<Device>, Failed> {
    into_devices(on_tx!(tx, conn => sqlx::query_as(DEVICES).bind(user).fetch_all(conn).await?))
}

pub(super) async fn user_by_id(
    tx: &mut Tx<'_>,
    user: UserId,
) -> Result<Option<(User, i64)>, Failed> {
    let row: Option<UserRow> =
        on_tx!(tx, conn => sqlx::query_as(USER).bind(user).fetch_optional(conn).await?);
    Ok(row.map(UserRow::into_user).transpose()?)
}

pub(super) async fn user_by_phone(
    tx: &mut Tx<'_>,
    phone: &Phone,
) -> Result<Option<(User, i64)>, Failed> {
    let row: Option<UserRow> = on_tx!(tx, conn => sqlx::query_as(
        "SELECT id, phone, role, created_at, token_version FROM users WHERE phone = $1")
        .bind(phone).fetch_optional(conn).await?);
    Ok(row.map(UserRow::into_user).transpose()?)
}

#[derive(sqlx::FromRow)]
pub(super) struct RevocationRow {
    subject: Uuid,
    min_version: i64,
    expires_at: DateTime<Utc>,
}

impl From<RevocationRow> for Revocation {
    fn from(row: RevocationRow) -> Self {
        Self {
            subject: row.subject,
            min_version: row.min_version,
            expires_at: row.expires_at,
        }
    }
}

/// Puts a revocation in force; one that refuses more stays.
pub(super) async fn revocation_put(
    tx: &mut Tx<'_>,
    revocation: &Revocation,
    now: DateTime<Utc>,
) -> Result<(), Failed> {
    on_tx!(tx, conn => sqlx::query(
        "INSERT INTO revocations (subject, min_version, revoked_at, expires_at)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (subject) DO UPDATE
         SET min_version = CASE WHEN excluded.min_version > revocations.min_version
                 THEN excluded.min_version ELSE revocations.min_version END,
             revoked_at = excluded.revoked_at,
             expires_at = CASE WHEN excluded.expires_at > revocations.expires_at
                 THEN excluded.expires_at ELSE revocations.expires_at END")
        .bind(revocation.subject).bind(revocation.min_version).bind(now)
        .bind(revocation.expires_at).execute(conn).await?.rows_affected());
    Ok(())
}
