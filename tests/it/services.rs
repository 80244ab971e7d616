//! Events that other services append to a user's log, the quotas of them, and what they see of a user's
//! devices.

use serde_json::{Value, json};

use crate::slow_store::Held;
use crate::support::{
    Cluster, Device, Server, Service, Socket,
    admin::{Admin, WITH_TOKEN},
    assert_shape,
    client::send,
    eventually, redis, rows,
    service::INTERNAL,
};

const APPEND: &[&str] = &["events:append"];
const NOBODY: &str = "01936f3e-0000-7000-8000-000000000009";

both_engines! {
    async fn an_event_of_a_service_is_in_the_log_and_reaches_devices_at_once(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let service = Service::with(&server, APPEND).await;
        let me = server.api().newcomer("mine").await;
        let other = server.api().newcomer("other").await;
        let (mut here, mut there) = (Socket::open(&me).await, Socket::open(&other).await);
        let data = json!({"amount": 1.5, "nested": {"ä": [null, true]}});
        let answer = service.append(&me, "billing.invoice_paid", data.clone()).await;
        assert_eq!(answer.seq(), 1);
        let body = answer.ok(201);
        assert_shape(&body, json!({"seq": 1, "id": "<uuid>"}));
        let event = here.expect_event(1).await;
        assert_eq!(event["id"], body["id"]);
        assert_eq!(event["event_type"], "billing.invoice_paid");
        assert_eq!(event["data"], data);
        assert_eq!(event["origin_device_id"], Value::Null);
        // In turn with the user's own.
        me.put("song", "x").await.ok(201);
        here.expect_event(2).await;
        assert_eq!(service.append(&me, "billing.paid", json!({})).await.seq(), 3);
        let log = me.log().await;
        let types: Vec<_> = log.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
        assert_eq!(types, ["billing.invoice_paid", "favorite.added", "billing.paid"]);
        there.ping().await;
        assert!(other.log().await.is_empty());
        assert_eq!(server.metric("service_events_total{result=\"stored\"}").await, 2);
    }

    async fn what_a_service_must_not_say_is_refused_by_name(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let service = Service::with(&server, &["events:append", "events:broadcast"]).await;
        let me = server.api().newcomer("mine").await;
        let path = format!("/users/{}/events", me.user_id);
        for path in [path.as_str(), "/events:broadcast"] {
            let with = |event_type: &str, data: Value| json!({"event_type": event_type, "data": data});
            for forged in ["favorite.added", "history.cleared", "playlist.replaced", "player.play",
                           "device.removed", "sync.x", "billing", "Billing.paid", ""] {
                service.post(path, &with(forged, json!({}))).await.invalid("event_type");
            }
            let around = json!({"a": ""}).to_string().len();
            for wrong in [json!([]), json!("x"), Value::Null, json!({"a": "\0"}),
                          json!({"a": "x".repeat(16 * 1024 - around + 1)})] {
                service.post(path, &with("a.b", wrong)).await.invalid("data");
            }
            service.post(path, &json!({"event_type": "a.b"})).await.invalid("data");
            service.post(path, &json!({"event_type": "a.b", "data": {}, "origin_device_id": "x"}))
                .await.invalid("origin_device_id");
        }
        let wide = json!({"a": "x".repeat(16 * 1024 - json!({"a": ""}).to_string().len())});
        service.append(&me, "a.b", wide).await.ok(201);
        assert_eq!(me.log().await.len(), 1);
        let nobody = Device { user_id: NOBODY.to_owned(), ..me.clone() };
        service.append(&nobody, "a.b", json!({})).await.problem(404, "user_not_found");
        let nobody = Device { user_id: "me".to_owned(), ..me };
        service.append(&nobody, "a.b", json!({})).await.invalid("id");
    }

    async fn quotas_are_of_a_key_a_user_and_an_hour(engine) {
        let settings = [INTERNAL, ("services.user_events_per_hour", "5")];
        let server = Server::with(engine, &settings).await;
        let few = Service::made(&server, APPEND, &["--events-per-hour", "3"]).await;
        let many = Service::with(&server, APPEND).await;
        let me = server.api().newcomer("mine").await;
        let other = server.api().newcomer("other").await;
        clear_of_the_hour(6).await;
        // Many at once: no more than the quota get through.
        let asked = (0..8).map(|_| {
            let (few, me) = (few.clone(), me.clone());
            tokio::spawn(async move { few.append(&me, "a.b", json!({})).await.status })
        });
        let asked: Vec<_> = asked.collect();
        let mut stored = 0;
        for status in asked {
            let status = status.await.unwrap();
            assert!([201, 429].contains(&status), "{status}");
            stored += u32::from(status == 201);
        }
        assert_eq!(stored, 3);
        let over = few.append(&me, "a.b", json!({})).await;
        let wait: u64 = over.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&wait), "{wait}");
        assert_eq!(over.problem(429, "quota_exceeded")["quota"], "key");
        // What is left is for the other key, and not for all keys that may come.
        for _ in 0..2 {
            many.append(&me, "a.b", json!({})).await.ok(201);
        }
        let over = many.append(&me, "a.b", json!({})).await;
        assert_eq!(over.problem(429, "quota_exceeded")["quota"], "user");
        // Neither the user's own commands nor other users are touched.
        me.put("song", "x").await.ok(201);
        few.append(&other, "a.b", json!({})).await.ok(201);
        assert_eq!(me.log().await.len(), 6);
        for (result, count) in [("stored", 6), ("over_key_quota", 6), ("over_user_quota", 1)] {
            let name = format!("service_events_total{{result=\"{result}\"}}");
            assert_eq!(server.metric(&name).await, count, "{result}");
        }
    }

    async fn what_is_of_services_is_no_more_than_their_share_of_a_log(engine) {
        let settings = [
            INTERNAL,
            ("services.user_events_per_hour", "2"),
            ("services.log_share_percent", "1"),
            ("sync.retention_max_events", "5000"),
            ("sync.retention_min_events", "0"),
            ("sync.retention_min_hours", "0"),
            ("sync.trim_interval_ms", "20"),
        ];
        let server = Server::with(engine, &settings).await;
        let service = Service::with(&server, APPEND).await;
        let me = server.api().newcomer("mine").await;
        clear_of_the_hour(20).await;
        // As if the others had come in the hours before.
        rows::append(&server, &me, "x", 49, 49).await;
        rows::are_of_services(&server, &me, 49).await;
        service.append(&me, "a.b", json!({})).await.ok(201);
        let over = service.append(&me, "a.b", json!({})).await;
        let wait: u64 = over.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&wait), "{wait}");
        assert_eq!(over.problem(429, "quota_exceeded")["quota"], "log");
        let broadcast = json!({"event_type": "a.c", "data": {}});
        let news = Service::with(&server, &["events:broadcast"]).await;
        let id = news.broadcast(&broadcast).await;
        assert_eq!(news.finished(&id).await["skipped"], 1);
        assert_eq!(server.metric("service_events_total{result=\"over_log_share\"}").await, 1);
        // The user's own go on, and when those of services are trimmed, there is room again.
        me.put("song", "x").await.ok(201);
        rows::append(&server, &me, "y", 5_100, 5_100).await;
        eventually("there is room", async || {
            service.append(&me, "a.b", json!({})).await.status == 201
        }).await;
    }

    async fn services_leave_most_places_of_a_session_to_its_user(engine) {
        let settings = [INTERNAL, WITH_TOKEN, ("database.write_timeout_ms", "20000")];
        let server = Server::with(engine, &settings).await;
        let service = Service::with(&server, APPEND).await;
        let me = server.api().newcomer("mine").await;
        me.put("song", "a").await.ok(201);
        let held = Held::take(&server, &me).await;
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let (service, me) = (service.clone(), me.clone());
            asked.spawn(async move { service.append(&me, "a.b", json!({})).await });
        }
        for _ in 0..4 {
            let refused = asked.join_next().await.unwrap().unwrap();
            assert!(refused.header("retry-after").is_some());
            refused.problem(503, "overloaded");
        }
        let mine: Vec<_> = (0..20).map(|n| {
            let me = me.clone();
            tokio::spawn(async move { me.put("song", &format!("s{n}")).await.status })
        }).collect();
        let admin = Admin::of(&server);
        eventually("all of them wait", async || {
            admin.session(&me).await["in_progress"]["commands"] == 28
        }).await;
        held.release().await;
        while let Some(stored) = asked.join_next().await {
            stored.unwrap().ok(201);
        }
        for status in mine {
            assert_eq!(status.await.unwrap(), 201);
        }
        assert_eq!(me.log().await.len(), 29);
    }

    async fn a_call_that_is_repeated_appends_once(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let scopes = ["events:append", "events:broadcast"];
        let service = Service::with(&server, &scopes).await;
        let other = Service::with(&server, &scopes).await;
        let me = server.api().newcomer("mine").await;
        let path = format!("/users/{}/events", me.user_id);
        let body = json!({"event_type": "a.b", "data": {"n": 1}});
        let send_as = async |service: &Service, path: &str, body: &Value| {
            let request = service.request(reqwest::Method::POST, path).json(body);
            send(request.header("Idempotency-Key", "order-7")).await
        };
        let (one, two) = tokio::join!(
            send_as(&service, &path, &body),
            send_as(&service, &path, &body),
        );
        assert_eq!((one.seq(), two.seq()), (1, 1));
        assert_eq!(one.ok(201), two.ok(201));
        me.put("song", "x").await.ok(201);
        assert_eq!(send_as(&service, &path, &body).await.seq(), 1);
        let changed = json!({"event_type": "a.b", "data": {"n": 2}});
        send_as(&service, &path, &changed).await.problem(422, "idempotency_key_reused");
        // Another service's key of the same name is its own.
        assert_eq!(send_as(&other, &path, &body).await.seq(), 3);
        assert_eq!(me.log().await.len(), 3);

        send_as(&service, "/events:broadcast", &body).await.problem(422, "idempotency_key_reused");
        let again = |service: &Service, body: &Value| {
            let request = service.request(reqwest::Method::POST, "/events:broadcast").json(body);
            send(request.header("Idempotency-Key", "news-7"))
        };
        let (one, two) = tokio::join!(again(&service, &body), again(&service, &body));
        let id = one.ok(202)["id"].clone();
        assert_eq!(two.ok(202)["id"], id);
        service.finished(id.as_str().unwrap()).await;
        assert_eq!(again(&service, &body).await.ok(202)["id"], id);
        again(&service, &changed).await.problem(422, "idempotency_key_reused");
        assert_eq!(me.log().await.len(), 4);
        let listed = service.get("/broadcasts").await.ok(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    }

    async fn a_service_sees_what_devices_have_not_acknowledged(engine) {
        let server = Server::with(engine, &[INTERNAL]).await;
        let service = Service::with(&server, &["offline:read"]).await;
        let one = server.api().newcomer("one").await;
        let two = server.api().login(&one.phone, "two").await;
        for n in 1..=5 {
            one.put("song", &format!("s{n}")).await.ok(201);
        }
        let (_, epoch) = one.head().await;
        two.ack(5, &epoch).await.ok(200);
        one.ack(2, &epoch).await.ok(200);
        let view = service.offline(&one, "").await.ok(200);
        assert_shape(&view, json!({
            "user_id": one.user_id, "epoch": epoch, "head_seq": 5, "floor_seq": 0,
            "items": [
                {"id": one.id, "device_id": "one", "platform": "ios", "name": "one's", "acked_seq": 2,
                 "events": 3, "resync": false, "oldest_at": "<time>", "last_active_at": "<time>"},
                {"id": two.id, "device_id": "two", "platform": "ios", "name": "two's", "acked_seq": 5,
                 "events": 0, "resync": false, "oldest_at": null, "last_active_at": "<time>"},
            ],
        }));
        let log = one.log().await;
        assert_eq!(view["items"][0]["oldest_at"], log[2]["timestamp"]);
        let page = service.offline(&one, &format!("?device={}&limit=2", one.id)).await.ok(200);
        let mut events = page["items"].as_array().unwrap().clone();
        let cursor = page["next_cursor"].as_str().unwrap();
        let next = format!("?device={}&limit=2&cursor={cursor}", one.id);
        let page = service.offline(&one, &next).await.ok(200);
        assert_eq!(page["next_cursor"], Value::Null);
        events.extend(page["items"].as_array().unwrap().clone());
        for (event, stored) in events.iter().zip(&log[2..]) {
            for field in ["id", "seq", "event_type", "data", "origin_device_id", "timestamp"] {
                assert_eq!(event[field], stored[field], "{field}");
            }
            assert_eq!(event.get("ack_token"), None, "it is no device's");
        }
        assert_eq!(events.len(), 3);
        // Looking changes nothing.
        assert_eq!(service.offline(&one, "").await.ok(200), view);
        let none = service.offline(&one, &format!("?device={}", two.id)).await.ok(200);
        assert_eq!(none, json!({"items": [], "next_cursor": null}));

        service.offline(&one, &format!("?device={NOBODY}")).await.problem(404, "device_not_found");
        for (query, field) in [("?device=x", "device"), ("?limit=1", "limit"), ("?cursor=x", "cursor"),
                               ("?all=true", "all")] {
            service.offline(&one, query).await.invalid(field);
        }
        let device = format!("?device={}", one.id);
        service.offline(&one, &format!("{device}&cursor=x")).await.invalid("cursor");
        service.offline(&one, &format!("{device}&limit=0")).await.invalid("limit");
        let nobody = Device { user_id: NOBODY.to_owned(), ..one };
        service.offline(&nobody, "").await.problem(404, "user_not_found");
    }

    async fn what_the_log_no_longer_has_is_said(engine) {
        let settings = [
            INTERNAL,
            ("services.user_events_per_hour", "1"),
            ("sync.retention_max_events", "50"),
            ("sync.retention_min_events", "24"),
            ("sync.retention_min_hours", "0"),
            ("sync.trim_interval_ms", "20"),
        ];
        let server = Server::with(engine, &settings).await;
        let service = Service::with(&server, &["offline:read"]).await;
        let me = server.api().newcomer("mine").await;
        me.put("song", "a").await.ok(201);
        me.put("song", "b").await.ok(201);
        let device = format!("?device={}&limit=1", me.id);
        let page = service.offline(&me, &device).await.ok(200);
        let cursor = page["next_cursor"].as_str().unwrap().to_owned();
        rows::append(&server, &me, "x", 120, 120).await;
        // The device must load anew, so nobody needs what is beyond the least.
        eventually("it is trimmed", async || {
            service.offline(&me, "").await.ok(200)["floor_seq"] == 98
        }).await;
        let view = service.offline(&me, "").await.ok(200);
        let item = &view["items"][0];
        assert_eq!((&item["events"], &item["resync"], &item["acked_seq"]), (&json!(24), &json!(true), &json!(0)));
        // What is there is shown, and no page has a hole.
        let page = service.offline(&me, &device).await.ok(200);
        assert_eq!(page["items"][0]["seq"], 99);
        let next = format!("{device}&cursor={cursor}");
        service.offline(&me, &next).await.problem(410, "log_compacted");
        let other = server.api().newcomer("other").await;
        let mixed = format!("?device={}&cursor={cursor}", other.id);
        service.offline(&other, &mixed).await.problem(410, "epoch_changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_reaches_a_device_on_another_node() {
    for hinted in [true, false] {
        let url = redis();
        let settings = [INTERNAL, ("redis.url", url.as_str())];
        let cluster = Cluster::with(if hinted { &settings } else { &settings[..1] }).await;
        let service = Service::with(&cluster.a, &["events:append", "events:broadcast"]).await;
        let me = cluster.b.api().newcomer("mine").await;
        let mut socket = Socket::open(&me).await;
        service.append(&me, "a.b", json!({})).await.ok(201);
        socket.expect_event(1).await;
        // Whichever node works at it.
        service
            .broadcast(&json!({"event_type": "a.c", "data": {}}))
            .await;
        assert_eq!(socket.expect_event(2).await["event_type"], "a.c");
    }
}

/// The hour of the clock does not end within so many seconds.
async fn clear_of_the_hour(secs: i64) {
    let now = || {
        listen_stream::domain::clock::World::system()
            .now()
            .timestamp()
    };
    while now().rem_euclid(3600) > 3600 - secs {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[cfg(feature = "faults")]
mod clock {
    use super::*;
    use crate::clock_set::set_clock;

    both_engines! {
        async fn the_next_hour_has_room_again(engine) {
            let server = Server::with(engine, &[INTERNAL]).await;
            let service = Service::made(&server, APPEND, &["--events-per-hour", "2"]).await;
            let me = server.api().newcomer("mine").await;
            // The clock stands shortly before and after the turns of hours.
            let now = listen_stream::domain::clock::World::system().now().timestamp();
            let to_the_hour = 3600 - now.rem_euclid(3600);
            let mut stored = 0;
            for hour in 0..3 {
                set_clock(&server, to_the_hour + hour * 3600 + 60);
                for _ in 0..2 {
                    service.append(&me, "a.b", json!({})).await.ok(201);
                    stored += 1;
                }
                let over = service.append(&me, "a.b", json!({})).await;
                let wait: i64 = over.header("retry-after").unwrap().parse().unwrap();
                assert!((3400..=3540).contains(&wait), "{wait}");
                over.problem(429, "quota_exceeded");
            }
            // A clock that goes back, and one that was days ahead, lock nobody out for days.
            set_clock(&server, to_the_hour - 48 * 3600 + 60);
            service.append(&me, "a.b", json!({})).await.ok(201);
            assert_eq!(me.log().await.len(), stored + 1);
        }
    }
}
