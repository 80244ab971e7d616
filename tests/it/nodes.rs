//! Which nodes there are, and which devices are attached to them, as each of them knows it.

use std::{collections::BTreeSet, time::Duration};

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{
    Cluster, Device, Engine, Server, Socket,
    admin::{Admin, WITH_TOKEN},
    eventually, redis, within,
};

/// The lease of five seconds, two looks, and a machine that is busy.
const GONE: Duration = Duration::from_secs(9);

/// The user's devices that are connected, as this node says.
async fn present(device: &Device, node: &Server) -> BTreeSet<String> {
    let body = device.at(node).get("/v1/me/presence").await.ok(200);
    let devices = body["devices"].as_array().unwrap().iter();
    devices
        .map(|it| it["device_id"].as_str().unwrap().to_owned())
        .collect()
}

fn these(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

async fn are_present(device: &Device, nodes: &[&Server], ids: &[&str], limit: Duration) {
    for node in nodes {
        let what = format!("{ids:?} are present");
        within(limit, &what, async || {
            present(device, node).await == these(ids)
        })
        .await;
    }
}

async fn nodes(server: &Server) -> Value {
    Admin::of(server).get("/nodes").await.ok(200)
}

/// How many nodes are alive, and their sockets, as this one says.
async fn alive(server: &Server) -> (u64, u64) {
    let nodes = nodes(server).await;
    (
        nodes["alive"].as_u64().unwrap(),
        nodes["connections"].as_u64().unwrap(),
    )
}

/// Three nodes; a fourth device of the user, which is attached nowhere, asks.
async fn a_node_dies(settings: &[(&str, &str)]) {
    let mut cluster = Cluster::with(&[settings, &[WITH_TOKEN]].concat()).await;
    let third = cluster.another().await;
    let asking = cluster.a.api().newcomer("asking").await;
    let mut devices = Vec::new();
    for id in ["one", "two", "three"] {
        devices.push(cluster.a.api().login(&asking.phone, id).await);
    }
    let at_a = Socket::open(&devices[0]).await;
    let _at_b = Socket::open(&devices[1].at(&cluster.b)).await;
    let _at_c = Socket::open(&devices[2].at(&third)).await;
    let all = [&cluster.a, &cluster.b, &third];
    are_present(&asking, &all, &["one", "two", "three"], GONE).await;
    for node in all {
        eventually("three nodes with a socket each", async || {
            alive(node).await == (3, 3)
        })
        .await;
        assert_eq!(node.metric("nodes_alive").await, 3);
        assert_eq!(node.metric("nodes_connections").await, 3);
    }
    let name = own_name(&cluster.b).await;

    cluster.b.kill9();
    let killed = Instant::now();
    for node in [&cluster.a, &third] {
        within(GONE, "the node is gone by its lease", async || {
            alive(node).await == (2, 2)
        })
        .await;
        are_present(&asking, &[node], &["one", "three"], Duration::from_secs(1)).await;
        let listed = nodes(node).await;
        let dead = listed["items"].as_array().unwrap().iter();
        let dead: Vec<_> = dead.filter(|it| it["alive"] == false).collect();
        assert_eq!(dead.len(), 1, "{listed:#}");
        assert_eq!(dead[0]["name"], name.as_str());
        assert!(dead[0]["silent_ms"].as_u64() >= Some(5000), "{listed:#}");
        assert_eq!(node.metric("nodes_gone_total{how=\"lost\"}").await, 1);
    }
    assert!(
        killed.elapsed() > Duration::from_secs(3),
        "not before its lease"
    );
    // It comes back as another, with nobody attached to it.
    cluster.b.restart().await;
    for node in [&cluster.a, &cluster.b, &third] {
        eventually("it is one of three again", async || {
            alive(node).await == (3, 2)
        })
        .await;
    }
    are_present(&asking, &[&cluster.b], &["one", "three"], GONE).await;
    at_a.close().await;
    let nodes = [&cluster.a, &cluster.b, &third];
    are_present(&asking, &nodes, &["three"], Duration::from_secs(3)).await;
}

/// The name by which a node knows itself.
async fn own_name(server: &Server) -> String {
    let listed = nodes(server).await;
    let own = listed["items"].as_array().unwrap().iter();
    let own = own.clone().find(|it| it["this"] == true).unwrap();
    own["name"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_is_gone_by_its_lease() {
    a_node_dies(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_a_node_that_is_killed_is_gone_by_its_lease() {
    a_node_dies(&[("redis.url", &redis())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_hear_that_a_node_is_gone() {
    let mut cluster = Cluster::with(&[("redis.url", &*redis())]).await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.a.api().login(&one.phone, "two").await;
    let mut here = Socket::open(&one).await;
    here.hear_presence(true);
    here.expect_presence(&["one"]).await;
    let _there = Socket::open(&two.at(&cluster.b)).await;
    here.expect_presence(&["one", "two"]).await;
    // What the node told of itself would hold for `sync.heartbeat_timeout_secs`, 75 s.
    cluster.b.kill9();
    let killed = Instant::now();
    here.expect_presence(&["one"]).await;
    assert!(killed.elapsed() < GONE, "{:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_only_held_up_is_taken_in_again() {
    let cluster = Cluster::with(&[("redis.url", &*redis())]).await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.a.api().login(&one.phone, "two").await;
    let mut here = Socket::open(&one).await;
    here.hear_presence(true);
    here.expect_presence(&["one"]).await;
    let mut there = Socket::open(&two.at(&cluster.b)).await;
    here.expect_presence(&["one", "two"]).await;
    cluster.b.signal(Signal::STOP);
    here.expect_presence(&["one"]).await;
    are_present(&one, &[&cluster.a], &["one"], Duration::from_secs(1)).await;
    cluster.b.signal(Signal::CONT);
    here.expect_presence(&["one", "two"]).await;
    are_present(&one, &[&cluster.a, &cluster.b], &["one", "two"], GONE).await;
    there.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_in_order_leaves_at_once() {
    let mut cluster = Cluster::with(&[WITH_TOKEN]).await;
    let one = cluster.a.api().newcomer("one").await;
    let mut at_b = Socket::open(&one.at(&cluster.b)).await;
    are_present(&one, &[&cluster.a], &["one"], GONE).await;
    cluster.b.terminate();
    at_b.next_frame("goodbye").await;
    at_b.expect_close(1001).await;
    cluster.b.stopped().await;
    within(Duration::from_secs(2), "it has left", async || {
        alive(&cluster.a).await == (1, 0)
    })
    .await;
    assert_eq!(
        nodes(&cluster.a).await["items"].as_array().unwrap().len(),
        1
    );
    are_present(&one, &[&cluster.a], &[], Duration::from_secs(1)).await;
    let left = cluster.a.metric("nodes_gone_total{how=\"left\"}").await;
    assert_eq!((left, cluster.a.metric("nodes_alive").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_follows_a_device_from_node_to_node() {
    let cluster = Cluster::start().await;
    let asking = cluster.a.api().newcomer("asking").await;
    let one = cluster.a.api().login(&asking.phone, "one").await;
    let both = [&cluster.a, &cluster.b];
    let soon = Duration::from_secs(3);
    are_present(&asking, &both, &[], soon).await;
    let mut older = Socket::open(&one).await;
    // Not later than the welcome.
    assert_eq!(present(&asking, &cluster.b).await, these(&["one"]));
    let newer = Socket::open(&one.at(&cluster.b)).await;
    assert_eq!(present(&asking, &cluster.b).await, these(&["one"]));
    older.expect_close(4001).await;
    are_present(&asking, &both, &["one"], soon).await;
    // The end of the older one says nothing of the newer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    are_present(&asking, &both, &["one"], soon).await;
    newer.close().await;
    are_present(&asking, &both, &[], soon).await;
}

both_engines! {
    async fn one_node_knows_itself(engine) {
        let server = Server::with(engine, &[WITH_TOKEN]).await;
        let me = server.api().newcomer("mine").await;
        let socket = Socket::open(&me).await;
        eventually("it counts its socket", async || alive(&server).await == (1, 1)).await;
        let listed = nodes(&server).await;
        let own = &listed["items"][0];
        assert_eq!(own["name"], socket.welcome["node"]);
        assert_eq!((&own["this"], &own["alive"]), (&Value::Bool(true), &Value::Bool(true)));
        assert_eq!((own["users"].as_u64(), own["devices"].as_u64()), (Some(1), Some(1)));
        assert_eq!(present(&me, &server).await, these(&["mine"]));
        let refused = server.admin().get("/admin/v1/nodes").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED.as_u16());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_a_node_asks_the_store_for_no_presence() {
    let server = Server::start(Engine::Postgres).await;
    let me = server.api().newcomer("mine").await;
    let _socket = Socket::open(&me).await;
    for _ in 0..5 {
        assert_eq!(present(&me, &server).await, these(&["mine"]));
    }
    let asked = "store_reads_total{name=\"devices_attached\",result=\"ok\"}";
    assert_eq!(server.metric(asked).await, 0);
}
