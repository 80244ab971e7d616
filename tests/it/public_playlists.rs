//! Links to public playlists: who may read them, for how long they are remembered, what they cost.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    playlists::{add, create},
    support::{
        Answer, Api, Cluster, Device, Server,
        admin::{Admin, WITH_TOKEN},
        assert_shape,
        client::send,
        eventually,
    },
};

both_engines! {
    async fn a_link_works_while_the_playlist_is_public(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let place = create(&me).await;
        let entries = add(&me, &place, &["a", "b", "a"]).await;
        let link = place.replace("/me", "");
        let nothing = server.api().get("/v1/playlists/0193a0f2-5b7c-7c3e-8a1b-0123456789ab").await;
        let nothing = nothing.problem(404, "playlist_not_found");
        closed(&server.api(), &link, &nothing).await;
        for round in 0..3 {
            set(&me, &place, json!({"is_public": true})).await;
            let open = server.api().get(&link).await;
            assert_eq!(open.header("cache-control"), Some("public, max-age=5"));
            let known = open.header("etag").unwrap().to_owned();
            assert_shape(&open.ok(200), json!({
                "id": link.rsplit('/').next(), "name": "list", "cover_url": null, "song_count": 3,
                "created_at": "<time>", "updated_at": "<time>",
            }));
            let again = server.api().request(Method::GET, &link).header("If-None-Match", &known);
            let again = send(again).await;
            assert_eq!(again.header("cache-control"), Some("public, max-age=5"));
            again.ok(304);
            let page = server.api().get(&format!("{link}/songs?limit=2")).await.ok(200);
            let public = |n: usize| json!({"id": entries[n]["id"], "song_id": entries[n]["song_id"]});
            assert_shape(&page, json!({
                "items": [public(0), public(1)], "song_count": 3, "next_cursor": "<string>",
            }));
            let next = format!("{link}/songs?limit=2&cursor={}", page["next_cursor"].as_str().unwrap());
            let last = server.api().get(&next).await.ok(200);
            assert_eq!(last, json!({"items": [public(2)], "song_count": 3, "next_cursor": null}));
            // What changed is shown at once, where it was remembered a moment ago.
            set(&me, &place, json!({"name": format!("round {round}")})).await;
            let shown = server.api().request(Method::GET, &link).header("If-None-Match", &known);
            assert_eq!(send(shown).await.ok(200)["name"], format!("round {round}"));
            server.api().get(&next).await.problem(412, "precondition_failed");
            set(&me, &place, json!({"is_public": false, "name": "list"})).await;
            closed(&server.api(), &link, &nothing).await;
        }
        set(&me, &place, json!({"is_public": true})).await;
        server.api().get(&link).await.ok(200);
        send(me.request(Method::DELETE, &place)).await.ok(204);
        closed(&server.api(), &link, &nothing).await;
        send(me.request(Method::POST, &format!("{place}/restore")).json(&json!({}))).await.ok(200);
        server.api().get(&link).await.ok(200);
        // With a login it is the same, whoever it is.
        let other = server.api().newcomer("other").await;
        other.get(&link).await.ok(200);
        other.get(&place).await.problem(404, "playlist_not_found");
    }

    async fn many_readers_cost_one_read_and_no_session(engine) {
        let server = Server::with(engine, &[WITH_TOKEN, ("sync.idle_secs", "1")]).await;
        let me = server.api().newcomer("mine").await;
        let place = create(&me).await;
        add(&me, &place, &["a"]).await;
        set(&me, &place, json!({"is_public": true})).await;
        let link = place.replace("/me", "");
        let admin = Admin::of(&server);
        eventually("the session rests", async || admin.kind("user_session").await["live"] == 0).await;
        let api = server.api();
        let answers = join_all((0..200).map(|_| api.get(&link))).await;
        for answer in answers {
            answer.ok(200);
        }
        let from = async |place: &str| {
            server.metric(&format!("public_playlist_reads_total{{from=\"{place}\"}}")).await
        };
        let (store, other, memory) =
            (from("store").await, from("other_read").await, from("memory").await);
        assert_eq!(store + other + memory, 200);
        // Where the machine was so busy that they took longer than an answer is remembered.
        assert!(store <= 3, "{store} reads for 200 readers");
        assert_eq!(admin.kind("user_session").await["live"], 0);
    }
}

/// Another node shows what it remembers, for a moment only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_forgets_in_time() {
    let cluster = Cluster::start().await;
    let me = cluster.a.api().newcomer("mine").await;
    let place = create(&me).await;
    set(&me, &place, json!({"is_public": true})).await;
    let link = place.replace("/me", "");
    cluster.b.api().get(&link).await.ok(200);
    set(&me, &place, json!({"is_public": false})).await;
    let since = Instant::now();
    cluster
        .a
        .api()
        .get(&link)
        .await
        .problem(404, "playlist_not_found");
    cluster.b.api().get(&link).await.ok(200);
    eventually("the other node shows it no more", async || {
        cluster.b.api().get(&link).await.status == 404
    })
    .await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
}

/// The link shows what one of no playlist does.
async fn closed(api: &Api, link: &str, nothing: &Value) {
    for path in [link.to_owned(), format!("{link}/songs")] {
        let mut refused = api.get(&path).await.problem(404, "playlist_not_found");
        refused["request_id"] = nothing["request_id"].clone();
        assert_eq!(refused, *nothing);
    }
}

async fn set(me: &Device, place: &str, what: Value) -> Answer {
    let answer = send(me.request(Method::PATCH, place).json(&what)).await;
    assert_eq!(answer.status, 200, "{answer:#?}");
    answer
}
