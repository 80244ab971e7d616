//! Extractors that refuse by name: the body, the query and the path as typed values.
//!
//! Syntax errors say line and column, everything else says which field and why. What a message
//! quotes of the input goes back to its sender only, shortened; nothing here is logged.

use std::{future::Future, pin::Pin, time::Duration};

use actix_web::{FromRequest, HttpRequest, dev::Payload, error::PayloadError, http::header, web};
use futures_util::{StreamExt, future};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use super::error::ApiError;
use crate::domain::{
    error::{ErrorCode, FieldError},
    text::shortened,
};

/// The most that a body may hold.
pub const MAX_BODY: usize = 1024 * 1024;
/// A body that takes longer would only hold memory and a connection.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
const ROOT: &str = "body";

/// A JSON object as the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// The query string; refuses unknown parameters when `T` says `deny_unknown_fields`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<T>(pub T);

/// The variable segments of the path: a struct by their names, a tuple by their order, or one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = body(req, payload);
        Box::pin(async move { parse_json(&body.await?).map(Self) })
    }
}

/// The bytes of a body that says it is JSON.
pub(super) fn body(
    req: &HttpRequest,
    payload: &mut Payload,
) -> impl Future<Output = Result<web::BytesMut, ApiError>> + use<> {
    let checked = check_head(req);
    let payload = payload.take();
    async move {
        checked?;
        tokio::time::timeout(BODY_PATIENCE, read(payload))
            .await
            .map_err(|_| incomplete())?
    }
}

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = future::Ready<Result<Self, ApiError>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let pairs = form_urlencoded::parse(req.query_string().as_bytes());
        let de = serde_urlencoded::Deserializer::new(pairs);
        future::ready(
            serde_path_to_error::deserialize(de)
                .map(Self)
                .map_err(|e| field_error(e.path(), e.inner(), "query").into()),
        )
    }
}

impl<T: DeserializeOwned> FromRequest for Path<T> {
    type Error = ApiError;
    type Future = future::Ready<Result<Self, ApiError>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let segments = req.match_info();
        let de = actix_router::PathDeserializer::new(segments);
        future::ready(serde_path_to_error::deserialize(de).map(Self).map_err(|e| {
            let mut error = field_error(e.path(), e.inner(), "path");
            // A tuple's elements and a single value have no names of their own: the pattern does.
            let index = match error.field.as_str() {
                "path" if segments.segment_count() == 1 => Some(0),
                field => field
                    .strip_prefix('[')
                    .and_then(|f| f.strip_suffix(']'))
                    .and_then(|f| f.parse().ok()),
            };
            if let Some((name, _)) = index.and_then(|i: usize| segments.iter().nth(i)) {
                name.clone_into(&mut error.field);
            }
            error.into()
        }))
    }
}

fn check_head(req: &HttpRequest) -> Result<(), ApiError> {
    let head = req.headers();
    let is_json = head
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .is_some_and(|v| v.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return Err(ErrorCode::UnsupportedMediaType.into());
    }
    let declared = head
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    if declared.is_some_and(|n| n > MAX_BODY) {
        return Err(too_large());
    }
    Ok(())
}

async fn read(mut payload: Payload) -> Result<web::BytesMut, ApiError> {
    let mut body = web::BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| match e {
            PayloadError::Overflow => too_large(),
            e => incomplete().source(e.to_string()),
        })?;
        if body.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn incomplete() -> ApiError {
    ApiError::new(ErrorCode::MalformedJson).detail("the body did not arrive whole")
}

fn too_large() -> ApiError {
    ApiError::new(ErrorCode::BodyTooLarge).detail(format!("the body is over {MAX_BODY} bytes"))
}

pub(super) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Structs would also take an array, by the order of their fields: that is no contract.
    if body.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        serde_json::from_slice::<IgnoredAny>(body).map_err(|e| malformed(&e))?;
        return Err(FieldError::new(ROOT, "expected an object").into());
    }
    let mut de = serde_json::Deserializer::from_slice(body);
    let value =
        serde_path_to_error::deserialize(&mut de).map_err(|e| match e.inner().classify() {
            // A field is found wrong before the rest is read: what is no JSON at all is said first.
            Category::Data => match serde_json::from_slice::<IgnoredAny>(body) {
                Ok(_) => field_error(e.path(), e.inner(), ROOT).into(),
                Err(e) => malformed(&e),
            },
            Category::Io | Category::Syntax | Category::Eof => malformed(e.inner()),
        })?;
    de.end().map_err(|e| malformed(&e))?;
    Ok(value)
}

fn malformed(e: &serde_json::Error) -> ApiError {
    ApiError::new(ErrorCode::MalformedJson)
        .detail(e.to_string())
        .extension("line", e.line())
        .extension("column", e.column())
}

/// Names the field and says why, from what serde says.
fn field_error(
    path: &serde_path_to_error::Path,
    e: &dyn std::error::Error,
    root: &str,
) -> FieldError {
    let text = e.to_string();
    // serde_json appends the place; the field's name says it better.
    let mut detail = match text.rfind(" at line ") {
        Some(at) => &text[..at],
        None => &text,
    };
    let mut field = path.to_string();
    if field == "." {
        field.clear();
    }
    // These two are reported at the object that holds the field.
    for (prefix, short) in [
        ("missing field `", "missing"),
        ("duplicate field `", "given twice"),
    ] {
        if let Some(name) = detail
            .strip_prefix(prefix)
            .and_then(|d| d.split('`').next())
        {
            if !field.is_empty() {
                field.push('.');
            }
            field.push_str(name);
            return FieldError::new(shortened(&field), short);
        }
    }
    if field.is_empty() {
        root.clone_into(&mut field);
    }
    let object;
    if let Some((found, _)) = detail.split_once(", expected struct ") {
        object = format!("{found}, expected an object");
        detail = &object;
    }
    if detail.starts_with("unknown field `") {
        // The name is in `field` already and may be long.
        let expected = detail.rsplit_once("`, expected ").map(|(_, list)| list);
        let detail = expected.map_or_else(
            || "unknown field".to_owned(),
            |list| format!("unknown field, expected {list}"),
        );
        return FieldError::new(shortened(&field), detail);
    }
    FieldError::new(shortened(&field), shortened(detail))
}

#[cfg(test)]
mod tests;
