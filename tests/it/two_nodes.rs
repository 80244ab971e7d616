//! Two processes on one `PostgreSQL` database are one system.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use sqlx::Connection as _;

use crate::support::{Cluster, Engine, Server, Socket, redis, within};

const WRITERS: u64 = 32;
const WRITES: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_one_user_leave_no_gap() {
    let cluster = Cluster::start().await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.b.api().login(&one.phone, "two").await;
    let mut writers = Vec::new();
    for index in 0..WRITERS {
        // Both devices write through both nodes.
        let device = if index % 4 < 2 { &one } else { &two };
        let node = if index % 2 == 0 {
            &cluster.a
        } else {
            &cluster.b
        };
        let device = device.at(node);
        writers.push(tokio::spawn(async move {
            let mut written = Vec::new();
            for write in 0..WRITES {
                let target = format!("t{index}-{write}");
                let answer = device.put("song", &target).await;
                let seq = answer.seq();
                answer.ok(201);
                written.push((seq, target));
            }
            written
        }));
    }
    let mut answered = Vec::new();
    for writer in writers {
        answered.extend(writer.await.unwrap());
    }
    answered.sort_unstable();
    let positions: Vec<u64> = answered.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(positions, (1..=WRITERS * WRITES).collect::<Vec<_>>());

    for node in [&cluster.a, &cluster.b] {
        let me = one.at(node);
        let log = me.log().await;
        let told: Vec<_> = log
            .iter()
            .map(|event| {
                let target = event["data"]["target_id"].as_str().unwrap();
                (event["seq"].as_u64().unwrap(), target.to_owned())
            })
            .collect();
        assert_eq!(told, answered);
        let listed: BTreeSet<_> = me
            .all_favorites(200)
            .await
            .iter()
            .map(|favorite| favorite["target_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(listed.len(), answered.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_favorite_added_through_both_nodes_is_added_once() {
    let cluster = Cluster::start().await;
    let at_a = cluster.a.api().newcomer("one").await;
    let at_b = at_a.at(&cluster.b);
    for round in 1..=20 {
        let target = format!("same-{round}");
        let (first, second) = tokio::join!(at_a.put("song", &target), at_b.put("song", &target));
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201], "{first:#?} {second:#?}");
        assert_eq!(first.body, second.body);
        assert_eq!(at_a.head().await.0, round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_one_node_reaches_a_socket_on_the_other() {
    let cluster = Cluster::start().await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.b.api().login(&one.phone, "two").await;
    let mut at_a = Socket::open(&one).await;
    let mut at_b = Socket::open(&two).await;
    assert_ne!(at_a.welcome["node"], at_b.welcome["node"]);
    for seq in 1..=5 {
        let (writer, socket) = if seq % 2 == 1 {
            (&two, &mut at_a)
        } else {
            (&one, &mut at_b)
        };
        writer.put("song", &format!("t{seq}")).await.ok(201);
        let event = tokio::time::timeout(Duration::from_secs(3), async {
            loop {
                let event = socket.next_frame("event").await;
                if event["seq"] == seq {
                    return event;
                }
            }
        })
        .await
        .expect("the other node's event comes within 3 s");
        assert_eq!(event["origin_device_id"], writer.device_id.as_str());
    }
    at_a.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_on_one_node_holds_on_the_other() {
    let cluster = Cluster::start().await;
    let one = cluster.a.api().newcomer("one").await;
    for target in ["a", "b", "c"] {
        one.put("song", target).await.ok(201);
    }
    let mut socket = Socket::open(&one).await;
    let events = socket.expect_events(1, 3).await;
    socket.ack(&events[1]).await;
    let at_b = one.at(&cluster.b);
    within(Duration::from_secs(5), "the ack is stored", async || {
        at_b.waiting().await == [3]
    })
    .await;
    socket.close().await;
    let mut socket = Socket::open(&at_b).await;
    assert_eq!(socket.welcome["acked_seq"], 2);
    socket.expect_event(3).await;
    // The token was made by the other node.
    socket.ack(&events[2]).await;
    within(Duration::from_secs(5), "the ack is stored", async || {
        one.waiting().await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_removed_on_one_node_is_out_on_the_other() {
    let cluster = Cluster::start().await;
    let owner = cluster.a.api().newcomer("owner").await;
    let lost = cluster.a.api().login(&owner.phone, "lost").await;
    let at_b = lost.at(&cluster.b);
    at_b.me().await.ok(200);
    let mut socket = Socket::open(&at_b).await;

    owner.remove_device(&lost.id).await.ok(204);
    lost.me().await.problem(401, "token_revoked");
    within(
        Duration::from_secs(2),
        "the token is refused on the other node",
        async || at_b.me().await.code() == "token_revoked",
    )
    .await;
    socket.expect_close(4005).await;
    owner.at(&cluster.b).me().await.ok(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_asked_of_one_node_serves_on_the_other() {
    let cluster = Cluster::start().await;
    let phone = crate::support::phone();
    let code = cluster.a.api().new_code(&phone).await;
    let body = crate::support::client::login_body(&phone, &code, "mine");
    let (first, second) = (cluster.a.api(), cluster.b.api());
    let (first, second) = tokio::join!(first.sign_in(&body), second.sign_in(&body));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 401], "{first:#?} {second:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_may_die() {
    let mut cluster = Cluster::start().await;
    let one = cluster.a.api().newcomer("one").await;
    let at_b = one.at(&cluster.b);
    one.put("song", "a").await.ok(201);
    cluster.a.kill9();
    let added = at_b.put("song", "b").await;
    assert_eq!(added.seq(), 2);
    added.ok(201);
    let mut socket = Socket::open(&at_b).await;
    socket.expect_events(1, 2).await;
    cluster.a.restart().await;
    let added = one.at(&cluster.a).put("song", "c").await;
    assert_eq!(added.seq(), 3);
    added.ok(201);
    socket.expect_event(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_a_change_crosses_without_a_look_at_the_heads() {
    // The heads are looked at so seldom that only hints can explain what arrives.
    let settings = [("redis.url", &*redis()), ("sync.head_check_ms", "60000")];
    let cluster = Cluster::with(&settings).await;
    for node in [&cluster.a, &cluster.b] {
        within(Duration::from_secs(5), "Redis answers", async || {
            node.api().get("/ready").await.body["checks"]["redis"] == "ok"
        })
        .await;
    }
    let one = cluster.a.api().newcomer("one").await;
    let mut at_a = Socket::open(&one).await;
    let two = cluster.b.api().login(&one.phone, "two").await;
    let mut at_b = Socket::open(&two).await;
    for round in 1..=10 {
        one.put("song", &format!("a{round}")).await.ok(201);
        two.put("song", &format!("b{round}")).await.ok(201);
        at_a.expect_events(2 * round - 1, 2 * round).await;
        at_b.expect_events(2 * round - 1, 2 * round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_redis_a_node_is_degraded_and_changes_still_cross() {
    // Nobody listens on the port of a listener that is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let url = format!("redis://127.0.0.1:{port}");
    let cluster = Cluster::with(&[("redis.url", &url)]).await;
    let ready = cluster.a.api().get("/ready").await.ok(200);
    assert_eq!(ready["checks"]["redis"], "degraded");
    let one = cluster.a.api().newcomer("one").await;
    let mut at_a = Socket::open(&one).await;
    one.at(&cluster.b).put("song", "far").await.ok(201);
    at_a.expect_event(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_signals_and_presence_cross() {
    let settings = [("redis.url", &*redis())];
    let cluster = Cluster::with(&settings).await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.a.api().login(&one.phone, "two").await;
    let mut here = Socket::open(&one).await;
    here.hear_presence(true);
    here.expect_presence(&["one"]).await;
    let mut there = Socket::open(&two.at(&cluster.b)).await;
    there.hear_presence(true);
    here.expect_presence(&["one", "two"]).await;
    // It asks as soon as it listens.
    there.expect_presence(&["two"]).await;
    there.expect_presence(&["one", "two"]).await;
    here.send(json!({"type": "signal", "to": "two", "name": "volume.set", "data": {"n": 1}}))
        .await;
    let heard = there.next_frame("signal").await;
    assert_eq!(heard["from_device_id"], "one");
    assert_eq!(heard["data"], json!({"n": 1}));
    there
        .send(json!({"type": "signal", "to": "all", "name": "hello"}))
        .await;
    assert_eq!(here.next_frame("signal").await["name"], "hello");
    there.close().await;
    here.expect_presence(&["one"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_of_another_epoch_is_only_a_reason_to_look() {
    let redis = redis();
    let settings = [("redis.url", &*redis), ("sync.head_check_ms", "60000")];
    let server = Server::with(Engine::Postgres, &settings).await;
    let me = server.api().newcomer("mine").await;
    let mut socket = Socket::open(&me).await;
    let client = redis::Client::open(redis).unwrap();
    let mut publisher = client.get_multiplexed_async_connection().await.unwrap();
    let channel = format!("listen-stream:log:{}", me.user_id);
    // Delayed since before a restore, of another release, and nonsense.
    for text in [
        "0193a0f2-5b7c-7c3e-8a1b-0123456789ab 99 0".to_owned(),
        format!("attached/1 {} 99", me.id),
        format!(
            "attached/2 0193a0f2-5b7c-7c3e-8a1b-0123456789ab {} 99",
            me.id
        ),
        "dance".to_owned(),
    ] {
        // The node listens from some moment after the welcome on.
        within(Duration::from_secs(5), "the node listens", async || {
            let mut publisher = publisher.clone();
            let publish = redis::cmd("PUBLISH").arg(&channel).arg(&text).to_owned();
            publish.query_async::<i64>(&mut publisher).await.unwrap() == 1
        })
        .await;
    }
    socket.expect_quiet(Duration::from_millis(500)).await;
    socket.ping().await;
    // The head of one that is good is followed: nothing else would tell of a change made beside the
    // node. Its floor is not believed.
    let (_, epoch) = me.head().await;
    let mut database = sqlx::PgConnection::connect(server.database_url().unwrap())
        .await
        .unwrap();
    for sql in [
        "INSERT INTO sync_events SELECT user_id, 1, gen_random_uuid(), 'x', '{}', NULL, now()
         FROM user_logs",
        "UPDATE user_logs SET head_seq = 1",
    ] {
        sqlx::query(sql).execute(&mut database).await.unwrap();
    }
    let text = format!("{epoch} 1 1");
    let publish = redis::cmd("PUBLISH").arg(&channel).arg(&text).to_owned();
    publish.query_async::<i64>(&mut publisher).await.unwrap();
    socket.expect_event(1).await;
    let other = server.api().login(&me.phone, "other").await;
    Socket::open_with(&other, "?since=0")
        .await
        .expect_event(1)
        .await;
    let text = format!("attached/2 {epoch} {} 99", me.id);
    let publish = redis::cmd("PUBLISH").arg(&channel).arg(&text).to_owned();
    publish.query_async::<i64>(&mut publisher).await.unwrap();
    socket.expect_close(4001).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_that_share_a_redis_leave_each_others_devices_alone() {
    let redis = redis();
    let server = Server::with(Engine::Postgres, &[("redis.url", &*redis)]).await;
    let me = server.api().newcomer("mine").await;
    let mut socket = Socket::open(&me).await;
    let client = redis::Client::open(redis).unwrap();
    let publisher = client.get_multiplexed_async_connection().await.unwrap();
    let channel = format!("listen-stream:log:{}", me.user_id);
    // What a node of the drill of a restore tells, and then one of this deployment.
    let foreign = "0193a0f2-5b7c-7c3e-8a1b-0123456789ab".to_owned();
    for epoch in [foreign, socket.epoch()] {
        for news in [
            json!({"present": {"devices": ["far"], "answer": true}}),
            json!({"signal": {"from": "far", "signal": {"to": "all", "name": "of", "data": epoch}}}),
        ] {
            let told = json!({"node": "far", "epoch": epoch, "news": news});
            let text = format!("told/2 {told}");
            within(Duration::from_secs(5), "the node listens", async || {
                let mut publisher = publisher.clone();
                let publish = redis::cmd("PUBLISH").arg(&channel).arg(&text).to_owned();
                publish.query_async::<i64>(&mut publisher).await.unwrap() == 1
            })
            .await;
        }
    }
    // The channel keeps their order.
    socket.hear_presence(true);
    socket.expect_presence(&["mine"]).await;
    socket.expect_presence(&["far", "mine"]).await;
    assert_eq!(socket.next_frame("signal").await["data"], socket.epoch());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_trim_one_log_and_nobody_notices() {
    let settings = [
        ("sync.retention_max_events", "20"),
        ("sync.retention_min_events", "5"),
        ("sync.retention_min_hours", "0"),
        ("sync.trim_interval_ms", "20"),
        ("sync.head_check_ms", "20"),
        ("sync.cursor_flush_ms", "20"),
    ];
    let cluster = Cluster::with(&settings).await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.b.api().login(&one.phone, "two").await;
    let mut at_a = Socket::open(&one).await;
    let mut at_b = Socket::open(&two).await;
    for seq in 1..=100 {
        let writer = if seq % 2 == 1 { &one } else { &two };
        assert_eq!(writer.put("song", &format!("t{seq}")).await.seq(), seq);
        for socket in [&mut at_a, &mut at_b] {
            let event = socket.expect_event(seq).await;
            socket.ack(&event).await;
        }
    }
    let epoch = at_a.epoch();
    within(Duration::from_secs(10), "the log is trimmed", async || {
        let behind = one.changes(&format!("?since=94&epoch={epoch}")).await;
        let at = two.changes(&format!("?since=95&epoch={epoch}")).await;
        (behind.status, at.status) == (410, 200)
    })
    .await;
    for socket in [&mut at_a, &mut at_b] {
        socket.expect_quiet(Duration::from_millis(200)).await;
        socket.ping().await;
    }
}
