//! Clients that do harm by what they do not do: read, finish, answer, say who they are.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    Device, Engine, Got, Raw, Server, Socket, eventually,
    raw::{CLOSE, NO_LIMITS, TEXT, frame, head, ping_of, shout},
    within,
};

fn ended(reason: &str) -> String {
    format!("sockets_ended_total{{reason=\"{reason}\"}}")
}

both_engines! {
    async fn a_client_that_never_reads_is_dropped(engine) {
        let server = Server::with(engine, &NO_LIMITS).await;
        let me = server.api().newcomer("mine").await;
        let loud = server.api().login(&me.phone, "loud").await;
        let mut deaf = Raw::connect_narrow(&server).await.opened(&me).await;
        let mut loud = Socket::open(&loud).await;
        // Much, and less than it may be behind: it could be slow.
        shout(&mut loud, 40).await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(server.metric(&ended("send_queue_full")).await, 0);
        assert_eq!(server.metric("sockets_open").await, 2);
        // So much that 64 frames wait, and then events, which the window lets through.
        shout(&mut loud, 60).await;
        for n in 0..250 {
            me.put("song", &format!("s{n}")).await.ok(201);
        }
        within(Duration::from_secs(1), "it is dropped", async || {
            server.metric(&ended("send_queue_full")).await == 1
        })
        .await;
        assert_eq!(server.metric("sockets_open").await, 1);
        // No close frame, and not even the end of what was sent.
        loop {
            match deaf.next().await {
                Got::Text(_) => {}
                Got::Reset => break,
                other => panic!("{other:?}"),
            }
        }
        // Nothing is lost to it.
        let mut socket = Socket::open(&me).await;
        socket.expect_events(1, 250).await;
    }
}

#[tokio::test]
async fn a_client_that_is_only_slow_gets_everything() {
    let server = Server::with(Engine::Sqlite, &NO_LIMITS).await;
    let me = server.api().newcomer("mine").await;
    let loud = server.api().login(&me.phone, "loud").await;
    let mut slow = Raw::connect_narrow(&server).await.opened(&me).await;
    let mut loud = Socket::open(&loud).await;
    shout(&mut loud, 50).await;
    slow.send(frame(TEXT, ping_of(100))).await;
    for _ in 0..50 {
        sleep(Duration::from_millis(10)).await;
        match slow.next().await {
            Got::Text(signal) => assert_eq!(signal["name"], "shout"),
            other => panic!("{other:?}"),
        }
    }
    slow.expect_answer("r").await;
}

#[tokio::test]
async fn a_client_that_falls_silent_with_much_before_it_is_dropped() {
    let mut settings = NO_LIMITS.to_vec();
    settings.push(("sync.heartbeat_secs", "1"));
    settings.push(("sync.heartbeat_timeout_secs", "3"));
    let server = Server::with(Engine::Sqlite, &settings).await;
    let me = server.api().newcomer("mine").await;
    let loud = server.api().login(&me.phone, "loud").await;
    let _deaf = Raw::connect_narrow(&server).await.opened(&me).await;
    let mut loud = Socket::open(&loud).await;
    shout(&mut loud, 40).await;
    loud.close().await;
    assert_eq!(server.metric("sockets_open").await, 1);
    // The close frame waits behind what is not read, but not for ever.
    within(Duration::from_secs(12), "it is dropped", async || {
        server.metric("sockets_open").await == 0
    })
    .await;
    assert_eq!(server.metric(&ended("no_heartbeat")).await, 1);
}

#[tokio::test]
async fn a_client_that_is_gone_is_counted_as_gone() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    drop(Raw::open(&me).await);
    eventually("it is gone", async || {
        server.metric(&ended("peer_gone")).await == 1
    })
    .await;
    let mut polite = Raw::open(&me).await;
    polite.send(frame(CLOSE, 1000_u16.to_be_bytes())).await;
    polite.expect_close(1000).await;
    drop(polite);
    eventually("it is over", async || {
        server.metric(&ended("normal")).await == 1
    })
    .await;
    assert_eq!(server.metric("sockets_open").await, 0);
    assert_eq!(server.metric("socket_close_timeouts_total").await, 0);
}

#[tokio::test]
async fn half_a_frame_and_then_nothing() {
    let short = [
        ("sync.heartbeat_secs", "1"),
        ("sync.heartbeat_timeout_secs", "3"),
    ];
    let server = Server::with(Engine::Sqlite, &short).await;
    let me = server.api().newcomer("mine").await;
    for half in [
        vec![0x81],
        head(TEXT, 1000),
        head(TEXT, 65_536),
        frame(TEXT, ping_of(60_000))[..50_000].to_vec(),
        frame(0x01, ping_of(60_000)),
    ] {
        let mut raw = Raw::open(&me).await;
        raw.send(&half).await;
        // A frame that is not whole is no sign of life.
        raw.expect_close(4002).await;
    }
}

