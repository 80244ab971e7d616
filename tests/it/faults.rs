//! A panic in one user's session, planted by the feature `faults`, is that user's own affair.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};

use crate::support::{Device, Incoming, PATIENCE, Server, Socket};

/// A favorite of this name panics the session that is asked to add it.
const PANIC: &str = "fault:panic";

both_engines! {
    async fn a_panic_is_over_at_once(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("one").await;
        let second = server.api().login(&me.phone, "two").await;
        let sockets = [Socket::open(&me).await, Socket::open(&second).await];
        let bystander = Bystander::start(&server).await;

        me.put("song", "before").await.ok(201);
        let failed = me.put("song", PANIC).await;
        assert!((500..600).contains(&failed.status), "{failed:#?}");
        let added = me.put("song", "after").await;
        assert_eq!(added.seq(), 2, "the panicked command left something behind");
        added.ok(201);

        for (socket, device) in sockets.into_iter().zip([&me, &second]) {
            let mut socket = resume(socket, device, 1).await;
            // Live again, not only caught up.
            let seq = me.head().await.0 + 1;
            second.put("song", &format!("live-{seq}")).await.ok(201);
            for missed in 3..seq {
                socket.expect_event(missed).await;
            }
            socket.expect_event(seq).await;
            socket.ping().await;
        }
        bystander.noticed_nothing().await;
        server.api().get("/ready").await.ok(200);
    }

    async fn a_poisoned_user_is_quarantined_alone(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("one").await;
        let second = server.api().login(&me.phone, "two").await;
        let sockets = [Socket::open(&me).await, Socket::open(&second).await];
        let bystander = Bystander::start(&server).await;

        let deadline = Instant::now() + Duration::from_secs(25);
        let mut panics = 0;
        loop {
            let answer = me.put("song", PANIC).await;
            if answer.code() == "session_quarantined" {
                break;
            }
            assert!((500..600).contains(&answer.status), "{answer:#?}");
            // One asked while the session comes back did not panic it.
            panics += usize::from(answer.code() != "session_restarting");
            assert!(Instant::now() < deadline, "{panics} panics and no quarantine");
        }
        for answer in [me.put("song", "x").await, second.put("song", "y").await] {
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{wait}");
            answer.problem(503, "session_quarantined");
        }
        for mut socket in sockets {
            socket.expect_close(1013).await;
        }
        server.api().get("/ready").await.ok(200);
        server.admin().get("/ready").await.ok(200);
        bystander.noticed_nothing().await;
        server.api().newcomer("new").await.put("song", "x").await.ok(201);
    }
}

/// The socket, or another if it was closed with `1013`, after the events from `seq` to 2.
async fn resume(mut socket: Socket, device: &Device, seq: u64) -> Socket {
    let mut next = seq;
    while next <= 2 {
        match socket.next().await {
            Incoming::Frame(frame) if frame["type"] == "event" => {
                // One that was not acked may come again; none may be left out.
                let got = frame["seq"].as_u64().unwrap();
                assert!(got <= next, "expected {next}: {frame:#}");
                next = got + 1;
            }
            Incoming::Close(1013) => {
                socket = Socket::open(device).await;
            }
            other => panic!("expected event {next}, got {other:#?}"),
        }
    }
    socket
}

/// Another user who writes and reads all the while.
struct Bystander {
    stop: Arc<AtomicBool>,
    writing: JoinHandle<Socket>,
}

impl Bystander {
    async fn start(server: &Server) -> Self {
        let device = server.api().newcomer("bystander").await;
        let mut socket = Socket::open(&device).await;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let writing = tokio::spawn(async move {
            let mut seq = 0;
            while !stopped.load(Ordering::SeqCst) || seq == 0 {
                seq += 1;
                let added = device.put("song", &format!("t{seq}")).await;
                assert_eq!(added.seq(), seq);
                added.ok(201);
                let event = socket.expect_event(seq).await;
                socket.ack(&event).await;
                socket.ping_within(PATIENCE / 2).await;
            }
            socket
        });
        Self { stop, writing }
    }

    async fn noticed_nothing(self) {
        self.stop.store(true, Ordering::SeqCst);
        let mut socket = self.writing.await.expect("the bystander noticed something");
        socket.ping().await;
    }
}
