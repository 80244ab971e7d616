//! A client that never reads its socket costs the server little and other users nothing, and loses no
//! event.
//!
//! Whether memory is bounded is asserted, by what the process holds before and after. Whether others
//! are served as fast is measured with the same load in turn, for a user whose device reads and for
//! one whose device does not, so that what else the machine does falls on both; and it is asserted of
//! the best of several tries, because the slowest hundredth of a few hundred writes is at the mercy of
//! the machine.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{Device, Incoming, Server, Socket, rows};

/// What a server may hold more after so many events than before. The events themselves, for each client
/// that does not read, would take more: some 450 bytes each, in one piece.
const ROOM: [(u64, u64); 2] = [(8000, 12 << 20), (100_000, 24 << 20)];
/// What each of the others writes meanwhile.
const WRITES: u32 = 20;
const TRIES: u32 = 6;
/// The favorite that ends it for a client that reads.
const LAST: &str = "last";

/// Deadlines that would end a client that does not read before a busy machine is done; and frequent
/// looks, as the events come from another process.
const SETTINGS: &[(&str, &str)] = &[
    ("sync.heartbeat_timeout_secs", "600"),
    ("sync.progress_timeout_secs", "600"),
    ("sync.head_check_ms", "50"),
    ("sync.frames_per_second", "10000"),
    ("sync.frames_burst", "100000"),
];

both_engines! {
    async fn eight_thousand_events_wait_for_who_does_not_read(engine) {
        const ROUNDS: u32 = 8;
        const LIVE: u32 = 60;
        const AT_ONCE: u32 = 940;
        let server = Server::with(engine, SETTINGS).await;
        let (silent, lively) = (user(&server).await, user(&server).await);
        let others = others(&server).await;
        let mut never_read = vec![Socket::open_narrow(&silent.1, 4096).await];
        for n in 0..3 {
            let device = server.api().login(&silent.0.phone, &format!("silent-{n}")).await;
            never_read.push(Socket::open_narrow(&device, 4096).await);
        }
        let reading = tokio::spawn(drain(Socket::open(&lively.1).await));

        let mut memory = 0;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS * TRIES {
            // The same load, once for whom nothing is read and once for whom everything is.
            for (writer, took) in [(&silent.0, &mut with), (&lively.0, &mut without)] {
                took.extend(under_load(writer, LIVE, round, &others).await);
            }
            if round < ROUNDS {
                rows::append(&server, &silent.0, &format!("r{round}-"), AT_ONCE, AT_ONCE).await;
            }
            if round == 0 {
                // Caches are warm.
                memory = server.memory();
            }
            if round % ROUNDS == ROUNDS - 1 {
                println!(
                    "never reads on {engine:?}: P99 of others {:?} beside a client that reads, {:?} \
                     beside one that does not, of {} writes",
                    p99(&without),
                    p99(&with),
                    with.len(),
                );
                if p99(&with) <= p99(&without) * 2 {
                    break;
                }
                let tries = round / ROUNDS + 1;
                assert!(tries < TRIES, "others waited twice as long, {tries} times");
                (with, without) = (Vec::new(), Vec::new());
            }
        }
        let grown = server.memory().saturating_sub(memory);
        let (head, _) = silent.0.head().await;
        println!("never reads on {engine:?}: {head} events, memory grew by {} KiB", grown >> 10);
        assert!(head >= ROOM[0].0 && grown < ROOM[0].1, "{grown}");
        lively.0.put("song", LAST).await.ok(201);
        assert_eq!(reading.await.unwrap(), lively.0.head().await.0);

        // It comes back: everything is there, in order.
        let mut socket = Socket::open(&silent.1).await;
        assert_eq!(socket.welcome["acked_seq"], 0);
        let mut state = BTreeSet::new();
        for seq in 1..=head {
            let event = socket.expect_event(seq).await;
            apply(&mut state, &event);
            if seq % 100 == 0 {
                socket.ack(&event).await;
            }
        }
        socket.ping().await;
        assert_eq!(state, stored(&silent.1).await);
        drop(never_read);
    }

    async fn after_a_hundred_thousand_events_one_resync_is_all(engine) {
        const EVENTS: u32 = 100_000;
        let mut settings = SETTINGS.to_vec();
        settings.push(("sync.trim_interval_ms", "100"));
        let server = Server::with(engine, &settings).await;
        let (writer, silent) = user(&server).await;
        let away = server.api().login(&writer.phone, "away").await;
        let others = others(&server).await;
        let mut never_read = Socket::open_narrow(&silent, 4096).await;
        let before = under_load(&writer, 20, 0, &others).await;
        let memory = server.memory();

        rows::append(&server, &writer, "b", EVENTS, EVENTS / 40).await;
        let head = u64::from(EVENTS) + 20;
        let epoch = never_read.epoch();
        let mut during = Vec::new();
        let (trimmed, mut round) = (Instant::now(), 0);
        let beyond = format!("?since={}&epoch={epoch}", head - 10_001);
        loop {
            round += 1;
            during.extend(under_load(&others[0], 1, round, &others[1..]).await);
            if writer.changes(&beyond).await.code() == "log_compacted" {
                break;
            }
            assert!(trimmed.elapsed() < Duration::from_mins(1), "it is not trimmed");
        }
        let grown = server.memory().saturating_sub(memory);
        println!(
            "never reads on {engine:?}: {EVENTS} events, memory grown by {} KiB, P99 of others {:?} \
             before and {:?} while the log was trimmed",
            grown >> 10,
            p99(&before),
            p99(&during),
        );
        assert!(head >= ROOM[1].0 && grown < ROOM[1].1, "{grown}");

        // Who starts to read at last gets what was on its way, and then is told once; as is who was away.
        let mut sent = 0;
        loop {
            let frame = next(&mut never_read).await;
            if frame["type"] == "resync" {
                check_resync(&mut never_read, &silent, &frame, head).await;
                break;
            }
            sent += 1;
            assert_eq!((&frame["type"], &frame["seq"]), (&"event".into(), &sent.into()));
            assert!(sent <= 256 + 1, "more than the window came");
            never_read.ack(&frame).await;
        }
        let mut socket = Socket::open(&away).await;
        let frame = next(&mut socket).await;
        check_resync(&mut socket, &away, &frame, head).await;
        // And both go on.
        let added = writer.put("song", "after").await;
        assert_eq!(added.seq(), head + 1);
        for socket in [&mut never_read, &mut socket] {
            socket.expect_event(head + 1).await;
            socket.ping().await;
        }
    }
}

