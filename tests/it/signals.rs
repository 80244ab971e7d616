//! What devices tell each other beside the log: signals, and who is there.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{
    Device, Engine, Got, Raw, Server, Socket, eventually,
    raw::{TEXT, frame, ping_of},
};

fn signal(to: &str, name: &str, data: &Value) -> Value {
    json!({"type": "signal", "to": to, "name": name, "data": data, "ref": "s"})
}

/// Two devices of one user, connected.
async fn pair(server: &Server) -> ((Device, Socket), (Device, Socket)) {
    let first = server.api().newcomer("first").await;
    let second = server.api().login(&first.phone, "second").await;
    let sockets = (Socket::open(&first).await, Socket::open(&second).await);
    ((first, sockets.0), (second, sockets.1))
}

both_engines! {
    async fn everyone_hears_who_comes_and_goes(engine) {
        let server = Server::start(engine).await;
        let first = server.api().newcomer("first").await;
        let second = server.api().login(&first.phone, "second").await;
        let mut here = Socket::open(&first).await;
        here.hear_presence(true);
        here.expect_presence(&["first"]).await;
        let mut there = Socket::open(&second).await;
        there.hear_presence(true);
        there.expect_presence(&["first", "second"]).await;
        here.expect_presence(&["first", "second"]).await;
        there.close().await;
        here.expect_presence(&["first"]).await;
        let stranger = server.api().newcomer("third").await;
        Socket::open(&stranger).await.ping().await;
        here.ping().await;
    }

    async fn who_is_connected_is_told_by_rest_too(engine) {
        let server = Server::start(engine).await;
        let ((first, _here), (_, there)) = pair(&server).await;
        let present = async || first.get("/v1/me/presence").await.ok(200);
        assert_eq!(present().await, json!({"devices": [{"device_id": "first"}, {"device_id": "second"}]}));
        there.close().await;
        eventually("the other is gone", async || present().await == json!({"devices": [{"device_id": "first"}]})).await;
        let stranger = server.api().newcomer("third").await;
        assert_eq!(stranger.get("/v1/me/presence").await.ok(200), json!({"devices": []}));
        server.api().get("/v1/me/presence").await.problem(401, "unauthenticated");
    }

    async fn a_signal_reaches_the_other_devices_and_is_not_kept(engine) {
        let server = Server::start(engine).await;
        let ((first, mut here), (_, mut there)) = pair(&server).await;
        // As the sender wrote it, to the last digit.
        let data = json!({"at": 1.5, "list": [null, true, "\u{1f3b5}"], "n": 9_007_199_254_740_993_i64});
        here.send(signal("all", "volume.up", &data)).await;
        let heard = there.next_frame("signal").await;
        let expected = json!({"type": "signal", "from_device_id": "first", "name": "volume.up", "data": data});
        assert_eq!(heard, expected);
        there.send(signal("first", "anything:else", &Value::Null)).await;
        let heard = here.next_frame("signal").await;
        assert_eq!((&heard["from_device_id"], &heard["data"]), (&json!("second"), &Value::Null));
        assert_eq!(first.head().await.0, 0, "not in the log");
        here.close().await;
        let mut again = Socket::open(&first).await;
        again.ping().await;
    }

    async fn a_signal_that_cannot_be_is_refused_and_the_socket_stays(engine) {
        let server = Server::start(engine).await;
        let ((_, mut here), (_, mut there)) = pair(&server).await;
        for (to, name, data, code) in [
            ("third", "x", Value::Null, "device_not_attached"),
            ("all", "", Value::Null, "invalid_signal"),
            ("all", "no spaces", Value::Null, "invalid_signal"),
            ("not a device!", "x", Value::Null, "invalid_signal"),
            ("all", "x", json!("x".repeat(16 * 1024)), "invalid_signal"),
        ] {
            here.send(signal(to, name, &data)).await;
            here.expect_error(code, "s").await;
        }
        there.ping().await;
        here.send(json!({"type": "signal", "to": "all"})).await;
        here.expect_close(4006).await;
    }

    async fn more_signals_than_may_be_are_dropped(engine) {
        let server = Server::start(engine).await;
        let ((_, mut here), (_, mut there)) = pair(&server).await;
        for n in 0..60 {
            here.send(signal("all", "tick", &json!(n))).await;
        }
        here.expect_error("rate_limited", "s").await;
        for n in 0..20 {
            assert_eq!(there.next_frame("signal").await["data"], n);
        }
    }
}

#[tokio::test]
async fn answers_come_behind_any_number_of_events() {
    let settings = [("sync.send_buffer_bytes", "4096")];
    let server = Server::with(Engine::Sqlite, &settings).await;
    let me = server.api().newcomer("mine").await;
    for n in 0..200 {
        me.put("song", &format!("s{n}")).await.ok(201);
    }
    let mut slow = Raw::connect_narrow(&server).await.opened(&me).await;
    // The catch-up is on its way, and most of it waits.
    sleep(Duration::from_millis(500)).await;
    slow.send(frame(TEXT, ping_of(50))).await;
    sleep(Duration::from_millis(200)).await;
    for seq in 1..=200 {
        match slow.next().await {
            Got::Text(event) => assert_eq!(event["seq"], seq),
            other => panic!("{other:?}"),
        }
    }
    slow.expect_answer("r").await;
}
