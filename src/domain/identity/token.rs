//! Access tokens, refresh tokens and socket tickets: making and checking them, without a database.

use std::sync::LazyLock;

use chrono::{DateTime, Duration, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ClientDeviceId, secrets::Secrets};
use crate::domain::ids::{DeviceId, TokenFamily, UserId};

/// What is asked of a token. The time is checked against our own clock.
static VALIDATION: LazyLock<Validation> = LazyLock::new(|| {
    let mut it = Validation::new(Algorithm::HS256);
    it.validate_exp = false;
    it.required_spec_claims.clear();
    it
});

/// Who is calling, as their token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The device, by the server's id.
    pub device: DeviceId,
    /// The device, by its own id.
    pub device_id: ClientDeviceId,
    /// The user's token version when the token was made.
    pub user_version: i64,
    /// The device's session version when the token was made.
    pub device_version: i64,
    /// When the token is over.
    pub expires_at: DateTime<Utc>,
}

/// The claims of an access token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: UserId,
    /// The device, by the server's id.
    pub dev: DeviceId,
    /// The device, by its own id.
    pub did: ClientDeviceId,
    /// The user's token version.
    pub uv: i64,
    /// The device's session version.
    pub dv: i64,
    /// Made at, seconds since 1970.
    pub iat: i64,
    /// Over at, seconds since 1970.
    pub exp: i64,
}

/// Why an access token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not made by this server, or damaged.
    #[error("the access token is not valid")]
    Invalid,
    /// Its time is over.
    #[error("the access token has expired")]
    Expired,
}

/// What a login or a refresh hands out.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// A JWT.
    pub access_token: String,
    /// Opaque to the client.
    pub refresh_token: String,
    /// When the pair was made.
    pub made_at: DateTime<Utc>,
    /// How long the access token holds from then on.
    pub life: Duration,
}

impl TokenPair {
    /// Whole seconds that the access token has left.
    #[must_use]
    pub fn expires_in(&self, now: DateTime<Utc>) -> i64 {
        (self.life.num_seconds() - (now - self.made_at).num_seconds()).max(0)
    }
}

impl std::fmt::Debug for TokenPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenPair(***, made at {})", self.made_at)
    }
}

impl Secrets {
    /// Signs `claims` with the newest key. The same claims give the same token.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] when there is no key to sign with.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let key = self.access.first().ok_or(TokenError::Invalid)?;
        let header = Header {
            kid: Some(key.kid.clone()),
            ..Header::new(Algorithm::HS256)
        };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&key.bytes))
            .map_err(|_| TokenError::Invalid)
    }

    /// Checks signature and time of an access token. Revocations are for the caller to check.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn check(&self, token: &str, now: DateTime<Utc>) -> Result<Caller, TokenError> {
        let kid = jsonwebtoken::decode_header(token).ok().and_then(|h| h.kid);
        let key = self
            .access
            .iter()
            .find(|k| Some(&k.kid) == kid.as_ref())
            .ok_or(TokenError::Invalid)?;
        let claims: Claims =
            jsonwebtoken::decode(token, &DecodingKey::from_secret(&key.bytes), &VALIDATION)
                .map_err(|_| TokenError::Invalid)?
                .claims;
        let said = DateTime::from_timestamp(claims.exp, 0).ok_or(TokenError::Invalid)?;
        // Both ends are whole seconds: the token may be up to two older than its life.
        let oldest = claims
            .iat
            .saturating_add(self.access_life.num_seconds() + 2);
        let expires_at = DateTime::from_timestamp(oldest, 0).map_or(said, |end| end.min(said));
        if expires_at <= now {
            return Err(TokenError::Expired);
        }
        Ok(Caller {
            user: claims.sub,
            device: claims.dev,
            device_id: claims.did,
            user_version: claims.uv,
            device_version: claims.dv,
            expires_at,
        })
    }

    /// The pair of a rotation. The same arguments give the same pair, so that a lost answer can be
    /// given again.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] when there is no key to sign with.
    pub fn pair(
        &self,
        caller: &Caller,
        refresh: &RefreshToken,
        made_at: DateTime<Utc>,
        life: Duration,
    ) -> Result<TokenPair, TokenError> {
        // A token's times are whole seconds, and so is what `expires_in` says: each may be short of a
        // second, and the token never lasts less than it was said to.
        let exp = (made_at + life).timestamp() + 2;
        let access_token = self.sign(&Claims {
            sub: caller.user,
            dev: caller.device,
            did: caller.device_id.clone(),
            uv: caller.user_version,
            dv: caller.device_version,
            iat: made_at.timestamp(),
            exp,
        })?;
        Ok(TokenPair {
            access_token,
            refresh_token: refresh.seal(self),
            made_at,
            life,
        })
    }
}

/// What a refresh token says: whose it is, and its place in its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshToken {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// The line of tokens since one login.
    pub family: TokenFamily,
    /// Rotations since that login.
    pub counter: i64,
}

impl RefreshToken {
    /// The text that a client holds: starts with `lsr_`.
    #[must_use]
    pub fn seal(&self, secrets: &Secrets) -> String {
        let mut body = Vec::with_capacity(56);
        for id in [self.user.0, self.device.0, self.family.0] {
            body.extend_from_slice(id.as_bytes());
        }
        body.extend_from_slice(&self.counter.to_be_bytes());
        secrets.seal_refresh(&body)
    }

    /// Reads what [`Self::seal`] made; `None` for anything else.
    #[must_use]
    pub fn open(secrets: &Secrets, text: &str) -> Option<Self> {
        let body: [u8; 56] = secrets.open_refresh(text)?.try_into().ok()?;
        Some(Self {
            user: UserId(uuid_at(&body, 0)?),
            device: DeviceId(uuid_at(&body, 16)?),
            family: TokenFamily(uuid_at(&body, 32)?),
            counter: i64::from_be_bytes(body[48..].try_into().ok()?),
        })
    }
}

/// What a socket ticket says. That it is used once is for the store to see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The user.
    pub user: UserId,
    /// Makes the ticket unlike any other.
    pub nonce: Uuid,
}

impl Ticket {
    /// How long a ticket holds, in seconds.
    pub const LIFE_SECS: i64 = 30;

    /// The text that a client offers as `ticket.<text>`: starts with `lst_`.
    #[must_use]
    pub fn seal(&self, secrets: &Secrets) -> String {
        let mut body = Vec::with_capacity(32);
        body.extend_from_slice(self.user.0.as_bytes());
        body.extend_from_slice(self.nonce.as_bytes());
        secrets.seal_ticket(&body)
    }

    /// Reads what [`Self::seal`] made; `None` for anything else.
    #[must_use]
    pub fn open(secrets: &Secrets, text: &str) -> Option<Self> {
        let body: [u8; 32] = secrets.open_ticket(text)?.try_into().ok()?;
        Some(Self {
            user: UserId(uuid_at(&body, 0)?),
            nonce: uuid_at(&body, 16)?,
        })
    }
}

fn uuid_at(body: &[u8], at: usize) -> Option<Uuid> {
    Uuid::from_slice(body.get(at..at + 16)?).ok()
}

#[cfg(test)]
mod tests;
