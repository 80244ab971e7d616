//! RFC 6455, case by case as public conformance suites have them: frames and lengths, pings, reserved
//! bits and opcodes, fragmentation, closing. Messages are pings of the subprotocol, cut and padded.
//! Text is in `rfc6455_utf8`.

use std::time::Duration;

use crate::support::{
    Device, Engine, Got, Raw, Server, eventually,
    raw::{BINARY, CLOSE, MASK, PING, PONG, TEXT, frame, head, ping_of},
};

/// The first byte of a frame that is not the last of its message.
const FIRST: u8 = 0x01;
const MIDDLE: u8 = 0x00;
const LAST: u8 = 0x80;

/// How a case ends.
enum End {
    /// The connection goes on: a ping is answered.
    Open,
    /// The server refuses, with this code.
    Refused(u16),
    /// The server answers the client's close with this code, or with none.
    Closed(Option<u16>),
}
use End::{Closed, Open, Refused};

/// What a case sends, what comes back before the end, and the end.
struct Case {
    name: String,
    bytes: Vec<Vec<u8>>,
    back: Vec<Got>,
    end: End,
}

fn case(name: impl Into<String>, bytes: Vec<Vec<u8>>, back: Vec<Got>, end: End) -> Case {
    Case {
        name: name.into(),
        bytes,
        back,
        end,
    }
}

/// A ping of the subprotocol with this `ref`.
fn ask(reference: &str) -> Vec<u8> {
    serde_json::json!({"type": "ping", "ref": reference})
        .to_string()
        .into_bytes()
}

fn answer(reference: &str) -> Got {
    Got::Text(serde_json::json!({"type": "pong", "ref": reference}))
}

fn pong(payload: &[u8]) -> Got {
    Got::Pong(payload.to_vec())
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, [&code.to_be_bytes(), reason].concat())
}

/// Runs every case on a connection of its own: once in one piece, once a frame at a time, and once
/// byte by byte.
async fn run(cases: Vec<Case>) {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    for case in &cases {
        for how in ["at once", "frame by frame", "byte by byte"] {
            let whole = case.bytes.concat();
            if how == "byte by byte" && whole.len() > 2000 {
                continue;
            }
            let mut raw = Raw::open(&me).await;
            // What a server refuses it need not read to the end.
            match how {
                "at once" => drop(raw.try_send(&whole).await),
                "frame by frame" => {
                    for bytes in &case.bytes {
                        if raw.try_send(bytes).await.is_err() {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                }
                _ => raw.send_bytewise(&whole).await,
            }
            check(case, how, &mut raw).await;
        }
    }
}

async fn check(case: &Case, how: &str, raw: &mut Raw) {
    let what = format!("{}, {how}", case.name);
    for expected in &case.back {
        let got = raw.next().await;
        // What was asked before a violation may be answered or not.
        if matches!((&case.end, &got), (Refused(_), Got::Close(_))) {
            return refused(case, &what, got);
        }
        assert_eq!(got, *expected, "{what}");
    }
    match case.end {
        Open => {
            raw.send(frame(TEXT, ask("still here"))).await;
            assert_eq!(raw.next().await, answer("still here"), "{what}");
        }
        Refused(_) => {
            refused(case, &what, raw.next().await);
            assert!(matches!(raw.next().await, Got::End | Got::Reset), "{what}");
        }
        Closed(code) => {
            let expected = Got::Close(code.map(|code| (code, String::new())));
            assert_eq!(raw.next().await, expected, "{what}");
            assert_eq!(raw.next().await, Got::End, "{what}");
        }
    }
}

fn refused(case: &Case, what: &str, got: Got) {
    let Refused(code) = case.end else {
        panic!("{what}: {got:?}")
    };
    match got {
        Got::Close(Some((got, reason))) => {
            assert_eq!(got, code, "{what}");
            assert!(!reason.is_empty(), "{what}");
        }
        other => panic!("{what}: expected close {code}, got {other:?}"),
    }
}

#[tokio::test]
async fn lengths() {
    let mut cases = Vec::new();
    for length in [125, 126, 127, 128, 1300, 65_535, 65_536] {
        let bytes = frame(TEXT, ping_of(length));
        cases.push(case(
            format!("{length} bytes"),
            vec![bytes.clone()],
            vec![answer("r")],
            Open,
        ));
        let pieces = bytes.chunks(997).map(<[u8]>::to_vec).collect();
        cases.push(case(
            format!("{length} bytes in pieces of 997"),
            pieces,
            vec![answer("r")],
            Open,
        ));
    }
    cases.push(case(
        "nothing",
        vec![frame(TEXT, b"")],
        vec![],
        Refused(4006),
    ));
    cases.push(case(
        "65537 bytes",
        vec![frame(TEXT, ping_of(65_537))],
        vec![],
        Refused(1009),
    ));
    cases.push(case(
        "65537 bytes, announced",
        vec![head(TEXT, 65_537)],
        vec![],
        Refused(1009),
    ));
    let long_way = |wide: &[u8]| {
        let text = ask("long way");
        let payload = text.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m);
        [&[TEXT], wide, &MASK]
            .concat()
            .into_iter()
            .chain(payload)
            .collect::<Vec<_>>()
    };
    let length = u8::try_from(ask("long way").len()).unwrap();
    cases.push(case(
        "a length of 16 bits that 7 could hold",
        vec![long_way(&[0xfe, 0, length])],
        vec![],
        Refused(1002),
    ));
    cases.push(case(
        "a length of 64 bits that 7 could hold",
        vec![long_way(&[0xff, 0, 0, 0, 0, 0, 0, 0, length])],
        vec![],
        Refused(1002),
    ));
    cases.push(case(
        "a length with the highest bit",
        vec![long_way(&[0xff, 0x80, 0, 0, 0, 0, 0, 0, length])],
        vec![],
        Refused(1002),
    ));
    cases.push(case(
        "not masked",
        vec![[&[TEXT, length][..], &ask("long way")].concat()],
        vec![],
        Refused(1002),
    ));
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let payload = vec![0xfe; length];
        cases.push(case(
            format!("binary, {length} bytes"),
            vec![frame(BINARY, payload)],
            vec![],
            Refused(4006),
        ));
    }
    run(cases).await;
}

