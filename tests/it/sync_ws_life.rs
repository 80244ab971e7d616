//! The life of a socket: how it opens, what it will not take, and how it ends.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Device, Incoming, Server, Socket, socket::PROTOCOL};

both_engines! {
    async fn without_a_good_token_nothing_opens(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let refused = Socket::handshake(&me.api, "", &[("sec-websocket-protocol", PROTOCOL)]).await;
        refused.err().expect("no token").problem(401, "unauthenticated");
        let headers = [
            ("authorization", "Bearer nonsense"),
            ("sec-websocket-protocol", PROTOCOL),
        ];
        let refused = Socket::handshake(&me.api, "", &headers).await;
        refused.err().expect("a bad token").problem(401, "token_invalid");
        me.logout().await.ok(204);
        let bearer = format!("Bearer {}", me.access);
        let headers = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", PROTOCOL),
        ];
        let refused = Socket::handshake(&me.api, "", &headers).await;
        refused.err().expect("signed out").problem(401, "token_revoked");
    }

    async fn pages_of_other_sites_may_not_connect(engine) {
        let toml = "[server]\nallowed_origins = [\"https://app.example\"]\n";
        let server = Server::with_config(engine, toml).await;
        let me = server.api().newcomer("mine").await;
        let bearer = format!("Bearer {}", me.access);
        let with = |origin| [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", PROTOCOL),
            ("origin", origin),
        ];
        for origin in ["https://evil.example", "null", "http://app.example"] {
            let refused = Socket::handshake(&me.api, "", &with(origin)).await;
            refused.err().expect(origin).problem(403, "origin_not_allowed");
        }
        let allowed = Socket::handshake(&me.api, "", &with("https://app.example")).await;
        allowed.expect("allowed").welcomed().await.ping().await;
    }

    async fn a_plain_request_is_told_to_upgrade(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        me.get("/v1/sync").await.problem(426, "upgrade_required");
    }

    async fn an_unknown_frame_is_an_error_and_no_more(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let mut socket = Socket::open(&me).await;
        socket.send(json!({"type": "dance", "ref": "r1"})).await;
        socket.expect_error("unknown_type", "r1").await;
        socket.ping().await;
        me.put("song", "x").await.ok(201);
        socket.expect_event(1).await;
    }

    async fn bad_frames_close(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let bad = [
            Message::text("nonsense"),
            Message::text("{\"type\":\"ping\""),
            Message::text(""),
            Message::binary(b"{\"type\":\"ping\"}".to_vec()),
        ];
        for message in bad {
            let mut socket = Socket::open(&me).await;
            socket.send_message(message).await;
            socket.expect_close(4006).await;
        }
    }

    async fn a_frame_too_big_closes(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let mut socket = Socket::open(&me).await;
        // As large as may be: 64 KiB with what is around the padding.
        let frame = |padding: usize| {
            json!({"type": "ping", "ref": "r", "pad": "x".repeat(padding)}).to_string()
        };
        let around = frame(0).len();
        socket.send_message(Message::text(frame(64 * 1024 - around))).await;
        let pong = socket.next_frame("pong").await;
        assert_eq!(pong, json!({"type": "pong", "ref": "r"}));
        socket.send_message(Message::text(frame(64 * 1024 - around + 1))).await;
        socket.expect_close(1009).await;

        // The next connection knows nothing of it.
        Socket::open(&me).await.ping().await;
    }

    async fn a_ping_needs_no_ref(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let mut socket = Socket::open(&me).await;
        socket.send(json!({"type": "ping"})).await;
        let pong = socket.next_frame("pong").await;
        assert!(pong["ref"].is_null(), "{pong}");
        for _ in 0..20 {
            socket.ping().await;
        }
    }

    async fn a_socket_ends_with_its_token(engine) {
        let server = Server::with(engine, &[("auth.access_token_secs", "2")]).await;
        let me = server.api().newcomer("mine").await;
        let mut socket = Socket::open(&me).await;
        let opened = Instant::now();
        socket.expect_close(4003).await;
        // The token was made a moment before the socket, and its times are whole seconds.
        let lived = opened.elapsed();
        assert!(lived > Duration::from_millis(500), "closed after {lived:?}");
    }

    async fn a_renewed_token_keeps_the_socket(engine) {
        let server = Server::with(engine, &[("auth.access_token_secs", "2")]).await;
        let mut me = server.api().newcomer("mine").await;
        let mut socket = Socket::open(&me).await;
        let opened = Instant::now();
        while opened.elapsed() < Duration::from_secs(6) {
            me = Device::new(&me.api, &me.api.rotate(&me.refresh, None).await.ok(200));
            // The server is silent about a good one: the pong is what comes next.
            socket.send(json!({"type": "auth", "token": me.access, "ref": "renew"})).await;
            socket.ping().await;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        socket.ping().await;
        socket.expect_close(4003).await;
    }

    async fn a_bad_renewal_is_an_error_and_no_more(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let second = server.api().login(&me.phone, "second").await;
        let stranger = server.api().newcomer("mine").await;
        let mut socket = Socket::open(&me).await;
        // The tokens of others are good, but not for this socket.
        for (token, reference) in [
            ("nonsense", "r1"),
            (stranger.access.as_str(), "r2"),
            (second.access.as_str(), "r3"),
            (me.refresh.as_str(), "r4"),
        ] {
            socket.send(json!({"type": "auth", "token": token, "ref": reference})).await;
            socket.expect_error("token_invalid", reference).await;
        }
        me.put("song", "x").await.ok(201);
        assert_eq!(socket.expect_event(1).await["user_id"], me.user_id.as_str());
        stranger.put("song", "y").await.ok(201);
        socket.ping().await;
    }

    async fn a_silent_client_is_dropped(engine) {
        let short = [
            ("sync.heartbeat_secs", "1"),
            ("sync.heartbeat_timeout_secs", "3"),
        ];
        let server = Server::with(engine, &short).await;
        let me = server.api().newcomer("mine").await;
        let lively = server.api().login(&me.phone, "lively").await;
        let mut silent = Socket::open(&me).await;
        let mut lively = Socket::open(&lively).await;
        assert_eq!(silent.welcome["heartbeat_secs"], 1);
        silent.mute();
        let start = Instant::now();
        // The lively one only answers the pings below the protocol; reading does that.
        let (closed, ()) = tokio::join!(silent.next(), lively.expect_quiet(Duration::from_secs(7)));
        assert!(matches!(closed, Incoming::Close(4002)), "{closed:?}");
        assert!(start.elapsed() > Duration::from_secs(2));
        lively.ping().await;
    }

    async fn a_server_that_stops_says_goodbye(engine) {
        let mut server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let mut socket = Socket::open(&me).await;
        let watching = tokio::spawn(async move {
            let goodbye = socket.next_frame("goodbye").await;
            socket.expect_close(1001).await;
            goodbye
        });
        server.stop().await;
        let goodbye = watching.await.unwrap();
        crate::support::assert_shape(&goodbye, json!({
            "type": "goodbye",
            "reason": "<string>",
            "retry_after_ms": "<number>",
        }));

        server.restart().await;
        Socket::open(&me.at(&server)).await.ping().await;
    }
}
