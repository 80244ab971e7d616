use std::sync::Arc;

use actix_web::web::ServiceConfig;
use serde_json::{Value, json};

use super::*;
use crate::http::testing::{Answer, server};

fn with<const N: usize>(cfg: &mut ServiceConfig, checks: [(&'static str, CheckState); N]) {
    let readiness: Arc<dyn Readiness> = Arc::new(move || checks.to_vec());
    cfg.app_data(web::Data::from(readiness));
    routes(cfg);
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[actix_web::test]
async fn a_node_is_ready_until_something_failed() {
    let fine = server(|cfg| {
        with(
            cfg,
            [("store", CheckState::Ok), ("redis", CheckState::Degraded)],
        );
    });
    let answer = fine.get("/ready").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        body(&answer),
        json!({"status": "ready", "checks": {"store": "ok", "redis": "degraded"}})
    );

    let broken = server(|cfg| {
        with(
            cfg,
            [("store", CheckState::Failed), ("redis", CheckState::Ok)],
        );
    });
    let answer = broken.get("/ready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        body(&answer),
        json!({"status": "not_ready", "checks": {"store": "failed", "redis": "ok"}})
    );
    let answer = broken.get("/health").await;
    assert_eq!(
        (answer.status, body(&answer)),
        (200, json!({"status": "ok"}))
    );
}

#[actix_web::test]
async fn the_numbers_are_exposed() {
    let server = server(metrics_route);
    server.get("/metrics").await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(OPENMETRICS));
    let line = r#"http_requests_total{method="GET",route="/metrics",status="200"} 1"#;
    assert!(answer.text().contains(line), "{}", answer.text());
    assert!(answer.text().ends_with("# EOF\n"));
}
