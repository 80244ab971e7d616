//! Answers that a client may have already: a tag of what they say, and `304` when it has not changed.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, ETag, EntityTag, Header as _, IfNoneMatch},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// Only the user's own client may keep it, and asks each time whether it changed.
const PRIVATE: &str = "private, no-cache";

/// `body` as JSON with its tag; `304` without it when the client named the tag.
///
/// # Errors
/// [`ApiError`] when `body` cannot be written.
pub fn tagged<T: Serialize>(req: &HttpRequest, body: &T) -> Result<HttpResponse, ApiError> {
    tagged_for(req, body, PRIVATE)
}

/// The same with another `Cache-Control`.
///
/// # Errors
/// [`ApiError`] when `body` cannot be written.
pub fn tagged_for<T: Serialize>(
    req: &HttpRequest,
    body: &T,
    cache: &'static str,
) -> Result<HttpResponse, ApiError> {
    let text = serde_json::to_vec(body).map_err(ApiError::internal)?;
    let digest = Sha256::digest(&text);
    // Weak: the same answer may be sent compressed.
    let tag = EntityTag::new_weak(URL_SAFE_NO_PAD.encode(&digest[..16]));
    let known = IfNoneMatch::parse(req).is_ok_and(|asked| match asked {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(tags) => tags.iter().any(|it| it.weak_eq(&tag)),
    });
    let mut answer = if known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    answer
        .insert_header(ETag(tag))
        .insert_header((header::CACHE_CONTROL, cache));
    Ok(if known {
        answer.finish()
    } else {
        answer.content_type("application/json").body(text)
    })
}
