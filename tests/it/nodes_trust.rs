//! What is revoked on one node is in force on all, within a second; and what a node does that does not
//! know what was revoked.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{
    Cluster, Server, Socket,
    proxy::{Proxy, Way},
    redis, within,
};

const ROUNDS: usize = 8;

/// How long each of some revocations took to be in force on the other node, for requests and for sockets.
async fn measured(cluster: &Cluster) -> (Vec<Duration>, Vec<Duration>) {
    let owner = cluster.a.api().newcomer("owner").await;
    let (mut tokens, mut sockets) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let lost = cluster
            .a
            .api()
            .login(&owner.phone, &format!("lost-{round}"))
            .await;
        let at_b = lost.at(&cluster.b);
        at_b.me().await.ok(200);
        let mut socket = Socket::open(&at_b).await;
        // At any moment of the other node's second.
        tokio::time::sleep(Duration::from_millis(70 * round as u64)).await;
        owner.remove_device(&lost.id).await.ok(204);
        let removed = Instant::now();
        within(Duration::from_secs(3), "the token is refused", async || {
            at_b.me().await.code() == "token_revoked"
        })
        .await;
        tokens.push(removed.elapsed());
        socket.expect_close(4005).await;
        sockets.push(removed.elapsed());
    }
    for all in [&mut tokens, &mut sockets] {
        all.sort_unstable();
    }
    println!("revoked after: tokens {tokens:?}, sockets {sockets:?}");
    (tokens, sockets)
}

/// Each within a second.
fn in_time(all: &[Duration]) {
    let most = all.iter().max();
    assert!(most < Some(&Duration::from_secs(1)), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_is_in_force_everywhere_within_a_second() {
    let cluster = Cluster::start().await;
    let (tokens, sockets) = measured(&cluster).await;
    for all in [tokens, sockets] {
        in_time(&all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_it_is_so_at_once() {
    let cluster = Cluster::with(&[("redis.url", &*redis())]).await;
    within(Duration::from_secs(5), "Redis answers", async || {
        cluster.b.metric("redis_up").await == 1 && cluster.a.metric("redis_up").await == 1
    })
    .await;
    let (tokens, sockets) = measured(&cluster).await;
    for all in [&tokens, &sockets] {
        in_time(all);
        // Not by the poll, which comes twice a second.
        assert!(all[ROUNDS / 2] < Duration::from_millis(200), "{all:?}");
    }
    let heard = cluster
        .b
        .metric("redis_hints_received_total{kind=\"revoked\"}");
    assert!(heard.await >= ROUNDS as u64);
}

/// A node whose database falls silent, with a user who has a device attached.
async fn in_doubt(policy: &str) -> (Server, Proxy, crate::support::Device, Socket) {
    let settings = [("auth.revocations_unknown", policy)];
    let (server, proxy) = Server::behind_proxy(&settings).await;
    let me = server.api().newcomer("mine").await;
    let socket = Socket::open(&me).await;
    let ready = server.api().get("/ready").await.ok(200);
    assert_eq!(ready["checks"]["revocations"], "ok");
    proxy.set(Way::Silent);
    within(Duration::from_secs(15), "it says so", async || {
        let ready = server.api().get("/ready").await;
        ready.body["checks"]["revocations"] == "degraded"
    })
    .await;
    assert!(server.gauge("revocations_age_seconds").await.unwrap() >= 5.0);
    (server, proxy, me, socket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_node_that_cannot_know_what_was_revoked_trusts_tokens() {
    let (server, proxy, me, mut socket) = in_doubt("open").await;
    // Of what is asked, presence needs no store.
    me.get("/v1/me/presence").await.ok(200);
    proxy.set(Way::Open);
    within(Duration::from_secs(15), "it knows again", async || {
        server.api().get("/ready").await.body["checks"]["revocations"] == "ok"
    })
    .await;
    me.me().await.ok(200);
    socket.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_node_that_cannot_know_what_was_revoked_trusts_none() {
    let (server, proxy, me, mut socket) = in_doubt("closed").await;
    let refused = me.get("/v1/me/presence").await;
    refused.problem(503, "store_unavailable");
    let bearer = format!("Bearer {}", me.access);
    let headers = [
        ("authorization", bearer.as_str()),
        ("sec-websocket-protocol", crate::support::socket::PROTOCOL),
    ];
    let refused = Socket::handshake(&me.api, "", &headers).await;
    assert!(refused.is_err_and(|answer| answer.code() == "store_unavailable"));
    // Who is connected stays so, and a token that cannot be judged is no better than the old one.
    socket.ping().await;
    let auth = serde_json::json!({"type": "auth", "token": me.access, "ref": "r"});
    socket.send(auth).await;
    socket.expect_error("token_invalid", "r").await;
    proxy.set(Way::Open);
    within(Duration::from_secs(15), "it knows again", async || {
        me.get("/v1/me/presence").await.status == 200
    })
    .await;
    assert!(server.gauge("revocations_age_seconds").await.unwrap() < 5.0);
    me.me().await.ok(200);
    socket.ping().await;
}
