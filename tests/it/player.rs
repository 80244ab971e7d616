//! What plays and where: one device is active, the others steer it, and another one takes over.

use serde_json::{Value, json};

use crate::{
    snapshot,
    support::{Device, Incoming, Server, Socket, eventually, rows},
};

fn say(to: &str, name: &str, data: &Value) -> Value {
    json!({"type": "signal", "to": to, "name": name, "data": data, "ref": "s"})
}

fn playing(position_ms: u64, playing: bool) -> Value {
    json!({"song_id": "s1", "song_name": "Song", "artist_name": "Artist", "duration_ms": 180_000,
        "position_ms": position_ms, "playing": playing, "playlist_id": null, "entry_id": null})
}

/// A phone and a tv of one user, connected.
async fn pair(server: &Server) -> ((Device, Socket), (Device, Socket)) {
    let phone = server.api().newcomer("phone").await;
    let tv = server.api().login(&phone.phone, "tv").await;
    let sockets = (Socket::open(&phone).await, Socket::open(&tv).await);
    ((phone, sockets.0), (tv, sockets.1))
}

async fn player(device: &Device) -> Value {
    device.get("/v1/me/player").await.ok(200)
}

/// Hands playback over by a signal; both hear of it as event `seq`.
async fn transfer(from: &mut Socket, other: &mut Socket, to: Option<&str>, seq: u64) -> Value {
    from.send(say("all", "player.transfer", &json!({"device_id": to})))
        .await;
    let event = from.expect_event(seq).await;
    assert_eq!(event["event_type"], "player.activated");
    assert_eq!(other.expect_event(seq).await, event);
    event
}

