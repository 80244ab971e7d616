//! Rotation of refresh tokens.

use std::{sync::Arc, time::Instant};

use chrono::{DateTime, Utc};

use super::{
    Session,
    rows::{DeviceRow, revocation_put, user_by_id},
};
use crate::{
    domain::{
        identity::{Presented, RefreshToken, Revocation, RotationState, Secrets, Verdict, judge},
        ids::TokenFamily,
    },
    store::{Store, StoreError, Tx, command::Command, error::Failed, on_tx},
};

/// A refresh token that came in.
#[derive(Debug, Clone)]
pub struct Rotate {
    /// What it says; its seal was found good.
    pub token: RefreshToken,
    /// What is compared with the stored state.
    pub presented: Presented,
    /// When.
    pub now: DateTime<Utc>,
    /// How long a revocation must be remembered.
    pub revocation_life: chrono::Duration,
    /// Makes the next refresh token, of which the hash is stored.
    pub secrets: Arc<Secrets>,
}

/// How a rotation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RotateOutcome {
    /// The pair to hand out; the same again for a repeated call.
    Fresh(Box<Session>),
    /// The token was used before: the device is signed out.
    Reused(Revocation),
    /// The token opens nothing.
    Invalid,
}

impl Store {
    /// Exchanges a refresh token for the next one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refresh_rotate(
        &self,
        deadline: Instant,
        rotate: Rotate,
    ) -> Result<RotateOutcome, StoreError> {
        self.write(deadline, rotate).await
    }
}

/// What a device's row says of its refresh tokens, the row locked.
#[derive(sqlx::FromRow)]
struct PlaceRow {
    refresh_family: TokenFamily,
    refresh_counter: i64,
    refresh_token_hash: Option<String>,
    refresh_retry_key_hash: Option<String>,
    refreshed_at: DateTime<Utc>,
    session_version: i64,
    #[sqlx(flatten)]
    device: DeviceRow,
}

impl Command for Rotate {
    const NAME: &'static str = "refresh_rotate";
    type Out = RotateOutcome;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<RotateOutcome, Failed> {
        let row: Option<PlaceRow> = on_tx!(tx, conn => sqlx::query_as(
            "UPDATE devices SET refresh_counter = refresh_counter WHERE id = $1 AND user_id = $2
             RETURNING refresh_family, refresh_counter, refresh_token_hash, refresh_retry_key_hash,
                 refreshed_at, session_version, id, user_id, device_id, platform, name,
                 last_active_at, created_at")
            .bind(self.token.device).bind(self.token.user).fetch_optional(conn).await?);
        let Some(row) = row else {
            return Ok(RotateOutcome::Invalid);
        };
        let state = RotationState {
            family: row.refresh_family,
            counter: row.refresh_counter,
            token_hash: row.refresh_token_hash,
            retry_key_hash: row.refresh_retry_key_hash,
        };
        let mut device = row.device.into_device()?;
        let verdict = judge(&state, &self.presented);
        let (counter, made_at) = match verdict {
            Verdict::Invalid => return Ok(RotateOutcome::Invalid),
            Verdict::Reused => return self.sign_out(tx).await.map(RotateOutcome::Reused),
            Verdict::Repeat => (state.counter, row.refreshed_at),
            Verdict::Rotate => (state.counter + 1, self.now),
        };
        let refresh = RefreshToken {
            counter,
            ..self.token
        };
        if verdict == Verdict::Rotate {
            self.advance(tx, state.counter, &refresh).await?;
            device.last_active_at = self.now;
        }
        let (user, user_version) = user_by_id(tx, self.token.user)
            .await?
            .ok_or(StoreError::Corrupt("a device without its user"))?;
        Ok(RotateOutcome::Fresh(Box::new(Session {
            log: None,
            user,
            device,
            user_version,
            device_version: row.session_version,
            refresh,
            made_at,
            revocations: Vec::new(),
        })))
    }
}

impl Rotate {
    /// Puts the next token in force.
    async fn advance(
        &self,
        tx: &mut Tx<'_>,
        from: i64,
        refresh: &RefreshToken,
    ) -> Result<(), Failed> {
        let hash = Secrets::sha256(&refresh.seal(&self.secrets));
        let moved = on_tx!(tx, conn => sqlx::query(
            "UPDATE devices
             SET refresh_counter = $3, refresh_token_hash = $4, refresh_retry_key_hash = $5,
                 refreshed_at = $6, last_active_at = $6
             WHERE id = $1 AND refresh_counter = $2")
            .bind(self.token.device).bind(from).bind(refresh.counter).bind(hash)
            .bind(&self.presented.retry_key_hash).bind(self.now)
            .execute(conn).await?.rows_affected());
        if moved == 1 {
            Ok(())
        } else {
            Err(StoreError::Corrupt("a locked device changed").into())
        }
    }

    /// Ends the device's session: somebody holds a token that was used before.
    async fn sign_out(&self, tx: &mut Tx<'_>) -> Result<Revocation, Failed> {
        let (version, made_at): (i64, DateTime<Utc>) = on_tx!(tx, conn => sqlx::query_as(
            "UPDATE devices SET refresh_token_hash = NULL, session_version = session_version + 1
             WHERE id = $1 RETURNING session_version, refreshed_at")
            .bind(self.token.device).fetch_one(conn).await?);
        let revocation = Revocation {
            subject: self.token.device.0,
            min_version: version,
            expires_at: Revocation::end(self.now, made_at, self.revocation_life),
        };
        revocation_put(tx, &revocation, self.now).await?;
        Ok(revocation)
    }
}
