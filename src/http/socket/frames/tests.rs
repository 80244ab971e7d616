use proptest::prelude::*;

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame with the shortest length.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let n = payload.len();
    let mut out = vec![first];
    match (u8::try_from(n), u16::try_from(n)) {
        (Ok(n @ ..126), _) => out.push(0x80 | n),
        (_, Ok(n)) => {
            out.push(0xfe);
            out.extend(n.to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

type Told = (Vec<Incoming>, Option<Violation>);

/// Everything that comes out, fed in pieces of `step` bytes, and how many bytes it took.
fn told(bytes: &[u8], step: usize) -> (Told, usize) {
    let mut decoder = Decoder::default();
    let mut out = Vec::new();
    let mut fed = 0;
    for piece in bytes.chunks(step) {
        decoder.feed(piece);
        fed += piece.len();
        loop {
            match decoder.next() {
                Ok(Some(it)) => out.push(it),
                Ok(None) => break,
                Err(e) => return ((out, Some(e)), fed),
            }
        }
    }
    ((out, None), fed)
}

fn text(s: &str) -> Incoming {
    Incoming::Text(s.into())
}

#[test]
fn messages_come_out_however_they_are_cut() {
    let big = "x".repeat(ClientFrame::MAX_BYTES);
    let mut bytes = frame(0x81, "κόσμε".as_bytes());
    bytes.extend(frame(0x01, b"he"));
    bytes.extend(frame(0x89, b"ping"));
    bytes.extend(frame(0x00, b""));
    bytes.extend(frame(0x8a, b""));
    bytes.extend(frame(0x80, b"llo"));
    bytes.extend(frame(0x81, b""));
    bytes.extend(frame(0x81, &[b'y'; 126]));
    bytes.extend(frame(0x81, big.as_bytes()));
    bytes.extend(frame(0x88, b"\x03\xe8bye"));
    let expected = vec![
        text("κόσμε"),
        Incoming::Part,
        Incoming::Ping(Bytes::from_static(b"ping")),
        Incoming::Part,
        Incoming::Pong,
        text("hello"),
        text(""),
        text(&"y".repeat(126)),
        text(&big),
        Incoming::Close(Some(CloseReason {
            code: 1000.into(),
            description: Some("bye".to_owned()),
        })),
    ];
    for step in [1, 2, 3, 7, 4096, bytes.len()] {
        assert_eq!(told(&bytes, step).0, (expected.clone_all(), None), "{step}");
    }
}

/// `Incoming` is not `Clone`, because nothing but this test would copy messages.
trait CloneAll {
    fn clone_all(&self) -> Vec<Incoming>;
}

impl CloneAll for Vec<Incoming> {
    fn clone_all(&self) -> Vec<Incoming> {
        self.iter()
            .map(|it| match it {
                Incoming::Text(s) => Incoming::Text(s.clone()),
                Incoming::Part => Incoming::Part,
                Incoming::Ping(b) => Incoming::Ping(b.clone()),
                Incoming::Pong => Incoming::Pong,
                Incoming::Close(r) => Incoming::Close(r.clone()),
            })
            .collect()
    }
}

#[test]
fn what_breaks_the_rules_is_refused_at_the_byte_that_does() {
    use Violation::{Binary, Protocol, TooBig, Utf8};
    let in_message = frame(0x01, b"a");
    let after = |second: &[u8]| [&in_message[..], second].concat();
    let cases: Vec<(&str, Vec<u8>, Violation, usize)> = vec![
        ("rsv1", vec![0xc1], Protocol, 1),
        ("rsv2", vec![0xa1], Protocol, 1),
        ("rsv3", vec![0x91], Protocol, 1),
        ("opcode 3", vec![0x83], Protocol, 1),
        ("opcode 7", vec![0x87], Protocol, 1),
        ("opcode 11", vec![0x8b], Protocol, 1),
        ("opcode 15", vec![0x8f], Protocol, 1),
        ("binary", vec![0x82], Binary, 1),
        ("binary in parts", vec![0x02], Binary, 1),
        ("unmasked", vec![0x81, 0x01], Protocol, 2),
        ("ping in parts", vec![0x09], Protocol, 1),
        ("pong in parts", vec![0x0a], Protocol, 1),
        ("close in parts", vec![0x08], Protocol, 1),
        ("long ping", vec![0x89, 0xfe], Protocol, 2),
        ("long close", vec![0x88, 0xff], Protocol, 2),
        ("nothing to go on with", vec![0x80], Protocol, 1),
        ("nothing to go on with, not last", vec![0x00], Protocol, 1),
        ("text within text", after(&[0x81]), Protocol, 8),
        ("binary within text", after(&[0x02]), Protocol, 8),
        ("126 for 125", vec![0x81, 0xfe, 0, 125], Protocol, 4),
        (
            "127 for 65535",
            vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            Protocol,
            10,
        ),
        (
            "a length with the highest bit",
            vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
            Protocol,
            10,
        ),
        (
            "64 KiB and one",
            vec![0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4],
            TooBig,
            14,
        ),
        (
            "an exbibyte",
            vec![0x81, 0xff, 0x10, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            TooBig,
            14,
        ),
        (
            "parts that are too long together",
            after(&[0x00, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4]),
            TooBig,
            7 + 14,
        ),
        ("close of one byte", frame(0x88, b"\x03"), Protocol, 7),
        ("close with bad text", frame(0x88, b"\x03\xe8\xff"), Utf8, 9),
        // "a" and the byte that cannot be, of a frame of 100 bytes that never comes.
        (
            "bad text in half a frame",
            frame(0x81, &[&b"a\xff"[..], &[b'x'; 98]].concat()),
            Utf8,
            8,
        ),
        (
            "half a character at the end",
            frame(0x81, b"\xe4\xbd"),
            Utf8,
            8,
        ),
    ];
    for (what, bytes, violation, at) in cases {
        let ((_, got), fed) = told(&bytes, 1);
        assert_eq!((got, fed), (Some(violation), at), "{what}");
        let ((_, got), _) = told(&bytes, bytes.len());
        assert_eq!(got, Some(violation), "{what}, at once");
    }
}

#[test]
fn close_codes_are_those_of_the_rfc() {
    for code in 0..=u16::MAX {
        let good = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let ((out, violation), _) = told(&frame(0x88, &code.to_be_bytes()), 100);
        if good {
            let reason = CloseReason {
                code: code.into(),
                description: None,
            };
            assert_eq!(out, [Incoming::Close(Some(reason))], "{code}");
        } else {
            assert_eq!(violation, Some(Violation::Protocol), "{code}");
        }
    }
    assert_eq!(told(&frame(0x88, b""), 9).0.0, [Incoming::Close(None)]);
}

#[test]
fn between_messages_no_memory_is_held() {
    let mut decoder = Decoder::new(b"");
    assert_eq!(decoder.buf.capacity(), 0);
    decoder.feed(&frame(0x81, &vec![b'x'; 60_000]));
    assert!(decoder.next().unwrap().is_some());
    assert_eq!(decoder.next(), Ok(None));
    assert_eq!(decoder.buf.capacity(), 0);
}

#[test]
fn the_beginning_of_a_frame_holds_no_more_than_itself() {
    for beginning in [&[0x89][..], &frame(0x81, b"hello")[..8]] {
        let mut decoder = Decoder::default();
        decoder.feed(&[&frame(0x81, &vec![b'x'; 60_000])[..], beginning].concat());
        assert!(decoder.next().unwrap().is_some());
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.buf, beginning);
        // Nothing large is behind it.
        assert!(!decoder.buf.try_reclaim(2 * SMALL));
    }
}

#[test]
fn a_frame_that_never_comes_takes_no_memory_for_it() {
    let mut decoder = Decoder::default();
    decoder.feed(&[0x81, 0xfe, 0xff, 0xff, 1, 2, 3, 4]);
    assert_eq!(decoder.next(), Ok(None));
    assert!(decoder.buf.capacity() < 1024);
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes: Vec<u8>, step in 1..50usize) {
        let _ = told(&bytes, step);
    }

    #[test]
    fn how_bytes_are_cut_changes_nothing(
        parts in prop::collection::vec((0..6usize, "\\PC{0,40}"), 1..10),
        noise: Vec<u8>,
        step in 1..20usize,
    ) {
        let mut bytes = Vec::new();
        for (kind, payload) in parts {
            let first = [0x81, 0x01, 0x00, 0x80, 0x8a, 0x89][kind];
            bytes.extend(frame(first, &payload.as_bytes()[..payload.len().min(125)]));
        }
        bytes.extend(noise);
        let whole = told(&bytes, bytes.len()).0;
        let cut = told(&bytes, step).0;
        prop_assert_eq!(whole, cut);
    }
}
