//! The admin API: who may use it, what it shows, and what it must never show.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    Answer, Device, Engine, Server, Socket,
    admin::{Admin, Feed, TOKEN, WITH_TOKEN, session_id},
    client::send,
    eventually, rows,
    server::run,
};

const PATHS: [(&str, &str); 6] = [
    ("GET", "/actors"),
    ("GET", "/actors?kind=user_session"),
    ("GET", "/actors/cursor_keeper:node"),
    ("POST", "/actors/cursor_keeper:node/restart"),
    ("GET", "/live"),
    ("GET", "/openapi.json"),
];

async fn call(server: &Server, method: &str, path: &str, authorization: Option<&str>) -> Answer {
    let method: Method = method.parse().unwrap();
    let mut request = server.admin().request(method, &format!("/admin/v1{path}"));
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    send(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_token_nothing_is_shown() {
    let off = Server::start(Engine::Sqlite).await;
    let server = Server::with(Engine::Sqlite, &[WITH_TOKEN]).await;
    let good = format!("Bearer {TOKEN}");
    for (method, path) in PATHS {
        let body = call(&off, method, path, Some(&good)).await;
        let body = body.problem(403, "admin_off");
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains("admin.token"), "{detail}");
        let answer = call(&server, method, path, None).await;
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        answer.problem(401, "admin_token_invalid");
    }
    for wrong in [
        "Bearer ",
        "Bearer wrong",
        "Basic dXNlcjpwYXNz",
        &good[..good.len() - 1],
        &format!("{good}x"),
    ] {
        let answer = call(&server, "GET", "/actors", Some(wrong)).await;
        answer.problem(401, "admin_token_invalid");
    }
    // Not even what there is.
    call(&server, "GET", "/nothing", None)
        .await
        .problem(401, "admin_token_invalid");
    call(&server, "GET", "/nothing", Some(&good))
        .await
        .problem(404, "not_found");
    let answer = call(&server, "DELETE", "/actors", Some(&good)).await;
    assert_eq!(answer.header("allow"), Some("GET"));
    answer.problem(405, "method_not_allowed");
    // The public listener knows nothing of it.
    let public = server.api().request(Method::GET, "/admin/v1/actors");
    send(public.bearer_auth(TOKEN))
        .await
        .problem(404, "not_found");
    // Whoever goes on guessing is told to wait, and keeps nobody out who has the token.
    let mut refused = None;
    for n in 0..12 {
        let guess = format!("Bearer guess-{n}");
        let answer = call(&server, "GET", "/actors", Some(&guess)).await;
        refused = (answer.status == 429).then_some(answer);
    }
    let refused = refused.expect("guesses are limited");
    assert!(refused.header("retry-after").is_some());
    refused.problem(429, "rate_limited");
    call(&server, "GET", "/actors", Some(&good)).await.ok(200);
    assert!(server.metric("admin_refused_total").await > 20);
    // Machines still see how the node is.
    for path in ["/health", "/ready", "/metrics"] {
        server.admin().get(path).await.ok(200);
    }
    assert!(!server.output().contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_token_is_refused_by_its_name() {
    let ended = run(&["config", "check"], &[("admin.token", "short")]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.output);
    assert!(ended.output.contains("admin.token"), "{}", ended.output);
    assert!(ended.output.contains("at least 32"), "{}", ended.output);
    let ended = run(&["config", "check"], &[WITH_TOKEN]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(
        ended.output.contains("admin.token = \"***\""),
        "{}",
        ended.output
    );
    assert!(!ended.output.contains(TOKEN));
}

both_engines! {
    async fn every_kind_is_listed_with_what_it_does(engine) {
        let server = Server::with(engine, &[WITH_TOKEN]).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("one").await;
        let socket = Socket::open(&me).await;
        let writing = tokio::spawn({
            let me = me.clone();
            async move {
                for n in 0.. {
                    if me.put("song", &format!("t{n}")).await.status != 201 {
                        return;
                    }
                }
            }
        });
        // Of the second that the answer takes.
        let kinds = admin.get("/actors").await.ok(200);
        let over = kinds["rates_over_ms"].as_u64().unwrap();
        assert!((1000..10_000).contains(&over), "{over}");
        let names: Vec<_> = kinds["kinds"].as_array().unwrap().iter()
            .map(|kind| kind["kind"].as_str().unwrap()).collect();
        assert_eq!(names, [
            "user_session", "login_desk", "cursor_keeper", "head_watcher", "revocation_keeper",
            "sync_log_janitor", "history_janitor", "public_playlists", "key_keeper", "broadcaster", "node_keeper", "inspector", "device_connection",
        ]);
        let sessions = &kinds["kinds"][0];
        assert_eq!(sessions["live"], 1, "{sessions:#}");
        assert!(sessions["messages_per_second"].as_f64().unwrap() >= 1.0, "{sessions:#}");
        assert!(sessions["handler_p99_us"].as_f64().unwrap() > 0.0, "{sessions:#}");
        assert_eq!(sessions["shed_per_second"], 0.0, "{sessions:#}");
        let connections = kinds["kinds"].as_array().unwrap().last().unwrap();
        assert_eq!(connections["live"], 1, "{connections:#}");
        assert_eq!(connections["messages"], Value::Null);
        assert_eq!((&connections["may_stop"], &connections["may_restart"]), (&json!(true), &json!(false)));
        assert_eq!(kinds["kinds"][1]["live"], 8, "{kinds:#}");

        let id = session_id(&me);
        let view = admin.session(&me).await;
        assert_eq!((&view["id"], &view["freshness"]), (&json!(id), &json!("live")));
        assert_eq!((&view["state"], &view["life"], &view["parent"]), (&json!("up"), &json!(0), &Value::Null));
        assert!(view["took_ms"].as_f64().unwrap() < 1000.0, "{view:#}");
        assert!(view["handled"].as_u64().unwrap() > 1, "{view:#}");
        let slowest = &view["slowest"];
        assert!(slowest["ms"].as_f64().unwrap() > 0.0 && slowest["what"].is_string(), "{view:#}");
        assert_eq!(view["view"]["user"], json!(me.user_id));
        let conn = socket.welcome["conn_id"].as_str().unwrap();
        let child = format!("device_connection:{conn}");
        assert_eq!(view["children"], json!({"count": 1, "ids": [child]}));
        let devices = &view["view"]["devices"];
        assert_eq!((&devices[0]["conn"], &devices[0]["device"]), (&json!(conn), &json!(me.id)));

        let connection = admin.get(&format!("/actors/{child}")).await.ok(200);
        assert_eq!((&connection["parent"], &connection["freshness"]), (&json!(id), &json!("live")));
        assert_eq!(connection["view"]["phase"], "open", "{connection:#}");
        assert_eq!(connection["view"]["device"], json!(me.id));
        let listed = admin.list("kind=device_connection").await;
        assert_eq!(listed[0]["id"], json!(child));
        for root in ["cursor_keeper:node", "head_watcher:node", "revocation_keeper:node",
                     "sync_log_janitor:node", "history_janitor:node", "public_playlists:node", "key_keeper:node", "broadcaster:node", "node_keeper:node", "login_desk:7", "inspector:0"] {
            let root = admin.get(&format!("/actors/{root}")).await.ok(200);
            assert_eq!(root["freshness"], "live", "{root:#}");
            assert!(root["view"].is_object(), "{root:#}");
        }
        for nobody in ["user_session:x", "nobody:1", "user_session:01920000-0000-7000-8000-000000000000"] {
            admin.get(&format!("/actors/{nobody}")).await.problem(404, "actor_not_found");
        }
        admin.get("/actors/user_session").await.invalid("id");
        writing.abort();
    }

    async fn pages_hold_every_session_once(engine) {
        const USERS: usize = 230;
        let server = Server::with(engine, &[WITH_TOKEN]).await;
        let admin = Admin::of(&server);
        let api = server.api();
        let mut users = Vec::new();
        while users.len() < USERS {
            let more = (0..23).map(|_| api.newcomer("one"));
            users.extend(join_all(more).await);
        }
        let ids: BTreeSet<String> = users.iter().map(session_id).collect();
        join_all(users.iter().map(Device::me)).await;
        for limit in [200, 37] {
            let (mut seen, mut query) = (Vec::new(), format!("kind=user_session&limit={limit}"));
            loop {
                let page = admin.get(&format!("/actors?{query}")).await.ok(200);
                let items = page["items"].as_array().unwrap();
                assert!(items.len() <= limit);
                seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
                let Some(cursor) = page["next_cursor"].as_str() else { break };
                query = format!("kind=user_session&limit={limit}&cursor={cursor}");
            }
            assert!(seen.is_sorted(), "by id");
            assert_eq!(seen, ids.iter().cloned().collect::<Vec<_>>());
        }
        let one = &users[100].user_id;
        for part in [&one[..], &one[20..], &one[20..].to_uppercase()] {
            let found = admin.list(&format!("kind=user_session&q={part}")).await;
            assert_eq!(found.len(), 1, "{part}");
            assert_eq!(found[0]["key"], json!(one));
        }
        // The busiest come first.
        for _ in 0..20 {
            users[7].me().await.ok(200);
        }
        let busiest = admin.list("kind=user_session&sort=handled&limit=1").await;
        assert_eq!(busiest[0]["key"], json!(users[7].user_id), "{busiest:#?}");
        let first = admin.get("/actors?kind=user_session&sort=handled&limit=1").await.ok(200);
        let cursor = first["next_cursor"].as_str().unwrap();
        let next = admin.list(&format!("kind=user_session&sort=handled&cursor={cursor}&limit=1")).await;
        assert_ne!(next[0]["key"], json!(users[7].user_id));

        for (query, field) in [
            ("kind=user_session&limit=0", "limit"),
            ("kind=user_session&limit=201", "limit"),
            ("kind=user_session&limit=x", "limit"),
            ("kind=user_session&sort=best", "sort"),
            ("kind=user_session&cursor=x", "cursor"),
            ("kind=user_session&colour=red", "colour"),
            ("kind=nobody", "kind"),
            ("q=a", "q"),
            ("sort=id", "sort"),
        ] {
            admin.get(&format!("/actors?{query}")).await.invalid(field);
        }
        // A place of another list is none of this one.
        admin.get(&format!("/actors?kind=user_session&sort=busy&cursor={cursor}")).await.invalid("cursor");
    }

    async fn a_client_that_does_not_read_is_seen(engine) {
        let server = Server::with(engine, &[
            WITH_TOKEN,
            ("sync.send_buffer_bytes", "4096"),
            ("sync.signals_per_second", "1000"),
            ("sync.frames_per_second", "10000"),
            ("sync.frames_burst", "100000"),
        ]).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("deaf").await;
        let other = server.api().login(&me.phone, "talks").await;
        let deaf = Socket::open_narrow(&me, 4096).await;
        let mut talks = Socket::open(&other).await;
        let long = "x".repeat(1000);
        for n in 0..400 {
            talks.send(json!({"type": "signal", "to": "deaf", "name": "n", "data": long})).await;
            if n % 20 == 0 {
                talks.ping().await;
            }
        }
        let device = async || {
            let view = admin.session(&me).await;
            let devices = view["view"]["devices"].as_array().unwrap().clone();
            devices.into_iter().find(|it| it["device"] == json!(me.id)).unwrap()
        };
        eventually("frames wait", async || device().await["unread_frames"].as_u64() >= Some(60)).await;
        // Events fill the window, and are owed an ack.
        rows::append(&server, &me, "t", 300, 300).await;
        me.put("song", "last").await.ok(201);
        eventually("the window is full", async || {
            let it = device().await;
            it["window_full"] == true && it["owes_ack_ms"].as_u64() >= Some(1)
        }).await;
        let conn = device().await["conn"].as_str().unwrap().to_owned();
        let connection = admin.get(&format!("/actors/device_connection:{conn}")).await.ok(200);
        assert!(connection["view"]["bytes_waiting"].as_u64().unwrap() > 60_000, "{connection:#}");
        assert!(connection["view"]["frames_waiting"].as_u64().unwrap() > 60, "{connection:#}");
        drop(deaf);
    }

    async fn nothing_that_is_shown_tells_a_phone_or_a_token(engine) {
        let server = Server::with(engine, &[WITH_TOKEN]).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("the-device-id").await;
        let _socket = Socket::open(&me).await;
        let ticket = me.ticket().await;
        me.put("song", "x").await.ok(201);
        let mut shown = String::new();
        for kind in ["user_session", "login_desk", "cursor_keeper", "head_watcher",
                     "revocation_keeper", "sync_log_janitor", "history_janitor", "public_playlists", "key_keeper", "broadcaster", "node_keeper", "inspector",
                     "device_connection"] {
            for item in admin.list(&format!("kind={kind}")).await {
                let id = item["id"].as_str().unwrap();
                shown += &item.to_string();
                shown += &admin.get(&format!("/actors/{id}")).await.ok(200).to_string();
            }
        }
        shown += &admin.get("/actors").await.ok(200).to_string();
        shown += &admin.watch().await.unwrap().next().await.unwrap().to_string();
        assert!(shown.contains(&me.user_id) && shown.len() > 5000, "{shown}");
        for secret in [TOKEN, &me.phone[1..], &me.access, &me.refresh, &ticket, "the-device-id"] {
            assert!(!shown.contains(secret), "{secret} is in {shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_feed_comes_once_a_second_and_only_to_some() {
    let server = Server::with(Engine::Sqlite, &[WITH_TOKEN]).await;
    let admin = Admin::of(&server);
    let me = server.api().newcomer("one").await;
    let _socket = Socket::open(&me).await;
    let mut feed = admin.watch().await.unwrap();
    feed.next().await.unwrap();
    let begun = Instant::now();
    let mut frame = Value::Null;
    for _ in 0..4 {
        frame = feed.next().await.unwrap();
    }
    let took = begun.elapsed();
    let about = Duration::from_millis(3500)..Duration::from_secs(6);
    assert!(about.contains(&took), "4 frames in {took:?}");
    assert_eq!(frame["sockets_open"], 1);
    assert_eq!(frame["kinds"][0]["kind"], "user_session");
    assert!(
        frame["rates_over_ms"].as_u64().unwrap() >= 1000,
        "{frame:#}"
    );
    let slowest = frame["slowest"].as_array().unwrap();
    assert!((1..=10).contains(&slowest.len()), "{frame:#}");
    // All share one: no more is done for sixteen than for one.
    let mut feeds = join_all((1..16).map(|_| admin.watch())).await;
    assert!(feeds.iter().all(Result::is_ok));
    let Err(refused) = admin.watch().await else {
        panic!("seventeen watch");
    };
    assert!(refused.header("retry-after").is_some());
    refused.problem(503, "connection_limit_reached");
    let watchers = async || {
        let view = admin.get("/actors/inspector:0").await.ok(200);
        view["view"]["watchers"].as_u64().unwrap()
    };
    assert_eq!(watchers().await, 16);
    for feed in &mut feeds {
        feed.as_mut().unwrap().next().await.unwrap();
    }
    drop(feeds);
    eventually("those who left are gone", async || watchers().await == 1).await;
    admin.watch().await.unwrap().next().await.unwrap();
    let no_upgrade = admin.get("/live").await;
    no_upgrade.problem(426, "upgrade_required");
}

/// It is not polled once its socket is full, and is let go while it is not, as it answers no ping.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_dropped() {
    let server = Server::with(Engine::Sqlite, &[WITH_TOKEN]).await;
    let admin = Admin::of(&server);
    let silent: Feed = admin.watch().await.unwrap();
    let mut lively = admin.watch().await.unwrap();
    let begun = Instant::now();
    loop {
        // Another one that reads stays, and is served as before.
        let frame = lively.next().await.expect("who reads is not dropped");
        assert!(frame["kinds"].is_array());
        let view = admin.get("/actors/inspector:0").await.ok(200);
        if view["view"]["watchers"] == 1 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{view:#}");
    }
    assert!(
        begun.elapsed() > Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    drop(silent);
}

/// Its paths are those that are served, and each says who may call it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_tells_the_truth() {
    let server = Server::with(Engine::Sqlite, &[WITH_TOKEN]).await;
    let admin = Admin::of(&server);
    let doc = admin.get("/openapi.json").await.ok(200);
    let paths = doc["paths"].as_object().unwrap();
    let names: Vec<_> = paths.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "/admin/v1/actors",
            "/admin/v1/actors/{id}",
            "/admin/v1/actors/{id}/restart",
            "/admin/v1/actors/{id}/stop",
            "/admin/v1/live",
            "/admin/v1/nodes",
            "/admin/v1/openapi.json",
        ]
    );
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            assert_eq!(
                operation["security"],
                json!([{"admin": []}]),
                "{method} {path}"
            );
            assert!(operation["responses"]["401"].is_object(), "{method} {path}");
        }
    }
    // What is answered has the fields that are described, and no others.
    let fields = |schema: &str| -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut of = vec![&doc["components"]["schemas"][schema]];
        while let Some(part) = of.pop() {
            if let Some(name) = part["$ref"].as_str() {
                of.push(&doc["components"]["schemas"][name.rsplit('/').next().unwrap()]);
            }
            of.extend(part["allOf"].as_array().into_iter().flatten());
            let properties = part["properties"].as_object();
            all.extend(properties.into_iter().flat_map(|it| it.keys().cloned()));
        }
        all
    };
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let kinds = admin.get("/actors").await.ok(200);
    assert_eq!(keys(&kinds), fields("Kinds"));
    assert_eq!(keys(&kinds["kinds"][0]), fields("KindRow"));
    let page = admin.get("/actors?kind=cursor_keeper").await.ok(200);
    assert_eq!(keys(&page), fields("ActorPage"));
    assert_eq!(keys(&page["items"][0]), fields("ActorRow"));
    let view = admin.get("/actors/cursor_keeper:node").await.ok(200);
    assert_eq!(keys(&view), fields("ActorView"));
    let halted = admin
        .post("/actors/cursor_keeper:node/restart")
        .await
        .ok(200);
    assert_eq!(keys(&halted), fields("HaltedView"));
}
