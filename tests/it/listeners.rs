//! Three listeners: who is served what, where, and over what.

use std::time::Duration;

use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::support::{
    Engine, Raw, Server,
    certificate::{Certificate, Tls},
    eventually,
    raw::{CLOSE, frame},
    server::{run, run_through},
};

const INTERNAL: (&str, &str) = ("server.internal_listen", "127.0.0.1:0");

#[tokio::test]
async fn the_internal_listener_is_there_only_if_it_was_asked_for() {
    let server = Server::start(Engine::Sqlite).await;
    assert_eq!(server.internal_listen(), None);
    assert!(
        !server.output().contains("internal "),
        "{}",
        server.output()
    );

    let mut server = Server::with(Engine::Sqlite, &[INTERNAL]).await;
    let internal = server.internal();
    internal.get("/health").await.ok(200);
    internal.get("/ready").await.ok(200);
    for path in [
        "/metrics",
        "/v1/me",
        "/v1/sync",
        "/v1/openapi.json",
        "/admin/v1/actors",
    ] {
        internal.get(path).await.problem(404, "not_found");
    }
    let address = server.internal_listen().unwrap();
    let said = format!("internal http://{address}");
    assert!(server.output().contains(&said), "{}", server.output());
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_internal_listener_tells_of_a_stop_and_ends_with_the_server() {
    let mut server = Server::with(Engine::Sqlite, &[INTERNAL]).await;
    let me = server.api().newcomer("mine").await;
    // One that holds the stop up until it answers the close.
    let mut socket = Raw::open(&me).await;
    let internal = server.internal();
    server.terminate();
    eventually("it says that it goes", async || {
        internal.get("/ready").await.status == 503
    })
    .await;
    socket.expect_close(1001).await;
    socket.send(frame(CLOSE, 1001_u16.to_be_bytes())).await;
    server.stopped().await;
    assert!(TcpStream::connect(internal.address()).await.is_err());
}

#[tokio::test]
async fn all_three_speak_tls_with_the_same_certificate() {
    let folder = TempDir::new().unwrap();
    let (old, new) = (Certificate::new(), Certificate::new());
    old.write(folder.path());
    let (cert, key) = (folder.path().join("crt"), folder.path().join("key"));
    let settings = [
        INTERNAL,
        ("server.tls_cert_file", cert.to_str().unwrap()),
        ("server.tls_key_file", key.to_str().unwrap()),
        ("server.tls_check_ms", "100"),
        ("server.admin_tls", "true"),
        ("server.internal_tls", "true"),
    ];
    let server = Server::with(Engine::Sqlite, &settings).await;
    let tls = Tls::trusting(&[&old, &new], &[b"h2", b"http/1.1"]);
    let (admin, internal) = (server.admin(), server.internal());
    let all = [server.listen(), admin.address(), internal.address()];
    for address in all {
        assert_eq!(tls.shown(address).await, old.der);
    }
    admin.get("/metrics").await.ok(200);
    internal.get("/ready").await.ok(200);
    for said in ["metrics  https://", "internal https://"] {
        assert!(server.output().contains(said), "{}", server.output());
    }
    // Who speaks no TLS there gets nothing.
    for address in all {
        let mut plain = Raw::over(TcpStream::connect(address).await.unwrap());
        plain.send("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(!plain.rest().await.contains("HTTP/1.1"));
    }
    new.write(folder.path());
    for address in all {
        eventually("the new one is shown", async || {
            tls.shown(address).await == new.der
        })
        .await;
    }
}

#[tokio::test]
async fn the_admin_and_the_internal_listener_keep_no_idle_connections() {
    let settings = [INTERNAL, ("server.idle_connection_secs", "1")];
    let server = Server::with(Engine::Sqlite, &settings).await;
    for api in [server.admin(), server.internal()] {
        // A head that never ends, and nothing at all.
        for start in ["GET /ready HTTP/1.1\r\nHost: x\r\n", ""] {
            let mut raw = Raw::over(TcpStream::connect(api.address()).await.unwrap());
            raw.send(start).await;
            let rest = timeout(Duration::from_secs(8), raw.rest()).await;
            assert!(!rest.expect("it is closed").contains("200 OK"));
        }
        // A second head of which there is always more.
        let mut raw = Raw::over(TcpStream::connect(api.address()).await.unwrap());
        raw.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(raw.answer().await.0.starts_with("http/1.1 200 "));
        let over = timeout(Duration::from_secs(6), async {
            while raw.try_send(b"G").await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
        });
        over.await.expect("it is closed");
    }
}

#[tokio::test]
async fn everything_that_is_wrong_with_the_edges_is_said_at_once() {
    let folder = TempDir::new().unwrap();
    let certificate = Certificate::new();
    certificate.write(folder.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (cert, none) = (file("crt"), file("none"));
    std::fs::write(folder.path().join("junk"), "junk").unwrap();
    let junk = file("junk");
    let data = file("data");
    let settings = [
        ("server.tls_cert_file", junk.as_str()),
        ("server.tls_key_file", &none),
        ("server.trusted_proxies", "10.0.0.0/8, proxy.example.com"),
        ("server.forwarded_header", "x-real-ip"),
        ("server.internal_listen", "127.0.0.1:8081"),
        ("server.max_connections", "1900"),
        ("server.tls_check_ms", "1"),
    ];
    let few = ["sh", "-c", "ulimit -n 2000 && exec \"$0\" \"$@\""].map(str::to_owned);
    for command in [&["config", "check"][..], &["serve"]] {
        let arguments = [command, &["--data", &data]].concat();
        let ended = run_through(&few, &arguments, &settings).await;
        assert_eq!(ended.code, Some(2), "{}", ended.output);
        let said = |start: &str| {
            let lines = ended.output.lines();
            let found: Vec<_> = lines.filter(|line| line.starts_with(start)).collect();
            assert_eq!(found.len(), 1, "{start}: {}", ended.output);
            found[0].to_owned()
        };
        for (key, words) in [
            ("tls_cert_file", [&junk, "in which there is no certificate"]),
            ("tls_key_file", [&none, "cannot be read"]),
            ("trusted_proxies", ["proxy.example.com", "10.0.0.0/24"]),
            ("forwarded_header", ["x-real-ip", "\"forwarded\""]),
            ("internal_listen", ["127.0.0.1:8081", "server.admin_listen"]),
            ("max_connections", ["1900", "2000"]),
            ("tls_check_ms", ["\"1\"", "100 to 86400000"]),
        ] {
            let line = said(&format!("server.{key}: found "));
            let origin = format!("LISTEN_STREAM__SERVER__{}", key.to_uppercase());
            for word in words.into_iter().chain([", expected ", origin.as_str()]) {
                assert!(line.contains(word), "{word}: {line}");
            }
        }
    }
    // A good one passes, and a key of another certificate does not.
    let key = file("key");
    let good = [
        ("server.tls_cert_file", cert.as_str()),
        ("server.tls_key_file", key.as_str()),
        ("server.admin_tls", "true"),
        ("server.trusted_proxies", "10.0.0.7,2001:db8:1::/48"),
    ];
    let checked = run(&["config", "check", "--data", &data], &good).await;
    assert_eq!(checked.code, Some(0), "{}", checked.output);
    let shown = "server.trusted_proxies = [\"10.0.0.7/32\", \"2001:db8:1::/48\"]";
    assert!(checked.output.contains(shown), "{}", checked.output);
    std::fs::write(folder.path().join("key"), Certificate::new().key).unwrap();
    let checked = run(&["config", "check", "--data", &data], &good).await;
    assert_eq!(checked.code, Some(2), "{}", checked.output);
    assert!(
        checked.output.starts_with("server.tls_key_file: found "),
        "{}",
        checked.output
    );
}
