//! Every refusal and failure as a client sees it: `application/problem+json` (RFC 9457).
//!
//! Handlers and extractors return [`ApiError`]; the request-id middleware calls [`finish`] on each
//! answer, which counts it, adds the request's id, turns the framework's own plain errors into problems, and
//! logs failures of ours. That is the only place where they are logged: nothing below logs an
//! error that it also returns. A failure's source never reaches the body.

use std::{error::Error as StdError, fmt::Write as _};

use actix_cors::CorsError;
use actix_http::ws::HandshakeError;
use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    body::{BoxBody, EitherBody, MessageBody},
    dev::ServiceResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderValue},
    },
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    domain::error::{ErrorCode, FieldError},
    telemetry::metrics::HttpMeter,
};

/// The media type of every error body.
pub const PROBLEM_JSON: &str = "application/problem+json";
const TYPE_BASE: &str = "https://listen-stream.dev/problems/";
const DEFAULT_RETRY_SECS: u64 = 1;
const RESERVED: [&str; 7] = [
    "type",
    "title",
    "status",
    "detail",
    "code",
    "request_id",
    "errors",
];

type Source = Box<dyn StdError + Send + Sync>;

/// A refusal or failure on its way to the client.
#[derive(Debug)]
pub struct ApiError(Box<Inner>);

// Boxed, so that a `Result` that carries one stays small.
#[derive(Debug)]
struct Inner {
    code: ErrorCode,
    detail: Option<String>,
    errors: Vec<FieldError>,
    extensions: Map<String, Value>,
    retry_after: Option<u64>,
    source: Option<Source>,
    /// The limit that the caller is over.
    policy: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: ErrorCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(flatten)]
    extensions: &'a Map<String, Value>,
}

impl ApiError {
    /// An error of `code` whose detail is the code's title.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        Self(Box::new(Inner {
            code,
            detail: None,
            errors: Vec::new(),
            extensions: Map::new(),
            retry_after: None,
            source: None,
            policy: None,
        }))
    }

    /// A failure of ours: the client learns nothing of `source`, the log everything.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(ErrorCode::Internal).source(source)
    }

    /// Says what happened this time. Not shown with [`ErrorCode::Internal`].
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds a field that cannot be taken.
    #[must_use]
    pub fn field(mut self, error: FieldError) -> Self {
        self.0.errors.push(error);
        self
    }

    /// Adds a member to the problem; the names that every problem has cannot be taken.
    #[must_use]
    pub fn extension(mut self, name: &str, value: impl Into<Value>) -> Self {
        if !RESERVED.contains(&name) {
            self.0.extensions.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Over a limit.
    #[must_use]
    pub fn over(policy: &'static str) -> Self {
        let mut it =
            Self::new(ErrorCode::RateLimited).detail(format!("over the limit \"{policy}\""));
        it.0.policy = Some(policy);
        it
    }

    /// Says in how many seconds to try again; left out, 429 and 503 say one.
    #[must_use]
    pub fn retry_after(mut self, secs: u64) -> Self {
        self.0.retry_after = Some(secs);
        self
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// The body, with the id of the request that it answers.
    #[must_use]
    pub fn body(&self, request_id: Option<&str>) -> String {
        let inner = &*self.0;
        let detail = match &inner.detail {
            Some(detail) if inner.code != ErrorCode::Internal => detail,
            _ => inner.code.title(),
        };
        let body = Body {
            r#type: format!("{TYPE_BASE}{}", inner.code.code()),
            title: inner.code.title(),
            status: inner.code.status(),
            detail,
            code: inner.code,
            request_id,
            errors: &inner.errors,
            extensions: &inner.extensions,
        };
        // Maps with string keys and plain members: there is nothing that can fail to encode.
        serde_json::to_string(&body).unwrap_or_default()
    }

    fn set_headers(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        let retry_after = self.0.retry_after.or(match self.0.code.status() {
            429 | 503 => Some(DEFAULT_RETRY_SECS),
            _ => None,
        });
        if let Some(secs) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        match self.0.code.status() {
            401 => headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            426 => headers.insert(header::UPGRADE, HeaderValue::from_static("websocket")),
            _ => return,
        };
    }

    fn log(&self) {
        let code = self.0.code;
        let detail = self.0.detail.as_deref().unwrap_or_default();
        let source = self.0.source.as_deref().map(chain);
        match code.status() {
            503 | 504 => tracing::warn!(%code, detail, source, "request not served"),
            500.. => tracing::error!(%code, detail, source, "request failed"),
            _ => {}
        }
    }

    /// What the framework's own answer of `status` is called here.
    fn from_status(status: StatusCode) -> Self {
        Self::new(match status.as_u16() {
            401 => ErrorCode::Unauthenticated,
            403 => ErrorCode::OriginNotAllowed,
            404 => ErrorCode::NotFound,
            405 => ErrorCode::MethodNotAllowed,
            413 => ErrorCode::BodyTooLarge,
            415 => ErrorCode::UnsupportedMediaType,
            422 => ErrorCode::InvalidRequest,
            426 => ErrorCode::UpgradeRequired,
            429 => ErrorCode::RateLimited,
            503 => ErrorCode::Overloaded,
            408 | 504 => ErrorCode::Timeout,
            400..500 => ErrorCode::InvalidHeader,
            _ => ErrorCode::Internal,
        })
    }

    /// What the framework's own error `e`, answered with `status`, is called here.
    fn from_framework(e: &actix_web::Error, status: StatusCode) -> Self {
        if let Some(e) = e.as_error::<CorsError>() {
            return match e {
                CorsError::OriginNotAllowed => Self::new(ErrorCode::OriginNotAllowed),
                e => Self::new(ErrorCode::InvalidHeader).detail(e.to_string()),
            };
        }
        if let Some(e) = e.as_error::<HandshakeError>() {
            return Self::new(match e {
                HandshakeError::GetMethodRequired
                | HandshakeError::NoWebsocketUpgrade
                | HandshakeError::NoConnectionUpgrade => ErrorCode::UpgradeRequired,
                _ => ErrorCode::InvalidHeader,
            })
            .detail(e.to_string());
        }
        let out = Self::from_status(status);
        if status.is_server_error() {
            return out.source(e.to_string());
        }
        out
    }
}

/// The error and everything behind it, one line.
fn chain(e: &(dyn StdError + Send + Sync)) -> String {
    let mut out = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        let _ = write!(out, ": {cause}");
        next = cause.source();
    }
    out
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = &*self.0;
        write!(f, "{}", inner.code)?;
        if let Some(detail) = &inner.detail {
            write!(f, ": {detail}")?;
        }
        for error in &inner.errors {
            write!(f, "; {error}")?;
        }
        Ok(())
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut res = HttpResponse::with_body(self.status_code(), BoxBody::new(self.body(None)));
        self.set_headers(res.headers_mut());
        res
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        vec![error].into()
    }
}

