//! The end of a server: everybody is told, nothing is lost, and nobody holds it up.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use crate::support::{
    Got, Raw, Server, Socket, eventually,
    raw::{CLOSE, NO_LIMITS, TEXT, frame, shout},
};

both_engines! {
    async fn everybody_is_told_and_the_last_acks_are_kept(engine) {
        let mut server = Server::start(engine).await;
        let me = server.api().newcomer("d0").await;
        let mut devices = vec![me.clone()];
        for n in 1..4 {
            devices.push(server.api().login(&me.phone, &format!("d{n}")).await);
        }
        // One of them never answers the close.
        let mut silent = Raw::open(&devices[3]).await;
        let mut sockets = Vec::new();
        for device in &devices[..3] {
            sockets.push(Raw::open(device).await);
        }
        me.put("song", "a").await.ok(201);
        let (_, epoch) = me.head().await;
        let ack = serde_json::json!({"type": "ack", "up_to": 1, "epoch": epoch}).to_string();
        for socket in &mut sockets {
            assert!(matches!(socket.next().await, Got::Text(event) if event["seq"] == 1));
            socket.send(frame(TEXT, &ack)).await;
        }
        let began = Instant::now();
        server.terminate();
        let mut moments = HashSet::new();
        for socket in &mut sockets {
            match socket.next().await {
                Got::Text(goodbye) if goodbye["type"] == "goodbye" => {
                    moments.insert(goodbye["retry_after_ms"].as_u64().unwrap());
                }
                other => panic!("{other:?}"),
            }
            socket.expect_close(1001).await;
            socket.send(frame(CLOSE, 1001_u16.to_be_bytes())).await;
            socket.expect_end().await;
        }
        assert!(moments.len() > 1, "all come back at once: {moments:?}");
        // The silent one is still there, and so is the server: it says that it goes.
        let ready = server.api().get("/ready").await;
        assert_eq!(ready.status, 503);
        assert_eq!(ready.body["checks"]["serving"], "failed");
        let refused = me.me().await;
        assert!(refused.header("retry-after").is_some());
        refused.problem(503, "shutting_down");
        let mut late = Raw::connect(&server).await;
        let answer = late.upgrade(&me).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("retry-after: "), "{answer}");
        assert!(late.rest().await.contains("shutting_down"));
        silent.expect_close(1001).await;
        server.stopped().await;
        let took = began.elapsed();
        assert!(took > Duration::from_secs(4) && took < Duration::from_secs(12), "{took:?}");

        server.restart().await;
        let mut socket = Socket::open(&me.at(&server)).await;
        assert_eq!(socket.welcome["acked_seq"], 1);
        socket.ping().await;
    }

    async fn a_client_that_reads_nothing_does_not_hold_up_a_stop(engine) {
        let mut settings = NO_LIMITS.to_vec();
        settings.push(("server.shutdown_secs", "2"));
        let mut server = Server::with(engine, &settings).await;
        let me = server.api().newcomer("mine").await;
        let lively = server.api().login(&me.phone, "lively").await;
        me.put("song", "a").await.ok(201);
        let mut socket = Socket::open(&lively).await;
        let event = socket.expect_event(1).await;
        let _deaf = Raw::connect_narrow(&server).await.opened(&me).await;
        shout(&mut socket, 40).await;
        socket.ack(&event).await;
        socket.ping().await;
        let start = Instant::now();
        server.stop().await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "stopping took {took:?}");
        let output = server.output();
        assert!(!output.contains("cursors were not stored"), "{output}");
        server.restart().await;
        // The ack was made durable all the same.
        let mut socket = Socket::open(&lively.at(&server)).await;
        assert_eq!(socket.welcome["acked_seq"], 1);
        socket.ping().await;
    }
}

/// Nobody is connected: there is nothing to wait for.
#[tokio::test]
async fn a_server_without_sockets_stops_at_once() {
    let mut server = Server::start(crate::support::Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let mut gone = Raw::open(&me).await;
    gone.send(frame(CLOSE, b"")).await;
    assert_eq!(gone.next().await, Got::Close(None));
    gone.expect_end().await;
    drop(gone);
    eventually("it is gone", async || {
        server.metric("sockets_open").await == 0
    })
    .await;
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3));
}
