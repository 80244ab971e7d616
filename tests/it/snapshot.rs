//! The snapshot: everything at one position of the log, so that a device goes on exactly behind it.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Device, Server,
    admin::{Admin, WITH_TOKEN},
    client::send,
    eventually, rows,
};

/// What the store has, all of one moment.
pub async fn lines(device: &Device) -> Vec<Value> {
    let answer = device
        .request(reqwest::Method::GET, "/v1/me/snapshot")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    assert!(text.ends_with('\n'));
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.last().unwrap(),
        &json!({"end": {"lines": lines.len()}})
    );
    lines
}

/// Counts those that came to no end.
const ENDED: &str = r#"store_reads_total{name="snapshot",result="deadline"}"#;

/// A snapshot that nobody reads.
async fn begun(device: &Device) -> reqwest::Response {
    let request = device.request(reqwest::Method::GET, "/v1/me/snapshot");
    request.send().await.unwrap()
}

both_engines! {
    async fn nothing_is_kept_at_first(engine) {
        let server = Server::start(engine).await;
        let device = server.api().newcomer("first").await;
        let (head, epoch) = device.head().await;
        let lines = lines(&device).await;
        assert_eq!(lines[0], json!({"epoch": epoch, "seq": head}));
        assert_eq!(lines.len(), 2);
        server.api().get("/v1/me/snapshot").await.problem(401, "unauthenticated");
    }

    async fn it_stands_for_a_position_while_others_write(engine) {
        let server = Server::start(engine).await;
        let device = server.api().newcomer("first").await;
        let other = server.api().login(&device.phone, "second").await;
        let written = Cell::new(false);
        let writing = async {
            for n in 0..120 {
                let target = format!("t{}", (n - i32::from(n % 3 == 2)) % 40);
                if n % 3 == 2 {
                    other.remove("song", &target).await.ok(204);
                } else {
                    assert!(other.put("song", &target).await.status < 300);
                }
            }
            written.set(true);
        };
        let reading = async {
            let mut taken = Vec::new();
            // The last one begins when all is written.
            loop {
                let last = written.get();
                taken.push(lines(&device).await);
                if last {
                    break taken;
                }
            }
        };
        let ((), taken) = tokio::join!(writing, reading);
        let log = device.log().await;
        let mut seen = 0;
        for snapshot in taken {
            let seq = snapshot[0]["seq"].as_u64().unwrap();
            assert!(seq >= seen, "it never goes back");
            seen = seq;
            // What the log says up to there is what the snapshot holds.
            let mut kept = BTreeMap::new();
            for event in log.iter().filter(|e| e["seq"].as_u64().unwrap() <= seq) {
                let target = event["data"]["target_id"].as_str().unwrap().to_owned();
                match event["event_type"].as_str().unwrap() {
                    "favorite.removed" => drop(kept.remove(&target)),
                    _ => drop(kept.insert(target, event["data"]["id"].clone())),
                }
            }
            let held = snapshot.iter().filter_map(|line| line.get("favorite"));
            let held: BTreeMap<_, _> = held
                .map(|f| (f["target_id"].as_str().unwrap().to_owned(), f["id"].clone()))
                .collect();
            assert_eq!(held, kept, "at {seq}");
        }
        assert_eq!(seen, device.head().await.0);
    }

    async fn one_that_is_asked_for_again_ends_the_one_before(engine) {
        let server = Server::start(engine).await;
        let device = server.api().newcomer("first").await;
        // More than the connection takes at once.
        rows::append(&server, &device, "t", 60_000, 60_000).await;
        let unread = begun(&device).await;
        lines(&device).await;
        // At once, though nobody takes from its answer: that alone would end it after ten seconds.
        let ended = async {
            while server.metric(ENDED).await == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(2), ended).await;
        assert!(ended.is_ok(), "it keeps its place");
        assert_eq!(server.metric(ENDED).await, 1);
        let text = unread.text().await;
        assert!(!text.is_ok_and(|text| text.contains(r#"{"end":"#)), "it did not end early");
    }

    async fn one_on_its_way_keeps_its_session(engine) {
        let server = Server::with(engine, &[WITH_TOKEN, ("sync.idle_secs", "1")]).await;
        let device = server.api().newcomer("first").await;
        rows::append(&server, &device, "t", 60_000, 60_000).await;
        let unread = begun(&device).await;
        let admin = Admin::of(&server);
        let live = async || admin.kind("user_session").await["live"].clone();
        // Its session is used last, so that it rests last.
        server.api().newcomer("other").await;
        eventually("the other's session rests", async || live().await == 1).await;
        let text = unread.text().await.unwrap();
        assert!(text.ends_with("{\"end\":{\"lines\":60002}}\n"));
        eventually("the session rests", async || live().await == 0).await;
    }

    async fn the_player_is_in_it(engine) {
        let server = Server::start(engine).await;
        let device = server.api().newcomer("first").await;
        let request = device.request(reqwest::Method::PUT, "/v1/me/player/device");
        let answer = send(request.json(&json!({"device_id": "first"}))).await;
        assert_eq!(answer.seq(), 1);
        let lines = lines(&device).await;
        assert_eq!(lines[0]["seq"], 1);
        assert_eq!(lines[1], json!({"player": {"active_device_id": "first", "version": 1, "state": null}}));
    }
}
