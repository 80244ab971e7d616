use serde_json::{Value, json};

use super::*;
use crate::http::testing::server;

#[actix_web::test]
async fn the_description_is_served() {
    let answer = server(routes).get(SPEC_PATH).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let doc: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(doc["openapi"], "3.1.0");
    assert_eq!(doc["info"]["title"], "Listen Stream");
    assert_eq!(
        doc["components"]["securitySchemes"]["bearer"],
        json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    );
    let problem = &doc["components"]["schemas"]["Problem"];
    assert_eq!(
        problem["required"],
        json!(["type", "title", "status", "detail", "code", "request_id"])
    );
    assert!(doc["components"]["schemas"]["FieldError"].is_object());
    let mut paths: Vec<_> = doc["paths"].as_object().unwrap().keys().collect();
    paths.sort();
    assert_eq!(
        paths,
        [
            "/health",
            "/ready",
            "/v1/auth/sessions",
            "/v1/auth/sessions/current",
            "/v1/auth/sms-codes",
            "/v1/auth/tokens",
            "/v1/me",
            "/v1/me/changes",
            "/v1/me/changes/ack",
            "/v1/me/devices",
            "/v1/me/devices/{id}",
            "/v1/me/favorites",
            "/v1/me/favorites/{type}/{target_id}",
            "/v1/me/favorites/{type}/{target_id}/restore",
            "/v1/me/history",
            "/v1/me/history/{id}",
            "/v1/me/player",
            "/v1/me/player/device",
            "/v1/me/playlists",
            "/v1/me/playlists/{id}",
            "/v1/me/playlists/{id}/restore",
            "/v1/me/playlists/{id}/songs",
            "/v1/me/playlists/{id}/songs:move",
            "/v1/me/playlists/{id}/songs:remove",
            "/v1/me/presence",
            "/v1/me/snapshot",
            "/v1/playlists/{id}",
            "/v1/playlists/{id}/songs",
            "/v1/sync",
            "/v1/sync/tickets",
        ]
    );
}

#[actix_web::test]
async fn the_page_comes_with_all_that_it_needs() {
    let server = server(routes);
    let page = server.get(DOCS_PATH).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html"));
    let csp = page.header("content-security-policy").unwrap();
    assert!(csp.contains("script-src 'self';"), "{csp}");
    // Every script, style and icon is a file beside the page: the policy lets nothing else in.
    let html = page.text();
    assert!(
        !html.contains("<script>") && !html.contains("http"),
        "{html}"
    );
    let assets: Vec<_> = html
        .split('"')
        .filter(|s| [".js", ".css", ".png"].iter().any(|end| s.ends_with(end)))
        .collect();
    assert!(assets.len() >= 5, "{assets:?}");
    for asset in assets {
        let name = asset.trim_start_matches("./");
        let answer = server.get(&format!("{DOCS_PATH}{name}")).await;
        assert_eq!(answer.status, 200, "{asset}");
        assert!(!answer.body.is_empty(), "{asset}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let start = server.get("/v1/docs/swagger-initializer.js").await;
    assert!(start.text().contains(SPEC_PATH));
    assert!(
        start.text().contains(r#""validatorUrl": "none""#),
        "{}",
        start.text()
    );
}

#[actix_web::test]
async fn around_the_page() {
    let server = server(routes);
    let bare = server.get("/v1/docs").await;
    assert_eq!(
        (bare.status, bare.header("location")),
        (307, Some(DOCS_PATH))
    );
    let missing = server.get("/v1/docs/nothing.js").await;
    let code = crate::domain::error::ErrorCode::NotFound;
    missing.is_problem(code, code.title(), &json!({}));
}
