//! Playlists: what each call answers and refuses, devices that edit at once, a device that only applies
//! events, big lists, calls whose answer was lost.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, Device, Server, Socket, assert_shape,
    client::{send, try_send},
    dice::Dice,
};

const LISTS: &str = "/v1/me/playlists";

both_engines! {
    async fn a_playlist_lives_dies_and_comes_back(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let made = post(&me, LISTS, &json!({"name": "Äb🎵"})).await;
        let place = made.header("location").unwrap().to_owned();
        assert_eq!((made.seq(), tag(&made)), (1, 1));
        let list = made.ok(201);
        assert_shape(&list, json!({
            "id": "<uuid>", "name": "Äb🎵", "cover_url": null, "is_public": false,
            "song_count": 0, "version": 1, "created_at": "<time>", "updated_at": "<time>",
        }));
        assert_eq!(place, format!("{LISTS}/{}", list["id"].as_str().unwrap()));
        let read = me.get(&place).await;
        assert_eq!(tag(&read), 1);
        let known = read.header("etag").unwrap().to_owned();
        assert_eq!(read.ok(200), list);
        let known = me.request(Method::GET, &place).header("If-None-Match", known);
        assert_eq!(send(known).await.ok(304), Value::Null);

        let cover = json!({"cover_url": "https://covers.example/1.jpg", "is_public": true});
        let patched = patch(&me, &place, &cover).await;
        assert_eq!((patched.seq(), tag(&patched)), (2, 2));
        let patched = patched.ok(200);
        assert_eq!((&patched["name"], &patched["is_public"]), (&json!("Äb🎵"), &json!(true)));
        for nothing in [json!({}), cover.clone(), json!({"name": "Äb🎵"})] {
            let same = patch(&me, &place, &nothing).await;
            assert_eq!((same.seq(), same.ok(200)), (2, patched.clone()));
        }
        let bare = patch(&me, &place, &json!({"cover_url": null})).await.ok(200);
        assert_eq!((&bare["cover_url"], &bare["version"]), (&Value::Null, &json!(3)));

        add(&me, &place, &["a", "b", "a"]).await;
        let before = songs(&me, &place).await;
        assert_eq!(delete(&me, &place).await.seq(), 5);
        let again = delete(&me, &place).await;
        assert_eq!((again.seq(), again.ok(204)), (5, Value::Null));
        for gone in [
            me.get(&place).await,
            me.get(&format!("{place}/songs")).await,
            patch(&me, &place, &json!({"name": "x"})).await,
            post(&me, &format!("{place}/songs"), &json!({"song_ids": ["x"]})).await,
        ] {
            gone.problem(404, "playlist_not_found");
        }
        assert!(lists(&me, "").await.is_empty());
        let deleted = lists(&me, "?deleted=true").await;
        assert_eq!((deleted.len(), &deleted[0]["version"]), (1, &json!(5)));

        let restored = post(&me, &format!("{place}/restore"), &json!({})).await;
        // Once for the playlist, once for its songs.
        assert_eq!((restored.seq(), tag(&restored)), (7, 7));
        assert_eq!(restored.ok(200)["song_count"], 3);
        assert_eq!(songs(&me, &place).await, before);
        let again = post(&me, &format!("{place}/restore"), &json!({})).await;
        assert_eq!((again.seq(), again.ok(200)["version"].clone()), (7, json!(7)));
        let types: Vec<Value> = me.log().await.iter().map(|e| e["event_type"].clone()).collect();
        assert_eq!(types, [
            "playlist.created", "playlist.updated", "playlist.updated", "playlist.songs_added",
            "playlist.deleted", "playlist.restored", "playlist.songs_added",
        ]);
    }

    async fn two_devices_edit_at_once_and_one_wins(engine) {
        let server = Server::start(engine).await;
        let one = server.api().newcomer("one").await;
        let two = server.api().login(&one.phone, "two").await;
        let place = create(&one).await;
        add(&one, &place, &["a", "b", "c", "d"]).await;
        let mut won = one.get(&place).await;
        for round in 1..=12 {
            let condition = won.header("etag").unwrap().to_owned();
            // Each is about something else; both would change something.
            let there = songs(&one, &place).await;
            let (front, back) = (there[0]["id"].clone(), there[there.len() - 1]["id"].clone());
            let body = |n: usize| match (round % 3, n) {
                (0, 0) => (Method::POST, "/songs:move", json!({"entry_ids": [back], "after": null})),
                (0, _) => (Method::POST, "/songs:move", json!({"entry_ids": [front], "before": null})),
                (1, n) => (Method::POST, "/songs", json!({"song_ids": [format!("s{n}")]})),
                (_, n) => (Method::PATCH, "", json!({"name": format!("r{round}-{n}")})),
            };
            let change = |device: &Device, n: usize| {
                let (method, how, body) = body(n);
                let path = format!("{place}{how}");
                let request = device.request(method, &path).json(&body);
                send(request.header("If-Match", &condition))
            };
            let (a, b) = join(change(&one, 0), change(&two, 1)).await;
            let (first, lost) = if a.status < 300 { (a, b) } else { (b, a) };
            won = first;
            let version = tag(&won);
            assert_eq!(version, won.seq());
            let refused = lost.problem(412, "precondition_failed");
            assert_eq!(refused["version"], version, "{refused:#}");
            let page = one.get(&format!("{place}/songs")).await;
            assert_eq!(tag(&page), version, "nothing half done");
        }
        let version = tag(&won);
        // What wins without a condition, wins always; `*` is no condition but that it is there.
        for condition in ["*", &format!("\"1\", W/\"2\", \"x\", \"{version}\"")] {
            let request = one.request(Method::PATCH, &place).json(&json!({"name": condition}));
            let answer = send(request.header("If-Match", condition)).await;
            match condition {
                "*" => assert_eq!(answer.ok(200)["name"], "*"),
                _ => assert_eq!(answer.problem(412, "precondition_failed")["version"], version + 1),
            }
        }
        let request = one.request(Method::DELETE, &place).header("If-Match", "2");
        let bad = send(request).await.problem(400, "invalid_header");
        assert_eq!(bad["errors"][0]["field"], "If-Match");
        assert_eq!(u64::try_from(one.log().await.len()).unwrap(), version + 1);
    }

    async fn entries_are_named_and_go_where_they_are_told(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let place = create(&me).await;
        let entries = add(&me, &place, &["a", "b", "a"]).await;
        let id = |n: usize| entries[n]["id"].clone();
        let add_at = async |song: &str, at: Value| {
            let mut body = json!({"song_ids": [song]});
            body.as_object_mut().unwrap().extend(at.as_object().unwrap().clone());
            post(&me, &format!("{place}/songs"), &body).await.ok(201)
        };
        add_at("first", json!({"after": null})).await;
        add_at("last", json!({"before": null})).await;
        add_at("c", json!({"after": id(0)})).await;
        add_at("d", json!({"before": id(2)})).await;
        assert_eq!(order(&me, &place).await, ["first", "a", "c", "b", "d", "a", "last"]);
        let moved = |ids: Value, at: Value| {
            let mut body = json!({"entry_ids": ids});
            body.as_object_mut().unwrap().extend(at.as_object().unwrap().clone());
            let path = format!("{place}/songs:move");
            let me = &me;
            async move { post(me, &path, &body).await }
        };
        let head = me.head().await.0;
        assert_eq!(moved(json!([id(2), id(0)]), json!({"before": id(1)})).await.seq(), head + 1);
        assert_eq!(order(&me, &place).await, ["first", "c", "a", "a", "b", "d", "last"]);
        // Where they are already.
        for at in [json!({"before": id(1)})] {
            assert_eq!(moved(json!([id(2), id(0)]), at).await.seq(), head + 1);
        }
        assert_eq!(moved(json!([id(0)]), json!({"after": id(2)})).await.seq(), head + 1);
        moved(json!([id(1)]), json!({})).await.ok(200);
        moved(json!([id(0)]), json!({"after": null})).await.ok(200);
        assert_eq!(order(&me, &place).await, ["a", "first", "c", "a", "d", "last", "b"]);

        let gone = json!({"entry_ids": [id(0), id(1)]});
        let left = post(&me, &format!("{place}/songs:remove"), &gone).await;
        let head = left.seq();
        assert_eq!(left.ok(200)["song_count"], 5);
        let again = post(&me, &format!("{place}/songs:remove"), &gone).await;
        assert_eq!((again.seq(), again.ok(200)["song_count"].clone()), (head, json!(5)));
        assert_eq!(order(&me, &place).await, ["first", "c", "a", "d", "last"]);

        for (how, body, field) in [
            (":move", json!({"entry_ids": [id(2), id(0)]}), "entry_ids[1]"),
            (":move", json!({"entry_ids": [id(2)], "after": id(0)}), "after"),
            (":move", json!({"entry_ids": [id(2)], "before": id(1)}), "before"),
            ("", json!({"song_ids": ["x"], "after": id(0)}), "after"),
            ("", json!({"song_ids": ["x"], "before": id(0)}), "before"),
        ] {
            let refused = post(&me, &format!("{place}/songs{how}"), &body).await;
            let refused = refused.problem(404, "entry_not_found");
            assert_eq!(refused["errors"][0]["field"], field, "{refused:#}");
        }
        let mut ids: Vec<_> = songs(&me, &place).await.iter().map(|it| it["id"].clone()).collect();
        ids.reverse();
        let reversed = put(&me, &place, &json!({"entry_ids": ids})).await;
        assert_eq!(reversed.seq(), head + 1);
        assert_eq!(order(&me, &place).await, ["last", "d", "a", "c", "first"]);
        assert_eq!(put(&me, &place, &json!({"entry_ids": ids})).await.seq(), head + 1);
        let short = put(&me, &place, &json!({"entry_ids": ids[1..]})).await;
        let short = short.problem(409, "order_incomplete");
        assert_eq!((&short["missing"], &short["version"]), (&json!(1), &json!(head + 1)));
        ids.push(id(0));
        let foreign = put(&me, &place, &json!({"entry_ids": ids})).await;
        let foreign = foreign.problem(404, "entry_not_found");
        assert_eq!(foreign["errors"][0]["field"], "entry_ids[5]");
        put(&me, &place, &json!({"song_ids": ["z", "z"]})).await.ok(200);
        assert_eq!(order(&me, &place).await, ["z", "z"]);
        assert_eq!(put(&me, &place, &json!({"song_ids": []})).await.ok(200)["song_count"], 0);
        assert!(order(&me, &place).await.is_empty());
        let log = me.log().await;
        let replaced: Vec<_> = log.iter().filter(|e| e["event_type"] == "playlist.replaced").collect();
        assert_eq!(replaced.len(), 3);
        for event in replaced {
            let id = place.rsplit('/').next().unwrap();
            assert_eq!(event["data"], json!({"id": id, "version": event["seq"]}));
        }
    }

    async fn bad_input_is_refused_by_field(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let place = create(&me).await;
        let entries = add(&me, &place, &["a"]).await;
        let id = entries[0]["id"].clone();
        let (songs, long) = (format!("{place}/songs"), "x".repeat(1025));
        let many = vec!["x"; 1001];
        let head = me.head().await.0;
        let cases = [
            (Method::POST, LISTS, json!({}), "name"),
            (Method::POST, LISTS, json!({"name": ""}), "name"),
            (Method::POST, LISTS, json!({"name": "a\u{7}"}), "name"),
            (Method::POST, LISTS, json!({"name": &long[..129]}), "name"),
            (Method::POST, LISTS, json!({"name": "x", "cover_url": "http://x/"}), "cover_url"),
            (Method::POST, LISTS, json!({"name": "x", "cover_url": format!("https://{long}")}), "cover_url"),
            (Method::POST, LISTS, json!({"name": "x", "colour": 1}), "colour"),
            (Method::PATCH, &place, json!({"name": null}), "name"),
            (Method::PATCH, &place, json!({"is_public": null}), "is_public"),
            (Method::PATCH, &place, json!({"cover_url": 7}), "cover_url"),
            (Method::POST, &songs, json!({"song_ids": []}), "song_ids"),
            (Method::POST, &songs, json!({"song_ids": many}), "song_ids"),
            (Method::POST, &songs, json!({"song_ids": ["a b"]}), "song_ids[0]"),
            (Method::POST, &songs, json!({"song_ids": ["a"], "after": null, "before": null}), "before"),
            (Method::POST, &songs, json!({"song_ids": ["a"], "after": "x"}), "after"),
            (Method::POST, &format!("{songs}:move"), json!({"entry_ids": [id], "after": id}), "after"),
            (Method::POST, &format!("{songs}:move"), json!({"entry_ids": [id, id]}), "entry_ids"),
            (Method::POST, &format!("{songs}:remove"), json!({"entry_ids": []}), "entry_ids"),
            (Method::PUT, &songs, json!({}), "entry_ids"),
            (Method::PUT, &songs, json!({"entry_ids": [], "song_ids": []}), "song_ids"),
            (Method::PUT, &songs, json!({"entry_ids": null}), "entry_ids"),
        ];
        for (method, path, body, field) in cases {
            let answer = send(me.request(method, path).json(&body)).await;
            assert_eq!(answer.status, 422, "{path} {body}: {:#}", answer.body);
            answer.invalid(field);
        }
        for (query, field) in [
            ("?limit=0", "limit"), ("?limit=201", "limit"), ("?cursor=x", "cursor"), ("?deleted=2", "deleted"),
        ] {
            me.get(&format!("{LISTS}{query}")).await.invalid(field);
        }
        for (query, field) in [("?limit=1001", "limit"), ("?cursor=AAAA", "cursor"), ("?x=1", "x")] {
            me.get(&format!("{songs}{query}")).await.invalid(field);
        }
        me.get(&format!("{LISTS}/x")).await.invalid("id");
        assert_eq!(me.head().await.0, head);
    }

    async fn pages_are_of_one_order_or_none(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        for n in 0..5 {
            post(&me, LISTS, &json!({"name": format!("{n}")})).await.ok(201);
        }
        let first = me.get(&format!("{LISTS}?limit=3")).await;
        let known = first.header("etag").unwrap().to_owned();
        let first = first.ok(200);
        let cursor = first["next_cursor"].as_str().unwrap();
        let rest = lists(&me, &format!("?limit=3&cursor={cursor}")).await;
        let names = first["items"].as_array().unwrap().iter().chain(&rest);
        assert_eq!(names.map(|it| it["name"].clone()).collect::<Vec<_>>(), ["4", "3", "2", "1", "0"]);
        let again = me.request(Method::GET, &format!("{LISTS}?limit=3")).header("If-None-Match", &known);
        send(again).await.ok(304);

        let place = create(&me).await;
        let again = me.request(Method::GET, &format!("{LISTS}?limit=3")).header("If-None-Match", known);
        send(again).await.ok(200);
        let all: Vec<String> = (0..25).map(|n| format!("s{n}")).collect();
        add(&me, &place, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(order(&me, &place).await, all);
        let page = me.get(&format!("{place}/songs?limit=10")).await.ok(200);
        let next = format!("{place}/songs?limit=10&cursor={}", page["next_cursor"].as_str().unwrap());
        me.get(&next).await.ok(200);
        let version = patch(&me, &place, &json!({"name": "other"})).await.seq();
        let refused = me.get(&next).await.problem(412, "precondition_failed");
        assert_eq!(refused["version"], version);
        assert_eq!(order(&me, &place).await, all);
    }

    async fn a_device_that_applies_events_has_what_is_there(engine) {
        let server = Server::start(engine).await;
        let one = server.api().newcomer("one").await;
        let two = server.api().login(&one.phone, "two").await;
        let mut dice = Dice::new(Dice::seed("playlist events"));
        let place = create(&one).await;
        let mut socket = Socket::open(&two).await;
        let mut applied: Vec<Value> = Vec::new();
        let mut seq = 1;
        for _ in 0..60 {
            let there = songs(&one, &place).await;
            let mut distinct: Vec<Value> = Vec::new();
            for _ in 0..if there.is_empty() { 0 } else { 1 + dice.below(3) } {
                let id = there[dice.index(there.len())]["id"].clone();
                if !distinct.contains(&id) {
                    distinct.push(id);
                }
            }
            let after = match there.len() {
                0 => Value::Null,
                len => there[dice.index(len)]["id"].clone(),
            };
            let answer = match dice.below(8) {
                0..4 => {
                    let count = if dice.below(6) == 0 { 150 } else { 1 + dice.below(3) };
                    let songs: Vec<_> = (0..count).map(|n| format!("s{n}")).collect();
                    let body = json!({"song_ids": songs, "after": after});
                    post(&one, &format!("{place}/songs"), &body).await
                }
                4..6 => {
                    distinct.retain(|id| *id != after);
                    if distinct.is_empty() { continue; }
                    let body = json!({"entry_ids": distinct, "after": after});
                    post(&one, &format!("{place}/songs:move"), &body).await
                }
                6 => {
                    if distinct.is_empty() { continue; }
                    let body = json!({"entry_ids": distinct});
                    post(&one, &format!("{place}/songs:remove"), &body).await
                }
                _ => put(&one, &place, &json!({"song_ids": ["x", "y", "x"]})).await,
            };
            assert!(answer.status < 300, "{answer:#?}");
            let head = answer.seq();
            // The first is of the playlist's creation.
            for event in socket.expect_events(seq, head).await {
                apply(&two, &place, &mut applied, &event).await;
                socket.ack(&event).await;
            }
            seq = head + 1;
            let there = songs(&one, &place).await;
            assert_eq!(applied, there);
            assert_eq!(one.get(&place).await.ok(200)["song_count"], there.len());
        }
    }

    async fn ten_thousand_songs_and_no_more(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let place = create(&me).await;
        for part in 0..10 {
            let songs: Vec<_> = (0..1000).map(|n| format!("s{}", part * 1000 + n)).collect();
            let body = json!({"song_ids": songs});
            let answer = post(&me, &format!("{place}/songs"), &body).await.ok(201);
            assert_eq!(answer["playlist"]["song_count"], (part + 1) * 1000);
        }
        let full = post(&me, &format!("{place}/songs"), &json!({"song_ids": ["x"]})).await;
        let full = full.problem(409, "playlist_full");
        assert_eq!((&full["limit"], &full["song_count"]), (&json!(10_000), &json!(10_000)));
        let all = songs(&me, &place).await;
        let ids: Vec<_> = all.iter().map(|it| it["id"].clone()).collect();
        let body = json!({"entry_ids": [ids[9_999]], "before": ids[1]});
        post(&me, &format!("{place}/songs:move"), &body).await.ok(200);
        let body = json!({"entry_ids": ids[2..1002], "after": null});
        post(&me, &format!("{place}/songs:move"), &body).await.ok(200);
        let now: Vec<_> = songs(&me, &place).await.iter().map(|it| it["id"].clone()).collect();
        let mut expected = ids[2..1002].to_vec();
        expected.extend([ids[0].clone(), ids[9_999].clone(), ids[1].clone()]);
        expected.extend(ids[1002..9_999].to_vec());
        assert!(now == expected, "another order");
        let mut back = now.clone();
        back.reverse();
        put(&me, &place, &json!({"entry_ids": back})).await.ok(200);
        delete(&me, &place).await.ok(204);
        let restored = post(&me, &format!("{place}/restore"), &json!({})).await.ok(200);
        assert_eq!(restored["song_count"], 10_000);
        let log = me.log().await;
        let types: Vec<_> = log.iter().rev().take(5).rev().map(|e| e["event_type"].clone()).collect();
        assert_eq!(types, ["playlist.replaced", "playlist.replaced", "playlist.deleted",
            "playlist.restored", "playlist.replaced"]);
        let now: Vec<_> = songs(&me, &place).await.iter().map(|it| it["id"].clone()).collect();
        assert!(now == back, "another order");
    }

    async fn five_hundred_playlists_and_no_more(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let mut first = None;
        for _ in 0..25 {
            first = join_all((0..20).map(|_| create(&me))).await.pop();
        }
        let refused = post(&me, LISTS, &json!({"name": "one too many"})).await;
        assert_eq!(refused.problem(409, "playlist_limit_reached")["limit"], 500);
        delete(&me, &first.unwrap()).await.ok(204);
        create(&me).await;
    }

    async fn a_call_with_a_key_is_done_once(engine) {
        let mut server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let body = json!({"name": "once"});
        let keyed = |device: &Device, key: &str, body: &Value| {
            device.request(Method::POST, LISTS).header("Idempotency-Key", key).json(body)
        };
        let first = send(keyed(&me, "k", &body)).await;
        let made = first.header("etag").unwrap().to_owned();
        let again = send(keyed(&me, "k", &body)).await;
        assert_eq!(first.header("location"), again.header("location"));
        assert_eq!(first.ok(201), again.ok(201));
        send(keyed(&me, "k", &json!({"name": "other"}))).await.problem(422, "idempotency_key_reused");
        let place = format!("{LISTS}/{}", lists(&me, "").await[0]["id"].as_str().unwrap());
        let add = |device: &Device| {
            let request = device.request(Method::POST, &format!("{place}/songs"));
            request.header("Idempotency-Key", "a").header("If-Match", &made)
                .json(&json!({"song_ids": ["x", "y"]}))
        };
        let first = send(add(&me)).await.ok(201);
        // The version is another one by now; the call was done all the same.
        assert_eq!(send(add(&me)).await.ok(201), first);
        assert_eq!(songs(&me, &place).await, *first["entries"].as_array().unwrap());

        // The answer is lost because the server dies, sooner or later.
        let mut dice = Dice::new(Dice::seed("a key and kill -9"));
        let mut lost = 0;
        for round in 0..8 {
            let (me, key) = (me.at(&server), format!("round-{round}"));
            let request = keyed(&me, &key, &json!({"name": key}));
            let call = tokio::spawn(try_send(request));
            tokio::time::sleep(Duration::from_micros(dice.below(6000))).await;
            server.kill9();
            let answered = call.await.unwrap().ok().map(|answer| answer.ok(201));
            lost += u32::from(answered.is_none());
            server.restart().await;
            let me = me.at(&server);
            let again = send(keyed(&me, &key, &json!({"name": key}))).await.ok(201);
            if let Some(answered) = answered {
                assert_eq!(again, answered);
            }
        }
        println!("{lost} of 8 answers were lost");
        let all = lists(&me.at(&server), "?limit=200").await;
        let names: BTreeSet<_> = all.iter().map(|it| it["name"].to_string()).collect();
        assert_eq!((all.len(), names.len()), (9, 9), "{all:#?}");
    }
}

/// Applies an event as docs/protocol.md says; fetches when told to.
async fn apply(device: &Device, place: &str, entries: &mut Vec<Value>, event: &Value) {
    let data = &event["data"];
    let put = |entries: &mut Vec<Value>, new: Vec<Value>| {
        let at = match &data["after"] {
            Value::Null => 0,
            id => entries.iter().position(|it| it["id"] == *id).unwrap() + 1,
        };
        entries.splice(at..at, new);
    };
    let ids = |field: &str| data[field].as_array().unwrap().clone();
    match event["event_type"].as_str().unwrap() {
        "playlist.created" => {}
        "playlist.songs_added" => put(entries, ids("entries")),
        "playlist.songs_removed" => {
            let gone = ids("entry_ids");
            entries.retain(|it| !gone.contains(&it["id"]));
        }
        "playlist.songs_moved" => {
            let moved = ids("entry_ids");
            let find = |id: &Value| entries.iter().find(|it| it["id"] == *id).unwrap().clone();
            let new = moved.iter().map(find).collect();
            entries.retain(|it| !moved.contains(&it["id"]));
            put(entries, new);
        }
        "playlist.replaced" => *entries = songs(device, place).await,
        other => panic!("{other}"),
    }
}

fn tag(answer: &Answer) -> u64 {
    let tag = answer
        .header("etag")
        .unwrap_or_else(|| panic!("{answer:#?}"));
    let (version, _) = tag.trim_matches('"').split_once('-').unwrap();
    version.parse().unwrap()
}

async fn post(me: &Device, path: &str, body: &Value) -> Answer {
    send(me.request(Method::POST, path).json(body)).await
}

async fn patch(me: &Device, place: &str, body: &Value) -> Answer {
    send(me.request(Method::PATCH, place).json(body)).await
}

async fn put(me: &Device, place: &str, body: &Value) -> Answer {
    send(
        me.request(Method::PUT, &format!("{place}/songs"))
            .json(body),
    )
    .await
}

async fn delete(me: &Device, place: &str) -> Answer {
    send(me.request(Method::DELETE, place)).await
}

/// A new playlist's path.
pub async fn create(me: &Device) -> String {
    let made = post(me, LISTS, &json!({"name": "list"})).await;
    let place = made.header("location").unwrap_or_default().to_owned();
    made.ok(201);
    place
}

/// Adds to the end; gives back the entries.
pub async fn add(me: &Device, place: &str, songs: &[&str]) -> Vec<Value> {
    let body = json!({"song_ids": songs});
    let added = post(me, &format!("{place}/songs"), &body).await.ok(201);
    added["entries"].as_array().unwrap().clone()
}

/// All entries, page by page, of one version.
async fn songs(me: &Device, place: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    let mut path = format!("{place}/songs?limit=1000");
    loop {
        let page = me.get(&path).await.ok(200);
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert_eq!(page["song_count"], all.len());
            return all;
        };
        path = format!("{place}/songs?limit=1000&cursor={cursor}");
    }
}

/// The songs in order, in small pages.
async fn order(me: &Device, place: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut path = format!("{place}/songs?limit=3");
    loop {
        let page = me.get(&path).await.ok(200);
        let items = page["items"].as_array().unwrap();
        all.extend(
            items
                .iter()
                .map(|it| it["song_id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            return all;
        };
        assert_eq!(items.len(), 3);
        path = format!("{place}/songs?limit=3&cursor={cursor}");
    }
}

async fn lists(me: &Device, query: &str) -> Vec<Value> {
    let page = me.get(&format!("{LISTS}{query}")).await.ok(200);
    page["items"].as_array().unwrap().clone()
}
