//! Gives every request an id, a span, one log line and its place in the metrics.
//!
//! Outermost but for nothing: every answer passes here, so that each carries its id and each error
//! its final form. Never logs a query string, a header, a body or a path as it was sent: paths
//! hold ids, so only the route's pattern is shown.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    body::{EitherBody, MessageBody},
    dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    http::{
        Method,
        header::{HeaderName, HeaderValue},
    },
};
use futures_util::future;
use tracing::{Instrument, field};
use uuid::Uuid;

use super::error;
use crate::{
    domain::clock::World,
    telemetry::metrics::{HttpMeter, HttpMetrics},
};

/// The header that carries the id, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_LEN: usize = 64;
const UNMATCHED: &str = "unmatched";
/// Asked by machines every few seconds.
const QUIET: [&str; 3] = ["/health", "/ready", "/metrics"];

/// The id of the request in hand; an extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes over what a caller sent, if it can go anywhere without harm.
    fn parse(header: &HeaderValue) -> Option<Self> {
        let text = header.to_str().ok()?;
        let fits = (1..=MAX_LEN).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        fits.then(|| Self(text.into()))
    }

    fn new(world: &World) -> Self {
        // Without randomness the request still gets its answer: what needs secrets will refuse.
        let id = world.uuid().unwrap_or_default();
        let mut text = Uuid::encode_buffer();
        Self((&*id.hyphenated().encode_lower(&mut text)).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromRequest for RequestId {
    type Error = error::ApiError;
    type Future = future::Ready<Result<Self, Self::Error>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        future::ready(
            req.extensions()
                .get::<Self>()
                .cloned()
                .ok_or_else(|| error::ApiError::internal("the request-id middleware is not there")),
        )
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct RequestIds {
    world: World,
    metrics: HttpMetrics,
}

impl RequestIds {
    /// Makes ids and reads times from `world`, counts in `metrics`.
    #[must_use]
    pub fn new(world: World, metrics: HttpMetrics) -> Self {
        Self { world, metrics }
    }
}

/// Callers may send any word as the method; labels and logs take the usual ones.
fn bounded(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

impl<S, B> Transform<S, ServiceRequest> for RequestIds
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = RequestIdService<S>;
    type InitError = ();
    type Future = future::Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        future::ok(RequestIdService {
            service,
            shared: Rc::new(Shared {
                world: self.world.clone(),
                meter: HttpMeter::new(self.metrics.clone()),
            }),
        })
    }
}

/// What [`RequestIds`] makes of a service.
#[derive(Debug)]
pub struct RequestIdService<S> {
    service: S,
    shared: Rc<Shared>,
}

/// What the requests of one worker share.
#[derive(Debug)]
struct Shared {
    world: World,
    meter: HttpMeter,
}

impl<S, B> Service<ServiceRequest> for RequestIdService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        let shared = Rc::clone(&self.shared);
        let started = shared.world.instant();
        let id = req
            .headers()
            .get(X_REQUEST_ID)
            .and_then(RequestId::parse)
            .unwrap_or_else(|| RequestId::new(&shared.world));
        let method = bounded(req.method());
        let span = tracing::info_span!(
            "request",
            request_id = %id,
            method,
            path = field::Empty,
            status = field::Empty,
            latency_ms = field::Empty,
        );
        req.extensions_mut().insert(id.clone());
        // Inside the span from the start: some services do their work before the first poll.
        let answer = span.in_scope(|| self.service.call(req));
        let inside = span.clone();
        Box::pin(
            async move {
                let mut res = error::finish(answer.await?, id.as_str(), &shared.meter);
                if let Ok(value) = HeaderValue::from_str(id.as_str()) {
                    res.headers_mut().insert(X_REQUEST_ID, value);
                }
                let took = shared.world.instant().saturating_duration_since(started);
                let route = res.request().match_pattern();
                let route = route.as_deref().unwrap_or(UNMATCHED);
                let status = res.status().as_u16();
                inside.record("path", route);
                inside.record("status", status);
                inside.record("latency_ms", took.as_secs_f64() * 1e3);
                if QUIET.contains(&route) {
                    tracing::debug!("answered");
                } else {
                    tracing::info!("answered");
                }
                let meter = &shared.meter;
                meter.answered(method, route, status, took.as_secs_f64());
                Ok(res)
            }
            .instrument(span),
        )
    }
}

#[cfg(test)]
mod tests;
