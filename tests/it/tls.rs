//! TLS: the same server, encrypted, with HTTP/2 for requests and HTTP/1.1 for sockets.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tempfile::TempDir;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{
    Device, Engine, Got, PATIENCE, Raw, Server,
    raw::{CLOSE, NO_LIMITS, TEXT, frame, ping_of},
    server::run,
    within,
};

/// A certificate of this test's own.
struct Identity {
    folder: TempDir,
    config: Arc<ClientConfig>,
}

impl Identity {
    fn new(protocols: &[&[u8]]) -> Self {
        let folder = TempDir::new().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key"), made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Self {
            folder,
            config: Arc::new(config),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn server(&self, more: &[(&str, &str)]) -> Server {
        let (cert, key) = (self.file("crt"), self.file("key"));
        let mut settings = vec![
            ("server.tls_cert_file", text(&cert)),
            ("server.tls_key_file", text(&key)),
        ];
        settings.extend(more);
        Server::with(Engine::Sqlite, &settings).await
    }

    async fn connect(&self, server: &Server) -> TlsStream<TcpStream> {
        self.over(TcpStream::connect(server.listen()).await.unwrap())
            .await
    }

    /// The same of a client whose system holds little of what comes.
    async fn connect_narrow(&self, server: &Server) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = server.listen().parse().unwrap();
        self.over(socket.connect(address).await.unwrap()).await
    }

    async fn over(&self, stream: TcpStream) -> TlsStream<TcpStream> {
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(name, stream).await.unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn a_socket_over_tls() {
    let identity = Identity::new(&[b"http/1.1"]);
    let mut server = identity.server(&[]).await;
    let me: Device = server.api().newcomer("mine").await;
    let mut raw = Raw::over(identity.connect(&server).await).opened(&me).await;
    raw.send(frame(TEXT, ping_of(60_000))).await;
    raw.expect_answer("r").await;
    raw.send_bytewise(&frame(TEXT, ping_of(50))).await;
    raw.expect_answer("r").await;
    // Much at once, in both directions.
    for n in 0..300 {
        me.put("song", &format!("s{n}")).await.ok(201);
    }
    let (_, epoch) = me.head().await;
    let ack = serde_json::json!({"type": "ack", "up_to": 256, "epoch": epoch}).to_string();
    for seq in 1..=300 {
        match raw.next().await {
            Got::Text(event) => assert_eq!(event["seq"], seq),
            other => panic!("{other:?}"),
        }
        if seq == 256 {
            raw.send(frame(TEXT, &ack)).await;
        }
    }
    raw.send(frame(CLOSE, 1000_u16.to_be_bytes())).await;
    raw.expect_close(1000).await;
    raw.expect_end().await;
    assert!(server.output().contains("https://"), "{}", server.output());

    // And one that is told goodbye.
    let mut raw = Raw::over(identity.connect(&server).await).opened(&me).await;
    server.terminate();
    raw.expect_close(1001).await;
    raw.send(frame(CLOSE, 1001_u16.to_be_bytes())).await;
    raw.expect_end().await;
    server.stopped().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped_over_tls_too() {
    let identity = Identity::new(&[]);
    let server = identity.server(&NO_LIMITS).await;
    let me = server.api().newcomer("mine").await;
    let loud = server.api().login(&me.phone, "loud").await;
    let stream = identity.connect_narrow(&server).await;
    let _deaf = Raw::over(stream).opened(&me).await;
    let mut loud = Raw::over(identity.connect(&server).await)
        .opened(&loud)
        .await;
    let data = "x".repeat(16 * 1024 - 2);
    let signal = serde_json::json!({"type": "signal", "to": "all", "name": "shout", "data": data});
    loud.send(frame(TEXT, signal.to_string()).repeat(110)).await;
    loud.send(frame(TEXT, ping_of(50))).await;
    loud.expect_answer("r").await;
    for n in 0..250 {
        me.put("song", &format!("s{n}")).await.ok(201);
    }
    let dropped = "sockets_ended_total{reason=\"send_queue_full\"}";
    let is_dropped = async || server.metric(dropped).await == 1;
    within(Duration::from_secs(1), "it is dropped", is_dropped).await;
}

/// Requests over HTTP/2, chosen in the handshake; a socket is not opened over it.
#[tokio::test]
async fn requests_may_use_http_2() {
    let identity = Identity::new(&[b"h2", b"http/1.1"]);
    let server = identity
        .server(&[("server.idle_connection_secs", "1")])
        .await;
    let stream = identity.connect(&server).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    for (path, status) in [("/health", 200), ("/v1/me", 401), ("/v1/sync", 426)] {
        let uri = format!("https://localhost{path}");
        let request = http::Request::get(uri).body(()).unwrap();
        let (answer, _) = requests.send_request(request, true).unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert!(answer.headers().contains_key("x-request-id"));
    }
    // It answers the server's pings, and asks for nothing: that is not enough to stay.
    let ended = timeout(Duration::from_secs(6), driving).await;
    drop(ended.expect("an idle connection is closed"));
}

#[tokio::test]
async fn who_speaks_no_tls_gets_nothing() {
    let identity = Identity::new(&[]);
    let server = identity.server(&[]).await;
    let mut plain = Raw::connect(&server).await;
    plain.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(!plain.rest().await.contains("HTTP/1.1"));
    // Nor does who says nothing, but only for seconds.
    let mut silent = Raw::connect(&server).await;
    let began = tokio::time::Instant::now();
    assert_eq!(silent.rest().await, "");
    assert!(began.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn files_that_do_not_fit_are_named() {
    let (one, two) = (Identity::new(&[]), Identity::new(&[]));
    let data = TempDir::new().unwrap();
    let (cert, key, other) = (one.file("crt"), one.file("key"), two.file("key"));
    let none = one.file("none");
    for (cert, key, named) in [
        (text(&cert), "", "server.tls_key_file"),
        ("", text(&key), "server.tls_cert_file"),
        (text(&cert), text(&other), "server.tls_key_file"),
        (text(&none), text(&key), "server.tls_cert_file"),
        (
            "-----BEGIN CERTIFICATE-----",
            text(&key),
            "server.tls_cert_file",
        ),
    ] {
        let settings = [("server.tls_cert_file", cert), ("server.tls_key_file", key)];
        let arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--data",
            text(data.path()),
        ];
        let ended = run(&arguments, &settings).await;
        assert_ne!(ended.code, Some(0));
        assert!(ended.output.contains(named), "{}", ended.output);
    }
}
