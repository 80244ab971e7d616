//! A disk that is full, or fails: writes are refused, reads and sockets go on, and with room again so
//! do writes, without a restart.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Answer, Device, Engine, Server, Socket, eventually, socket::Unopened};

/// How the disk is made full.
enum Room {
    /// A file system of its own takes the data folder, and a file fills it up.
    Own(PathBuf),
    /// No file of the server may grow beyond its size: where nothing can be mounted.
    Limit,
}

impl Room {
    async fn start() -> (Server, Self) {
        match Server::in_small_room(6 << 20).await {
            Some(server) => {
                let ballast = server.data().join("ballast");
                (server, Self::Own(ballast))
            }
            None => (Server::deaf_to_limits().await, Self::Limit),
        }
    }

    fn fill(&self, server: &Server) {
        match self {
            Self::Own(ballast) => {
                use std::io::Write as _;
                let mut file = std::fs::File::create(ballast).unwrap();
                // Until there is no room for another byte.
                for size in [1 << 16, 1 << 12, 1] {
                    while file.write(&vec![0; size]).is_ok_and(|n| n > 0) {}
                }
            }
            Self::Limit => server.limit_files(Some(1)),
        }
    }

    fn empty(&self, server: &Server) {
        match self {
            Self::Own(ballast) => std::fs::remove_file(ballast).unwrap(),
            Self::Limit => server.limit_files(None),
        }
    }

    /// What a write is told. A file that may not grow is not known to be a full disk: the write may
    /// have got as far as the disk, so it is not said that nothing was changed.
    fn is_refusal(&self, answer: Answer) {
        match self {
            Self::Own(_) => answer.problem(503, "store_unavailable"),
            Self::Limit => answer.problem(503, "outcome_unknown"),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_nothing_else() {
    let (server, room) = Room::start().await;
    let me = server.api().newcomer("one").await;
    let reader = server.api().login(&me.phone, "two").await;
    let mut socket = Socket::open(&reader).await;
    for n in 1..=20 {
        me.put("song", &format!("before-{n}")).await.ok(201);
    }
    let events = socket.expect_events(1, 20).await;
    let (mut newest, mut seq) = ("before-20".to_owned(), 20);
    // Filled and emptied again and again: nothing wears out.
    for round in 0..3 {
        room.fill(&server);
        let (mut refused, mut tries) = (0, 0);
        while refused < 10 {
            let target = format!("full-{round}-{tries}");
            let answer = me.put("song", &target).await;
            tries += 1;
            assert!(tries < 60, "the disk does not get full");
            if answer.status == 201 {
                // A small one still found its place where a larger one had been tried before.
                (newest, seq, refused) = (target, seq + 1, 0);
                assert_eq!(socket.expect_event(seq).await["seq"], answer.seq());
                continue;
            }
            room.is_refusal(answer);
            refused += 1;
            let listed = me.favorites("?limit=1").await.ok(200);
            assert_eq!(listed["items"][0]["target_id"], newest.as_str());
            assert_eq!(me.head().await.0, seq, "nothing was written");
        }
        socket.ack(&events[19]).await;
        socket.ping().await;
        // A device that attaches takes its place in the database: it is told to come back later,
        // unless so little still found room.
        match Socket::try_open(&me, "").await {
            Ok(socket) => socket.close().await,
            Err(why) => assert!(matches!(why, Unopened::Gone(Some(1013))), "{why:?}"),
        }

        room.empty(&server);
        newest = format!("after-{round}");
        let added = me.put("song", &newest).await;
        seq += 1;
        assert_eq!(added.seq(), seq, "what was refused left nothing behind");
        added.ok(201);
        socket.expect_event(seq).await;
        Socket::open(&me).await.close().await;
    }
    eventually("the ack was kept for better times", async || {
        reader.waiting().await == (21..=seq).collect::<Vec<_>>()
    })
    .await;
    let listed = me.all_favorites(200).await;
    assert_eq!(listed.len(), me.log().await.len());
    server.api().get("/ready").await.ok(200);
}

/// An `fsync` of the log that fails leaves open what is on the disk: the caller is told so, repeats,
/// and the change is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_the_disk_fails_is_of_unknown_outcome_and_may_be_repeated() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("trace");
    // Counted for each thread: the connection's own fails after a start, and each that takes its
    // place, later.
    let fail = "inject=fsync,fdatasync:error=EIO:when=40";
    let words = [
        "strace",
        "-f",
        "-y",
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        fail,
        "-o",
    ];
    let mut program = words.map(str::to_owned).to_vec();
    program.extend([log.display().to_string(), "--".to_owned()]);
    let server = Server::through(Engine::Sqlite, &[], program).await;
    let me = server.api().newcomer("one").await;
    let mut socket = Socket::open(&me).await;
    let (mut unknown, mut seq) = (0, 0);
    while unknown < 3 {
        let target = format!("t{seq}");
        seq += 1;
        assert!(seq < 200, "the disk never failed");
        let answer = put_until_known(&me, &target, &mut unknown).await;
        assert_eq!(answer.0, seq, "one change");
        assert_eq!(
            socket.expect_event(seq).await["data"]["target_id"],
            target.as_str()
        );
    }
    assert_eq!(me.log().await.len() as u64, seq);
    assert_eq!(me.all_favorites(200).await.len() as u64, seq);
}

/// Adds a favorite, again while the outcome is unknown.
async fn put_until_known(me: &Device, target: &str, unknown: &mut u32) -> (u64, Value) {
    loop {
        let answer = me.put("song", target).await;
        if answer.status == 503 {
            answer.problem(503, "outcome_unknown");
            *unknown += 1;
            continue;
        }
        let seq = answer.seq();
        assert!(matches!(answer.status, 200 | 201), "{answer:#?}");
        return (seq, answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let program = ["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"];
    let program = program.map(str::to_owned).to_vec();
    let server = Server::through(Engine::Sqlite, &[], program).await;
    let me = server.api().newcomer("one").await;
    let mut socket = Socket::open(&me).await;
    me.put("song", "x").await.ok(201);
    socket.expect_event(1).await;
    assert_eq!(
        server.output().matches("request_id").count(),
        0,
        "it was logged elsewhere"
    );
}
