//! What every call has in common: problems, headers, limits, documents, metrics, logs.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Answer, Api, Device, Engine, PATIENCE, Server, Socket, assert_shape,
    client::{login_body, send, wrong_code},
    phone,
};

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let server = Server::start(Engine::Sqlite).await;
    let api = server.api();
    for path in ["/", "/v1", "/v1/nothing", "/v2/me", "/v1/me/nothing"] {
        api.get(path).await.problem(404, "not_found");
    }
    let cases = [
        (Method::PUT, "/v1/auth/sms-codes"),
        (Method::GET, "/v1/auth/sessions"),
        (Method::POST, "/v1/me"),
        (Method::PATCH, "/v1/me/favorites/song/x"),
        (Method::DELETE, "/v1/me/changes"),
        (Method::POST, "/health"),
    ];
    for (method, path) in cases {
        let answer = send(api.request(method, path)).await;
        assert_eq!(answer.status, 405, "{path}: {:#}", answer.body);
        assert!(answer.header("allow").is_some(), "{path}");
        answer.problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn a_good_request_id_is_taken_over() {
    let server = Server::start(Engine::Sqlite).await;
    let api = server.api();
    let with = |id: &str| {
        api.request(Method::GET, "/health")
            .header("X-Request-ID", id)
    };
    let longest = "x".repeat(64);
    for id in ["abc-DEF_123", longest.as_str()] {
        let answer = send(with(id)).await;
        assert_eq!(answer.header("x-request-id"), Some(id));
    }
    let too_long = "x".repeat(65);
    for id in ["a b", "a;b", "", too_long.as_str()] {
        let answer = send(with(id)).await;
        let given = answer.header("x-request-id").unwrap();
        assert_ne!(given, id);
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        assert!(
            (1..=64).contains(&given.len()) && given.bytes().all(good),
            "{given}"
        );
    }
    let first = api.get("/health").await;
    let second = api.get("/health").await;
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let server = Server::start(Engine::Sqlite).await;
    for path in ["/health", "/v1/me", "/v1/nothing", "/v1/openapi.json"] {
        let answer = server.api().get(path).await;
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert!(answer.header("x-frame-options").is_some(), "{path}");
        assert!(answer.header("content-security-policy").is_some(), "{path}");
        assert!(answer.header("x-request-id").is_some(), "{path}");
    }
}

#[tokio::test]
async fn only_listed_origins_may_read() {
    let toml = "[server]\nallowed_origins = [\"https://app.example\"]\n";
    let server = Server::with_config(Engine::Sqlite, toml).await;
    let api = server.api();
    let preflight = |origin| {
        api.request(Method::OPTIONS, "/v1/me/favorites/song/x")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "PUT")
            .header(
                "Access-Control-Request-Headers",
                "authorization,content-type",
            )
    };
    let allow = "access-control-allow-origin";
    let listed = send(preflight("https://app.example")).await;
    assert!(listed.status < 300, "{listed:#?}");
    assert_eq!(listed.header(allow), Some("https://app.example"));
    let methods = listed.header("access-control-allow-methods").unwrap();
    assert!(methods.contains("PUT"), "{methods}");
    let headers = listed.header("access-control-allow-headers").unwrap();
    assert!(
        headers.to_ascii_lowercase().contains("authorization"),
        "{headers}"
    );
    let other = send(preflight("https://evil.example")).await;
    assert_eq!(other.header(allow), None);

    let get = api
        .request(Method::GET, "/v1/me")
        .header("Origin", "https://app.example");
    let answer = send(get).await;
    assert_eq!(answer.header(allow), Some("https://app.example"));
    let exposed = answer
        .header("access-control-expose-headers")
        .unwrap_or_default();
    assert!(
        exposed.to_ascii_lowercase().contains("sync-seq"),
        "{exposed}"
    );
    answer.problem(401, "unauthenticated");
}

#[tokio::test]
async fn bodies_are_json_and_not_too_large() {
    let server = Server::start(Engine::Sqlite).await;
    let api = server.api();
    for path in ["/v1/auth/sms-codes", "/v1/auth/sessions", "/v1/auth/tokens"] {
        for kind in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
        ] {
            let mut request = api.request(Method::POST, path).body("{}");
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let answer = send(request).await;
            assert_eq!(answer.status, 415, "{path} {kind:?}: {:#}", answer.body);
            answer.problem(415, "unsupported_media_type");
        }
        // The length alone decides: no body is sent, so none is left unread.
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: 1048577\r\n\r\n"
        );
        let answer = raw(&api, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("\"body_too_large\""), "{answer}");
    }
    // Exactly 1 MiB is taken, and refused for what it says.
    let around = json!({"phone": ""}).to_string().len();
    let body = json!({"phone": "x".repeat(1024 * 1024 - around)});
    api.post("/v1/auth/sms-codes", &body).await.invalid("phone");
    let charset = api
        .request(Method::POST, "/v1/auth/sms-codes")
        .header("content-type", "application/json; charset=utf-8")
        .body(json!({"phone": phone()}).to_string());
    send(charset).await.ok(202);
}

