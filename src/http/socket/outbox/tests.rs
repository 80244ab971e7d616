use std::future::poll_fn;

use actix_rt::net::TcpStream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::actors::{kernel::Frames as _, session::ToDevice};

const EVENT: &str = r#"{"type":"event","seq":1}"#;

/// Two ends of a connection of which the system holds little.
async fn ends() -> (Transport, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpSocket::new_v4().unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(client.connect(address), listener.accept());
    let server = Transport::Tcp(server.unwrap().0);
    server.set_send_buffer(4096);
    (server, client.unwrap())
}

/// Flushes once, without waiting; says whether nothing is left.
async fn flush(outbox: &mut Outbox, io: &mut Transport) -> bool {
    poll_fn(|task| Poll::Ready(outbox.poll_flush(io, task, &mut 0)))
        .await
        .map(Result::unwrap)
        .is_ready()
}

async fn everything(client: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    client.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// As the session pushes it.
fn push(outbox: &mut Outbox, text: &str) {
    let text = ByteString::from(text);
    let frames = ToDevice::Text(vec![text.clone()]).frames();
    outbox.unread().fetch_add(frames, Relaxed);
    outbox.text(text);
}

#[tokio::test]
async fn what_waits_goes_out_in_order_and_nothing_follows_the_close() {
    let (mut io, mut client) = ends().await;
    let mut outbox = Outbox::new(BytesMut::from(&b"head"[..]));
    push(&mut outbox, "one");
    outbox.pong(b"old");
    outbox.pong(b"new");
    outbox.own_text("two".into());
    outbox.close(None);
    outbox.close(Some(actix_http::ws::CloseCode::Normal.into()));
    push(&mut outbox, "late");
    outbox.pong(b"late");
    outbox.ping();
    assert_eq!(outbox.unread().load(Relaxed), 2);
    assert!(flush(&mut outbox, &mut io).await);
    assert_eq!((outbox.unread().load(Relaxed), outbox.waiting()), (0, 0));
    let expected = b"head\x8a\x03new\x81\x03one\x81\x03two\x88\x00";
    assert_eq!(everything(&mut client, expected.len()).await, expected);
    // Nothing else was sent.
    drop(io);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn texts_are_unread_until_the_system_has_them() {
    let (mut io, mut client) = ends().await;
    let mut outbox = Outbox::new(BytesMut::new());
    let text = "x".repeat(10_000);
    for _ in 0..100 {
        push(&mut outbox, &text);
    }
    assert!(outbox.waiting() > 1_000_000);
    assert!(!flush(&mut outbox, &mut io).await);
    let before = outbox.unread().load(Relaxed);
    // The system holds some of them, far from all.
    assert!((50..=100).contains(&before), "{before}");
    let mut read = 0;
    let mut seen = vec![before];
    let mut piece = [0; 10_000];
    while read < 100 * 10_004 {
        read += client.read(&mut piece).await.unwrap();
        flush(&mut outbox, &mut io).await;
        seen.push(outbox.unread().load(Relaxed));
    }
    assert!(flush(&mut outbox, &mut io).await);
    assert!(seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
    assert!(seen.iter().any(|n| (1..before).contains(n)), "{seen:?}");
    assert_eq!((outbox.unread().load(Relaxed), outbox.waiting()), (0, 0));
    assert_eq!((outbox.texts.capacity(), outbox.rest.capacity()), (0, 0));
}

#[tokio::test]
async fn events_do_not_count_as_unread() {
    let (mut io, _client) = ends().await;
    let mut outbox = Outbox::new(BytesMut::new());
    for _ in 0..3 {
        push(&mut outbox, EVENT);
    }
    push(&mut outbox, "aside");
    assert_eq!(outbox.unread().load(Relaxed), 1);
    assert!(flush(&mut outbox, &mut io).await);
    assert_eq!(outbox.unread().load(Relaxed), 0);
    outbox.close(None);
    push(&mut outbox, EVENT);
    push(&mut outbox, "aside");
    assert_eq!(outbox.unread().load(Relaxed), 0);
}

#[tokio::test]
async fn events_that_come_again_wait_no_longer() {
    let (mut io, mut client) = ends().await;
    let mut outbox = Outbox::new(BytesMut::new());
    let large = EVENT.replace('1', &"1".repeat(300_000));
    push(&mut outbox, &large);
    assert!(!flush(&mut outbox, &mut io).await);
    let begun = outbox.waiting();
    for text in [EVENT, "one", EVENT, "two"] {
        push(&mut outbox, text);
    }
    outbox.attach();
    assert_eq!(outbox.waiting(), begun + 2 * (3 + HEAD));
    assert_eq!(outbox.unread().load(Relaxed), 2);
    // What was begun comes to its end.
    let all = 10 + large.len() + 2 * (2 + 3);
    let flushing = async { poll_fn(|task| outbox.poll_flush(&mut io, task, &mut 0)).await };
    let (flushed, bytes) = tokio::join!(flushing, everything(&mut client, all));
    flushed.unwrap();
    assert!(bytes.ends_with(b"}\x81\x03one\x81\x03two"));
    assert_eq!((outbox.unread().load(Relaxed), outbox.waiting()), (0, 0));
}

#[tokio::test]
async fn a_peer_that_is_gone_is_an_error() {
    let (mut io, mut client) = ends().await;
    let mut outbox = Outbox::new(BytesMut::new());
    client.shutdown().await.unwrap();
    drop(client);
    let failed = async {
        loop {
            push(&mut outbox, "x");
            match poll_fn(|task| outbox.poll_flush(&mut io, task, &mut 0)).await {
                Ok(()) => tokio::task::yield_now().await,
                Err(_) => break,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), failed)
        .await
        .expect("it fails");
}

/// As it comes by the attachment of that number.
fn push_by(outbox: &mut Outbox, by: u32, text: &str) {
    let frames = ToDevice::Text(vec![text.into()]).frames();
    outbox.unread().fetch_add(frames, Relaxed);
    if outbox.takes(by, text) {
        outbox.text(text.into());
    }
}

#[tokio::test]
async fn what_a_life_that_leaves_pushes_late_leaves_no_gap() {
    let (mut io, mut client) = ends().await;
    let mut outbox = Outbox::new(BytesMut::new());
    let event = |seq| format!(r#"{{"type":"event","seq":{seq}}}"#);
    let old = outbox.attach();
    push_by(&mut outbox, old, &event(1));
    assert!(flush(&mut outbox, &mut io).await);
    push_by(&mut outbox, old, &event(2));
    let new = outbox.attach();
    push_by(&mut outbox, old, &event(3));
    let epoch = crate::domain::ids::Epoch(uuid::Uuid::nil());
    let resync = format!(
        r#"{{"type":"resync","reason":"retention","epoch":"{}","floor_seq":7}}"#,
        epoch.0
    );
    push_by(&mut outbox, old, &resync);
    push_by(&mut outbox, old, "signal");
    assert_eq!(outbox.unread_now(), 1);
    for seq in 2..=3 {
        push_by(&mut outbox, new, &event(seq));
    }
    assert!(flush(&mut outbox, &mut io).await);
    let mut expected = Vec::new();
    for text in [event(1), "signal".to_owned(), event(2), event(3)] {
        expected.extend([0x81, u8::try_from(text.len()).unwrap()]);
        expected.extend(text.as_bytes());
    }
    drop(io);
    let mut text = Vec::new();
    client.read_to_end(&mut text).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&text),
        String::from_utf8_lossy(&expected)
    );
    assert_eq!(outbox.unread_now(), 0);
}
