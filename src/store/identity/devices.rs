//! Users, their devices, and revocations.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::{
    codes::COUNTED,
    rows::{DEVICES, RevocationRow, USER, UserRow, into_devices, revocation_put},
};
use crate::{
    domain::{
        clock::CLOCK_MARGIN,
        identity::{Device, Revocation, User},
        ids::{DeviceId, UserId},
    },
    store::{
        Issued, Store, StoreError, Tx, Written, command::Command, error::Failed,
        library::player_release, on_pool, on_tx, sync::OpenLog,
    },
};

impl Store {
    /// A user by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_fetch(
        &self,
        deadline: Instant,
        user: UserId,
    ) -> Result<Option<User>, StoreError> {
        self.read("user_fetch", deadline, async move |db| {
            let row: Option<UserRow> = on_pool!(&db, pool => sqlx::query_as(USER)
                .bind(user).fetch_optional(pool).await?);
            Ok(row
                .map(UserRow::into_user)
                .transpose()?
                .map(|(user, _)| user))
        })
        .await
    }

    /// A user's devices, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_list(
        &self,
        deadline: Instant,
        user: UserId,
    ) -> Result<Vec<Device>, StoreError> {
        self.read("device_list", deadline, async move |db| {
            into_devices(on_pool!(&db, pool => sqlx::query_as(DEVICES)
                .bind(user).fetch_all(pool).await?))
        })
        .await
    }

    /// Removes a device and revokes its tokens; `None` when it is not one of the user's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_remove(
        &self,
        deadline: Instant,
        issued: Issued,
        device: DeviceId,
        revocation_life: chrono::Duration,
    ) -> Result<Option<Written<Revocation>>, StoreError> {
        let remove = Remove {
            issued,
            device,
            revocation_life,
        };
        self.write(deadline, remove).await
    }

    /// Revocations put in force at `since` or later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revocations_since(
        &self,
        deadline: Instant,
        since: DateTime<Utc>,
    ) -> Result<Vec<Revocation>, StoreError> {
        self.read("revocations_since", deadline, async move |db| {
            let rows: Vec<RevocationRow> = on_pool!(&db, pool => sqlx::query_as(
                "SELECT subject, min_version, expires_at FROM revocations WHERE revoked_at >= $1")
                .bind(since).fetch_all(pool).await?);
            Ok(rows.into_iter().map(Revocation::from).collect())
        })
        .await
    }

    /// Deletes tickets that are over at `now`, and codes and revocations that are over by the
    /// [`CLOCK_MARGIN`]; says how many. A ticket that goes too early is only asked for again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expired_sweep(
        &self,
        deadline: Instant,
        now: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        self.write(deadline, Sweep { now }).await
    }
}

struct Remove {
    issued: Issued,
    device: DeviceId,
    revocation_life: chrono::Duration,
}

impl Command for Remove {
    const NAME: &'static str = "device_remove";
    type Out = Option<Written<Revocation>>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let (user, now) = (self.issued.user, self.issued.now);
        let Some(mut log) = OpenLog::try_lock(tx, &self.issued).await? else {
            return Ok(None);
        };
        player_release(tx, &mut log, user, self.device).await?;
        let made_at: Option<DateTime<Utc>> = on_tx!(tx, conn => sqlx::query_scalar(
            "DELETE FROM devices WHERE id = $1 AND user_id = $2 RETURNING refreshed_at")
            .bind(self.device).bind(user).fetch_optional(conn).await?);
        let Some(made_at) = made_at else {
            return Ok(None);
        };
        let revocation = Revocation {
            subject: self.device.0,
            min_version: Revocation::ALL,
            expires_at: Revocation::end(now, made_at, self.revocation_life),
        };
        revocation_put(tx, &revocation, now).await?;
        log.close(tx, revocation).await.map(Some)
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        if let Some(written) = out {
            written.committed_at = Some(at);
        }
    }
}

struct Sweep {
    now: DateTime<Utc>,
}

impl Command for Sweep {
    const NAME: &'static str = "expired_sweep";
    type Out = u64;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<u64, Failed> {
        let over = self.now - CLOCK_MARGIN;
        // A phone's row also remembers its cool-down and how many codes it was sent.
        let mut rows = on_tx!(tx, conn => sqlx::query(
            "DELETE FROM sms_codes
             WHERE expires_at <= $1 AND sent_at <= $2 AND counted_since <= $2")
            .bind(over).bind(over - COUNTED).execute(conn).await?.rows_affected());
        for (sql, until) in [
            ("DELETE FROM sync_tickets WHERE expires_at <= $1", self.now),
            ("DELETE FROM revocations WHERE expires_at <= $1", over),
        ] {
            rows += on_tx!(tx, conn => sqlx::query(sql)
                .bind(until).execute(conn).await?.rows_affected());
        }
        Ok(rows)
    }
}