both_engines! {
    async fn one_device_plays_and_the_others_steer_it(engine) {
        let server = Server::start(engine).await;
        let ((phone, mut here), (_, mut there)) = pair(&server).await;
        assert_eq!(player(&phone).await, json!({"active_device_id": null, "version": 0, "state": null}));
        here.send(say("all", "player.pause", &Value::Null)).await;
        here.expect_error("no_active_player", "s").await;
        here.send(say("all", "player.state", &playing(0, true))).await;
        here.expect_error("not_active_player", "s").await;

        let event = transfer(&mut here, &mut there, Some("tv"), 1).await;
        assert_eq!(event["data"], json!({"device_id": "tv", "version": 1, "state": null}));
        assert_eq!(event["origin_device_id"], "phone");
        there.send(say("all", "player.state", &playing(500, true))).await;
        assert_eq!(here.next_frame("signal").await["data"], playing(500, true));
        here.send(say("all", "player.state", &playing(9, false))).await;
        here.expect_error("not_active_player", "s").await;
        // To whom it says it is does not matter: it is for the one that plays.
        here.send(say("phone", "player.seek", &json!({"position_ms": 61_500}))).await;
        let heard = there.next_frame("signal").await;
        assert_eq!((&heard["name"], &heard["data"]), (&json!("player.seek"), &json!({"position_ms": 61_500})));
        assert_eq!(player(&phone).await["state"]["position_ms"], 500);

        // The tv hands over to the phone, which goes on where the tv was.
        there.send(say("all", "player.state", &playing(61_500, false))).await;
        here.next_frame("signal").await;
        let event = transfer(&mut there, &mut here, Some("phone"), 2).await;
        assert_eq!(event["data"]["state"]["position_ms"], 61_500);
        there.send(say("all", "player.state", &playing(0, true))).await;
        there.expect_error("not_active_player", "s").await;
        assert_eq!(player(&phone).await["active_device_id"], "phone");
        // What is so already is no event.
        let request = phone.request(reqwest::Method::PUT, "/v1/me/player/device");
        let again = crate::support::client::send(request.json(&json!({"device_id": "phone"}))).await;
        assert_eq!(again.seq(), 2);
        assert_eq!(phone.head().await.0, 2);
    }

    async fn what_cannot_be_taken_is_named(engine) {
        let server = Server::start(engine).await;
        let ((phone, mut here), _) = pair(&server).await;
        for (name, data, code) in [
            ("player.seek", json!({"position_ms": -1}), "invalid_signal"),
            ("player.seek", json!({}), "invalid_signal"),
            ("player.pause", json!({"loud": true}), "invalid_signal"),
            ("player.state", json!({"song_id": "no spaces"}), "invalid_signal"),
            ("player.transfer", Value::Null, "invalid_signal"),
            ("player.transfer", json!({"device_id": "fridge"}), "device_not_found"),
        ] {
            here.send(say("all", name, &data)).await;
            here.expect_error(code, "s").await;
        }
        let put = async |body: &Value| {
            let request = phone.request(reqwest::Method::PUT, "/v1/me/player/device");
            crate::support::client::send(request.json(body)).await
        };
        put(&json!({"device_id": "fridge"})).await.problem(404, "device_not_found");
        put(&json!({})).await.invalid("device_id");
        assert_eq!(phone.head().await.0, 0);
    }

    async fn where_it_was_outlives_a_crash(engine) {
        let mut server = Server::start(engine).await;
        let ((phone, mut here), (_, mut there)) = pair(&server).await;
        transfer(&mut here, &mut there, Some("tv"), 1).await;
        there.send(say("all", "player.state", &playing(1000, true))).await;
        there.send(say("all", "player.state", &playing(42_000, false))).await;
        // What a session knows may be newer than what is stored; a snapshot is read from the store.
        eventually("the pause is stored", async || {
            let lines = snapshot::lines(&phone).await;
            let player = lines.iter().find_map(|line| line.get("player")).unwrap();
            player["state"]["position_ms"] == 42_000
        }).await;
        let before = player(&phone).await;
        server.kill9();
        server.restart().await;
        assert_eq!(player(&phone.at(&server)).await, before);
    }

    async fn a_store_that_lost_the_last_handovers_is_believed(engine) {
        let server = Server::start(engine).await;
        let ((phone, mut here), (_, mut there)) = pair(&server).await;
        for (seq, to) in [(1, "tv"), (2, "phone"), (3, "tv")] {
            // Not by signals, which are only so fast.
            let request = phone.request(reqwest::Method::PUT, "/v1/me/player/device");
            let put = crate::support::client::send(request.json(&json!({"device_id": to}))).await;
            assert_eq!(put.seq(), seq);
            for socket in [&mut here, &mut there] {
                socket.expect_event(seq).await;
            }
        }
        assert_eq!(player(&phone).await["version"], 3);
        rows::sql(&server, "DELETE FROM sync_events WHERE seq > 1; UPDATE user_logs SET head_seq = 1;
            UPDATE players SET version = 1").await;
        assert_eq!(player(&phone).await["version"], 1);
        let request = phone.request(reqwest::Method::PUT, "/v1/me/player/device");
        let put = crate::support::client::send(request.json(&json!({"device_id": "phone"}))).await;
        assert_eq!(put.seq(), 2);
        here.send(say("all", "player.state", &playing(7, true))).await;
        assert_eq!(there.next_frame("signal").await["data"], playing(7, true));
        let known = player(&phone).await;
        assert_eq!((&known["active_device_id"], &known["version"]), (&json!("phone"), &json!(2)));
    }

    async fn handovers_come_only_so_fast(engine) {
        let server = Server::start(engine).await;
        let ((phone, mut here), _) = pair(&server).await;
        for n in 0..20 {
            let to = if n % 2 == 0 { "tv" } else { "phone" };
            here.send(say("all", "player.transfer", &json!({"device_id": to}))).await;
        }
        let mut limited = 0;
        while limited < 10 {
            let Incoming::Frame(frame) = here.next().await else { panic!("the socket ended") };
            limited += i32::from(frame["code"] == "rate_limited");
        }
        assert!(phone.head().await.0 <= 10);
    }

    async fn a_device_that_is_removed_plays_no_more(engine) {
        let server = Server::start(engine).await;
        let ((phone, mut here), (tv, mut there)) = pair(&server).await;
        transfer(&mut here, &mut there, Some("tv"), 1).await;
        tv.logout().await;
        let event = here.expect_event(2).await;
        assert_eq!(event["data"], json!({"device_id": null, "version": 2, "state": null}));
        assert_eq!(player(&phone).await["active_device_id"], Value::Null);
    }
}