/// A user: a device that writes and one that is to read.
async fn user(server: &Server) -> (Device, Device) {
    let writer = server.api().newcomer("writer").await;
    let reader = server.api().login(&writer.phone, "reader").await;
    (writer, reader)
}

/// The next frame; there must be one.
async fn next(socket: &mut Socket) -> Value {
    match socket.next().await {
        Incoming::Frame(frame) => frame,
        other => panic!("{other:#?}"),
    }
}

/// Takes the one resync as a client does: loads everything, acks; nothing else comes.
async fn check_resync(socket: &mut Socket, me: &Device, frame: &Value, head: u64) {
    assert_eq!(frame["type"], "resync", "{frame:#}");
    assert_eq!(frame["reason"], "compacted");
    assert_eq!(frame["head_seq"], head);
    // It may have been told while the log was still being trimmed.
    let floor = frame["floor_seq"].as_u64().unwrap();
    assert!((1..=head - 10_000).contains(&floor), "{frame:#}");
    let state = stored(me).await;
    assert_eq!(state.len(), 2500 + 20);
    socket
        .ack_up_to(head, frame["epoch"].as_str().unwrap())
        .await;
    socket.expect_quiet(Duration::from_millis(300)).await;
    socket.ping().await;
}

async fn others(server: &Server) -> Vec<Device> {
    let api = server.api();
    join_all((0..4).map(|_| api.newcomer("other"))).await
}

/// Reads and acknowledges until the last event; tells its position.
async fn drain(mut socket: Socket) -> u64 {
    for seq in 1.. {
        let event = socket.expect_event(seq).await;
        socket.ack(&event).await;
        if event["data"]["target_id"] == LAST {
            return seq;
        }
    }
    unreachable!("there are not so many events");
}

/// What other users' writes take while one user's device writes so many.
async fn under_load(writer: &Device, count: u32, round: u32, others: &[Device]) -> Vec<Duration> {
    let load = async {
        for n in 0..count {
            writer
                .put("song", &format!("live{round}-{n}"))
                .await
                .ok(201);
        }
    };
    let users = others.iter().map(async |other| {
        let mut took = Vec::new();
        for n in 0..WRITES {
            let target = format!("{}-{round}-{n}", writer.user_id);
            let asked = Instant::now();
            other.put("song", &target).await.ok(201);
            took.push(asked.elapsed());
        }
        took
    });
    let ((), took) = tokio::join!(load, join_all(users));
    took.concat()
}

/// What ninety-nine of a hundred stayed below.
fn p99(took: &[Duration]) -> Duration {
    let mut took = took.to_vec();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

fn apply(state: &mut BTreeSet<String>, event: &Value) {
    let target = event["data"]["target_id"].as_str().unwrap().to_owned();
    if event["event_type"] == "favorite.removed" {
        assert!(state.remove(&target), "{event:#}");
    } else {
        assert!(state.insert(target), "{event:#}");
    }
}

async fn stored(me: &Device) -> BTreeSet<String> {
    let all = me.all_favorites(200).await;
    let text = |favorite: &Value| favorite["target_id"].as_str().unwrap().to_owned();
    all.iter().map(text).collect()
}
