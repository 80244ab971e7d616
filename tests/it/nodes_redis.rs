//! What nodes share by Redis, what is left of it without, and what is no Redis that can be used.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    Cluster, Device, Engine, Incoming, Server, Socket,
    proxy::{Proxy, Way},
    redis,
    redis_server::RedisServer,
    server::run,
    within,
};

/// Redis is asked twice a second, and another connection is tried after three answers that did not come.
const BACK: Duration = Duration::from_secs(10);

async fn checks(cluster: &Cluster, expected: &str) {
    for node in [&cluster.a, &cluster.b] {
        let what = format!("Redis and limits are {expected}");
        within(BACK, &what, async || {
            let ready = node.api().get("/ready").await.ok(200);
            let checks = &ready["checks"];
            checks["redis"] == expected && checks["limits"] == expected
        })
        .await;
    }
}

/// Writes at one node at any moment of its second, and measures when a socket at the other hears of it.
async fn crossings(from: &Device, to: &mut Socket, rounds: u64) -> Vec<Duration> {
    let mut took = Vec::new();
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(130 * (round % 7))).await;
        let answer = from.put("song", &crate::support::unique()).await;
        let written = Instant::now();
        let seq = answer.seq();
        answer.ok(201);
        let event = to.expect_event(seq).await;
        took.push(written.elapsed());
        to.ack(&event).await;
    }
    took.sort_unstable();
    println!("crossed after {took:?}");
    took
}

/// A signal reaches the other node, sooner or later: the node there may not listen yet.
async fn signals_cross(from: &mut Socket, to: &mut Socket) {
    let deadline = Instant::now() + BACK;
    loop {
        from.send(json!({"type": "signal", "to": "all", "name": "hello"}))
            .await;
        // Events and presence come as well.
        let heard = tokio::time::timeout(Duration::from_millis(300), async {
            while !matches!(to.next().await, Incoming::Frame(it) if it["type"] == "signal") {}
        });
        if heard.await.is_ok() {
            return;
        }
        assert!(Instant::now() < deadline, "no signal crosses");
    }
}