#[tokio::test]
async fn garbage_ends_its_connection_and_nothing_else() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let other = server.api().newcomer("other").await;
    let mut lively = Socket::open(&other).await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50);
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
    let zeros = vec![0; 100_000];
    let ones = vec![0xff; 100_000];
    let world = listen_stream::domain::clock::World::system();
    let noise: Vec<u8> = (0..64).flat_map(|_| world.bytes::<64>().unwrap()).collect();
    for garbage in [hello, http, zeros, ones, noise] {
        let mut raw = Raw::open(&me).await;
        drop(raw.try_send(&garbage).await);
        match raw.next().await {
            Got::Close(Some((code, _))) => assert!(matches!(code, 1002 | 1007 | 1009 | 4006)),
            // Noise may be the beginning of a long frame.
            Got::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // Brackets within brackets, as many as fit.
    for (before, after) in [
        ("", ""),
        (r#"{"type":"ping","ref":"#, "}"),
        (r#"{"type":"ping","ref":"r","x":"#, "}"),
        (r#"{"type":"ack","ack_token":"#, "}"),
        (r#"{"type":"x","data":"#, "}"),
    ] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let room = 65_000 - before.len() - after.len();
            let depth = room / (open.len() + close.len());
            for inner in ["1", ""] {
                let text = [
                    before,
                    &open.repeat(depth),
                    inner,
                    &close.repeat(depth),
                    after,
                ]
                .concat();
                let mut raw = Raw::open(&me).await;
                raw.send(frame(TEXT, text)).await;
                match raw.next().await {
                    Got::Close(Some((4006, _))) | Got::Text(_) => {}
                    other => panic!("{before} {open}: {other:?}"),
                }
            }
        }
    }
    lively.ping().await;
    assert_eq!(
        server
            .metric("actor_restarts_total{kind=\"user_session\"}")
            .await,
        0
    );
}

/// So many connections say nothing, or little, and the server still serves.
#[tokio::test]
async fn who_says_nothing_is_let_go_within_seconds() {
    let server = Server::start(Engine::Sqlite).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(Raw::connect(&server).await);
    }
    let began = Instant::now();
    server.api().get("/health").await.ok(200);
    let mut dribbling = Raw::connect(&server).await;
    let dribble = tokio::spawn(async move {
        let head = b"GET /v1/sync HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket";
        for byte in head {
            if dribbling.try_send([*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        dribbling.rest().await
    });
    for mut raw in silent {
        let told = raw.rest().await;
        assert!(
            told.is_empty() || told.starts_with("HTTP/1.1 408 "),
            "{told}"
        );
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(9), "{took:?}");
    let told = dribble.await.unwrap();
    assert!(
        told.is_empty() || told.starts_with("HTTP/1.1 408 "),
        "{told}"
    );
}

#[tokio::test]
async fn a_second_request_may_not_dribble_for_ever() {
    let server = Server::with(Engine::Sqlite, &[("server.idle_connection_secs", "1")]).await;
    let mut raw = Raw::connect(&server).await;
    raw.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(raw.answer().await.0.starts_with("http/1.1 200 "));
    let began = Instant::now();
    let over = timeout(Duration::from_secs(6), async {
        loop {
            // A byte of a head that never ends.
            if raw.try_send(b"G").await.is_err() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    over.await.expect("it is closed");
    assert!(began.elapsed() > Duration::from_millis(900));
}

#[tokio::test]
async fn a_connection_in_use_is_not_idle() {
    let server = Server::with(Engine::Sqlite, &[("server.idle_connection_secs", "1")]).await;
    let mut raw = Raw::connect(&server).await;
    for _ in 0..8 {
        raw.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(raw.answer().await.0.starts_with("http/1.1 200 "));
        sleep(Duration::from_millis(500)).await;
    }
    // And a socket is none of this.
    let me = server.api().newcomer("mine").await;
    let mut raw = Raw::open(&me).await;
    sleep(Duration::from_millis(2500)).await;
    raw.send(frame(TEXT, ping_of(50))).await;
    raw.expect_answer("r").await;
}

#[tokio::test]
async fn of_many_only_as_many_as_the_gate_are_let_in() {
    const ROOM: usize = 100;
    let server = Server::with(Engine::Sqlite, &[("server.max_connections", "100")]).await;
    let api = server.api();
    let logging_in = (0..ROOM / 5).map(|_| async {
        let mut devices: Vec<Device> = vec![api.newcomer("d0").await];
        for n in 1..5 {
            devices.push(api.login(&devices[0].phone, &format!("d{n}")).await);
        }
        devices
    });
    let devices = join_all(logging_in).await.concat();
    let ticket = devices[0].ticket().await;
    // Three at once for each place.
    let opening = devices.iter().cycle().take(3 * ROOM).map(|device| {
        let device = device.clone();
        tokio::spawn(async move {
            let mut raw = Raw::at(&device).await;
            let answer = raw.upgrade(&device).await;
            (raw, answer)
        })
    });
    let (mut open, mut refused) = (Vec::new(), 0);
    for one in opening.collect::<Vec<_>>() {
        let (mut raw, answer) = one.await.unwrap();
        if answer.starts_with("HTTP/1.1 101 ") {
            open.push(raw);
        } else {
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.contains("\r\nretry-after: "), "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
            let body = raw.rest().await;
            assert!(
                body.contains(r#""code":"connection_limit_reached""#),
                "{body}"
            );
            refused += 1;
        }
    }
    assert_eq!((open.len(), refused), (ROOM, 2 * ROOM));
    // A ticket is not used up by a server that has no room.
    let full = Socket::with_ticket(&api, &ticket).await;
    full.err().unwrap().problem(503, "connection_limit_reached");
    drop(open.pop());
    drop(open.pop());
    eventually("there is room again", async || {
        server.metric("sockets_open").await < 99
    })
    .await;
    let with_ticket = Socket::with_ticket(&api, &ticket).await;
    with_ticket
        .expect("the ticket still opens")
        .welcomed()
        .await
        .ping()
        .await;
    drop(open);
    eventually("all are gone", async || {
        server.metric("sockets_open").await == 0
    })
    .await;
}