impl From<Vec<FieldError>> for ApiError {
    fn from(errors: Vec<FieldError>) -> Self {
        let mut out = Self::new(ErrorCode::InvalidRequest);
        if let [one] = &errors[..] {
            out = out.detail(one.to_string());
        }
        out.0.errors = errors;
        out
    }
}

/// What became of a call, for a metric: `done`, or the code of the problem.
pub(super) fn result<T>(answer: &Result<T, ApiError>, done: &'static str) -> &'static str {
    answer.as_ref().map_or_else(|e| e.code().code(), |_| done)
}

/// Gives an error answer its final form: a problem with the request's id, logged if it is ours.
///
/// Answers below 400, and JSON that is not an [`ApiError`]'s (such as `/ready`'s), stay as they are.
pub fn finish<B: MessageBody>(
    mut res: ServiceResponse<B>,
    request_id: &str,
    meter: &HttpMeter,
) -> ServiceResponse<EitherBody<B>> {
    if res.status().as_u16() < 400 {
        return res.map_into_left_body();
    }
    let raised = res.response().error();
    if raised.is_none() && is_json(res.headers()) {
        return res.map_into_left_body();
    }
    let made;
    let error = if let Some(own) = raised.and_then(|e| e.as_error::<ApiError>()) {
        own
    } else {
        made = raised.map_or_else(
            || ApiError::from_status(res.status()),
            |e| ApiError::from_framework(e, res.status()),
        );
        &made
    };
    error.log();
    meter.problem(error.code(), error.0.policy);
    let status = error.status_code();
    let body = error.body(Some(request_id));
    let mut headers = HeaderMap::new();
    error.set_headers(&mut headers);

    *res.response_mut().status_mut() = status;
    // The framework names some refusals in the status line, which would contradict the status.
    res.response_mut().head_mut().reason = None;
    for (name, value) in headers {
        res.headers_mut().insert(name, value);
    }
    // The body that these described is replaced.
    res.headers_mut().remove(header::CONTENT_ENCODING);
    res.headers_mut().remove(header::CONTENT_LENGTH);
    res.map_body(|_, _| EitherBody::right(BoxBody::new(body)))
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/json"))
}

/// Answers what no route takes: 405 where the path is known under another method, else 404.
pub async fn fallback(req: HttpRequest) -> HttpResponse {
    let Some(pattern) = req.match_pattern() else {
        return ApiError::new(ErrorCode::NotFound).into();
    };
    let mut res: HttpResponse = ApiError::new(ErrorCode::MethodNotAllowed).into();
    if let Some(allow) = super::openapi::allowed_methods(&pattern)
        && let Ok(allow) = HeaderValue::from_str(&allow)
    {
        res.headers_mut().insert(header::ALLOW, allow);
    }
    res
}

impl From<ApiError> for HttpResponse {
    fn from(e: ApiError) -> Self {
        Self::from_error(e)
    }
}

#[cfg(test)]
mod tests;
