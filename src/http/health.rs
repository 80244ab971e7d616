//! What machines ask: is it alive, can it serve, and the numbers.
//!
//! Reads a [`Readiness`] and the metrics from the application's data; decides nothing itself.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::header, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use crate::telemetry::metrics::Metrics;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a part that others need is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// It serves.
    Ok,
    /// It serves less than it should; the node stays in the balancer.
    Degraded,
    /// It does not serve, and without it the node cannot.
    Failed,
}

/// Knows how the parts are doing, without waiting for them.
pub trait Readiness: Send + Sync {
    /// Each part's name and state.
    fn checks(&self) -> Vec<(&'static str, CheckState)>;
}

impl<F> Readiness for F
where
    F: Fn() -> Vec<(&'static str, CheckState)> + Send + Sync,
{
    fn checks(&self) -> Vec<(&'static str, CheckState)> {
        self()
    }
}

/// The answer of `/health`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// The answer of `/ready`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    /// `ready` or `not_ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// The parts, by name.
    checks: BTreeMap<&'static str, CheckState>,
}

/// The process answers.
#[utoipa::path(get, path = "/health", tag = "operations",
    responses((status = 200, description = "The process answers", body = Health)))]
pub async fn health() -> web::Json<Health> {
    web::Json(Health { status: "ok" })
}

/// The node can serve.
#[utoipa::path(get, path = "/ready", tag = "operations",
    responses(
        (status = 200, description = "The node can serve", body = Ready),
        (status = 503, description = "A part that it needs has failed", body = Ready),
    ))]
pub async fn ready(readiness: web::Data<dyn Readiness>) -> HttpResponse {
    let checks: BTreeMap<_, _> = readiness.checks().into_iter().collect();
    if checks.values().any(|state| *state == CheckState::Failed) {
        HttpResponse::ServiceUnavailable().json(Ready {
            status: "not_ready",
            checks,
        })
    } else {
        HttpResponse::Ok().json(Ready {
            status: "ready",
            checks,
        })
    }
}

async fn metrics(metrics: web::Data<Metrics>) -> Result<HttpResponse, ApiError> {
    let text = metrics.encode().map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, OPENMETRICS))
        .body(text))
}

/// Registers `/health` and `/ready`; needs `Data<dyn Readiness>`.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/health").route(web::get().to(health)))
        .service(web::resource("/ready").route(web::get().to(ready)));
}

/// Registers `/metrics`, for the admin listener; needs `Data<Metrics>`.
pub fn metrics_route(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/metrics").route(web::get().to(metrics)));
}

#[cfg(test)]
mod tests;