async fn redis_goes_and_comes(url: &str, gone: impl AsyncFn(), back: impl AsyncFn()) {
    let cluster = Cluster::with(&[("redis.url", url)]).await;
    checks(&cluster, "ok").await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.b.api().login(&one.phone, "two").await;
    let mut here = Socket::open(&one).await;
    let mut there = Socket::open(&two).await;
    signals_cross(&mut here, &mut there).await;
    // Changes cross by hints: the looks come four seconds apart.
    let took = crossings(&one, &mut there, 5).await;
    assert!(took[2] < Duration::from_millis(500), "{took:?}");

    gone().await;
    checks(&cluster, "degraded").await;
    assert_eq!(cluster.a.metric("redis_up").await, 0);
    assert_eq!(cluster.a.metric("limits_shared").await, 0);
    let took = crossings(&one, &mut there, 8).await;
    assert!(took[7] < Duration::from_secs(1), "{took:?}");
    let away = "redis_hints_lost_total{kind=\"head\",reason=\"away\"}";
    within(BACK, "hints are lost", async || {
        cluster.a.metric(away).await > 0
    })
    .await;

    back().await;
    checks(&cluster, "ok").await;
    signals_cross(&mut there, &mut here).await;
    let took = crossings(&one, &mut there, 5).await;
    assert!(took[2] < Duration::from_millis(500), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_stopped_and_started_is_used_again() {
    let server = tokio::sync::Mutex::new(RedisServer::start().await);
    let url = server.lock().await.url();
    let stop = async || server.lock().await.stop();
    let start = async || server.lock().await.launch().await;
    redis_goes_and_comes(&url, stop, start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_falls_silent_is_used_again() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(&server.address()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    redis_goes_and_comes(
        &url,
        async || proxy.set(Way::Silent),
        async || {
            proxy.set(Way::Open);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_redis_that_are_forgotten_on_the_way_are_made_anew() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(&server.address()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let forgotten = async || proxy.set(Way::Silent);
    // Neither end is told of it; new connections pass.
    let found = async || {
        proxy.lose_connections();
        proxy.set(Way::Open);
    };
    redis_goes_and_comes(&url, forgotten, found).await;
}

/// Requests of a user in turn at both nodes, as fast as they are answered: how many passed, and in what
/// time.
async fn asked_in_turn(cluster: &Cluster, me: &Device, requests: usize) -> (u32, f64) {
    let nodes = [me.at(&cluster.a), me.at(&cluster.b)];
    let (begun, mut passed) = (Instant::now(), 0);
    for n in 0..requests {
        let answer = nodes[n % 2].get("/v1/me/presence").await;
        if answer.status == 200 {
            passed += 1;
        } else {
            answer.problem(429, "rate_limited");
        }
    }
    (passed, begun.elapsed().as_secs_f64())
}

const TIGHT: [(&str, &str); 2] = [("limits.user_per_second", "1"), ("limits.user_burst", "20")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_count_over_all_nodes() {
    let url = redis();
    let cluster = Cluster::with(&[&TIGHT[..], &[("redis.url", &url)]].concat()).await;
    checks(&cluster, "ok").await;
    let me = cluster.a.api().newcomer("mine").await;
    let (passed, secs) = asked_in_turn(&cluster, &me, 60).await;
    // The burst, what came in meanwhile, and what passed while a node asked.
    let most = 20.0 + secs + 6.0;
    assert!(
        passed >= 18 && f64::from(passed) < most,
        "{passed} in {secs} s"
    );
    let refused = "redis_limit_asks_total{result=\"refused\"}";
    let (a, b) = (
        cluster.a.metric(refused).await,
        cluster.b.metric(refused).await,
    );
    assert!(a > 0 && b > 0, "{a} {b}");
    // What a node refuses by itself costs no question: those that were refused were not asked for.
    let granted = "redis_limit_asks_total{result=\"granted\"}";
    let asked = cluster.a.metric(granted).await + cluster.b.metric(granted).await + a + b;
    assert!(asked < 60, "{asked} questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_limited_over_all_nodes() {
    let url = redis();
    let limits = [
        ("limits.auth_per_minute", "1"),
        ("limits.auth_burst", "10"),
        ("server.trusted_proxies", "127.0.0.1"),
        ("redis.url", &*url),
    ];
    let cluster = Cluster::with(&limits).await;
    checks(&cluster, "ok").await;
    let host = crate::support::unique();
    let address = format!("2001:db8:{}:{}::1", &host[..4], &host[4..8]);
    let mut passed = 0;
    for n in 0..30 {
        let api = [&cluster.a, &cluster.b][n % 2].api();
        let request = api.request(reqwest::Method::POST, "/v1/auth/tokens");
        let request = request
            .header("x-forwarded-for", &address)
            .json(&json!({"refresh_token": "lsr_x"}));
        let answer = crate::support::client::send(request).await;
        passed += usize::from(answer.status != 429);
    }
    assert!((10..=14).contains(&passed), "{passed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_limits_count_per_node() {
    let cluster = Cluster::with(&TIGHT).await;
    let me = cluster.a.api().newcomer("mine").await;
    let (passed, secs) = asked_in_turn(&cluster, &me, 80).await;
    assert!(
        passed >= 40 && f64::from(passed) < 42.0 + 2.0 * secs,
        "{passed} in {secs} s"
    );
}

#[tokio::test]
async fn what_is_no_standalone_redis_is_refused_by_its_url() {
    for (url, word) in [
        ("redis-cluster://127.0.0.1:7000", "Redis Cluster"),
        (
            "redis+sentinel://127.0.0.1:26379/mymaster",
            "Redis Sentinel",
        ),
        (
            "rediss+sentinel://:hunter2@127.0.0.1:26379",
            "Redis Sentinel",
        ),
        (
            "redis://:hunter2@127.0.0.1:6379,127.0.0.2:6379",
            "several hosts",
        ),
    ] {
        let data = tempfile::TempDir::new().unwrap();
        let place = ["--data", data.path().to_str().unwrap()];
        let settings = [("redis.url", url)];
        for command in [&["config", "check"][..], &["serve"]] {
            let ended = run(&[command, &place].concat(), &settings).await;
            assert_eq!(ended.code, Some(2), "{}", ended.output);
            for part in ["redis.url", word, "standalone"] {
                assert!(ended.output.contains(part), "{part}: {}", ended.output);
            }
            assert!(!ended.output.contains("hunter2"), "{}", ended.output);
        }
    }
}

#[tokio::test]
async fn what_is_no_standalone_redis_is_refused_by_what_it_says() {
    let cluster = RedisServer::with(&["--cluster-enabled", "yes"]).await;
    let sentinel = RedisServer::sentinel().await;
    for (server, word) in [
        (&cluster, "a node of a Redis Cluster"),
        (&sentinel, "a Redis Sentinel"),
    ] {
        let data = tempfile::TempDir::new().unwrap();
        let place = ["--data", data.path().to_str().unwrap()];
        let url = server.url();
        let settings = [("redis.url", &*url)];
        for command in [&["config", "check"][..], &["serve"]] {
            let ended = run(&[command, &place].concat(), &settings).await;
            assert_eq!(ended.code, Some(2), "{}", ended.output);
            for part in ["redis.url", word, "standalone"] {
                assert!(ended.output.contains(part), "{part}: {}", ended.output);
            }
        }
    }
}

#[tokio::test]
async fn one_that_turns_out_to_be_none_later_is_not_used() {
    let mut server = RedisServer::with(&["--cluster-enabled", "yes"]).await;
    let url = server.url();
    server.stop();
    let node = Server::with(Engine::Sqlite, &[("redis.url", &*url)]).await;
    server.launch().await;
    within(BACK, "it says why", async || {
        node.output().contains("must be a standalone one")
    })
    .await;
    let ready = node.api().get("/ready").await.ok(200);
    assert_eq!(ready["checks"]["redis"], "degraded");
    assert_eq!(node.metric("redis_up").await, 0);
}
