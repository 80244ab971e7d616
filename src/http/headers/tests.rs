use actix_web::{HttpResponse, http::Method, test::TestRequest, web};

use super::*;
use crate::http::testing::{Answer, server, things};

const PAGE: &str = "https://app.example.com";

fn preflight(origin: &'static str, method: &'static str, headers: &'static str) -> TestRequest {
    TestRequest::default()
        .method(Method::OPTIONS)
        .uri("/v1/things/7")
        .insert_header(("origin", origin))
        .insert_header(("access-control-request-method", method))
        .insert_header(("access-control-request-headers", headers))
}

fn listed(answer: &Answer, header: &str) -> Vec<String> {
    let mut names: Vec<_> = answer
        .header(header)
        .unwrap()
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    names.sort();
    names
}

#[actix_web::test]
async fn every_answer_has_the_security_headers() {
    let server = server(|cfg| {
        things(cfg);
        cfg.route(
            "/cached",
            web::get().to(|| async {
                HttpResponse::Ok()
                    .insert_header(("cache-control", "max-age=60"))
                    .finish()
            }),
        );
    });
    for uri in ["/v1/things/7", "/nowhere"] {
        let answer = server.get(uri).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'",
            ),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{uri} {name}");
        }
    }
    let cached = server.get("/cached").await;
    assert_eq!(cached.header("cache-control"), Some("max-age=60"));
}

#[actix_web::test]
async fn a_listed_page_may_ask_and_read() {
    let server = server(things);
    let wanted = "authorization,content-type,idempotency-key,x-request-id,if-match,if-none-match";
    let answer = server.call(preflight(PAGE, "PUT", wanted)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(answer.header("access-control-max-age"), Some("3600"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert!(listed(&answer, "access-control-allow-methods").contains(&"delete".to_owned()));

    let req = TestRequest::get()
        .uri("/v1/things/7")
        .insert_header(("origin", PAGE));
    let answer = server.call(req).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(
        listed(&answer, "access-control-expose-headers"),
        [
            "etag",
            "ratelimit",
            "ratelimit-policy",
            "retry-after",
            "sync-seq",
            "x-request-id"
        ]
    );
}

#[actix_web::test]
async fn another_page_is_not_let_in() {
    let server = server(things);
    let answer = server
        .call(preflight("https://evil.example", "PUT", "authorization"))
        .await;
    let code = crate::domain::error::ErrorCode::OriginNotAllowed;
    answer.is_problem(code, code.title(), &serde_json::json!({}));
    assert_eq!(answer.header("access-control-allow-origin"), None);

    let answer = server.call(preflight(PAGE, "PUT", "x-other")).await;
    assert_eq!(answer.status, 400);

    let req = TestRequest::get().uri("/v1/things/7");
    let answer = server
        .call(req.insert_header(("origin", "https://evil.example")))
        .await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn sockets_are_for_listed_pages_the_own_host_and_no_pages_at_all() {
    let origins = Origins::new(&[PAGE, "http://localhost:5173"]).unwrap();
    let host = Some("api.example.com");
    for (origin, host, allowed) in [
        (None, host, true),
        (Some(PAGE), host, true),
        (Some("https://APP.example.com:443"), host, true),
        (Some("http://localhost:5173"), host, true),
        (Some("http://localhost:5174"), host, false),
        (Some("http://app.example.com"), host, false),
        (Some("https://api.example.com"), host, true),
        (
            Some("https://api.example.com"),
            Some("API.example.com:443"),
            true,
        ),
        (Some("https://api.example.com:8443"), host, false),
        (Some("http://[::1]:8080"), Some("[::1]:8080"), true),
        (Some("https://api.example.com.evil.example"), host, false),
        (Some("https://user@api.example.com"), host, false),
        (Some("https://api.example.com/"), host, false),
        (Some("null"), host, false),
        (Some(""), host, false),
        (Some("https://evil.example"), None, false),
    ] {
        assert_eq!(origins.allows(origin, host), allowed, "{origin:?} {host:?}");
    }
}

#[test]
fn the_list_takes_origins_only() {
    for bad in [
        "app.example.com",
        "https://",
        "https://a.example/path",
        "https://a.example/",
        "*",
    ] {
        let error = Origins::new(&[PAGE, bad]).unwrap_err();
        assert_eq!(error.field, "server.allowed_origins");
        assert!(error.detail.contains(bad));
    }
}
