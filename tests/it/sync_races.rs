//! What happens beside the opening of a socket, and clients that take nothing.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use crate::support::{Device, Server, Socket, socket::PROTOCOL, within};

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

    async fn a_client_that_takes_nothing_does_not_hold_up_a_stop(engine) {
        let mut server = Server::with(engine, &[("server.shutdown_secs", "2")]).await;
        let me = server.api().newcomer("mine").await;
        let lively = server.api().login(&me.phone, "lively").await;
        me.put("song", "a").await.ok(201);
        let mut socket = Socket::open(&lively).await;
        let event = socket.expect_event(1).await;
        let _deaf = deaf(&server, &me).await;
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

    async fn a_client_that_takes_nothing_is_dropped(engine) {
        let short = [
            ("sync.heartbeat_secs", "1"),
            ("sync.heartbeat_timeout_secs", "3"),
        ];
        let server = Server::with(engine, &short).await;
        let me = server.api().newcomer("mine").await;
        let _deaf = deaf(&server, &me).await;
        let metrics = server.admin();
        let open = async || {
            let text = reqwest::get(format!("http://{}/metrics", metrics.address())).await.unwrap();
            let text = text.text().await.unwrap();
            let line = text.lines().find(|l| l.contains("sockets_open") && !l.starts_with('#'));
            line.unwrap_or_else(|| panic!("{text}")).ends_with(" 0")
        };
        assert!(!open().await);
        within(Duration::from_secs(20), "the socket is closed", open).await;
    }
}

/// A socket whose client asks for more and more and reads nothing of it.
async fn deaf(server: &Server, device: &Device) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address: SocketAddr = server.listen().parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let head = format!(
        "GET /v1/sync HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: {PROTOCOL}\r\nAuthorization: Bearer {}\r\n\r\n",
        device.access
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 101");
    let ping = json!({"type": "ping", "ref": "r".repeat(90)}).to_string();
    let mut frame = vec![0x81, 0x80 | 0x7e, 0, 0, 0, 0, 0, 0];
    frame[2..4].copy_from_slice(&u16::try_from(ping.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(ping.as_bytes());
    let many = frame.repeat(100);
    // Until nothing goes any more in either direction.
    while let Ok(sent) = timeout(Duration::from_millis(500), stream.write_all(&many)).await {
        sent.unwrap();
    }
    stream
}
