//! A server with every layer, a clock that stands still and no randomness, for the tests here.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actix_web::{
    http::header::HeaderMap,
    test::{TestRequest, call_service, init_service, read_body},
    web::{self, Bytes, ServiceConfig},
};
use chrono::{DateTime, TimeZone, Utc};
use serde_json::{Value, json};

use super::{
    headers::Origins,
    limit::{LimitConfig, Limits},
    stack::{self, Surface},
};
use crate::{
    domain::{
        clock::{Clock, Entropy, EntropyError, System, World},
        error::ErrorCode,
        forwarded::TrustedProxies,
    },
    telemetry::metrics::Metrics,
};

/// Moves only when a test says so.
pub struct Hands {
    base: Instant,
    passed: Mutex<Duration>,
}

impl Hands {
    pub fn advance(&self, by: Duration) {
        *self.passed.lock().unwrap() += by;
    }
}

impl Clock for Hands {
    fn now(&self) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 20, 10, 0, 0).unwrap() + *self.passed.lock().unwrap()
    }
    fn instant(&self) -> Instant {
        self.base + *self.passed.lock().unwrap()
    }
}

struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, buf: &mut [u8]) -> Result<(), EntropyError> {
        buf.fill(0);
        Ok(())
    }
}

/// What [`Zeros`] and [`Hands`] make of a request without an id.
pub const FIRST_ID: &str = "01a1f866-0d00-7000-8000-000000000000";

pub struct Server {
    pub surface: Surface,
    pub hands: Arc<Hands>,
    routes: fn(&mut ServiceConfig),
}

pub fn server(routes: fn(&mut ServiceConfig)) -> Server {
    let hands = Arc::new(Hands {
        base: System.instant(),
        passed: Mutex::default(),
    });
    let world = World::new(hands.clone(), Arc::new(Zeros));
    Server {
        surface: Surface {
            metrics: Metrics::new(),
            origins: Origins::new(&["https://app.example.com"]).unwrap(),
            limits: Some(Limits::new(&LimitConfig::default(), &world)),
            proxies: TrustedProxies::none(),
            world,
        },
        hands,
        routes,
    }
}

impl Server {
    pub fn limited(mut self, config: &LimitConfig) -> Self {
        self.surface.limits = Some(Limits::new(config, &self.surface.world));
        self
    }

    pub async fn call(&self, req: TestRequest) -> Answer {
        let app = init_service(stack::app(&self.surface).configure(self.routes)).await;
        let res = call_service(&app, req.to_request()).await;
        Answer {
            status: res.status().as_u16(),
            headers: res.headers().clone(),
            body: read_body(res).await,
        }
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.call(TestRequest::get().uri(uri)).await
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Checks the whole of a problem: `members` are the ones beside those that the code fixes.
    #[track_caller]
    pub fn is_problem(&self, code: ErrorCode, detail: &str, members: &Value) {
        let mut expected = json!({
            "type": format!("https://listen-stream.dev/problems/{code}"),
            "title": code.title(),
            "status": code.status(),
            "detail": detail,
            "code": code.code(),
            "request_id": self.header("x-request-id"),
        });
        for (name, value) in members.as_object().unwrap() {
            expected[name] = value.clone();
        }
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body, expected);
        assert_eq!(self.status, code.status());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
    }

    /// Checks that one field was refused.
    #[track_caller]
    pub fn refuses(&self, field: &str, detail: &str) {
        self.is_problem(
            ErrorCode::InvalidRequest,
            &format!("{field}: {detail}"),
            &json!({"errors": [{"field": field, "detail": detail}]}),
        );
    }
}

/// A route that answers `ok`.
pub async fn ok() -> &'static str {
    "ok"
}

/// One route, `GET /v1/things/{id}`.
pub fn things(cfg: &mut ServiceConfig) {
    cfg.route("/v1/things/{id}", web::get().to(ok));
}
