//! Behind proxies: each request is its client's, and nobody else's word counts.

use reqwest::Method;
use serde_json::json;
use sqlx::{Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Api, Device, Engine, PATIENCE, Raw, Server,
    certificate::{Certificate, Tls},
    client::{login_body, send},
    phone,
    raw::upgrade_head,
    socket::PROTOCOL,
};

const XFF: &str = "x-forwarded-for";
/// The tests themselves are a proxy, and so are some others.
const PROXIES: (&str, &str) = (
    "server.trusted_proxies",
    "127.0.0.1, 10.0.0.0/8, 2001:db8:1::/48",
);
/// Others are.
const OTHERS: (&str, &str) = ("server.trusted_proxies", "127.0.0.2,10.0.0.0/8");
/// Two calls of `/v1/auth`, and no more for a while.
const TWO: [(&str, &str); 2] = [("limits.auth_burst", "2"), ("limits.auth_per_minute", "1")];

async fn server(more: &[(&str, &str)]) -> Server {
    Server::with(Engine::Sqlite, &[&TWO, more].concat()).await
}

/// The status of a call under `/v1/auth` with these headers: 422 or 429.
async fn call(api: &Api, headers: &[(&str, &str)]) -> u16 {
    let mut request = api
        .request(Method::POST, "/v1/auth/tokens")
        .json(&json!({}));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request).await.status
}

/// Uses up what the caller with these headers may call.
async fn use_up(api: &Api, headers: &[(&str, &str)]) {
    for _ in 0..2 {
        assert_ne!(call(api, headers).await, 429, "{headers:?}");
    }
    assert_eq!(call(api, headers).await, 429, "{headers:?}");
}

#[tokio::test]
async fn limits_count_the_client_and_not_the_proxy() {
    let server = server(&[PROXIES]).await;
    // One connection after another, as a pool gives them out.
    let api = server.api();
    use_up(&api, &[(XFF, "198.51.100.7")]).await;
    // The same one: through more proxies, over several lines, with another port, and with a lie.
    for headers in [
        &[(XFF, "198.51.100.7, 10.0.0.2, 10.0.0.3")][..],
        &[(XFF, "198.51.100.7:4711")],
        &[(XFF, "::ffff:198.51.100.7")],
        &[
            (XFF, "6.6.6.6"),
            (XFF, "198.51.100.7"),
            (XFF, "2001:db8:1::1"),
        ],
        &[(XFF, "6.6.6.6, 198.51.100.7")],
        &[(XFF, "10.0.0.9, 198.51.100.7, 10.0.0.2")],
        // The other header is nobody's.
        &[(XFF, "198.51.100.7"), ("forwarded", "for=6.6.6.6")],
    ] {
        assert_eq!(call(&api, headers).await, 429, "{headers:?}");
    }
    // Others have calls of their own, and so has the proxy itself.
    use_up(&api, &[(XFF, "198.51.100.8")]).await;
    use_up(&api, &[(XFF, "2001:db8:2::1")]).await;
    assert_eq!(call(&api, &[(XFF, "2001:db8:2::ffff")]).await, 429);
    use_up(&api, &[]).await;
    // Who is not named counts as who did not name them.
    for name in [
        "unknown",
        "_hidden",
        "garbage",
        "198.51.100.9\", 6.6.6.6, x",
    ] {
        assert_eq!(call(&api, &[(XFF, name)]).await, 429, "{name}");
    }
    let long = "10.0.0.2,".repeat(700);
    assert_ne!(call(&api, &[(XFF, &long)]).await, 429);
}

#[tokio::test]
async fn forwarded_is_read_where_it_is_chosen() {
    let server = server(&[PROXIES, ("server.forwarded_header", "forwarded")]).await;
    let api = server.api();
    use_up(&api, &[("forwarded", "for=198.51.100.7;proto=https")]).await;
    for headers in [
        &[(
            "forwarded",
            "for=6.6.6.6, For=\"198.51.100.7:80\", for=10.0.0.2",
        )][..],
        &[("forwarded", "for=\"6.6.6.6, for=198.51.100.7")],
        &[("forwarded", "for=198.51.100.7"), (XFF, "6.6.6.6")],
    ] {
        assert_eq!(call(&api, headers).await, 429, "{headers:?}");
    }
    use_up(&api, &[("forwarded", "for=\"[2001:db8:2::1]:443\"")]).await;
    use_up(&api, &[(XFF, "6.6.6.6")]).await;
}

#[tokio::test]
async fn nobody_else_is_believed() {
    for more in [&[OTHERS][..], &[]] {
        let server = server(more).await;
        let api = server.api();
        for (status, n) in [(false, 0), (false, 1), (true, 2), (true, 3)] {
            let lie = format!("198.51.100.{n}");
            let forwarded = format!("for={lie}");
            let headers = [
                (XFF, lie.as_str()),
                ("forwarded", &forwarded),
                ("x-real-ip", &lie),
            ];
            assert_eq!(call(&api, &headers).await == 429, status, "{n}");
        }
    }
}

