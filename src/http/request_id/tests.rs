use std::{
    io::Write,
    sync::{Mutex, MutexGuard},
};

use actix_web::{test::TestRequest, web};
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::http::testing::{FIRST_ID, server, things};

#[actix_web::test]
async fn an_id_is_taken_over_if_it_is_harmless() {
    let server = server(things);
    let longest = "a".repeat(64);
    for sent in ["a", "Trace_01-x", &longest] {
        let req = TestRequest::get().uri("/v1/things/7");
        let answer = server.call(req.insert_header((X_REQUEST_ID, sent))).await;
        assert_eq!(answer.header("x-request-id"), Some(sent));
    }
    let too_long = "a".repeat(65);
    for sent in ["", "a b", "a\"b", "../x", "é", &too_long] {
        let req = TestRequest::get().uri("/v1/things/7");
        let answer = server.call(req.insert_header((X_REQUEST_ID, sent))).await;
        assert_eq!(answer.header("x-request-id"), Some(FIRST_ID), "{sent}");
    }
}

#[actix_web::test]
async fn handlers_and_errors_see_the_same_id() {
    let server = server(|cfg| {
        cfg.route("/me", web::get().to(async |id: RequestId| id.to_string()));
    });
    let mine = (X_REQUEST_ID, "mine");
    let answer = server
        .call(TestRequest::get().uri("/me").insert_header(mine))
        .await;
    assert_eq!(answer.text(), "mine");
    let mine = (X_REQUEST_ID, "mine");
    let answer = server
        .call(TestRequest::get().uri("/no").insert_header(mine))
        .await;
    assert!(answer.text().contains(r#""request_id":"mine""#));
}

#[actix_web::test]
async fn requests_are_counted_by_pattern() {
    let server = server(|cfg| {
        things(cfg);
        cfg.route("/any", web::to(crate::http::testing::ok));
    });
    server.get("/v1/things/7").await;
    server.get("/v1/things/8?q=1").await;
    server.get("/scan/me.php").await;
    server.call(TestRequest::post().uri("/v1/things/7")).await;
    let odd = TestRequest::default().method(Method::from_bytes(b"BREW").unwrap());
    server.call(odd.uri("/any")).await;
    let text = server.surface.metrics.encode().unwrap();
    for line in [
        r#"http_requests_total{method="GET",route="/v1/things/{id}",status="200"} 2"#,
        r#"http_requests_total{method="POST",route="/v1/things/{id}",status="405"} 1"#,
        r#"http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"http_requests_total{method="other",route="/any",status="200"} 1"#,
        r#"http_request_seconds_count{route="/v1/things/{id}"} 3"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

struct Line<'a>(MutexGuard<'a, Vec<u8>>);

impl Write for Line<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line(self.0.lock().unwrap())
    }
}

#[actix_web::test]
async fn one_line_a_request_and_nothing_private_in_it() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .without_time()
        .finish();
    // While only one subscriber is known, a call site that another thread reaches first is decided by
    // what that thread has: none, and it stays mute for all.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let guard = tracing::subscriber::set_default(subscriber);
    let server = server(|cfg| {
        things(cfg);
        crate::http::health::routes(cfg);
        cfg.route(
            "/broken",
            web::get().to(async || Err::<&str, _>(error::ApiError::internal("disk 7 is on fire"))),
        );
    });
    let req = TestRequest::get()
        .uri("/v1/things/secret-id?token=secret-query")
        .insert_header(("authorization", "Bearer secret-header"));
    server.call(req).await;
    server.get("/health").await;
    server.get("/broken").await;
    drop(guard);

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    let expected = format!(
        "INFO request{{request_id={FIRST_ID} method=\"GET\" path=\"/v1/things/{{id}}\" \
         status=200 latency_ms=0.0}}: listen_stream::http::request_id: answered"
    );
    assert_eq!(lines[0].trim(), expected);
    assert!(
        lines[1].contains("ERROR") && lines[1].contains("disk 7 is on fire"),
        "{text}"
    );
    assert!(lines[2].contains("status=500"), "{text}");
}
