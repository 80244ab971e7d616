//! A database or a Redis that goes, comes back, is slow, falls silent, or is cut off in the middle of
//! a commit: the server tells its callers what it knows, keeps its sockets, and goes on by itself.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::support::{
    Device, PATIENCE, Server, Socket,
    postgres_server::{PostgresServer, Stop},
    proxy::{Cut, Proxy, Way},
    redis, within,
};

/// Pools connect again at their own pace.
const BACK: Duration = Duration::from_secs(15);

/// A user with two devices; the second holds a socket.
async fn user(server: &Server) -> (Device, Device, Socket) {
    let me = server.api().newcomer("one").await;
    let reader = server.api().login(&me.phone, "two").await;
    let socket = Socket::open(&reader).await;
    (me, reader, socket)
}

/// Adds a favorite as soon as that works again; tells its position.
async fn put_when_back(me: &Device, target: &str) -> u64 {
    let deadline = Instant::now() + BACK;
    loop {
        let answer = me.put("song", target).await;
        if answer.status == 201 {
            return answer.seq();
        }
        assert!(
            Instant::now() < deadline,
            "it does not come back: {answer:#?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_gone_is_found_again() {
    let (server, proxy) = Server::behind_proxy(&[("sync.cursor_flush_ms", "100")]).await;
    let (me, reader, mut socket) = user(&server).await;
    me.put("song", "before").await.ok(201);
    let event = socket.expect_event(1).await;

    proxy.set(Way::Gone);
    let refused = Instant::now();
    let (write, read) = tokio::join!(me.put("song", "lost"), me.favorites(""));
    write.problem(503, "store_unavailable");
    read.problem(503, "store_unavailable");
    assert!(refused.elapsed() < PATIENCE, "{:?}", refused.elapsed());
    within(BACK, "the node says that it cannot serve", async || {
        server.api().get("/ready").await.status == 503
    })
    .await;
    // Who is connected stays so, and an ack waits for better times.
    socket.ack(&event).await;
    socket.ping().await;
    within(BACK, "the cursor could not be stored", async || {
        let metrics = server.admin().get("/metrics").await.body;
        let mut lines = metrics.as_str().unwrap_or_default().lines();
        lines.any(|line| {
            line.starts_with("listen_stream_store_commands_total")
                && line.contains("cursors_advance")
                && !line.contains("\"ok\"")
        })
    })
    .await;

    proxy.set(Way::Open);
    assert_eq!(put_when_back(&me, "after").await, 2);
    assert_eq!(socket.expect_event(2).await["data"]["target_id"], "after");
    within(BACK, "the ack is stored", async || {
        reader.waiting().await == [2]
    })
    .await;
    within(BACK, "the node is ready again", async || {
        server.api().is_ready().await
    })
    .await;
    assert_eq!(
        me.all_favorites(10).await.len(),
        2,
        "what was refused was not done"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_restarted_or_crashes_is_found_again() {
    let mut postgres = PostgresServer::start().await;
    let proxy = Proxy::start(&postgres.address()).await;
    let settings = [
        ("database.url", &*postgres.url_by(proxy.port())),
        (
            "keys.master_key",
            "bm90IG9mIGEgcmVhbCBkZXBsb3ltZW50LCBhbGwgb2Y=",
        ),
    ];
    let server = Server::on_stores(&settings).await;
    let (me, _, mut socket) = user(&server).await;
    for (seq, how) in [(1, Stop::Fast), (3, Stop::Immediate)] {
        assert_eq!(me.put("song", &format!("a{seq}")).await.seq(), seq);
        socket.expect_event(seq).await;
        postgres.stop(how).await;
        me.put("song", "lost")
            .await
            .problem(503, "store_unavailable");
        postgres.launch().await;
        assert_eq!(put_when_back(&me, &format!("b{seq}")).await, seq + 1);
        socket.expect_event(seq + 1).await;
    }
    assert_eq!(me.all_favorites(10).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_database_makes_nothing_else_slow() {
    let (server, proxy) = Server::behind_proxy(&[]).await;
    let (me, _, mut socket) = user(&server).await;
    proxy.set(Way::Slow(Duration::from_millis(100)));
    let writer = me.clone();
    let writing = tokio::spawn(async move { writer.put("song", "x").await });
    for _ in 0..5 {
        socket.ping_within(Duration::from_secs(1)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A transaction goes to and fro several times.
    assert!(!writing.is_finished(), "the write was not slow");
    let added = writing.await.unwrap();
    assert_eq!(added.seq(), 1);
    added.ok(201);
    proxy.set(Way::Open);
    socket.expect_event(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_to_the_database_give_their_places_back() {
    const ROUNDS: usize = 5;
    let short = [
        ("database.write_timeout_ms", "500"),
        ("database.read_timeout_ms", "500"),
        // One that is not given back is soon missed.
        ("database.max_connections", "2"),
    ];
    let (server, proxy) = Server::behind_proxy(&short).await;
    let (me, _, mut socket) = user(&server).await;
    me.put("song", "before").await.ok(201);
    socket.expect_event(1).await;
    for _ in 0..ROUNDS {
        // Some of the reads are in the middle of a question when it falls silent.
        proxy.set(Way::Slow(Duration::from_millis(50)));
        let reads = join_all((0..8).map(|n| {
            let me = &me;
            async move {
                tokio::time::sleep(Duration::from_millis(25) * n).await;
                me.favorites("").await
            }
        }));
        let silence = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            proxy.set(Way::Silent);
            me.put("song", "unheard").await
        };
        let asked = Instant::now();
        let (reads, write) = tokio::join!(reads, silence);
        assert!(matches!(write.status, 503 | 504), "{write:#?}");
        let unanswered = reads.iter().filter(|answer| answer.status != 200);
        for answer in unanswered.clone() {
            assert!(matches!(answer.status, 503 | 504), "{answer:#?}");
        }
        assert!(unanswered.count() > 0, "nothing was under way");
        assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
        socket.ping().await;
        // What was under way stays lost; new connections work.
        proxy.lose_connections();
        proxy.set(Way::Open);
    }
    let seq = put_when_back(&me, "after").await;
    for answer in join_all((0..10).map(|_| me.favorites(""))).await {
        answer.ok(200);
    }
    socket.expect_events(2, seq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_unknown_outcome_is_told_so_and_may_be_repeated() {
    let (server, proxy) = Server::behind_proxy(&[]).await;
    let (me, _, mut socket) = user(&server).await;
    for (seq, cut) in [(1, Cut::Before), (2, Cut::After)] {
        let target = format!("{cut:?}");
        proxy.cut_next_commit(cut);
        let unknown = me.put("song", &target).await;
        unknown.problem(503, "outcome_unknown");
        assert!(proxy.has_cut());
        let again = me.put("song", &target).await;
        assert_eq!(again.seq(), seq, "one change, whatever became of the first");
        // What the first one did shows in what the second finds.
        again.ok(if cut == Cut::Before { 201 } else { 200 });
        // The session never heard of the commit, and its devices hear of it all the same.
        let event = socket.expect_event(seq).await;
        assert_eq!(event["data"]["target_id"], target.as_str());
    }
    assert_eq!(me.log().await.len(), 2);
    assert_eq!(me.all_favorites(10).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_gone_is_used_again() {
    let url = redis();
    let mut far = reqwest::Url::parse(&url).unwrap();
    let address = format!("{}:{}", far.host_str().unwrap(), far.port().unwrap());
    let proxy = Proxy::start(&address).await;
    far.set_port(Some(proxy.port())).unwrap();
    // Without hints the heads are looked at each 500 ms; with them so seldom that only a hint explains
    // what comes at once.
    let settings = [("redis.url", far.as_str()), ("sync.head_check_ms", "500")];
    let cluster = crate::support::Cluster::with(&settings).await;
    let state = async |state: &str| {
        for node in [&cluster.a, &cluster.b] {
            within(BACK, state, async || {
                node.api().get("/ready").await.body["checks"]["redis"] == state
            })
            .await;
        }
    };
    state("ok").await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.b.api().login(&one.phone, "two").await;
    let mut at_b = Socket::open(&two).await;
    one.put("song", "a").await.ok(201);
    at_b.expect_event(1).await;
    for (way, name) in [(Way::Gone, "gone"), (Way::Silent, "silent")] {
        proxy.set(way);
        state("degraded").await;
        let seq = one.head().await.0 + 1;
        one.put("song", name).await.ok(201);
        at_b.expect_event(seq).await;
        proxy.set(Way::Open);
        state("ok").await;
        one.put("song", &format!("after-{name}")).await.ok(201);
        at_b.expect_event(seq + 1).await;
    }
    // Hints arrive again: else each would wait for the next look, 2.5 s after the one before.
    let seq = one.head().await.0 + 1;
    let start = Instant::now();
    for step in 0..5 {
        one.put("song", &format!("fast-{step}")).await.ok(201);
        at_b.expect_event(seq + step).await;
    }
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
}
