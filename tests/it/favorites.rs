//! Favorites: what each call answers, what it leaves in the log, and paging.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::{Answer, Device, Server, assert_shape};

both_engines! {
    async fn a_favorite_lives_dies_and_comes_back(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;

        let added = me.put("song", "s:1_a-b.C").await;
        assert_eq!(added.seq(), 1);
        let favorite = added.ok(201);
        assert_shape(&favorite, json!({
            "id": "<uuid>",
            "type": "song",
            "target_id": "s:1_a-b.C",
            "created_at": "<time>",
        }));
        let again = me.put("song", "s:1_a-b.C").await;
        unchanged(&me, &again, 1).await;
        assert_eq!(again.ok(200), favorite);
        assert_eq!(list(&me, "").await, std::slice::from_ref(&favorite));

        let removed = me.remove("song", "s:1_a-b.C").await;
        assert_eq!(removed.seq(), 2);
        assert_eq!(removed.ok(204), Value::Null);
        assert!(list(&me, "").await.is_empty());
        let again = me.remove("song", "s:1_a-b.C").await;
        unchanged(&me, &again, 2).await;
        assert_eq!(again.ok(204), Value::Null);

        let restored = me.restore("song", "s:1_a-b.C").await;
        assert_eq!(restored.seq(), 3);
        let restored = restored.ok(200);
        assert_eq!(restored["id"], favorite["id"]);
        assert_eq!(list(&me, "").await, std::slice::from_ref(&restored));
        let again = me.restore("song", "s:1_a-b.C").await;
        unchanged(&me, &again, 3).await;
        assert_eq!(again.ok(200), restored);

        let types: Vec<Value> = me.log().await.iter().map(|e| e["event_type"].clone()).collect();
        assert_eq!(types, ["favorite.added", "favorite.removed", "favorite.restored"]);
    }

    async fn a_removed_favorite_can_be_added_again(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        me.put("album", "a").await.ok(201);
        me.remove("album", "a").await.ok(204);
        let again = me.put("album", "a").await;
        assert_eq!(again.seq(), 3);
        let favorite = again.ok(201);
        assert_eq!(list(&me, "").await, [favorite]);
        assert_eq!(me.log().await.len(), 3);
    }

    async fn what_never_was_is_not_found(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        me.put("song", "x").await.ok(201);
        me.remove("album", "x").await.problem(404, "favorite_not_found");
        me.restore("album", "x").await.problem(404, "favorite_not_found");
        me.remove("song", "y").await.problem(404, "favorite_not_found");
        assert_eq!(me.log().await.len(), 1);
    }

    async fn eight_callers_add_one_favorite_once(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let calls = (0..8).map(|_| me.put("mv", "same"));
        let answers = futures_util::future::join_all(calls).await;
        let added = answers.iter().filter(|answer| answer.status == 201).count();
        let there = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!((added, there), (1, 7), "{answers:#?}");
        assert!(answers.iter().all(|answer| answer.body == answers[0].body));
        assert_eq!(me.log().await.len(), 1);
    }

    async fn pages_have_neither_gap_nor_double(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let kinds = ["song", "album", "artist", "mv"];
        for index in 0..250 {
            me.put(kinds[index % 4], &format!("t{index}")).await.ok(201);
        }
        let newest_first: Vec<String> = (0..250).rev().map(|index| format!("t{index}")).collect();
        for limit in [200, 125, 37] {
            let all = me.all_favorites(limit).await;
            assert_eq!(targets(&all), newest_first, "limit {limit}");
            let times: Vec<&str> = all.iter().map(|f| f["created_at"].as_str().unwrap()).collect();
            assert!(times.is_sorted_by(|newer, older| newer >= older));
        }
        assert_eq!(list(&me, "").await.len(), 50);
        assert_eq!(list(&me, "?limit=1").await.len(), 1);
        assert_eq!(list(&me, "?limit=200").await.len(), 200);

        for (index, kind) in kinds.into_iter().enumerate() {
            let of_kind = list(&me, &format!("?type={kind}&limit=200")).await;
            assert_eq!(of_kind.len(), 250 / 4 + usize::from(index < 2), "{kind}");
            assert!(of_kind.iter().all(|favorite| favorite["type"] == kind));
        }
        let first = me.favorites("?type=song&limit=40").await.ok(200);
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = me.favorites(&format!("?type=song&limit=40&cursor={cursor}")).await.ok(200);
        assert_eq!(second["items"].as_array().unwrap().len(), 23);
        assert_eq!(second["next_cursor"], Value::Null);
    }

    async fn pages_hold_while_the_list_changes(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        for index in 0..20 {
            me.put("song", &format!("t{index}")).await.ok(201);
        }
        let first = me.favorites("?limit=10").await.ok(200);
        let cursor = first["next_cursor"].as_str().unwrap().to_owned();
        // One comes in front, one that was seen goes, and the one the cursor stands on goes.
        me.put("song", "newer").await.ok(201);
        me.remove("song", "t15").await.ok(204);
        me.remove("song", "t10").await.ok(204);
        let second = me.favorites(&format!("?limit=10&cursor={cursor}")).await.ok(200);
        let rest: Vec<String> = (0..10).rev().map(|index| format!("t{index}")).collect();
        assert_eq!(targets(second["items"].as_array().unwrap()), rest);
        assert_eq!(second["next_cursor"], Value::Null);
    }

    async fn a_bad_query_is_refused_by_field(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let cases = [
            ("?limit=0", "limit"),
            ("?limit=201", "limit"),
            ("?limit=-1", "limit"),
            ("?limit=many", "limit"),
            ("?cursor=nonsense!", "cursor"),
            // Well made, but of a time before there were favorites.
            ("?cursor=-gAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "cursor"),
            ("?type=podcast", "type"),
            ("?colour=red", "colour"),
        ];
        for (query, field) in cases {
            let answer = me.favorites(query).await;
            assert_eq!(answer.status, 422, "{query}: {:#}", answer.body);
            answer.invalid(field);
        }
    }

    async fn a_bad_path_is_refused_by_field(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let long = "x".repeat(129);
        let cases = [
            ("podcast", "x", "type"),
            ("Song", "x", "type"),
            ("song", &long, "target_id"),
            ("song", "a%20b", "target_id"),
            ("song", "%C3%A4", "target_id"),
            ("song", "a,b", "target_id"),
            ("song", "a%00", "target_id"),
        ];
        for (kind, target, field) in cases {
            for answer in [
                me.put(kind, target).await,
                me.remove(kind, target).await,
                me.restore(kind, target).await,
            ] {
                assert_eq!(answer.status, 422, "{kind}/{target}: {:#}", answer.body);
                answer.invalid(field);
            }
        }
        assert!(me.log().await.is_empty());
        assert!(list(&me, "").await.is_empty());
        me.put("song", &"x".repeat(128)).await.ok(201);
    }

    async fn others_see_nothing(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let other = server.api().newcomer("mine").await;
        me.put("song", "private").await.ok(201);
        assert!(list(&other, "").await.is_empty());
        assert!(other.log().await.is_empty());
        other.remove("song", "private").await.problem(404, "favorite_not_found");
        other.restore("song", "private").await.problem(404, "favorite_not_found");
        let theirs = other.put("song", "private").await;
        assert_eq!(theirs.seq(), 1);
        let theirs = theirs.ok(201);
        let mine = list(&me, "").await;
        assert_eq!(mine.len(), 1);
        assert_ne!(mine[0]["id"], theirs["id"]);

        // Another device of the same user sees it.
        let second = server.api().login(&me.phone, "second").await;
        assert_eq!(list(&second, "").await, mine);
    }

    async fn without_a_token_nothing_is_told(engine) {
        let server = Server::start(engine).await;
        let api = server.api();
        for path in ["/v1/me", "/v1/me/devices", "/v1/me/favorites", "/v1/me/history", "/v1/me/changes"] {
            api.get(path).await.problem(401, "unauthenticated");
        }
    }
}

/// The first page of this query.
async fn list(me: &Device, query: &str) -> Vec<Value> {
    let body = me.favorites(query).await.ok(200);
    let items = body["items"].as_array().unwrap();
    let ids: HashSet<&str> = items
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), items.len());
    assert!(body["next_cursor"].is_null() || body["next_cursor"].is_string());
    assert_eq!(body.as_object().unwrap().len(), 2);
    items.clone()
}

fn targets(favorites: &[Value]) -> Vec<String> {
    favorites
        .iter()
        .map(|favorite| favorite["target_id"].as_str().unwrap().to_owned())
        .collect()
}

/// The answer names the head as it was, and the log has not grown.
async fn unchanged(me: &Device, answer: &Answer, head: u64) {
    assert!(answer.status < 300, "{answer:#?}");
    if answer.headers.contains_key("sync-seq") {
        assert_eq!(answer.seq(), head);
    }
    assert_eq!(me.head().await.0, head);
}