#[tokio::test]
async fn a_body_without_a_length_is_limited_too() {
    let server = Server::start(Engine::Sqlite).await;
    let api = server.api();
    let mut request = b"POST /v1/auth/sms-codes HTTP/1.1\r\nhost: x\r\n\
        content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        .to_vec();
    // One byte above the limit and no end: what was sent is read before the answer.
    request.extend_from_slice(b"100001\r\n");
    request.resize(request.len() + 0x10_0001, b' ');
    let answer = raw(&api, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let server = Server::start(Engine::Sqlite).await;
    let mut stream = TcpStream::connect(server.api().address()).await.unwrap();
    let head = b"POST /v1/auth/sms-codes HTTP/1.1\r\nhost: x\r\n\
        content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    let mut status = [0; 12];
    timeout(PATIENCE * 2, stream.read_exact(&mut status))
        .await
        .expect("an answer comes in time")
        .unwrap();
    assert_eq!(&status, b"HTTP/1.1 400");
}

#[tokio::test]
async fn tickets_count_as_their_user() {
    let few = [("limits.user_per_second", "1"), ("limits.user_burst", "5")];
    let server = Server::with(Engine::Sqlite, &few).await;
    let me = server.api().newcomer("mine").await;
    let ticket = me.ticket().await;
    drop(
        Socket::with_ticket(&me.api, &ticket)
            .await
            .expect("a good ticket"),
    );
    let again = async || {
        Socket::with_ticket(&me.api, &ticket)
            .await
            .err()
            .expect("used up")
    };
    limited(again).await;
}

#[tokio::test]
async fn callers_over_their_rate_are_told_when_to_come_back() {
    let few = [("limits.user_per_second", "1"), ("limits.user_burst", "3")];
    let server = Server::with(Engine::Sqlite, &few).await;
    let me = server.api().newcomer("mine").await;
    limited(async || me.me().await).await;
    // Another user is not touched by it.
    server.api().newcomer("other").await.me().await.ok(200);
}

#[tokio::test]
async fn addresses_over_their_rate_are_told_when_to_come_back() {
    let few = [("limits.ip_per_second", "1"), ("limits.ip_burst", "40")];
    let server = Server::with(Engine::Sqlite, &few).await;
    let api = server.api();
    limited(async || api.get("/v1/me").await).await;
}

#[tokio::test]
async fn logins_have_a_limit_of_their_own() {
    let few = [("limits.auth_per_minute", "6"), ("limits.auth_burst", "5")];
    let server = Server::with(Engine::Sqlite, &few).await;
    let me = server.api().newcomer("mine").await;
    let body = login_body(&me.phone, "000000", "other");
    limited(|| me.api.sign_in(&body)).await;
    me.me().await.ok(200);
}

#[tokio::test]
async fn the_description_lists_every_call() {
    let server = Server::start(Engine::Sqlite).await;
    let api = server.api();
    let answer = api.get("/v1/openapi.json").await;
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("application/json"), "{kind}");
    let described = answer.ok(200);
    let version = described["openapi"].as_str().unwrap();
    assert!(version.starts_with("3.1"), "{version}");
    let calls: &[(&str, &[&str])] = &[
        ("/v1/auth/sms-codes", &["post"]),
        ("/v1/auth/sessions", &["post"]),
        ("/v1/auth/tokens", &["post"]),
        ("/v1/auth/sessions/current", &["delete"]),
        ("/v1/me", &["get"]),
        ("/v1/me/devices", &["get"]),
        ("/v1/me/devices/{id}", &["delete"]),
        ("/v1/me/favorites", &["get"]),
        ("/v1/me/favorites/{type}/{target_id}", &["put", "delete"]),
        ("/v1/me/favorites/{type}/{target_id}/restore", &["post"]),
        ("/v1/me/playlists", &["post", "get"]),
        ("/v1/me/playlists/{id}", &["get", "patch", "delete"]),
        ("/v1/me/playlists/{id}/restore", &["post"]),
        ("/v1/me/playlists/{id}/songs", &["get", "post", "put"]),
        ("/v1/me/playlists/{id}/songs:remove", &["post"]),
        ("/v1/me/playlists/{id}/songs:move", &["post"]),
        ("/v1/playlists/{id}", &["get"]),
        ("/v1/playlists/{id}/songs", &["get"]),
        ("/v1/me/changes", &["get"]),
        ("/v1/me/changes/ack", &["post"]),
        ("/v1/sync/tickets", &["post"]),
        ("/v1/sync", &["get"]),
        ("/health", &["get"]),
        ("/ready", &["get"]),
    ];
    for (path, methods) in calls {
        for method in *methods {
            let call = &described["paths"][path][method];
            assert!(
                call["responses"].is_object(),
                "{method} {path} is not described"
            );
        }
    }
    let page = api.get("/v1/docs/").await;
    let kind = page.header("content-type").unwrap().to_owned();
    assert!(kind.starts_with("text/html"), "{kind}");
    page.ok(200);
}

