//! What one user, or one network, may hold at a time, whatever it does not let go.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::support::{Engine, PATIENCE, Raw, Server, Socket, eventually};

/// Of a user with five devices: three for each, and one.
const OF_USER: usize = 16;

#[tokio::test]
async fn one_user_holds_only_so_many_sockets() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let ticket = me.ticket().await;
    let mut held = Vec::new();
    for _ in 0..OF_USER {
        // Each replaces the last one, which never answers the close.
        let mut raw = Raw::at(&me).await;
        let answer = raw.upgrade(&me).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        held.push(raw);
    }
    let mut beyond = Raw::at(&me).await;
    let answer = beyond.upgrade(&me).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
    let body = beyond.rest().await;
    assert!(body.contains("connection_limit_reached"), "{body}");
    // A ticket is not used up by it, and nobody else is touched.
    let full = Socket::with_ticket(&me.api, &ticket).await;
    full.err().unwrap().problem(503, "connection_limit_reached");
    let other = server.api().newcomer("other").await;
    Socket::open(&other).await.ping().await;
    drop(held);
    eventually("they are gone", async || {
        server.metric("sockets_open").await == 0
    })
    .await;
    let again = Socket::with_ticket(&me.api, &ticket).await;
    again.expect("there is room").welcomed().await.ping().await;
}

/// A connection that was answered and is kept; none if it was closed.
async fn kept(server: &Server) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(server.listen()).await.unwrap();
    let asked = stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let mut answer = [0; 4096];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer));
    let read = read.await.expect("an answer or the end comes in time");
    (asked.is_ok() && read.is_ok_and(|n| n > 0)).then_some(stream)
}

#[tokio::test]
async fn one_network_holds_only_so_many_connections_beside_its_sockets() {
    let server = Server::with(Engine::Sqlite, &[("limits.ip_connections", "8")]).await;
    let me = server.api().newcomer("mine").await;
    let mut sockets = Vec::new();
    for _ in 0..12 {
        let mut raw = Raw::at(&me).await;
        let answer = raw.upgrade(&me).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        sockets.push(raw);
    }
    let mut held = Vec::new();
    while let Some(one) = kept(&server).await {
        held.push(one);
        assert!(held.len() <= 8, "more than there may be");
    }
    assert!(held.len() > 4, "{}", held.len());
    drop(held);
    eventually("there is room again", async || {
        kept(&server).await.is_some()
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_not_kept_for_requests_that_come_too_fast() {
    let settings = [
        ("server.idle_connection_secs", "1"),
        ("limits.auth_per_minute", "1"),
        ("limits.auth_burst", "1"),
    ];
    let server = Server::with(Engine::Sqlite, &settings).await;
    let mut stream = TcpStream::connect(server.listen()).await.unwrap();
    let request = b"POST /v1/auth/sms-codes HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let mut answer = [0; 4096];
    for _ in 0..60 {
        let asked = stream.write_all(request).await;
        if asked.is_err() || !stream.read(&mut answer).await.is_ok_and(|n| n > 0) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("it is kept for refusals");
}