#[tokio::test]
async fn pings_and_pongs() {
    let mut cases = Vec::new();
    for payload in [
        &b""[..],
        b"Hello, world!",
        b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff",
        &[0xfe; 125],
    ] {
        cases.push(case(
            format!("a ping of {} bytes", payload.len()),
            vec![frame(PING, payload)],
            vec![pong(payload)],
            Open,
        ));
    }
    cases.push(case(
        "a ping of 126 bytes",
        vec![frame(PING, [b'x'; 126])],
        vec![],
        Refused(1002),
    ));
    cases.push(case(
        "a pong of 126 bytes",
        vec![frame(PONG, [b'x'; 126])],
        vec![],
        Refused(1002),
    ));
    cases.push(case(
        "a pong for nothing",
        vec![frame(PONG, b"")],
        vec![],
        Open,
    ));
    cases.push(case(
        "a pong for nothing, and a ping",
        vec![frame(PONG, b"unsolicited"), frame(PING, b"ping")],
        vec![pong(b"ping")],
        Open,
    ));
    run(cases).await;
}

#[tokio::test]
async fn of_many_pings_at_least_the_last_is_answered_and_in_order() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    for bytewise in [false, true] {
        let mut raw = Raw::open(&me).await;
        let pings: Vec<u8> = (0..10_u8).flat_map(|n| frame(PING, [n])).collect();
        if bytewise {
            raw.send_bytewise(&pings).await;
        } else {
            raw.send(&pings).await;
        }
        let mut last = None;
        while last != Some(9) {
            match raw.next().await {
                Got::Pong(payload) => {
                    let [n] = payload[..] else {
                        panic!("{payload:?}")
                    };
                    assert!(last < Some(n), "{n} after {last:?}");
                    last = Some(n);
                }
                other => panic!("{other:?}"),
            }
        }
        raw.send(frame(TEXT, ask("x"))).await;
        raw.expect_answer("x").await;
    }
}

#[tokio::test]
async fn reserved_bits() {
    let mut cases = Vec::new();
    for bits in 1..8_u8 {
        for (name, opcode) in [("text", TEXT), ("ping", PING), ("close", CLOSE)] {
            let first = opcode | (bits << 4);
            cases.push(case(
                format!("bits {bits} on a {name}"),
                vec![frame(first, b"")],
                vec![],
                Refused(1002),
            ));
            cases.push(case(
                format!("bits {bits} on a {name} after a message"),
                vec![
                    frame(TEXT, ask("before")),
                    frame(first, b"x"),
                    frame(PING, b"after"),
                ],
                vec![answer("before")],
                Refused(1002),
            ));
        }
    }
    run(cases).await;
}

#[tokio::test]
async fn reserved_opcodes() {
    let mut cases = Vec::new();
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15_u8] {
        for payload in [&b""[..], b"reserved"] {
            for last in [0, 0x80] {
                cases.push(case(
                    format!("opcode {opcode}, {last}, {}", payload.len()),
                    vec![frame(last | opcode, payload)],
                    vec![],
                    Refused(1002),
                ));
            }
        }
        cases.push(case(
            format!("opcode {opcode} after a message"),
            vec![
                frame(TEXT, ask("before")),
                frame(0x80 | opcode, b"x"),
                frame(PING, b"after"),
            ],
            vec![answer("before")],
            Refused(1002),
        ));
    }
    run(cases).await;
}

