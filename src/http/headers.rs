//! Headers for browsers: what they may do with an answer, and which pages may ask at all.
//!
//! Owns the list of allowed origins, for CORS and for the WebSocket handshake alike. Credentials
//! in the browser's sense (cookies) are never used, so CORS never allows them.

use std::{collections::HashSet, sync::Arc};

use actix_cors::Cors;
use actix_web::{
    HttpResponse, HttpResponseBuilder,
    dev::{ServiceRequest, ServiceResponse},
    http::{
        header::{self, HeaderMap, HeaderName, HeaderValue},
        uri::Authority,
    },
};

use serde::Serialize;

use super::{around::Mark, openapi, request_id::X_REQUEST_ID};
use crate::domain::error::FieldError;

/// The position in the user's log after a write.
pub const SYNC_SEQ: HeaderName = HeaderName::from_static("sync-seq");
/// What a limit has left for the caller.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What a limit allows.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Names a write, so that it may be sent again.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The answer to a write that is at `seq` of the user's log.
pub(super) fn written<T: Serialize>(
    mut answer: HttpResponseBuilder,
    seq: i64,
    body: T,
) -> HttpResponse {
    answer.insert_header((SYNC_SEQ, seq)).json(body)
}

/// The same where nothing is left to say: `204`.
pub(super) fn written_bare(seq: i64) -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((SYNC_SEQ, seq))
        .finish()
}

const PREFLIGHT_SECS: usize = 3600;
const API_CSP: &str = "default-src 'none'; frame-ancestors 'none'";
// The page's own files only; it sets styles inline and has its icons as data.
const DOCS_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// Which pages may call: those of the list, and for sockets those of the server's own host.
#[derive(Debug, Clone, Default)]
pub struct Origins(Arc<HashSet<Origin>>);

/// Scheme, host and port as one value; the scheme's own port when none is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let named = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        if scheme.is_empty() || !scheme.bytes().all(named) {
            return None;
        }
        let (host, port) = split_authority(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        Some(Self { scheme, host, port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Host in lower case and port of `host`, `host:port` or `[v6]:port`, with nothing around it.
fn split_authority(text: &str) -> Option<(String, Option<u16>)> {
    if text.contains('@') {
        return None;
    }
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    (!host.is_empty()).then(|| (host.to_ascii_lowercase(), authority.port_u16()))
}

impl Origins {
    /// Takes `scheme://host[:port]` each.
    ///
    /// # Errors
    /// The entry that is no origin, as an error of `server.allowed_origins`.
    pub fn new<S: AsRef<str>>(list: &[S]) -> Result<Self, FieldError> {
        let mut out = HashSet::new();
        for text in list.iter().map(AsRef::as_ref) {
            let origin = Origin::parse(text).ok_or_else(|| {
                FieldError::new(
                    "server.allowed_origins",
                    format!("`{text}` is not an origin: scheme://host or scheme://host:port"),
                )
            })?;
            out.insert(origin);
        }
        Ok(Self(Arc::new(out)))
    }

    /// Whether a page of `origin` is on the list.
    fn lists(&self, origin: &str) -> bool {
        Origin::parse(origin).is_some_and(|o| self.0.contains(&o))
    }

    /// Whether a handshake with these `Origin` and `Host` headers may go on.
    ///
    /// No `Origin` is fine: only browsers must send one, and only they hold what others could use.
    #[must_use]
    pub fn allows(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        self.lists(origin) || host.is_some_and(|host| same_host(origin, host))
    }

    /// The CORS middleware for this list.
    pub fn cors(&self) -> Cors {
        let origins = self.clone();
        Cors::default()
            .allowed_origin_fn(move |origin, _| origin.to_str().is_ok_and(|o| origins.lists(o)))
            .allowed_methods(["GET", "POST", "PUT", "PATCH", "DELETE"])
            .allowed_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::IF_MATCH,
                header::IF_NONE_MATCH,
                IDEMPOTENCY_KEY,
                X_REQUEST_ID,
            ])
            .expose_headers([
                header::ETAG,
                header::RETRY_AFTER,
                RATE_LIMIT,
                RATE_LIMIT_POLICY,
                SYNC_SEQ,
                X_REQUEST_ID,
            ])
            .max_age(PREFLIGHT_SECS)
    }
}

fn same_host(origin: &str, host: &str) -> bool {
    let Some(origin) = Origin::parse(origin) else {
        return false;
    };
    // Behind a proxy that ends TLS the server cannot know its own scheme: the page's is taken.
    split_authority(host).is_some_and(|(name, port)| {
        name == origin.host && port.or_else(|| default_port(&origin.scheme)) == origin.port
    })
}

/// The security headers of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Secure;

/// Adds the security headers to the answer.
#[must_use]
pub fn secure(_: &ServiceRequest) -> Secure {
    Secure
}

impl Mark for Secure {
    fn leave<B>(self, res: &mut ServiceResponse<B>) {
        let is_docs = res.request().path().starts_with(openapi::DOCS_PATH);
        let (csp, cache) = if is_docs {
            (DOCS_CSP, "no-cache")
        } else {
            (API_CSP, "no-store")
        };
        let headers = res.headers_mut();
        set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(headers, header::X_FRAME_OPTIONS, "DENY");
        set(headers, header::REFERRER_POLICY, "no-referrer");
        set(headers, header::CONTENT_SECURITY_POLICY, csp);
        if !headers.contains_key(header::CACHE_CONTROL) {
            set(headers, header::CACHE_CONTROL, cache);
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests;
