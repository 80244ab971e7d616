//! Calls that may be repeated: a body with its `Idempotency-Key`.

use std::{future::Future, pin::Pin};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use serde::de::DeserializeOwned;

use super::{
    error::ApiError,
    headers::IDEMPOTENCY_KEY,
    json::{self, parse_json},
};
use crate::domain::{
    error::{ErrorCode, FieldError},
    idempotency::IdempotencyKey,
    identity::Secrets,
};

/// A JSON object as the body, and what names the call if it may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeatable<T> {
    /// The body.
    pub body: T,
    /// The same key with another method, path or body is refused.
    pub key: Option<IdempotencyKey>,
}

impl<T: DeserializeOwned + 'static> FromRequest for Repeatable<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let key = named(req);
        let body = json::body(req, payload);
        Box::pin(async move {
            let (key, body) = (key?, body.await?);
            let key = key.map(|named| named.with(&body));
            let body = parse_json(&body)?;
            Ok(Self { body, key })
        })
    }
}

/// What names a call without a body, if it may be repeated.
///
/// # Errors
/// [`ApiError`] when the header is no key.
pub(super) fn of_call(req: &HttpRequest) -> Result<Option<IdempotencyKey>, ApiError> {
    Ok(named(req)?.map(|named| named.with(&[])))
}

/// A call that has a key, but for its body.
struct Named {
    key_hash: String,
    asked: String,
}

impl Named {
    fn with(self, body: &[u8]) -> IdempotencyKey {
        IdempotencyKey {
            key_hash: self.key_hash,
            asked_hash: Secrets::sha256_of(&[self.asked.as_bytes(), body]),
        }
    }
}

fn named(req: &HttpRequest) -> Result<Option<Named>, ApiError> {
    Ok(key(req)?.map(|key| Named {
        key_hash: Secrets::sha256(key),
        asked: format!("{} {}\n", req.method(), req.path()),
    }))
}

/// What the caller named the call.
pub(super) fn key(req: &HttpRequest) -> Result<Option<&str>, ApiError> {
    let Some(value) = req.headers().get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=128).contains(&key.len()) => Ok(Some(key)),
        _ => Err(
            ApiError::new(ErrorCode::InvalidHeader).field(FieldError::new(
                "Idempotency-Key",
                "1 to 128 printable ASCII characters",
            )),
        ),
    }
}