#[tokio::test]
async fn fragmentation() {
    let text = ask("in parts");
    let (a, b) = text.split_at(11);
    let whole = || answer("in parts");
    let good = |name: &str, bytes: Vec<Vec<u8>>, back: Vec<Got>| case(name, bytes, back, Open);
    let bad = |name: &str, bytes: Vec<Vec<u8>>| case(name, bytes, vec![], Refused(1002));
    let cases = vec![
        bad("a ping in two", vec![frame(0x09, b"a"), frame(LAST, b"b")]),
        bad("a pong in two", vec![frame(0x0a, b"a"), frame(LAST, b"b")]),
        bad(
            "a close in two",
            vec![frame(0x08, b"\x03"), frame(LAST, b"\xe8")],
        ),
        good("two", vec![frame(FIRST, a), frame(LAST, b)], vec![whole()]),
        good(
            "two, with a ping between",
            vec![frame(FIRST, a), frame(PING, b"!"), frame(LAST, b)],
            vec![pong(b"!"), whole()],
        ),
        good(
            "empty parts around",
            vec![
                frame(FIRST, b""),
                frame(MIDDLE, &text),
                frame(MIDDLE, b""),
                frame(LAST, b""),
            ],
            vec![whole()],
        ),
        good(
            "one after another",
            vec![
                frame(FIRST, a),
                frame(LAST, b),
                frame(TEXT, &text),
                frame(FIRST, a),
                frame(LAST, b),
            ],
            vec![whole(), whole(), whole()],
        ),
        good(
            "five, with pings between",
            vec![
                frame(FIRST, &text[..3]),
                frame(MIDDLE, &text[3..6]),
                frame(PING, b"one"),
                frame(MIDDLE, &text[6..9]),
                frame(PONG, b""),
                frame(MIDDLE, &text[9..12]),
                frame(LAST, &text[12..]),
            ],
            vec![pong(b"one"), whole()],
        ),
        good(
            "a byte each",
            text.iter()
                .enumerate()
                .map(|(i, byte)| {
                    let last = i + 1 == text.len();
                    let first = if i == 0 { FIRST } else { MIDDLE };
                    frame(if last { LAST } else { first }, [*byte])
                })
                .collect(),
            vec![whole()],
        ),
        bad(
            "text within a message",
            vec![frame(FIRST, a), frame(TEXT, b)],
        ),
        bad("a second beginning", vec![frame(FIRST, a), frame(FIRST, b)]),
        bad(
            "binary within a message",
            vec![frame(FIRST, a), frame(BINARY, b)],
        ),
        case(
            "binary in two",
            vec![frame(0x02, a), frame(LAST, b)],
            vec![],
            Refused(4006),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn fragments_of_nothing() {
    let text = ask("in parts");
    let (a, b) = text.split_at(11);
    let mut cases = Vec::new();
    for (name, first) in [("last", LAST), ("not last", MIDDLE)] {
        cases.push(case(
            format!("nothing to go on with, {name}"),
            vec![frame(first, b"non-continuation"), frame(TEXT, &text)],
            vec![],
            Refused(1002),
        ));
        cases.push(case(
            format!("nothing to go on with after a message, {name}"),
            vec![
                frame(FIRST, a),
                frame(LAST, b),
                frame(first, b"more"),
                frame(TEXT, &text),
            ],
            vec![answer("in parts")],
            Refused(1002),
        ));
    }
    run(cases).await;
}

#[tokio::test]
async fn long_messages_in_parts() {
    let mut cases = Vec::new();
    let long = ping_of(65_536);
    let mut parts: Vec<_> = long
        .as_bytes()
        .chunks(1300)
        .map(|c| frame(MIDDLE, c))
        .collect();
    parts[0][0] = FIRST;
    parts.last_mut().unwrap()[0] = LAST;
    cases.push(case(
        "65536 in parts of 1300",
        parts.clone(),
        vec![answer("r")],
        Open,
    ));
    let at = parts.len() - 1;
    parts[at][0] = MIDDLE;
    parts.push(frame(LAST, b"!"));
    cases.push(case("65537 in parts of 1300", parts, vec![], Refused(1009)));
    run(cases).await;
}

#[tokio::test]
async fn a_message_may_take_its_time() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let mut raw = Raw::open(&me).await;
    let text = ask("slow");
    for (i, byte) in text.iter().enumerate() {
        let last = if i + 1 == text.len() { 0x80 } else { 0 };
        raw.send(frame(last | u8::from(i == 0), [*byte])).await;
        if i % 10 == 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            raw.send(frame(PING, [*byte])).await;
            assert_eq!(raw.next().await, pong(&[*byte]));
        }
    }
    raw.expect_answer("slow").await;
}

#[tokio::test]
async fn closing() {
    let text = ask("in parts");
    let (a, b) = text.split_at(11);
    let mut cases = vec![
        case("no payload", vec![frame(CLOSE, b"")], vec![], Closed(None)),
        case(
            "one byte",
            vec![frame(CLOSE, b"\x03")],
            vec![],
            Refused(1002),
        ),
        case("a code", vec![close(1000, b"")], vec![], Closed(Some(1000))),
        case(
            "a reason",
            vec![close(1000, b"bye")],
            vec![],
            Closed(Some(1000)),
        ),
        case(
            "a reason of 123 bytes",
            vec![close(1000, &[b'x'; 123])],
            vec![],
            Closed(Some(1000)),
        ),
        case(
            "a reason of 124 bytes",
            vec![close(1000, &[b'x'; 124])],
            vec![],
            Refused(1002),
        ),
        case(
            "a reason that is no text",
            vec![close(
                1000,
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80",
            )],
            vec![],
            Refused(1007),
        ),
        case(
            "twice",
            vec![close(1000, b""), close(1001, b"")],
            vec![],
            Closed(Some(1000)),
        ),
        case(
            "with a ping after it",
            vec![close(1000, b""), frame(PING, b"late")],
            vec![],
            Closed(Some(1000)),
        ),
        case(
            "with a message after it",
            vec![close(1000, b""), frame(TEXT, &text)],
            vec![],
            Closed(Some(1000)),
        ),
        case(
            "within a message",
            vec![frame(FIRST, a), close(1000, b""), frame(LAST, b)],
            vec![],
            Closed(Some(1000)),
        ),
    ];
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
        4999,
    ] {
        cases.push(case(
            format!("code {code}"),
            vec![close(code, b"")],
            vec![],
            Closed(Some(code)),
        ));
    }
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        for reason in [&b""[..], b"why"] {
            cases.push(case(
                format!("code {code} with {} bytes", reason.len()),
                vec![close(code, reason)],
                vec![],
                Refused(1002),
            ));
        }
    }
    run(cases).await;
}

