//! The history of plays: batches and what becomes of each play, removal, clearing, lists, and what
//! another device hears of it.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures_util::future::join_all;
use listen_stream::domain::clock::World;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, Device, Server, Socket, assert_shape,
    client::{send, try_send},
    dice::Dice,
};

pub fn now() -> DateTime<Utc> {
    World::system().now()
}

/// As the server writes it.
fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn id(n: u64) -> String {
    format!("01990000-0000-4000-8000-{n:012}")
}

/// Play `n`, of so long ago.
pub fn play(n: u64, at: DateTime<Utc>) -> Value {
    json!({
        "id": id(n), "song_id": format!("s:{n}"), "song_name": format!("Söng {n}"),
        "artist_name": "Artist", "duration": 180 + n, "played_at": text(at),
    })
}

/// Plays of these numbers, each a second after the one before, the last of a minute ago.
pub fn plays(numbers: std::ops::Range<u64>, last: u64) -> Value {
    let newest = now() - TimeDelta::minutes(1);
    let of = |n: u64| newest - TimeDelta::seconds(i64::try_from(last - n).unwrap());
    let all: Vec<_> = numbers.map(|n| play(n, of(n))).collect();
    json!({ "plays": all })
}

fn add_request(me: &Device, body: &Value, key: Option<&str>) -> reqwest::RequestBuilder {
    let request = me.request(Method::POST, "/v1/me/history").json(body);
    match key {
        Some(key) => request.header("Idempotency-Key", key),
        None => request,
    }
}

pub async fn add(me: &Device, body: &Value, key: Option<&str>) -> Answer {
    send(add_request(me, body, key)).await
}

async fn delete(me: &Device, path: &str, key: Option<&str>) -> Answer {
    let request = me.request(Method::DELETE, &format!("/v1/me/history{path}"));
    send(match key {
        Some(key) => request.header("Idempotency-Key", key),
        None => request,
    })
    .await
}

