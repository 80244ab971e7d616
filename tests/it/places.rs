//! What one user, or one network, may hold at a time, whatever it does not let go.

use crate::support::{Engine, Raw, Server, Socket, eventually};

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
