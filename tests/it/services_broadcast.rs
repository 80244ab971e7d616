//! Events for many users: everybody who is meant gets one, nobody two, whatever happens to the nodes.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Cluster, Server, Service, Socket, assert_shape,
    client::{login_body, send},
    eventually, phone, rows,
    service::INTERNAL,
};

const BROADCAST: &[&str] = &["events:broadcast"];

fn news(event_type: &str) -> Value {
    json!({"event_type": event_type, "data": {"text": "hello"}})
}

fn number(shown: &Value, name: &str) -> u64 {
    shown[name].as_u64().unwrap_or_else(|| panic!("{shown:#}"))
}

/// Fails unless exactly these users have the event, each once, and every log is whole.
async fn each_has_one(server: &Server, event_type: &str, users: impl IntoIterator<Item = Uuid>) {
    let found = rows::events_of_type(server, event_type).await;
    let twice: Vec<_> = found.iter().filter(|(_, count)| *count != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let found: BTreeSet<Uuid> = found.into_iter().map(|(user, _)| user).collect();
    let users: BTreeSet<Uuid> = users.into_iter().collect();
    let (lack, should_not) = (
        users.difference(&found).count(),
        found.difference(&users).count(),
    );
    assert_eq!(
        (lack, should_not),
        (0, 0),
        "of {} and {}",
        users.len(),
        found.len()
    );
    assert_eq!(rows::broken_logs(server).await, 0);
}

both_engines! {
    async fn everybody_who_was_there_gets_it_once_and_attached_devices_at_once(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let service = Service::with(&server, BROADCAST).await;
        let me = server.api().newcomer("mine").await;
        let mut socket = Socket::open(&me).await;
        let mut users = rows::users(&server, 700).await;
        let id = service.broadcast(&news("news.published")).await;
        // Who comes now is not meant.
        let late = server.api().newcomer("late").await;
        let event = socket.expect_event(1).await;
        assert_eq!(event["event_type"], "news.published");
        assert_eq!(event["data"], json!({"text": "hello"}));
        assert_eq!(event["origin_device_id"], Value::Null);
        let shown = service.finished(&id).await;
        assert_shape(&shown, json!({
            "id": id, "event_type": "news.published", "state": "finished",
            "reached": 701, "skipped": 0, "missing": 0, "position": "<uuid>",
            "created_at": "<time>", "started_at": "<time>", "finished_at": "<time>",
        }));
        users.push(me.user_id.parse().unwrap());
        assert_eq!(shown["position"], users.iter().max().unwrap().to_string());
        each_has_one(&server, "news.published", users).await;
        assert!(late.log().await.is_empty());
        assert_eq!(server.metric("broadcast_users_total{result=\"reached\"}").await, 701);
        for what in ["accepted", "finished"] {
            let name = format!("broadcasts_total{{what=\"{what}\"}}");
            assert_eq!(server.metric(&name).await, 1, "{what}");
        }
    }

    async fn a_node_that_is_killed_in_the_middle_is_followed_and_nobody_gets_it_twice(engine) {
        let mut server = Server::with(engine, &[INTERNAL]).await;
        let service = Service::with(&server, BROADCAST).await;
        let users = rows::users(&server, 4000).await;
        let id = service.broadcast(&news("news.published")).await;
        let mut before = 0;
        for round in 0..3 {
            let service = service.at(&server);
            // Each life gets a little further.
            crate::support::within(std::time::Duration::from_secs(30), "it goes on", async || {
                let shown = service.shown(&id).await;
                number(&shown, "reached") > before
            }).await;
            let shown = service.shown(&id).await;
            before = number(&shown, "reached");
            assert!(round > 0 || before < 4000, "it was over before it was killed");
            server.kill9();
            server.restart().await;
        }
        let shown = service.at(&server).finished(&id).await;
        assert_eq!(number(&shown, "reached"), 4000);
        each_has_one(&server, "news.published", users).await;
    }

    async fn a_segment_gets_it_and_nobody_else(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let service = Service::with(&server, BROADCAST).await;
        let bare = rows::users(&server, 1200).await;
        let ios = server.api().newcomer("one").await;
        let web = {
            let (api, phone) = (server.api(), phone());
            let code = api.new_code(&phone).await;
            let mut body = login_body(&phone, &code, "two");
            body["device"]["platform"] = json!("web");
            crate::support::Device::new(&api, &api.sign_in(&body).await.ok(201))
        };
        let id_of = |device: &crate::support::Device| device.user_id.parse::<Uuid>().unwrap();
        let to = |event_type: &str, segment: Value| {
            let mut body = news(event_type);
            body["segment"] = segment;
            body
        };
        // Far more users are looked through than are meant.
        let id = service.broadcast(&to("to.web", json!({"platforms": ["web", "tv"]}))).await;
        assert_eq!(number(&service.finished(&id).await, "reached"), 1);
        each_has_one(&server, "to.web", [id_of(&web)]).await;

        let created = ios.me().await.ok(200)["created_at"].clone();
        let body = to("to.active", json!({"active_since": created}));
        service.finished(&service.broadcast(&body).await).await;
        each_has_one(&server, "to.active", [id_of(&ios), id_of(&web)]).await;
        let body = to("to.both", json!({"active_since": created, "platforms": ["ios"]}));
        service.finished(&service.broadcast(&body).await).await;
        each_has_one(&server, "to.both", [id_of(&ios)]).await;

        let nobody = Uuid::from_u128(7);
        let named: Vec<Uuid> = bare.iter().step_by(3).copied().chain([nobody]).collect();
        let twice: Vec<_> = named.iter().rev().chain(&named).collect();
        let id = service.broadcast(&to("to.named", json!({"user_ids": twice}))).await;
        let shown = service.finished(&id).await;
        assert_eq!((number(&shown, "reached"), number(&shown, "missing")), (400, 1));
        each_has_one(&server, "to.named", bare.iter().step_by(3).copied()).await;

        for wrong in [json!({}), json!({"user_ids": []}), json!({"country": "de"}),
                      json!({"user_ids": [nobody], "platforms": ["ios"]}), json!("all")] {
            let answer = service.post("/events:broadcast", &to("a.b", wrong.clone())).await;
            assert_eq!(answer.status, 422, "{wrong}");
        }
        let more = vec![nobody; 10_001];
        let body = to("a.b", json!({"user_ids": more}));
        service.post("/events:broadcast", &body).await.invalid("segment");
    }

    async fn who_is_over_the_quota_is_skipped_and_counted(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let service = Service::made(&server, BROADCAST, &["--events-per-hour", "2"]).await;
        let users = rows::users(&server, 50).await;
        for round in 1..=3 {
            let event_type = format!("round.no{round}");
            let mut body = news(&event_type);
            if round == 1 {
                body["segment"] = json!({"user_ids": users[..10]});
            }
            let shown = service.finished(&service.broadcast(&body).await).await;
            let counts = (number(&shown, "reached"), number(&shown, "skipped"));
            let expected = [(10, 0), (50, 0), (40, 10)][round - 1];
            assert_eq!(counts, expected, "{shown:#}");
        }
        each_has_one(&server, "round.no3", users[10..].iter().copied()).await;
    }

    async fn a_broadcast_ends_when_it_is_cancelled_and_with_its_key(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let service = Service::with(&server, BROADCAST).await;
        let other = Service::with(&server, BROADCAST).await;
        let users = rows::users(&server, 3000).await.len() as u64;
        let id = service.broadcast(&news("news.one")).await;
        eventually("it has begun", async || number(&service.shown(&id).await, "reached") > 0).await;
        // It is no other service's.
        other.get(&format!("/broadcasts/{id}")).await.problem(404, "broadcast_not_found");
        other.cancel(&id).await.problem(404, "broadcast_not_found");
        let cancelled = service.cancel(&id).await.ok(200);
        assert_eq!(cancelled["state"], "cancelled");
        let reached = number(&cancelled, "reached");
        assert!(reached < users, "it was over before it was cancelled");
        assert_eq!(service.cancel(&id).await.ok(200), cancelled);

        // Far more than are dealt with until a command has begun.
        let mut many = Vec::new();
        for _ in 0..8 {
            many.push(other.broadcast(&news("news.two")).await);
        }
        eventually("the next has begun", async || number(&other.shown(&many[0]).await, "reached") > 0)
            .await;
        let revoked = server.run(&["keys", "revoke", other.key_id()]).await;
        assert_eq!(revoked.code, Some(0), "{}", revoked.output);
        let count = async |what| {
            let found = rows::events_of_type(&server, what).await;
            found.into_iter().map(|(_, count)| count.unsigned_abs()).sum::<u64>()
        };
        let after = count("news.two").await;
        assert!(after < users * 8, "all were over before their key was");
        // Another one does not wait for those that are over, and shows that nothing went on meanwhile.
        let last = service.broadcast(&news("news.three")).await;
        assert_eq!(number(&service.finished(&last).await, "reached"), users);
        assert_eq!((count("news.one").await, count("news.two").await), (reached, after));
        assert_eq!(service.cancel(&last).await.ok(200)["state"], "finished");

        let listed = service.get("/broadcasts?limit=1").await.ok(200);
        assert_eq!(listed["items"][0]["id"], last);
        let cursor = listed["next_cursor"].as_str().unwrap();
        let next = service.get(&format!("/broadcasts?limit=1&cursor={cursor}")).await.ok(200);
        assert_eq!(next["items"][0], cancelled);
        assert_eq!(next["next_cursor"], Value::Null);
        let all = service.get("/broadcasts").await;
        let known = service.request(reqwest::Method::GET, "/broadcasts");
        let known = send(known.header("If-None-Match", all.header("etag").unwrap())).await;
        assert_eq!((known.status, &known.body), (304, &Value::Null));
        service.get("/broadcasts?cursor=x").await.invalid("cursor");
        service.get("/broadcasts?limit=0").await.invalid("limit");
        service.get("/broadcasts/x").await.invalid("id");
    }

    async fn a_key_has_ten_unfinished_broadcasts_at_most(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let service = Service::with(&server, BROADCAST).await;
        // Large enough that none is finished before all are asked for.
        rows::users(&server, 6000).await;
        let mut ids = Vec::new();
        loop {
            let answer = service.post("/events:broadcast", &news("a.b")).await;
            if answer.status == 409 {
                answer.problem(409, "broadcast_limit_reached");
                break;
            }
            ids.push(answer.ok(202)["id"].as_str().unwrap().to_owned());
        }
        assert_eq!(ids.len(), 10);
        for id in &ids {
            service.cancel(id).await.ok(200);
        }
        service.broadcast(&news("a.c")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_share_the_work_and_one_follows_the_other() {
    let mut cluster = Cluster::with(&[INTERNAL]).await;
    let service = Service::with(&cluster.a, BROADCAST).await;
    let users = rows::users(&cluster.a, 4000).await;
    let types: Vec<String> = (0..6).map(|n| format!("news.no{n}")).collect();
    let mut ids = Vec::new();
    for (n, event_type) in types.iter().enumerate() {
        let node = if n % 2 == 0 { &cluster.a } else { &cluster.b };
        ids.push(service.at(node).broadcast(&news(event_type)).await);
    }
    let steps = async |node: &Server| node.metric("broadcast_step_seconds_count").await;
    eventually("both are at work", async || {
        steps(&cluster.a).await > 2 && steps(&cluster.b).await > 2
    })
    .await;
    // What one of them had in hand the other goes on with.
    cluster.a.kill9();
    for (id, event_type) in ids.iter().zip(&types) {
        let shown = service.at(&cluster.b).finished(id).await;
        assert_eq!(number(&shown, "reached"), 4000, "{shown:#}");
        each_has_one(&cluster.b, event_type, users.iter().copied()).await;
    }
    cluster.a.restart().await;
}