#[tokio::test]
async fn each_request_of_a_connection_has_its_own_client() {
    let folder = TempDir::new().unwrap();
    let certificate = Certificate::new();
    certificate.write(folder.path());
    let (cert, key) = (folder.path().join("crt"), folder.path().join("key"));
    let server = server(&[
        PROXIES,
        ("server.tls_cert_file", cert.to_str().unwrap()),
        ("server.tls_key_file", key.to_str().unwrap()),
    ])
    .await;
    let tls = Tls::trusting(&[&certificate], &[b"h2"]);
    let stream = tls.connect(&server).await;
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    for (client, status) in [
        ("198.51.100.7", 415),
        ("198.51.100.7", 415),
        ("198.51.100.8", 415),
        ("198.51.100.7", 429),
        ("198.51.100.8", 415),
        ("198.51.100.8", 429),
    ] {
        let request = http::Request::post("https://localhost/v1/auth/tokens")
            .header(XFF, client)
            .body(())
            .unwrap();
        let (answer, _) = requests.send_request(request, true).unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{client}");
    }
    drop(requests);
    driving.abort();

    // And with HTTP/1.1.
    let tls = Tls::trusting(&[&certificate], &[b"http/1.1"]);
    let mut stream = tls.connect(&server).await;
    for (client, status) in [("198.51.100.9", "415"), ("198.51.100.8", "429")] {
        let head = format!(
            "POST /v1/auth/tokens HTTP/1.1\r\nhost: x\r\n{XFF}: {client}\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = timeout(PATIENCE, stream.read(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{client}: {answer}"
        );
    }
}

#[tokio::test]
async fn an_upgrade_counts_for_its_client() {
    let limits = [("limits.ip_burst", "1"), ("limits.ip_per_second", "1")];
    let server = Server::with(Engine::Sqlite, &[&limits[..], &[PROXIES]].concat()).await;
    let api = server.api();
    let phone = phone();
    let from = |method, path, client: &str| api.request(method, path).header(XFF, client);
    let body = json!({ "phone": phone });
    let asked = from(Method::POST, "/v1/auth/sms-codes", "198.51.100.1").json(&body);
    assert_eq!(send(asked).await.status, 202);
    let code = api.codes(&phone).pop().unwrap();
    let body = login_body(&phone, &code, "mine");
    let opened = from(Method::POST, "/v1/auth/sessions", "198.51.100.2").json(&body);
    let me = Device::new(&api, &send(opened).await.ok(201));
    let upgrade = async |client: &str| {
        let bearer = format!("Bearer {}", me.access);
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Sec-WebSocket-Protocol", PROTOCOL),
            ("X-Forwarded-For", client),
        ];
        let mut raw = Raw::at(&me).await;
        raw.send(upgrade_head(api.address(), "/v1/sync", &headers))
            .await;
        let answer = raw.answer_head().await;
        (answer, raw)
    };
    // Two at once: the second finds the client's bucket empty, whatever the machine's pace.
    let mut limited = false;
    let mut open = Vec::new();
    for _ in 0..20 {
        let (answer, raw) = upgrade("198.51.100.3").await;
        if answer.starts_with("HTTP/1.1 429 ") {
            limited = true;
            break;
        }
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        open.push(raw);
    }
    assert!(limited, "upgrades of one client are not counted");
    let (answer, _raw) = upgrade("198.51.100.4").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}

/// Connections that stay open after an answer, of those that were tried.
async fn kept(server: &Server, tries: usize) -> usize {
    let mut held = Vec::new();
    for _ in 0..tries {
        let mut stream = TcpStream::connect(server.listen()).await.unwrap();
        let asked = stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        let mut answer = [0; 4096];
        let read = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap();
        if asked.is_ok() && read.is_ok_and(|n| n > 0) {
            held.push(stream);
        }
    }
    held.len()
}

#[tokio::test]
async fn a_proxy_may_have_more_connections_than_an_address() {
    let few = ("limits.ip_connections", "4");
    let trusting = Server::with(Engine::Sqlite, &[few, PROXIES]).await;
    assert_eq!(kept(&trusting, 12).await, 12);
    let other = Server::with(Engine::Sqlite, &[few, OTHERS]).await;
    assert!(kept(&other, 12).await <= 4);
}

async fn last_address(server: &Server, me: &Device) -> Option<String> {
    const QUERY: &str = "SELECT ip_address FROM devices WHERE device_id = $1";
    let device = "behind";
    assert!(
        me.devices()
            .await
            .iter()
            .any(|it| it["device_id"] == device)
    );
    if let Some(url) = server.database_url() {
        let mut db = PgConnection::connect(url).await.unwrap();
        let found = sqlx::query_scalar(QUERY).bind(device);
        return found.fetch_one(&mut db).await.unwrap();
    }
    let file = server.data().join("listen-stream.db");
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let mut db = SqliteConnection::connect_with(&options).await.unwrap();
    let found = sqlx::query_scalar(QUERY).bind(device);
    found.fetch_one(&mut db).await.unwrap()
}

both_engines! {
    async fn a_login_keeps_the_address_of_the_client(engine) {
        let server = Server::with(engine, &[PROXIES]).await;
        let (api, phone) = (server.api(), phone());
        for (said, kept) in [
            ("6.6.6.6, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
            ("2001:DB8:2::7", "2001:db8:2::7"),
            ("unknown, 10.0.0.2", "10.0.0.2"),
            ("garbage", "127.0.0.1"),
        ] {
            let code = api.new_code(&phone).await;
            let login = api.request(Method::POST, "/v1/auth/sessions");
            let body = login_body(&phone, &code, "behind");
            let opened = send(login.header(XFF, said).json(&body)).await.ok(201);
            let me = Device::new(&api, &opened);
            assert_eq!(last_address(&server, &me).await.as_deref(), Some(kept), "{said}");
        }
    }
}
