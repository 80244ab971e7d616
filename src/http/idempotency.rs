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
        let key = key(req).map(|key| {
            key.map(|key| {
                let asked = format!("{} {}\n", req.method(), req.path());
                (Secrets::sha256(key), asked)
            })
        });
        let body = json::body(req, payload);
        Box::pin(async move {
            let (key, body) = (key?, body.await?);
            let key = key.map(|(key_hash, asked)| IdempotencyKey {
                key_hash,
                asked_hash: Secrets::sha256_of(&[asked.as_bytes(), &body]),
            });
            let body = parse_json(&body)?;
            Ok(Self { body, key })
        })
    }
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