#[tokio::test]
async fn a_message_before_the_close_is_heard() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let (_, epoch) = me.head().await;
    for n in 1..=3_u64 {
        me.put("song", &format!("s{n}")).await.ok(201);
        let mut raw = Raw::open(&me).await;
        let ack = serde_json::json!({"type": "ack", "up_to": n, "epoch": epoch}).to_string();
        // In one segment: nothing between them.
        raw.send([frame(TEXT, ack), close(1000, b"")].concat())
            .await;
        raw.expect_close(1000).await;
        raw.expect_end().await;
        crate::support::eventually("the ack is stored", async || me.waiting().await.is_empty())
            .await;
    }
}

/// The server's own closes: it waits for the client's, but not for ever.
#[tokio::test]
async fn a_client_that_does_not_answer_a_close_is_cut_off() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let mut silent = Raw::open(&me).await;
    let polite = Raw::open(&me).await;
    let began = tokio::time::Instant::now();
    silent.expect_close(4001).await;
    // Its side of the stream stays open while ours may still be on its way.
    match silent.next().await {
        Got::End | Got::Reset => {}
        other => panic!("{other:?}"),
    }
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(3) && took < Duration::from_secs(8),
        "{took:?}"
    );
    let metrics = server.admin().get("/metrics").await.ok(200);
    let metrics = metrics.as_str().unwrap();
    assert!(
        metrics.contains("socket_close_timeouts_total 1"),
        "{metrics}"
    );
    drop(polite);
}

/// The same with a client that answers: the server ends its side at once.
#[tokio::test]
async fn a_close_that_is_answered_is_over() {
    let server = Server::start(Engine::Sqlite).await;
    let me: Device = server.api().newcomer("mine").await;
    let mut old = Raw::open(&me).await;
    let _new = Raw::open(&me).await;
    let began = tokio::time::Instant::now();
    old.expect_close(4001).await;
    old.send(close(4001, b"")).await;
    old.expect_end().await;
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_close_is_answered_to_a_client_that_sends_nothing_more() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    let close = frame(CLOSE, 1000_u16.to_be_bytes());
    for (last_words, code) in [(close, 1000), (vec![0xff; 8], 1002)] {
        let mut raw = Raw::at(&me).await;
        let answer = raw.upgrade(&me).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        // Both are there before the connection is attached, and so before they are looked at.
        raw.send(last_words).await;
        raw.finish().await;
        raw.expect_close(code).await;
        raw.expect_end().await;
    }
    eventually("they are gone", async || {
        server.metric("sockets_open").await == 0
    })
    .await;
    assert_eq!(server.metric("socket_close_timeouts_total").await, 0);
}
