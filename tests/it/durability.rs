//! What was answered is there after `kill -9`, and the log agrees with the state.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use listen_stream::domain::clock::World;

use crate::support::{Device, Server, Socket, eventually};

const ROUNDS: usize = 5;

/// An answered write: its target, and its position in the user's log.
type Answered = (String, u64);

both_engines! {
    async fn a_kill_loses_no_answered_write(engine) {
        let mut server = Server::start(engine).await;
        // Eight writers: three devices, three, and two, of three users.
        let mut users: Vec<Vec<Device>> = Vec::new();
        for count in [3, 3, 2] {
            let mut devices = vec![server.api().newcomer("w0").await];
            for index in 1..count {
                let phone = &devices[0].phone;
                devices.push(server.api().login(phone, &format!("w{index}")).await);
            }
            users.push(devices);
        }
        let mut answered: Vec<Vec<Answered>> = vec![Vec::new(); users.len()];
        for round in 0..ROUNDS {
            write_until_killed(&mut server, &users, round, &mut answered).await;
            server.restart().await;
            for (devices, answered) in users.iter().zip(&answered) {
                check(&devices[0].at(&server), answered).await;
            }
        }
        // It still takes writes, and goes on where the log ends.
        let me = users[0][0].at(&server);
        let (head, _) = me.head().await;
        let added = me.put("song", "after").await;
        assert_eq!(added.seq(), head + 1);
        added.ok(201);
    }

    async fn an_offline_device_misses_nothing_over_a_kill(engine) {
        let mut server = Server::start(engine).await;
        let writer = server.api().newcomer("writer").await;
        let reader = server.api().login(&writer.phone, "reader").await;
        writer.put("song", "a").await.ok(201);
        let (_, epoch) = writer.head().await;
        reader.ack(1, &epoch).await.ok(200);
        eventually("the ack is stored", async || reader.waiting().await.is_empty()).await;
        for target in ["b", "c", "d"] {
            writer.put("song", target).await.ok(201);
        }
        server.kill9();
        server.restart().await;
        let mut socket = Socket::open(&reader.at(&server)).await;
        assert_eq!(socket.epoch(), epoch);
        // A durable cursor may be behind what was acked a moment before the kill, never ahead.
        let acked = socket.welcome["acked_seq"].as_u64().unwrap();
        assert!(acked <= 1, "{acked}");
        let events = socket.expect_events(acked + 1, 4).await;
        assert_eq!(events.last().unwrap()["data"]["target_id"], "d");
        socket.ping().await;
    }
}

/// Lets every device write as fast as it can, and kills the server in the middle of it.
async fn write_until_killed(
    server: &mut Server,
    users: &[Vec<Device>],
    round: usize,
    answered: &mut [Vec<Answered>],
) {
    let count = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for (user, devices) in users.iter().enumerate() {
        for device in devices {
            let (device, count) = (device.at(server), count.clone());
            writers.push(tokio::spawn(async move {
                (user, write(&device, round, &count).await)
            }));
        }
    }
    // Somewhere in the stream, each round elsewhere.
    let enough = 40 + usize::try_from(World::system().below(160).unwrap()).unwrap();
    eventually("the writers are under way", async || {
        count.load(Ordering::SeqCst) >= enough
    })
    .await;
    server.kill9();
    for writer in writers {
        let (user, written) = writer.await.unwrap();
        answered[user].extend(written);
    }
}

/// Adds favorites until the server is gone; tells which were answered.
async fn write(device: &Device, round: usize, count: &AtomicUsize) -> Vec<Answered> {
    let mut answered = Vec::new();
    for index in 0.. {
        let target = format!("{}-{round}-{index}", device.device_id);
        let Ok(answer) = device.try_put("song", &target).await else {
            break;
        };
        let seq = answer.seq();
        answer.ok(201);
        answered.push((target, seq));
        count.fetch_add(1, Ordering::SeqCst);
    }
    answered
}

/// Every answered write is in the list and at its place in a log without gaps.
async fn check(me: &Device, answered: &[Answered]) {
    let log = me.log().await;
    for (target, seq) in answered {
        let event = usize::try_from(*seq - 1)
            .ok()
            .and_then(|index| log.get(index))
            .unwrap_or_else(|| panic!("{target} was answered as {seq}, the log has {}", log.len()));
        assert_eq!(event["data"]["target_id"], target.as_str(), "at {seq}");
        assert_eq!(event["event_type"], "favorite.added");
        assert_eq!(event["data"]["version"], *seq);
    }
    // What was not answered may be there or not, but then in both places.
    let listed: Vec<_> = me.all_favorites(200).await;
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let in_list: BTreeSet<_> = listed.iter().map(|f| text(&f["target_id"])).collect();
    let in_log: BTreeSet<_> = log.iter().map(|e| text(&e["data"]["target_id"])).collect();
    assert_eq!(in_list, in_log);
    assert_eq!((listed.len(), log.len()), (in_list.len(), in_log.len()));
    let ids: BTreeSet<_> = log.iter().map(|event| text(&event["id"])).collect();
    assert_eq!(ids.len(), log.len());
}
