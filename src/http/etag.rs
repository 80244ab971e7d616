//! Answers that a client may have already: a tag of what they say, and `304` when it has not changed; and
//! changes of what a client knows: `If-Match`.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, HttpResponseBuilder,
    dev::Payload,
    http::header::{self, ETag, EntityTag, Header as _, HeaderValue, IfNoneMatch},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::domain::{
    error::{ErrorCode, FieldError},
    library::{Expected, VersionTag},
};

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
    Ok(answered(req, tag, cache, |mut answer| {
        answer.content_type("application/json").body(text)
    }))
}

/// The tag of what has a version.
#[must_use]
pub fn of_version(version: VersionTag) -> ETag {
    ETag(EntityTag::new_strong(version.to_string()))
}

/// `body`, which is of that version, with its tag; `304` without it when the client named the tag.
pub fn versioned<T: Serialize>(req: &HttpRequest, version: VersionTag, body: &T) -> HttpResponse {
    let ETag(tag) = of_version(version);
    answered(req, tag, PRIVATE, |mut answer| answer.json(body))
}

/// What `say` makes, with its tag; `304` when the client named it.
fn answered(
    req: &HttpRequest,
    tag: EntityTag,
    cache: &'static str,
    say: impl FnOnce(HttpResponseBuilder) -> HttpResponse,
) -> HttpResponse {
    let known = is_known(req, &tag);
    let mut answer = if known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    answer
        .insert_header(ETag(tag))
        .insert_header((header::CACHE_CONTROL, cache));
    if known { answer.finish() } else { say(answer) }
}

fn is_known(req: &HttpRequest, tag: &EntityTag) -> bool {
    IfNoneMatch::parse(req).is_ok_and(|asked| match asked {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(tags) => tags.iter().any(|it| it.weak_eq(tag)),
    })
}

/// The versions that `If-Match` names, if it is there; an extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(pub Option<Expected>);

impl FromRequest for IfMatch {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let lines = req.headers().get_all(header::IF_MATCH);
        ready(expected(lines).map(Self).ok_or_else(|| {
            ApiError::new(ErrorCode::InvalidHeader).field(FieldError::new(
                "If-Match",
                "* or tags in quotes, such as \"17-0a1b2c3d\"",
            ))
        }))
    }
}

/// None: it cannot be read.
#[expect(clippy::option_option, reason = "unreadable, not there, there")]
fn expected<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Option<Option<Expected>> {
    let mut versions: Option<Vec<VersionTag>> = None;
    for line in lines {
        let line = line.to_str().ok()?.trim();
        if line == "*" {
            return Some(Some(Expected::Any));
        }
        for tag in line.split(',').map(str::trim) {
            // A proxy that compresses makes a tag weak. A version is what it is all the same.
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
            // What is no version is the tag of something else.
            versions
                .get_or_insert_default()
                .extend(VersionTag::parse(tag));
        }
    }
    Some(versions.map(Expected::Versions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_read() {
        let read = |lines: &[&'static str]| {
            let lines: Vec<_> = lines
                .iter()
                .map(|it| HeaderValue::from_static(it))
                .collect();
            expected(lines.iter())
        };
        let versions = |all: &[i64]| {
            let tags = all.iter().map(|version| VersionTag {
                version: *version,
                epoch: 10,
            });
            Some(Some(Expected::Versions(tags.collect())))
        };
        assert_eq!(read(&[]), Some(None));
        assert_eq!(read(&[" * "]), Some(Some(Expected::Any)));
        assert_eq!(read(&["\"17-0000000a\""]), versions(&[17]));
        assert_eq!(
            read(&["W/\"17-0000000a\" , \"18-0000000a\"", "\"x\", \"19\""]),
            versions(&[17, 18])
        );
        assert_eq!(read(&["\"\""]), versions(&[]));
        for bad in ["17", "", "\"17", "\"1\",", "\"1\" \"2\",3"] {
            assert_eq!(read(&[bad]), None, "{bad}");
        }
    }
}
