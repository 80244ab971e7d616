//! A device has one connection, on whichever node: the newest one.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Answer, Cluster, Device, Incoming, Server, Socket, socket::PROTOCOL, within};

/// Nothing is looked up by itself while a test runs.
const SELDOM: &str = "60000";

async fn connect(device: &Device) -> Result<Socket, Answer> {
    let bearer = format!("Bearer {}", device.access);
    let headers = [
        ("authorization", bearer.as_str()),
        ("sec-websocket-protocol", PROTOCOL),
    ];
    Socket::handshake(&device.api, "", &headers).await
}

/// Frames until the close; welcomes and events are passed over.
async fn closed_with(socket: &mut Socket) -> u16 {
    loop {
        match socket.next().await {
            Incoming::Close(code) => return code,
            Incoming::Frame(_) => {}
            Incoming::Gone => panic!("ended without a close frame"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_on_another_node_replaces_the_older() {
    let cluster = Cluster::with(&[("sync.head_check_ms", "200")]).await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.a.api().login(&one.phone, "two").await;
    let mut bystander = Socket::open(&two).await;
    let mut older = Socket::open(&one).await;
    let mut newer = Socket::open(&one.at(&cluster.b)).await;
    older.expect_close(4001).await;
    // And back again.
    let mut newest = Socket::open(&one).await;
    newer.expect_close(4001).await;
    // Looks at the database find nothing more to do.
    newest.expect_quiet(Duration::from_millis(800)).await;
    newest.ping().await;
    bystander.ping().await;
    one.at(&cluster.b).put("song", "x").await.ok(201);
    newest.expect_event(1).await;
    bystander.expect_event(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_it_is_replaced_at_once() {
    let redis = std::env::var("LISTEN_STREAM_TEST_REDIS_URL")
        .expect("LISTEN_STREAM_TEST_REDIS_URL: run through scripts/servers.sh or make test");
    let settings = [("redis.url", &*redis), ("sync.head_check_ms", SELDOM)];
    let cluster = Cluster::with(&settings).await;
    for node in [&cluster.a, &cluster.b] {
        within(Duration::from_secs(5), "Redis answers", async || {
            node.api().get("/ready").await.body["checks"]["redis"] == "ok"
        })
        .await;
    }
    let one = cluster.a.api().newcomer("one").await;
    let mut older = Socket::open(&one).await;
    // That node listens for the user from now on.
    one.at(&cluster.b).put("song", "x").await.ok(201);
    older.expect_event(1).await;
    for _ in 0..5 {
        for node in [&cluster.b, &cluster.a] {
            let mut newer = Socket::open(&one.at(node)).await;
            newer.expect_event(1).await;
            let start = Instant::now();
            older.expect_close(4001).await;
            let took = start.elapsed();
            assert!(took < Duration::from_secs(2), "replaced after {took:?}");
            newer.ping().await;
            // Until the hints of the next round are sure to be heard there.
            one.at(if std::ptr::eq(node, &raw const cluster.a) {
                &cluster.b
            } else {
                &cluster.a
            })
            .put("song", "x")
            .await
            .ok(200);
            older = newer;
        }
    }
    older.ping().await;
}

/// With settings as they come: when a device's older connection ends, at any moment of its node's second.
async fn replaced_in_time(settings: &[(&str, &str)]) -> Vec<Duration> {
    let cluster = Cluster::with(settings).await;
    for node in [&cluster.a, &cluster.b] {
        within(Duration::from_secs(5), "nothing is missing", async || {
            let ready = node.api().get("/ready").await.ok(200);
            let mut checks = ready["checks"].as_object().unwrap().values();
            checks.all(|state| state == "ok")
        })
        .await;
    }
    let one = cluster.a.api().newcomer("one").await;
    let mut older = Socket::open(&one).await;
    let mut took = Vec::new();
    for round in 0..10 {
        tokio::time::sleep(Duration::from_millis(90 * (round % 9))).await;
        let node = [&cluster.b, &cluster.a][usize::from(round % 2 == 1)];
        let newer = Socket::open(&one.at(node)).await;
        let start = Instant::now();
        older.expect_close(4001).await;
        took.push(start.elapsed());
        older = newer;
    }
    older.ping().await;
    took.sort_unstable();
    println!("replaced after {took:?}");
    took
}

/// Each within a second.
fn in_time(took: &[Duration]) {
    let most = took.iter().max();
    assert!(most < Some(&Duration::from_secs(1)), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_replaced_within_a_second() {
    let took = replaced_in_time(&[]).await;
    in_time(&took);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_a_connection_is_replaced_within_a_second() {
    let took = replaced_in_time(&[("redis.url", &crate::support::redis())]).await;
    in_time(&took);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cursor_of_a_replaced_connection_moves_nothing() {
    // What is acknowledged waits at its node until the connection ends.
    let settings = [
        ("sync.head_check_ms", "500"),
        ("sync.cursor_flush_ms", SELDOM),
    ];
    let cluster = Cluster::with(&settings).await;
    let one = cluster.a.api().newcomer("one").await;
    for target in ["a", "b", "c"] {
        one.put("song", target).await.ok(201);
    }
    let mut older = Socket::open(&one).await;
    let events = older.expect_events(1, 3).await;
    older.ack(&events[2]).await;
    older.ping().await;
    let at_b = one.at(&cluster.b);
    let mut newer = Socket::open(&at_b).await;
    assert_eq!(newer.welcome["acked_seq"], 0);
    let events = newer.expect_events(1, 3).await;
    older.expect_close(4001).await;
    let stored = "store_commands_total{name=\"cursors_advance\",result=\"ok\"}";
    within(
        Duration::from_secs(5),
        "the older one's cursor was written",
        async || cluster.a.metric(stored).await == 1,
    )
    .await;
    assert_eq!(one.waiting().await, [1, 2, 3]);
    // The newer one's does.
    newer.ack(&events[0]).await;
    newer.ping().await;
    newer.close().await;
    within(
        Duration::from_secs(5),
        "the newer one's cursor is stored",
        async || one.waiting().await == [2, 3],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_cursor_tells_that_a_connection_was_replaced() {
    // No look, no hint: only the write of the cursor meets the newer connection.
    let settings = [
        ("sync.head_check_ms", SELDOM),
        ("sync.cursor_flush_ms", "50"),
    ];
    let cluster = Cluster::with(&settings).await;
    let one = cluster.a.api().newcomer("one").await;
    one.put("song", "a").await.ok(201);
    let mut older = Socket::open(&one).await;
    let event = older.expect_event(1).await;
    let mut newer = Socket::open(&one.at(&cluster.b)).await;
    newer.expect_event(1).await;
    older.expect_quiet(Duration::from_millis(300)).await;
    older.ack(&event).await;
    older.expect_close(4001).await;
    newer.ping().await;
    assert_eq!(one.waiting().await, [1]);
}

#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_attaches_again_sees_that_it_was_replaced() {
    let cluster = Cluster::with(&[("sync.head_check_ms", SELDOM)]).await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.a.api().login(&one.phone, "two").await;
    let mut older = Socket::open(&one).await;
    let mut other = Socket::open(&two).await;
    let mut newer = Socket::open(&one.at(&cluster.b)).await;
    older.expect_quiet(Duration::from_millis(300)).await;
    // Its session is made anew, and what it holds is compared.
    two.put("song", "fault:panic").await;
    older.expect_close(4001).await;
    other.ping().await;
    newer.ping().await;
}

both_engines! {
    async fn of_two_quick_connections_one_stays(engine) {
        let server = Server::with(engine, &[("sync.head_check_ms", "20")]).await;
        let me = server.api().newcomer("mine").await;
        for round in 0..20 {
            let (first, second) = tokio::join!(connect(&me), connect(&me));
            let (mut first, mut second) = (first.expect("connects"), second.expect("connects"));
            let replaced = tokio::select! {
                code = closed_with(&mut first) => { assert_eq!(code, 4001); 1 }
                code = closed_with(&mut second) => { assert_eq!(code, 4001); 2 }
            };
            let mut stays = if replaced == 1 { second } else { first };
            if round % 10 == 0 {
                // Longer than several looks at the database.
                let look = tokio::time::timeout(Duration::from_millis(300), closed_with(&mut stays));
                assert!(look.await.is_err(), "round {round}: both were closed");
            }
            me.put("song", &format!("s{round}")).await.ok(201);
            let event = loop {
                match stays.next().await {
                    Incoming::Frame(frame) if frame["type"] == "event" => break frame,
                    Incoming::Frame(_) => {}
                    other => panic!("round {round}: {other:?}"),
                }
            };
            assert_eq!(event["seq"], round + 1);
            me.ack(round + 1, epoch_of(&me).await.as_str()).await.ok(200);
        }
    }

    async fn a_crowd_of_connections_leaves_one(engine) {
        let server = Server::with(engine, &[("sync.head_check_ms", "20")]).await;
        let me = server.api().newcomer("mine").await;
        let connecting: Vec<_> = (0..16)
            .map(|_| {
                let me = me.clone();
                tokio::spawn(async move { connect(&me).await.expect("connects") })
            })
            .collect();
        let mut watching = Vec::new();
        for socket in connecting {
            let mut socket = socket.await.unwrap();
            watching.push(tokio::spawn(async move {
                let end = tokio::time::timeout(Duration::from_secs(2), closed_with(&mut socket)).await;
                (end.ok(), socket)
            }));
        }
        let mut stay = Vec::new();
        for watched in watching {
            match watched.await.unwrap() {
                (Some(code), _) => assert_eq!(code, 4001),
                (None, socket) => stay.push(socket),
            }
        }
        assert_eq!(stay.len(), 1, "connections that stay");
        stay[0].ping().await;
    }
}

async fn epoch_of(me: &Device) -> String {
    me.head().await.1
}