/// The whole history, page by page.
pub async fn history(me: &Device, limit: usize) -> Vec<Value> {
    let (mut all, mut query) = (Vec::new(), format!("?limit={limit}"));
    loop {
        let page = me.get(&format!("/v1/me/history{query}")).await.ok(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        all.extend(items.iter().cloned());
        let Some(cursor) = page["next_cursor"].as_str() else {
            return all;
        };
        assert!(!items.is_empty(), "an empty page names a next one");
        query = format!("?limit={limit}&cursor={cursor}");
    }
}

fn ids(items: &[Value]) -> Vec<&str> {
    items.iter().map(|it| it["id"].as_str().unwrap()).collect()
}

/// How often each status and reason comes.
fn counted(answer: &Value) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for result in answer["results"].as_array().unwrap() {
        let what = result.get("reason").unwrap_or(&result["status"]);
        *counts.entry(what.as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

/// What a device has that applies events, by time and id.
#[derive(Default)]
struct Follower(BTreeMap<(String, String), Value>);

impl Follower {
    fn apply(&mut self, event: &Value) {
        let data = &event["data"];
        let name = |it: &Value| {
            let part = |field: &str| it[field].as_str().unwrap().to_owned();
            (part("played_at"), part("id"))
        };
        match event["event_type"].as_str().unwrap() {
            "history.added" => {
                for play in data["plays"].as_array().unwrap() {
                    self.0.insert(name(play), play.clone());
                }
                if data["oldest"].is_object() {
                    self.0 = self.0.split_off(&name(&data["oldest"]));
                }
            }
            "history.removed" => {
                let gone = data["ids"].as_array().unwrap();
                self.0.retain(|(_, id), _| !gone.contains(&json!(id)));
            }
            "history.trimmed" => self.0 = self.0.split_off(&name(&data["oldest"])),
            "history.cleared" => self.0.clear(),
            other => panic!("{other}"),
        }
    }

    fn newest_first(&self) -> Vec<Value> {
        self.0.values().rev().cloned().collect()
    }
}

both_engines! {
    async fn plays_are_added_told_and_listed(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("one").await;
        let other = server.api().login(&me.phone, "two").await;
        let mut socket = Socket::open(&other).await;
        let at = now();
        let body = json!({"plays": [
            play(1, at - TimeDelta::seconds(9)),
            play(2, at - TimeDelta::seconds(5)),
            // A clock that is ten minutes ahead, and one that is a little ahead.
            play(3, at + TimeDelta::minutes(10)),
            play(4, at + TimeDelta::minutes(4)),
            play(2, at),
        ]});
        let added = add(&me, &body, None).await;
        assert_eq!(added.seq(), 1);
        let added = added.ok(200);
        assert_shape(&added["results"][0], json!({
            "id": id(1), "status": "added", "played_at": body["plays"][0]["played_at"],
        }));
        assert_shape(&added["results"][4], json!({
            "id": id(2), "status": "ignored", "reason": "duplicate",
            "played_at": body["plays"][1]["played_at"],
        }));
        let clamped = added["results"][2]["played_at"].as_str().unwrap();
        let clamped: DateTime<Utc> = clamped.parse().unwrap();
        assert!(clamped >= at && clamped <= now(), "{clamped}");
        assert_eq!(added["results"][3]["played_at"], body["plays"][3]["played_at"]);

        let listed = history(&me, 200).await;
        assert_eq!(ids(&listed), [id(4), id(3), id(2), id(1)]);
        assert_eq!(listed[3], body["plays"][0]);
        assert_eq!(history(&other, 1).await, listed);
        let event = socket.expect_event(1).await;
        assert_eq!(event["event_type"], "history.added");
        assert_eq!(event["origin_device_id"], "one");
        let mut follower = Follower::default();
        follower.apply(&event);
        assert_eq!(follower.newest_first(), listed);

        // The same again changes nothing, and says what is kept.
        let again = add(&me, &body, None).await;
        assert_eq!(again.seq(), 1);
        let again = again.ok(200);
        assert_eq!(counted(&again), BTreeMap::from([("duplicate".into(), 5)]));
        for (first, again) in added["results"].as_array().unwrap().iter()
            .zip(again["results"].as_array().unwrap()) {
            assert_eq!(first["played_at"], again["played_at"]);
        }
        assert_eq!(me.log().await.len(), 1);
    }

    async fn the_501st_and_what_is_removed(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("one").await;
        let other = server.api().login(&me.phone, "two").await;
        let mut follower = Follower::default();
        for from in [0, 200, 400] {
            let added = add(&me, &plays(from..from + 200, 600), None).await.ok(200);
            assert_eq!(counted(&added), BTreeMap::from([("added".into(), 200)]));
        }
        let listed = history(&me, 137).await;
        let newest: Vec<_> = (100..600).rev().map(id).collect();
        assert_eq!(ids(&listed), newest);
        let late = json!({"plays": [play(0, now() - TimeDelta::hours(1))]});
        let late = add(&other, &late, None).await.ok(200);
        assert_eq!(counted(&late), BTreeMap::from([("too_old".into(), 1)]));

        let path = format!("/{}", id(300));
        delete(&other, &path, None).await.ok(204);
        let head = me.head().await.0;
        let again = delete(&me, &path, None).await;
        assert_eq!(again.seq(), head);
        again.ok(204);
        delete(&me, &format!("/{}", id(7)), None).await.problem(404, "play_not_found");
        delete(&me, "/7", None).await.invalid("id");
        let back = json!({"plays": [play(300, now())]});
        let back = add(&me, &back, None).await.ok(200);
        assert_eq!(counted(&back), BTreeMap::from([("removed".into(), 1)]));

        // A device that heard everything has the same.
        for event in me.log().await {
            follower.apply(&event);
        }
        let listed = history(&other, 200).await;
        assert_eq!(listed.len(), 499);
        assert_eq!(follower.newest_first(), listed);
        // Nobody else has any of it.
        let stranger = server.api().newcomer("one").await;
        assert!(history(&stranger, 200).await.is_empty());
        delete(&stranger, &path, None).await.problem(404, "play_not_found");
    }

    async fn a_cleared_history_ignores_what_is_late(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("one").await;
        let other = server.api().login(&me.phone, "two").await;
        let mut socket = Socket::open(&other).await;
        add(&me, &plays(0..5, 5), None).await.ok(200);
        socket.expect_event(1).await;
        let cleared = delete(&me, "", Some("clear-1")).await;
        assert_eq!(cleared.seq(), 2);
        cleared.ok(204);
        let event = socket.expect_event(2).await;
        assert_eq!(event["event_type"], "history.cleared");
        assert_shape(&event["data"], json!({"cleared_at": "<time>", "version": 2}));
        assert!(history(&other, 10).await.is_empty());
        // What was played before arrives now.
        let late = add(&other, &plays(0..7, 7), None).await.ok(200);
        assert_eq!(counted(&late), BTreeMap::from([("cleared".into(), 7)]));
        let fresh = json!({"plays": [play(9, now())]});
        add(&other, &fresh, None).await.ok(200);
        // The call's answer was lost, and it comes again: what was played since stays.
        delete(&me, "", Some("clear-1")).await.ok(204);
        assert_eq!(ids(&history(&me, 10).await), [id(9)]);
        delete(&me, "", None).await.ok(204);
        // Of an empty history too: what was played in between is late.
        let between = json!({"plays": [play(10, now())]});
        delete(&me, "", None).await.ok(204);
        let late = add(&other, &between, None).await.ok(200);
        assert_eq!(counted(&late), BTreeMap::from([("cleared".into(), 1)]));
    }

    async fn a_call_with_a_key_is_done_once(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("one").await;
        let other = server.api().login(&me.phone, "two").await;
        let body = plays(0..3, 3);
        let calls = join_all((0..8).map(|_| add(&me, &body, Some("k")))).await;
        for call in &calls {
            assert_eq!((call.status, call.seq()), (200, 1), "{:#}", call.body);
            assert_eq!(call.body, calls[0].body, "each says what the first one did");
        }
        assert_eq!(counted(&calls[0].body), BTreeMap::from([("added".into(), 3)]));
        assert_eq!(me.log().await.len(), 1);
        // The key is the user's, whichever device.
        let reused = add(&other, &plays(5..6, 6), Some("k")).await;
        reused.problem(422, "idempotency_key_reused");
        delete(&me, "", Some("k")).await.problem(422, "idempotency_key_reused");
        assert_eq!(history(&me, 10).await.len(), 3);
        let long = "x".repeat(129);
        for key in ["", &long, "ä"] {
            let answer = add(&me, &body, Some(key)).await;
            assert_eq!(answer.status, 400, "{:#}", answer.body);
            assert_eq!(answer.body["errors"][0]["field"], "Idempotency-Key");
        }
        // Another user's key is another.
        let stranger = server.api().newcomer("one").await;
        add(&stranger, &plays(5..6, 6), Some("k")).await.ok(200);
    }

    async fn bad_plays_are_refused_by_field(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("one").await;
        let long = "x".repeat(257);
        let cases = [
            ("id", json!("x"), "plays[1].id"),
            ("song_id", json!("a b"), "plays[1].song_id"),
            ("song_name", json!(""), "plays[1].song_name"),
            ("song_name", json!(long), "plays[1].song_name"),
            ("artist_name", json!("a\u{0}"), "plays[1].artist_name"),
            ("duration", json!(86_401), "plays[1].duration"),
            ("duration", json!(-1), "plays[1].duration"),
            ("duration", json!("1"), "plays[1].duration"),
            ("played_at", json!("now"), "plays[1].played_at"),
            ("played_at", json!("1969-12-31T23:59:59Z"), "plays[1].played_at"),
            ("mood", json!("good"), "plays[1].mood"),
        ];
        for (field, value, named) in cases {
            let mut body = plays(0..2, 2);
            body["plays"][1][field] = value;
            add(&me, &body, None).await.invalid(named);
        }
        let mut missing = plays(0..2, 2);
        missing["plays"][0].as_object_mut().unwrap().remove("artist_name");
        add(&me, &missing, None).await.invalid("plays[0].artist_name");
        for body in [json!({"plays": []}), plays(0..201, 201), json!({})] {
            add(&me, &body, None).await.invalid("plays");
        }
        add(&me, &json!({"plays": [], "more": 1}), None).await.invalid("more");
        for query in ["?limit=0", "?limit=201"] {
            me.get(&format!("/v1/me/history{query}")).await.invalid("limit");
        }
        me.get("/v1/me/history?cursor=nonsense").await.invalid("cursor");
        assert!(me.log().await.is_empty());
        let mut largest = plays(0..1, 1);
        largest["plays"][0]["song_name"] = json!("𝄞".repeat(256));
        largest["plays"][0]["artist_name"] = json!("");
        largest["plays"][0]["duration"] = json!(86_400);
        largest["plays"][0]["played_at"] = json!("1970-01-01T00:00:00Z");
        assert_eq!(counted(&add(&me, &largest, None).await.ok(200)), BTreeMap::from([("added".into(), 1)]));
    }

    async fn lists_have_tags(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("one").await;
        add(&me, &plays(0..3, 3), None).await.ok(200);
        me.put("song", "x").await.ok(201);
        for path in ["/v1/me/history?limit=2", "/v1/me/favorites", "/v1/me/devices"] {
            let first = me.get(path).await;
            let tag = first.header("etag").unwrap().to_owned();
            assert_eq!(first.header("cache-control"), Some("private, no-cache"), "{path}");
            let asked = |tag: &str| {
                let request = me.request(Method::GET, path);
                send(request.header("If-None-Match", tag))
            };
            let same = asked(&format!("W/\"other\", {tag}")).await;
            assert_eq!((same.status, &same.body, same.header("etag")), (304, &Value::Null, Some(&*tag)));
            assert_eq!(asked("\"other\"").await.ok(200), first.body);
        }
        let tag = me.get("/v1/me/history").await.header("etag").unwrap().to_owned();
        add(&me, &plays(3..4, 4), None).await.ok(200);
        let request = me.request(Method::GET, "/v1/me/history");
        let changed = send(request.header("If-None-Match", &tag)).await;
        assert_eq!(changed.ok(200)["items"].as_array().unwrap().len(), 4);
    }

    async fn two_devices_bring_the_same_at_once(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("one").await;
        let other = server.api().login(&me.phone, "two").await;
        let mut socket = Socket::open(&other).await;
        let batches: Vec<_> = (0..6).map(|n| plays(n * 20..n * 20 + 40, 200)).collect();
        let calls = batches.iter().flat_map(|body| [add(&me, body, None), add(&other, body, None)]);
        let answers = join_all(calls).await;
        let added: usize = answers.iter().map(|it| counted(&it.body).get("added").copied().unwrap_or(0)).sum();
        assert_eq!(added, 140);
        let head = me.head().await.0;
        let mut follower = Follower::default();
        for event in socket.expect_events(1, head).await {
            follower.apply(&event);
        }
        let listed = history(&me, 200).await;
        assert_eq!(listed.len(), 140);
        assert_eq!(follower.newest_first(), listed);
    }

    /// The server dies while a batch is on its way: sent again, each play is there once.
    async fn a_batch_of_which_no_answer_came_is_sent_again(engine) {
        let mut server = Server::start(engine).await;
        let mut me = server.api().newcomer("one").await;
        let mut dice = Dice::new(Dice::seed("a_batch_of_which_no_answer_came_is_sent_again"));
        let mut lost = 0;
        for round in 0..6 {
            let body = plays(round * 50..round * 50 + 50, 300);
            let key = format!("round-{round}");
            let call = try_send(add_request(&me, &body, Some(&key)));
            let dies = tokio::time::sleep(Duration::from_micros(dice.below(8000)));
            let answered = tokio::select! {
                answer = call => Some(answer.unwrap().ok(200)),
                () = dies => None,
            };
            lost += usize::from(answered.is_none());
            server.kill9();
            server.restart().await;
            me = me.at(&server);
            // With the key, what the first call did is told; without it, that all of it is there.
            let again = add(&me, &body, Some(&key)).await.ok(200);
            assert_eq!(counted(&again), BTreeMap::from([("added".into(), 50)]));
            let once_more = add(&me, &body, None).await.ok(200);
            assert_eq!(counted(&once_more), BTreeMap::from([("duplicate".into(), 50)]));
        }
        println!("{lost} of 6 calls had no answer");
        let mut follower = Follower::default();
        let log = me.log().await;
        let told = log.iter().map(|it| it["data"]["plays"].as_array().unwrap().len());
        assert_eq!(told.sum::<usize>(), 300, "none is told twice");
        for event in &log {
            follower.apply(event);
        }
        let listed = history(&me, 200).await;
        assert_eq!(listed.len(), 300);
        assert_eq!(follower.newest_first(), listed);
    }
}
