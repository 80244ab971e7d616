//! Clients that send too much, and those that only seem to.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    Engine, Got, Raw, Server, Socket,
    raw::{CLOSE, PING, PONG, TEXT, frame},
};

/// What comes back until the close: texts that are no error, errors of `rate_limited`, pongs.
async fn until_closed(raw: &mut Raw) -> (usize, usize, usize, u16) {
    let (mut texts, mut limited, mut pongs) = (0, 0, 0);
    loop {
        match raw.next().await {
            Got::Text(text) if text["code"] == "rate_limited" => limited += 1,
            Got::Text(_) => texts += 1,
            Got::Pong(_) => pongs += 1,
            Got::Ping(_) => {}
            Got::Close(Some((code, _))) => return (texts, limited, pongs, code),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_flood_is_told_once_and_closed() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let ask = json!({"type": "ping", "ref": 1}).to_string();
    let floods: [(&str, Vec<u8>); 5] = [
        ("pings of ours", frame(TEXT, ask)),
        ("unknown frames", frame(TEXT, r#"{"type":"wave"}"#)),
        ("pings", frame(PING, b"x")),
        ("pongs", frame(PONG, b"x")),
        ("empty parts", frame(0x00, b"")),
    ];
    for (what, one) in floods {
        let mut raw = Raw::open(&me).await;
        if what == "empty parts" {
            raw.send(frame(0x01, b"")).await;
        }
        let began = Instant::now();
        drop(raw.try_send(one.repeat(2000)).await);
        let (texts, limited, pongs, code) = until_closed(&mut raw).await;
        assert_eq!((limited, code), (1, 4006), "{what}");
        // The burst, and what the rate gave meanwhile.
        let most = 250 + 50 * (usize::try_from(began.elapsed().as_secs()).unwrap() + 1);
        assert!(texts + pongs <= most, "{what}: {texts} and {pongs}");
        assert!(matches!(raw.next().await, Got::End | Got::Reset), "{what}");
    }
}

/// Whoever goes on all the same is not listened to for long.
#[tokio::test]
async fn a_flood_that_does_not_end_is_cut_off() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let mut raw = Raw::open(&me).await;
    let began = Instant::now();
    let many = frame(PING, b"x").repeat(10_000);
    while raw.try_send(&many).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(4), "it is still read");
    }
}

#[tokio::test]
async fn frames_that_come_with_the_upgrade_count_too() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let mut raw = Raw::connect(&server).await;
    let bearer = format!("Bearer {}", me.access);
    let head = crate::support::raw::upgrade_head(
        server.listen(),
        "/v1/sync",
        &[("Authorization", &bearer)],
    );
    let mut bytes = head.into_bytes();
    bytes.extend(frame(TEXT, r#"{"type":"ping","ref":"early"}"#).repeat(2000));
    drop(raw.try_send(bytes).await);
    assert!(raw.answer_head().await.starts_with("HTTP/1.1 101 "));
    let (texts, limited, _, code) = until_closed(&mut raw).await;
    assert_eq!((limited, code), (1, 4006));
    assert!((1..=350).contains(&texts), "{texts}");
}

#[tokio::test]
async fn who_slows_down_is_forgiven() {
    let server = Server::with(
        Engine::Sqlite,
        &[
            ("sync.frames_per_second", "100"),
            ("sync.frames_burst", "50"),
        ],
    )
    .await;
    let me = server.api().newcomer("mine").await;
    let mut raw = Raw::open(&me).await;
    let one = frame(TEXT, r#"{"type":"ping"}"#);
    for _ in 0..3 {
        raw.send(one.repeat(80)).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    // However much was sent before: a close is always heard.
    raw.send([one.repeat(60), frame(CLOSE, b"\x03\xe8")].concat())
        .await;
    let (texts, limited, _, code) = until_closed(&mut raw).await;
    assert_eq!((limited, code), (4, 1000));
    assert!((150..=240).contains(&texts), "{texts}");
}

#[tokio::test]
async fn acks_one_by_one_are_no_flood() {
    let server = Server::with(
        Engine::Sqlite,
        &[("sync.frames_per_second", "1"), ("sync.frames_burst", "5")],
    )
    .await;
    let me = server.api().newcomer("mine").await;
    for n in 0..400 {
        me.put("song", &format!("s{n}")).await.ok(201);
    }
    let (_, epoch) = me.head().await;
    let query = format!("?since=0&epoch={epoch}");
    let mut socket = Socket::open_with(&me, &query).await;
    for seq in 1..=400 {
        let event = socket.expect_event(seq).await;
        socket.ack(&event).await;
    }
    socket.ping().await;
    // What was not used of that is not kept for later: it is acks that are free, not noise.
    let mut raw = Raw::open(&me).await;
    drop(
        raw.try_send(frame(TEXT, r#"{"type":"ping"}"#).repeat(100))
            .await,
    );
    let (_, limited, _, code) = until_closed(&mut raw).await;
    assert_eq!((limited, code), (1, 4006));
}

#[tokio::test]
async fn acks_that_come_at_once_are_one_to_the_session() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let (_, epoch) = me.head().await;
    let mut raw = Raw::open(&me).await;
    for n in 1..=100 {
        me.put("song", &format!("s{n}")).await.ok(201);
        assert!(matches!(raw.next().await, Got::Text(event) if event["seq"] == n));
    }
    let ack = |n: u64| {
        let ack = json!({"type": "ack", "up_to": n, "epoch": epoch});
        frame(TEXT, ack.to_string())
    };
    let mut bytes: Vec<u8> = (1..=60).flat_map(ack).collect();
    // What is no ack, or goes back, is not drawn into it; nothing changes its place.
    bytes.extend(frame(TEXT, r#"{"type":"ping","ref":"between"}"#));
    bytes.extend((61..=100).flat_map(ack));
    bytes.extend(ack(7));
    bytes.extend(frame(
        TEXT,
        json!({"type": "ack", "up_to": 500, "epoch": epoch, "ref": "far"}).to_string(),
    ));
    bytes.extend(frame(TEXT, r#"{"type":"ping","ref":"last"}"#));
    let handled = "actor_messages_total{kind=\"user_session\"}";
    let before = server.metric(handled).await;
    raw.send(bytes).await;
    raw.expect_answer("between").await;
    // Whether it is too far is looked up first, and the ping does not wait for that.
    raw.expect_answer("last").await;
    assert!(matches!(raw.next().await, Got::Text(error) if error["ref"] == "far"));
    let told = server.metric(handled).await - before;
    assert!((6..20).contains(&told), "{told} messages");
    crate::support::eventually("the acks are stored", async || {
        me.waiting().await.is_empty()
    })
    .await;
}
