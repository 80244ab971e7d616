//! What happens beside the opening of a socket.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::support::{Server, Socket, socket::PROTOCOL};

both_engines! {
    async fn a_change_beside_an_attach_comes_at_once(engine) {
        // Nothing else would tell the session of a change that it missed.
        let server = Server::with(engine, &[("sync.head_check_ms", "60000")]).await;
        let me = server.api().newcomer("mine").await;
        for round in 0..200_u64 {
            let bearer = format!("Bearer {}", me.access);
            let headers = [
                ("authorization", bearer.as_str()),
                ("sec-websocket-protocol", PROTOCOL),
            ];
            let writer = me.clone();
            let writing = tokio::spawn(async move {
                writer.put("song", &format!("s{round}")).await.seq()
            });
            tokio::time::sleep(Duration::from_micros(round % 60 * 50)).await;
            let (socket, seq) = tokio::join!(Socket::handshake(&me.api, "", &headers), writing);
            let seq = seq.unwrap();
            let mut socket = socket.expect("connects").welcomed().await;
            let event = timeout(Duration::from_secs(3), socket.expect_event(seq)).await;
            event.unwrap_or_else(|_| panic!("round {round}: {}", socket.welcome));
            let epoch = socket.epoch();
            drop(socket);
            me.ack(seq, &epoch).await.ok(200);
            // Detached by then.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn what_a_client_says_before_the_welcome_is_heard(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        for _ in 0..20 {
            let bearer = format!("Bearer {}", me.access);
            let headers = [
                ("authorization", bearer.as_str()),
                ("sec-websocket-protocol", PROTOCOL),
            ];
            let mut socket = Socket::handshake(&me.api, "", &headers).await.expect("connects");
            socket.send(json!({"type": "ping", "ref": "early"})).await;
            let mut socket = socket.welcomed().await;
            assert_eq!(socket.next_frame("pong").await["ref"], "early");
        }
    }
}
