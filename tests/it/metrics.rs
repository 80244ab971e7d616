//! The metrics of a real server: exact numbers after known traffic, and the names that the documents,
//! the alarms and the dashboard promise or rely on.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Cluster, Device, Engine, Server, Socket,
    client::{login_body, send, wrong_code},
    eventually, redis,
};

mod exposed;
mod promised;
mod promql;

const NOWHERE: &str = "01936f3e-0000-7000-8000-000000000009";

fn signal(name: &str) -> Value {
    json!({"type": "signal", "to": "all", "name": name, "data": 1, "ref": "s"})
}

/// Two devices of one user, each with its socket.
async fn pair(server: &Server) -> ((Device, Socket), (Device, Socket)) {
    let one = server.api().newcomer("one").await;
    let two = server.api().login(&one.phone, "two").await;
    let sockets = (Socket::open(&one).await, Socket::open(&two).await);
    ((one, sockets.0), (two, sockets.1))
}

/// Fails unless each counter has this value.
async fn counted(server: &Server, expected: &[(&str, u64)]) {
    for (name, value) in expected {
        assert_eq!(server.metric(name).await, *value, "{name}");
    }
}

both_engines! {
    async fn what_is_delivered_is_counted(engine) {
        let server = Server::start(engine).await;
        let ((one, mut here), (_, mut there)) = pair(&server).await;
        counted(&server, &[
            ("auth_codes_total{result=\"sent\"}", 2),
            ("auth_logins_total{result=\"opened\"}", 2),
            ("socket_upgrades_total{result=\"admitted\"}", 2),
            ("sockets_open", 2),
            ("sync_users_attached", 1),
            ("sync_devices_attached", 2),
            ("actor_live{kind=\"user_session\"}", 1),
        ]).await;
        let mut last = Value::Null;
        let mut bytes = 0;
        for n in 1..=3 {
            one.put("song", &format!("s{n}")).await.ok(201);
            last = here.expect_event(n).await;
            assert_eq!(there.expect_event(n).await, last);
            // The frames have the fields in another order, and no blanks.
            bytes += 2 * last.to_string().len() as u64;
        }
        counted(&server, &[
            ("store_commands_total{name=\"favorite_put\",result=\"ok\"}", 3),
            ("store_command_seconds_count{name=\"favorite_put\"}", 3),
            ("sync_deliveries_total{source=\"live\"}", 6),
            ("sync_deliveries_total{source=\"log\"}", 0),
            ("sync_delivery_bytes_total{source=\"live\"}", bytes),
            ("sync_delivery_seconds_count", 3),
            ("sync_acks_total{via=\"socket\"}", 0),
            ("sync_acks_total{via=\"http\"}", 0),
        ]).await;
        // One by the socket and one by a request.
        here.ack(&last).await;
        here.ping().await;
        let epoch = there.epoch();
        assert_eq!(one.ack(3, &epoch).await.status, 200);
        counted(&server, &[
            ("sync_acks_total{via=\"socket\"}", 1),
            ("sync_acks_total{via=\"http\"}", 1),
        ]).await;
        eventually("the cursor is stored", async || {
            server.metric("sync_cursors_stored_total").await == 1
        })
        .await;
        counted(&server, &[
            ("sync_cursor_seconds_count", 1),
            ("sync_cursor_failures_total", 0),
        ]).await;
        // What it missed comes from the log.
        there.close().await;
        let mut again = Socket::open_with(&one, &format!("?since=1&epoch={epoch}")).await;
        again.expect_events(2, 3).await;
        counted(&server, &[
            ("sync_deliveries_total{source=\"live\"}", 6),
            ("sync_deliveries_total{source=\"log\"}", 2),
            ("sockets_ended_total{reason=\"normal\"}", 1),
        ]).await;
    }

    async fn every_transaction_and_its_group_is_counted(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        for n in 0..5 {
            me.put("song", &format!("s{n}")).await.ok(201);
        }
        // The node beats meanwhile: a look may come between two numbers of one write.
        eventually("all numbers tell of the same writes", async || {
            let text = server.metrics().await;
            let value = |name| exposed::value(&text, name).to_bits();
            let committed = exposed::value(&text, "store_transactions_total{result=\"committed\"}");
            let commands = exposed::sum(&text, "store_commands_total");
            assert!(committed >= 7.0, "{committed}");
            let groups = match engine {
                Engine::Sqlite => (committed, commands),
                Engine::Postgres => (0.0, 0.0),
            };
            value("store_transaction_seconds_count") == committed.to_bits()
                && value("store_commit_seconds_count") == committed.to_bits()
                && value("store_queue_wait_seconds_count") == commands.to_bits()
                && value("store_group_size_count") == groups.0.to_bits()
                && value("store_group_size_sum") == groups.1.to_bits()
        }).await;
        assert_eq!(server.metric("store_queue_length").await, 0);
    }

    async fn what_is_refused_is_counted_by_its_reason(engine) {
        let server = Server::with(engine, &[
            ("limits.user_per_second", "1"),
            ("limits.user_burst", "4"),
        ]).await;
        let api = server.api();
        let phone = crate::support::phone();
        let code = api.new_code(&phone).await;
        let wrong = wrong_code(&code, 1);
        api.sign_in(&login_body(&phone, &wrong, "mine")).await.problem(401, "sms_code_invalid");
        let opened = api.sign_in(&login_body(&phone, &code, "mine")).await.ok(201);
        let me = Device::new(&api, &opened);
        api.me_with("Bearer nonsense").await.problem(401, "token_invalid");
        api.rotate("nonsense", None).await.problem(401, "refresh_token_invalid");
        api.rotate(&me.refresh, None).await.ok(200);
        let refused = Socket::handshake(&api, "", &[("sec-websocket-protocol", "listen-stream.v1")]);
        assert!(refused.await.is_err_and(|answer| answer.status == 401));
        let mut limited = 0;
        while limited == 0 {
            limited = u64::from(me.me().await.status == 429);
        }
        counted(&server, &[
            ("auth_codes_total{result=\"sent\"}", 1),
            ("auth_logins_total{result=\"sms_code_invalid\"}", 1),
            ("auth_logins_total{result=\"opened\"}", 1),
            ("auth_refreshes_total{result=\"refresh_token_invalid\"}", 1),
            ("auth_refreshes_total{result=\"opened\"}", 1),
            ("socket_upgrades_total{result=\"unauthenticated\"}", 1),
            ("http_problems_total{code=\"sms_code_invalid\"}", 1),
            ("http_problems_total{code=\"token_invalid\"}", 1),
            ("http_problems_total{code=\"unauthenticated\"}", 1),
            ("http_problems_total{code=\"rate_limited\"}", 1),
            ("http_rate_limited_total{policy=\"user\"}", 1),
            ("http_rate_limited_total{policy=\"ip\"}", 0),
            ("http_requests_total{method=\"GET\",route=\"/v1/me\",status=\"429\"}", 1),
        ]).await;
    }

    async fn signals_and_resyncs_are_counted(engine) {
        let server = Server::start(engine).await;
        let ((one, mut here), (_, mut there)) = pair(&server).await;
        here.send(signal("play")).await;
        there.next_frame("signal").await;
        counted(&server, &[
            ("sync_signals_delivered_total", 1),
            ("sync_signals_dropped_total{reason=\"rate_limited\"}", 0),
        ]).await;
        for _ in 0..40 {
            here.send(signal("play")).await;
        }
        here.expect_error("rate_limited", "s").await;
        here.close().await;
        let delivered = server.metric("sync_signals_delivered_total").await;
        let limited = server.metric("sync_signals_dropped_total{reason=\"rate_limited\"}").await;
        assert_eq!((delivered + limited, delivered >= 20), (41, true), "{delivered}");
        counted(&server, &[("sync_resyncs_total{reason=\"epoch_changed\"}", 0)]).await;
        let mut lost = Socket::open_with(&one, &format!("?since=1&epoch={NOWHERE}")).await;
        assert_eq!(lost.next_frame("resync").await["reason"], "epoch_changed");
        counted(&server, &[
            ("sync_resyncs_total{reason=\"epoch_changed\"}", 1),
            ("sync_resyncs_total{reason=\"compacted\"}", 0),
        ]).await;
    }

    async fn the_oldest_unacked_rises_until_it_is_acked(engine) {
        let server = Server::start(engine).await;
        let ((one, mut here), (_, mut there)) = pair(&server).await;
        let oldest = async || server.gauge("sync_oldest_unacked_seconds").await.unwrap();
        let (none, some) = (async || oldest().await.abs() < 1e-9, async |n: f64| oldest().await > n);
        assert!(none().await);
        one.put("song", "x").await.ok(201);
        let event = here.expect_event(1).await;
        there.expect_event(1).await;
        eventually("it rises", async || some(0.2).await).await;
        // One of two is not enough.
        here.ack(&event).await;
        here.ping().await;
        assert_eq!(server.metric("sync_users_unacked").await, 1);
        assert!(some(0.2).await);
        there.ack(&event).await;
        there.ping().await;
        assert!(none().await);
        assert_eq!(server.metric("sync_users_unacked").await, 0);
        // Who is gone owes nothing.
        one.put("song", "y").await.ok(201);
        eventually("it rises again", async || some(0.05).await).await;
        here.close().await;
        there.close().await;
        eventually("nobody is there", async || none().await).await;
    }

    async fn the_logs_and_the_room_they_take_are_measured(engine) {
        let server = Server::with(engine, &[("sync.trim_interval_ms", "50")]).await;
        let me = server.api().newcomer("mine").await;
        server.api().newcomer("other").await;
        for n in 0..4 {
            me.put("song", &format!("s{n}")).await.ok(201);
        }
        eventually("a round has been by", async || {
            server.gauge("sync_log_events").await == Some(4.0)
                && server.gauge("sync_logs").await == Some(2.0)
        })
        .await;
        assert!(server.metric("store_database_bytes").await > 0);
        let wal = server.gauge("store_wal_bytes").await;
        assert_eq!(wal.is_some_and(|bytes| bytes > 0.0), engine == Engine::Sqlite, "{wal:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_are_counted_where_they_are_sent_and_where_they_arrive() {
    let cluster = Cluster::with(&[("redis.url", &redis())]).await;
    let one = cluster.a.api().newcomer("one").await;
    let two = cluster.b.api().login(&one.phone, "two").await;
    eventually("Redis is up at both", async || {
        cluster.a.metric("redis_up").await == 1 && cluster.b.metric("redis_up").await == 1
    })
    .await;
    let mut there = Socket::open(&two).await;
    // Both the hint and a look may bring it; the hint is counted all the same.
    for n in 1..=3 {
        one.put("song", &format!("s{n}")).await.ok(201);
        there.expect_event(n).await;
    }
    eventually("the hints are sent", async || {
        cluster
            .a
            .metric("redis_hints_sent_total{kind=\"head\"}")
            .await
            == 3
    })
    .await;
    eventually("they have arrived", async || {
        cluster
            .b
            .metric("redis_hints_received_total{kind=\"head\"}")
            .await
            == 3
    })
    .await;
    counted(
        &cluster.b,
        &[
            ("redis_hints_sent_total{kind=\"head\"}", 0),
            ("sync_deliveries_total{source=\"live\"}", 0),
            ("sync_deliveries_total{source=\"log\"}", 3),
        ],
    )
    .await;
    assert_eq!(
        exposed::sum(&cluster.a.metrics().await, "redis_hints_lost_total").to_bits(),
        0
    );
}

#[tokio::test]
async fn a_node_without_its_redis_says_so_and_is_ready() {
    let settings = [("redis.url", "redis://127.0.0.1:1/")];
    let server = Server::with(Engine::Sqlite, &settings).await;
    counted(
        &server,
        &[
            ("redis_up", 0),
            ("ready", 1),
            ("check_ok{check=\"redis\"}", 0),
            ("check_ok{check=\"store\"}", 1),
        ],
    )
    .await;
}

/// Whatever is counted only after it happened.
async fn traffic(server: &Server) {
    let ((one, mut here), _there) = pair(server).await;
    one.put("song", "x").await.ok(201);
    here.expect_event(1).await;
    send(one.request(Method::GET, "/v1/me/favorites"))
        .await
        .ok(200);
    eventually("the janitor has been by", async || {
        server.gauge("sync_logs").await.is_some()
    })
    .await;
}

/// What a server with every part exposes, of both engines together.
async fn everything() -> exposed::Families {
    let soon = ("sync.trim_interval_ms", "50");
    let alone = Server::with(Engine::Sqlite, &[soon]).await;
    let url = redis();
    let joined = Server::with(Engine::Postgres, &[soon, ("redis.url", &url)]).await;
    let mut families = exposed::Families::default();
    for server in [&alone, &joined] {
        traffic(server).await;
        families.read(&server.metrics().await);
    }
    families
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_documented_is_exposed_and_what_is_exposed_is_documented() {
    let exposed = everything().await;
    let documented = promised::table();
    assert_eq!(
        exposed.beyond(&documented),
        Vec::<String>::new(),
        "not documented"
    );
    assert_eq!(
        documented.beyond(&exposed),
        Vec::<String>::new(),
        "not exposed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_and_dashboard_name_what_is_exposed() {
    let exposed = everything().await;
    let rules = promised::rules();
    assert!(rules.len() > 15, "{}", rules.len());
    let panels = promised::panels();
    assert!(panels.len() > 60, "{}", panels.len());
    let mut wrong = Vec::new();
    for expression in rules.iter().map(|rule| &rule.expr).chain(&panels) {
        if let Err(what) = promql::check(expression, &exposed) {
            wrong.push(format!("{what} in {expression}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Nothing that is counted is shown nowhere.
    let all = panels.concat();
    let unseen: Vec<_> = exposed
        .names()
        .filter(|name| !all.contains(*name))
        .collect();
    assert!(unseen.is_empty(), "{unseen:#?}");
}

#[tokio::test]
async fn the_numbers_of_the_process_are_there() {
    let server = Server::start(Engine::Sqlite).await;
    let text = server.metrics().await;
    let version = concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    assert!((exposed::value(&text, version) - 1.0).abs() < 1e-9);
    assert!(exposed::value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(exposed::value(&text, "process_cpu_seconds_total") > 0.0);
    let (open, most) = (
        exposed::value(&text, "process_open_fds"),
        exposed::value(&text, "process_max_fds"),
    );
    assert!(10.0 < open && open < most, "{open} of {most}");
    let now = listen_stream::domain::clock::World::system().now();
    let started = exposed::value(&text, "process_start_time_seconds");
    let age = Duration::from_mins(1).as_secs_f64();
    let now = f64::from(u32::try_from(now.timestamp()).unwrap());
    assert!((now - age..=now + 1.0).contains(&started), "{started}");
}