#[tokio::test]
async fn health_is_public_and_metrics_are_not() {
    let server = Server::start(Engine::Sqlite).await;
    for api in [server.api(), server.admin()] {
        assert_eq!(api.get("/health").await.ok(200), json!({"status": "ok"}));
        let ready = api.get("/ready").await.ok(200);
        assert_shape(&ready, json!({"status": "ready", "checks": "<object>"}));
    }
    server
        .api()
        .newcomer("mine")
        .await
        .put("song", "x")
        .await
        .ok(201);
    let metrics = server.admin().get("/metrics").await;
    let kind = metrics.header("content-type").unwrap().to_owned();
    assert!(kind.contains("text"), "{kind}");
    let text = metrics.ok(200);
    assert!(
        text.as_str().unwrap().contains("# TYPE listen_stream_"),
        "{text}"
    );
    server.api().get("/metrics").await.problem(404, "not_found");
    let elsewhere = server.admin().get("/v1/me").await;
    assert_eq!(elsewhere.status, 404, "{elsewhere:#?}");
}

#[tokio::test]
async fn pretty_logs_tell_no_secrets() {
    let server = Server::with(Engine::Sqlite, &[("log.level", "debug")]).await;
    let secrets = busy(&server).await;
    tells_none(&server.output(), &secrets);
}

#[tokio::test]
async fn json_logs_are_json_and_tell_no_secrets() {
    let settings = [("log.level", "debug"), ("log.format", "json")];
    let mut server = Server::with(Engine::Sqlite, &settings).await;
    let secrets = busy(&server).await;
    server.stop().await;
    let output = server.output();
    tells_none(&output, &secrets);
    let lines = || output.lines().filter(|line| line.starts_with('{'));
    assert!(lines().count() > 5, "{output}");
    for line in lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

/// Does a bit of everything; tells what no log may contain.
async fn busy(server: &Server) -> Vec<String> {
    let (api, phone) = (server.api(), phone());
    let code = api.new_code(&phone).await;
    let wrong = login_body(&phone, &wrong_code(&code, 1), "mine");
    api.sign_in(&wrong).await.problem(401, "sms_code_invalid");
    let body = login_body(&phone, &code, "mine");
    let first = Device::new(&api, &api.sign_in(&body).await.ok(201));
    let second = Device::new(&api, &api.rotate(&first.refresh, None).await.ok(200));
    second.put("song", "x").await.ok(201);
    let ticket = second.ticket().await;
    let socket = Socket::with_ticket(&api, &ticket).await;
    let mut socket = socket.expect("the ticket opens").welcomed().await;
    socket.expect_event(1).await;
    socket
        .send(json!({"type": "auth", "token": second.access}))
        .await;
    socket.ping().await;
    socket.close().await;
    // Secrets where they do not belong: in a query, in a path, in a field that is refused.
    second.changes(&format!("?token={}", second.access)).await;
    api.get(&format!("/v1/auth/{}", second.refresh)).await;
    let mut odd = login_body(&phone, &code, "mine");
    odd["device"]["platform"] = json!(second.refresh);
    api.sign_in(&odd).await.invalid("device.platform");
    let reused = api.rotate(&first.refresh, None).await;
    reused.problem(401, "refresh_token_reused");
    let bare = phone.trim_start_matches('+').to_owned();
    let master = std::fs::read_to_string(server.data().join("master.key")).unwrap();
    vec![
        bare,
        code,
        first.access,
        first.refresh,
        second.access,
        second.refresh,
        ticket,
        master.trim().to_owned(),
    ]
}

/// Neither a secret nor the part of it that gives it away is in the text.
#[track_caller]
fn tells_none(output: &str, secrets: &[String]) {
    assert!(output.lines().count() > 5, "nothing was logged: {output}");
    for secret in secrets {
        let told = if secret.len() == 6 {
            // A code's digits could be part of a longer number.
            let words = |c: char| !c.is_ascii_alphanumeric();
            output.split(words).any(|word| word == secret)
        } else {
            output.contains(secret.as_str())
        };
        assert!(!told, "{secret} was logged:\n{output}");
    }
}

/// Calls until it is refused, which must come within a hundred calls, and checks the refusal.
async fn limited(call: impl AsyncFn() -> Answer) {
    for _ in 0..100 {
        let answer = call().await;
        let named = |header: &str| header.starts_with("ratelimit");
        assert!(
            answer.headers.keys().any(|name| named(name.as_str())),
            "{answer:#?}"
        );
        if answer.code() == "rate_limited" {
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{wait}");
            answer.problem(429, "rate_limited");
            return;
        }
    }
    panic!("a hundred calls and no refusal");
}

/// Sends these bytes on a connection of their own; what comes back until its body is whole.
async fn raw(api: &Api, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(api.address()).await.unwrap();
    timeout(PATIENCE, async {
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        loop {
            let read = stream.read(&mut part).await.unwrap();
            answer.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&answer);
            // A problem is one JSON object: its last brace ends the body.
            if read == 0 || text.trim_end().ends_with('}') {
                return text.into_owned();
            }
        }
    })
    .await
    .expect("an answer comes in time")
}
