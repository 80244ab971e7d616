//! Text as RFC 6455 wants it: UTF-8, however it is cut, and refused as soon as it cannot be.
//!
//! The sequences are those of Markus Kuhn's "UTF-8 decoder capability and stress test", which public
//! conformance suites use. Each is put into the `ref` of a ping.

use std::time::Duration;

use tokio::time::timeout;

use crate::support::{
    Engine, Got, Raw, Server,
    raw::{PING, TEXT, frame},
};

/// "kosme" in Greek: characters of two and of three bytes.
const GREEK: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";

/// A ping whose `ref` is these bytes.
fn ask(sequence: &[u8]) -> Vec<u8> {
    [br#"{"type":"ping","ref":""#, sequence, br#""}"#].concat()
}

/// The message in frames that end before each of these bytes.
fn cut(message: &[u8], ends: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut from = 0;
    for end in ends.iter().copied().chain([message.len()]) {
        let first = u8::from(from == 0);
        let last = if end == message.len() { 0x80 } else { 0x00 };
        out.extend(frame(first | last, &message[from..end]));
        from = end;
    }
    out
}

/// Sends the message in every way it can be cut: whole, byte by byte, in a frame for each byte, and
/// in two frames at each place.
async fn each_way(sequence: &[u8], check: impl AsyncFn(Vec<u8>, bool)) {
    let message = ask(sequence);
    check(frame(TEXT, &message), false).await;
    check(frame(TEXT, &message), true).await;
    let all: Vec<_> = (1..message.len()).collect();
    check(cut(&message, &all), false).await;
    let begin = ask(b"").len() - 2;
    for at in begin..=begin + sequence.len() {
        check(cut(&message, &[at]), false).await;
    }
}

async fn takes(sequences: &[&[u8]]) {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    for sequence in sequences {
        let reference = std::str::from_utf8(sequence).expect("the case is good");
        each_way(sequence, async |bytes, bytewise| {
            let mut raw = Raw::open(&me).await;
            if bytewise {
                raw.send_bytewise(&bytes).await;
            } else {
                raw.send(bytes).await;
            }
            raw.expect_answer(reference).await;
        })
        .await;
    }
}

async fn refuses(sequences: &[&[u8]]) {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    for sequence in sequences {
        assert!(std::str::from_utf8(sequence).is_err(), "{sequence:x?}");
        each_way(sequence, async |bytes, bytewise| {
            let mut raw = Raw::open(&me).await;
            if bytewise {
                raw.send_bytewise(&bytes).await;
            } else {
                // It may be refused before it is all there.
                drop(raw.try_send(bytes).await);
            }
            match raw.next().await {
                Got::Close(Some((1007, _))) => {}
                other => panic!("{sequence:x?}: {other:?}"),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn good_text() {
    takes(&[
        b"",
        "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
        GREEK,
        "你好，世界".as_bytes(),
        // The first and the last of each length, as far as JSON takes them.
        b"\x20",
        b"\xc2\x80",
        b"\xe0\xa0\x80",
        b"\xf0\x90\x80\x80",
        b"\x7f",
        b"\xdf\xbf",
        b"\xef\xbf\xbf",
        b"\xf4\x8f\xbf\xbf",
        // Around the surrogates and at the end.
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbd",
        // Non-characters, which are characters to UTF-8.
        b"\xef\xbf\xbe",
        b"\xf0\x9f\xbf\xbe",
        b"\xf3\xbf\xbf\xbf",
        // Specials.
        b"\xef\xbf\xb9\xef\xbf\xba\xef\xbf\xbb\xef\xbf\xbc\xef\xbf\xbd",
    ])
    .await;
}

#[tokio::test]
async fn text_that_ends_too_early() {
    let prefixes: Vec<_> = (1..GREEK.len())
        .map(|n| &GREEK[..n])
        .filter(|cut| std::str::from_utf8(cut).is_err())
        .collect();
    assert_eq!(prefixes.len(), 6);
    refuses(&prefixes).await;
}

#[tokio::test]
async fn sequences_that_are_none() {
    refuses(&[
        // Of five and six bytes, the first and the last; beyond the end.
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xf7\xbf\xbf\xbf",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf\xbf",
        b"\xf4\x90\x80\x80",
        // Continuations of nothing.
        b"\x80",
        b"\xbf",
        b"\x80\xbf",
        b"\x80\xbf\x80\xbf\x80\xbf",
        // Beginnings of nothing.
        b"\xc0 \xc1 \xdf ",
        b"\xe0 \xef ",
        b"\xf0 \xf7 ",
        b"\xf8 \xfb ",
        b"\xfc \xfd ",
        // The last byte is missing.
        b"\xdf",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xc0\xe0\x80\xf0\x80\x80",
        // Never in UTF-8.
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
    ])
    .await;
}

#[tokio::test]
async fn longer_than_need_be_and_surrogates() {
    refuses(&[
        // "/" in two to six bytes.
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x80\x80\x80\xaf",
        b"\xfc\x80\x80\x80\x80\xaf",
        // The last that would be longer than need be.
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf8\x87\xbf\xbf\xbf",
        b"\xfc\x83\xbf\xbf\xbf\xbf",
        // Zero.
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\xf8\x80\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80\x80",
        // Surrogates, alone and in pairs.
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xae\x80",
        b"\xed\xaf\xbf",
        b"\xed\xb0\x80",
        b"\xed\xbe\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xed\xad\xbf\xed\xbf\xbf",
        b"\xed\xae\x80\xed\xb0\x80",
        b"\xed\xaf\xbf\xed\xbf\xbf",
    ])
    .await;
}

/// The bytes before the bad one are taken without a word; the bad one ends the connection, though
/// the message never ends.
#[tokio::test]
async fn it_fails_fast() {
    let server = Server::start(Engine::Sqlite).await;
    let me = server.api().newcomer("mine").await;
    // A part for each piece: good, bad, good; and all of them in one frame that stays unfinished.
    let good = [br#"{"type":"ping","ref":""#, GREEK].concat();
    for bad in [&b"\xf4\x90"[..], b"\xed\xa0", b"\xff"] {
        let mut raw = Raw::open(&me).await;
        raw.send(frame(0x01, &good)).await;
        raw.send(frame(PING, b"still")).await;
        assert_eq!(raw.next().await, Got::Pong(b"still".to_vec()));
        raw.send(frame(0x00, bad)).await;
        raw.expect_close(1007).await;

        let mut raw = Raw::open(&me).await;
        let whole = frame(TEXT, [&good[..], bad, &[b'x'; 100]].concat());
        let (before, after) = whole.split_at(8 + good.len() + bad.len() - 1);
        raw.send(before).await;
        let early = timeout(Duration::from_millis(200), raw.next()).await;
        assert!(early.is_err(), "{early:?}");
        raw.send(&after[..1]).await;
        raw.expect_close(1007).await;
    }
}
