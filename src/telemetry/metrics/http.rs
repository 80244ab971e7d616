//! The families of the HTTP surface, and each worker's way to them.
//!
//! Every request passes here: what it counts in was looked up before, once for each worker, so
//! that counting takes no lock of a family and makes no labels.

use std::{cell::RefCell, collections::HashMap};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::counters::Counters;
use crate::domain::error::ErrorCode;

/// From half a millisecond, a warm read, to the ten seconds after which callers are gone.
const LATENCY_BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// What is counted by `http_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

/// What is measured by `http_request_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// The families of the HTTP surface; clones share the same numbers.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// Problems answered, by code.
    problems: Counters,
    /// Requests refused by a limit, by its policy.
    rate_limited: Counters,
}

/// What became of codes, logins and the exchange of tokens: what was done, or the code of the
/// refusal. Clones share the same numbers.
#[derive(Debug, Clone)]
pub struct AuthMetrics {
    /// Requests for a code.
    pub codes: Counters,
    /// Logins.
    pub logins: Counters,
    /// Exchanges of a refresh token.
    pub refreshes: Counters,
}

impl AuthMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut counters = |name, help, values: &[&'static str]| {
            Counters::register(registry, name, help, "result", values.iter().copied())
        };
        Self {
            codes: counters(
                "auth_codes",
                "Requests for a code by result",
                &["sent", "sms_cooldown", "sms_unavailable"],
            ),
            logins: counters(
                "auth_logins",
                "Logins by result",
                &[
                    "opened",
                    "sms_code_invalid",
                    "sms_code_exhausted",
                    "device_limit_reached",
                ],
            ),
            refreshes: counters(
                "auth_refreshes",
                "Exchanges of a refresh token by result",
                &["opened", "refresh_token_invalid", "refresh_token_reused"],
            ),
        }
    }
}

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let it = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            problems: Counters::register(
                registry,
                "http_problems",
                "Problems answered by code",
                "code",
                ErrorCode::ALL.iter().map(|code| code.code()),
            ),
            rate_limited: Counters::register(
                registry,
                "http_rate_limited",
                "Requests refused by a limit",
                "policy",
                ["ip", "auth", "user"],
            ),
        };
        registry.register("http_requests", "Requests answered", it.requests.clone());
        registry.register(
            "http_request_seconds",
            "Seconds from the head of a request to the head of its answer",
            it.duration.clone(),
        );
        it
    }
}

/// A worker's way to the families.
#[derive(Debug)]
pub struct HttpMeter {
    metrics: HttpMetrics,
    routes: RefCell<HashMap<Box<str>, Route>>,
}

/// What a route's requests are counted in. Routes and the answers of each are few.
#[derive(Debug)]
struct Route {
    duration: Histogram,
    answers: Vec<((&'static str, u16), Counter)>,
}

impl HttpMeter {
    /// Knows no route yet.
    #[must_use]
    pub fn new(metrics: HttpMetrics) -> Self {
        Self {
            metrics,
            routes: RefCell::default(),
        }
    }

    /// A problem was answered; where a limit made it, by the limit's `policy`.
    pub fn problem(&self, code: ErrorCode, policy: Option<&'static str>) {
        self.metrics.problems.inc(code.code());
        if let Some(policy) = policy {
            self.metrics.rate_limited.inc(policy);
        }
    }

    /// Counts a request: its method, or one name for all that are unusual, and its route's pattern,
    /// never the path as it was sent.
    pub fn answered(&self, method: &'static str, route: &str, status: u16, seconds: f64) {
        let mut routes = self.routes.borrow_mut();
        if let Some(known) = routes.get_mut(route) {
            return known.answered(&self.metrics, method, route, status, seconds);
        }
        let labels = RouteLabels {
            route: route.to_owned(),
        };
        let mut new = Route {
            duration: self.metrics.duration.get_or_create_owned(&labels),
            answers: Vec::new(),
        };
        new.answered(&self.metrics, method, route, status, seconds);
        routes.insert(route.into(), new);
    }
}

impl Route {
    fn answered(
        &mut self,
        metrics: &HttpMetrics,
        method: &'static str,
        route: &str,
        status: u16,
        seconds: f64,
    ) {
        self.duration.observe(seconds);
        let answer = (method, status);
        if let Some((_, counter)) = self.answers.iter().find(|(known, _)| *known == answer) {
            counter.inc();
            return;
        }
        let labels = RequestLabels {
            method,
            route: route.to_owned(),
            status,
        };
        let counter = metrics.requests.get_or_create_owned(&labels);
        counter.inc();
        self.answers.push((answer, counter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn workers_count_into_the_same_numbers() {
        let metrics = Metrics::new();
        let workers = [1, 2].map(|_| HttpMeter::new(metrics.http.clone()));
        for worker in &workers {
            worker.answered("GET", "/v1/me", 200, 0.003);
            worker.answered("GET", "/v1/me", 200, 0.003);
            worker.answered("GET", "/v1/me", 401, 0.003);
            worker.answered("PUT", "/v1/you", 200, 0.003);
        }
        let text = metrics.encode().unwrap();
        for line in [
            r#"http_requests_total{method="GET",route="/v1/me",status="200"} 4"#,
            r#"http_requests_total{method="GET",route="/v1/me",status="401"} 2"#,
            r#"http_requests_total{method="PUT",route="/v1/you",status="200"} 2"#,
            r#"http_request_seconds_bucket{le="0.0025",route="/v1/me"} 0"#,
            r#"http_request_seconds_bucket{le="0.005",route="/v1/me"} 6"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
