//! Upgrades that are none: every layer sees them, each gets its answer, and the connection ends.

use serde_json::Value;

use crate::support::{
    Engine, Raw, Server,
    raw::{TEXT, frame, upgrade_head},
    socket::PROTOCOL,
};

/// Sends a head; answers status, head and body, which the end of the connection ends.
async fn told(server: &Server, head: &str) -> (u16, String, String) {
    let mut raw = Raw::connect(server).await;
    raw.send(head).await;
    let head = raw.answer_head().await.to_ascii_lowercase();
    let status = head[9..12].parse().unwrap();
    (status, head, raw.rest().await)
}

fn code(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    body["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn other_paths_answer_as_ever_and_close() {
    let server = Server::start(Engine::Sqlite).await;
    let upgrade = |path: &str| upgrade_head(server.listen(), path, &[("X-Request-ID", "mine")]);
    for (path, status, expected) in [
        ("/v1/nothing", 404, "not_found"),
        ("/v1/me", 401, "unauthenticated"),
        ("/v1/sync?since=x", 422, "invalid_request"),
        ("/v1/sync", 401, "unauthenticated"),
        ("/health", 200, ""),
    ] {
        let (got, head, body) = told(&server, &upgrade(path)).await;
        assert_eq!(
            (got, code(&body).as_str()),
            (status, expected),
            "{head}{body}"
        );
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
        assert!(head.contains("\r\nx-request-id: mine\r\n"), "{head}");
        assert!(
            head.contains("\r\nx-content-type-options: nosniff\r\n"),
            "{head}"
        );
    }
    // A body of unknown length ends with the connection.
    let head = upgrade_head(
        server.listen(),
        "/v1/openapi.json",
        &[("Accept-Encoding", "gzip")],
    );
    let mut raw = Raw::connect(&server).await;
    raw.send(head).await;
    let head = raw.answer_head().await.to_ascii_lowercase();
    assert!(head.contains("content-encoding: gzip"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    let body = raw.rest().await;
    assert!(body.len() > 1000, "{}", body.len());
    let count = server
        .metric("http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"}")
        .await;
    assert_eq!(count, 1);
}

#[tokio::test]
async fn other_methods_and_protocols() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let address = server.listen();
    let upgrade = upgrade_head(
        address,
        "/v1/sync",
        &[("Authorization", &format!("Bearer {}", me.access))],
    );
    let cases = [
        (
            "a post",
            upgrade.replacen("GET", "POST", 1),
            405,
            "method_not_allowed",
        ),
        (
            "HTTP/1.0",
            upgrade.replacen("HTTP/1.1", "HTTP/1.0", 1),
            426,
            "upgrade_required",
        ),
        (
            "two protocols",
            upgrade.replace("Upgrade: websocket", "Upgrade: websocket, h2c"),
            426,
            "upgrade_required",
        ),
        (
            "h2c",
            upgrade.replace("Upgrade: websocket", "Upgrade: h2c"),
            426,
            "upgrade_required",
        ),
        (
            "no Connection: Upgrade",
            upgrade.replace("Connection: Upgrade", "Connection: close"),
            426,
            "upgrade_required",
        ),
        (
            "an old version",
            upgrade.replace("Version: 13", "Version: 8"),
            400,
            "invalid_header",
        ),
        (
            "no version",
            upgrade.replace("Sec-WebSocket-Version: 13\r\n", ""),
            400,
            "invalid_header",
        ),
        (
            "no key",
            upgrade.replace("Sec-WebSocket-Key", "X-Key"),
            400,
            "invalid_header",
        ),
        (
            "a short key",
            upgrade.replace("AAAAAA==", "AA=="),
            400,
            "invalid_header",
        ),
        (
            "another subprotocol",
            upgrade.replace(
                "Authorization",
                "Sec-WebSocket-Protocol: other\r\nAuthorization",
            ),
            400,
            "invalid_header",
        ),
        (
            "another origin",
            upgrade.replace(
                "Authorization",
                "Origin: https://evil.example\r\nAuthorization",
            ),
            403,
            "origin_not_allowed",
        ),
    ];
    for (what, head, status, expected) in cases {
        // Who speaks HTTP/1.1 and is not taken for an upgrade may go on; these do not.
        let head = head.replace("\r\n\r\n", "\r\nX-Case: x\r\n\r\n");
        let mut raw = Raw::connect(&server).await;
        raw.send(&head).await;
        let answer = raw.answer_head().await;
        let got: u16 = answer[9..12].parse().unwrap();
        let body = raw.rest().await;
        assert_eq!(
            (got, code(&body).as_str()),
            (status, expected),
            "{what}: {answer}{body}"
        );
    }
}

#[tokio::test]
async fn tunnels_and_http_2_in_the_clear() {
    let server = Server::start(Engine::Sqlite).await;
    let address = server.listen();
    let (status, head, _) = told(
        &server,
        &format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    )
    .await;
    assert!((400..500).contains(&status), "{head}");
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    // A plain request that offers HTTP/2 gets its answer in HTTP/1.1.
    let (status, _, _) = told(
        &server,
        "GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    )
    .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn without_a_subprotocol_none_is_named() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let bearer = format!("Bearer {}", me.access);
    for (offered, named) in [
        (None, false),
        (Some(PROTOCOL), true),
        (Some("x, listen-stream.v1"), true),
    ] {
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(offered.map(|offered| ("Sec-WebSocket-Protocol", offered)));
        let mut raw = Raw::connect(&server).await;
        raw.send(upgrade_head(server.listen(), "/v1/sync", &headers))
            .await;
        let head = raw.answer_head().await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert_eq!(
            head.contains("sec-websocket-protocol: listen-stream.v1\r\n"),
            named,
            "{head}"
        );
        // Of the key that every client here sends.
        assert!(
            head.contains("sec-websocket-accept: icx+yqv66kxgm0fcwalwlflwtai=\r\n"),
            "{head}"
        );
        assert!(
            head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n")
        );
        assert!(head.contains("x-request-id: "), "{head}");
    }
}

#[tokio::test]
async fn limits_count_upgrades() {
    let server = Server::with(
        Engine::Sqlite,
        &[("limits.ip_per_second", "1"), ("limits.ip_burst", "20")],
    )
    .await;
    let head = upgrade_head(server.listen(), "/v1/sync", &[]);
    let mut last = (0, String::new(), String::new());
    for _ in 0..40 {
        last = told(&server, &head).await;
        if last.0 == 429 {
            break;
        }
    }
    assert_eq!((last.0, code(&last.2).as_str()), (429, "rate_limited"));
    assert!(last.1.contains("\r\nretry-after: "), "{}", last.1);
}

/// A request before the upgrade and a frame behind it, all in one segment.
#[tokio::test]
async fn what_comes_at_once_is_answered_in_order() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let bearer = format!("Bearer {}", me.access);
    let mut raw = Raw::connect(&server).await;
    let mut bytes = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    bytes.extend(
        upgrade_head(server.listen(), "/v1/sync", &[("Authorization", &bearer)]).into_bytes(),
    );
    bytes.extend(frame(TEXT, r#"{"type":"ping","ref":"early"}"#));
    raw.send(bytes).await;
    assert!(raw.answer().await.0.starts_with("http/1.1 200 "));
    assert!(raw.answer_head().await.starts_with("HTTP/1.1 101 "));
    match raw.next().await {
        crate::support::Got::Text(welcome) => assert_eq!(welcome["type"], "welcome"),
        other => panic!("{other:?}"),
    }
    raw.expect_answer("early").await;
}
