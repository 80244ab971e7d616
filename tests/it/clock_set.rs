//! The wall clock is set back an hour, and forward a day, while the server runs (feature `faults`).
//!
//! Intervals and deadlines are measured by the monotonic clock, so sockets, heartbeats and time-outs do
//! not notice. Tokens are judged by the wall clock, at each request; a socket's by the time that was
//! left when it was opened or renewed, which the monotonic clock counts. Order is told by `seq`, never
//! by a time.

use std::{io::Write as _, time::Duration};

use serde_json::json;

use crate::support::{Device, Server, Socket};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Sets the server's wall clock to be wrong by so many seconds.
pub fn set_clock(server: &Server, seconds: i64) {
    let file = server.data().join("fault-clock");
    let part = file.with_extension("part");
    let mut new = std::fs::File::create(&part).unwrap();
    write!(new, "{seconds}").unwrap();
    std::fs::rename(part, file).unwrap();
}

/// Writes, is told, and acknowledges; tells the event's time.
async fn round(me: &Device, socket: &mut Socket, seq: u64) -> String {
    let added = me.put("song", &format!("t{seq}")).await;
    assert_eq!(added.seq(), seq);
    added.ok(201);
    let event = socket.expect_event(seq).await;
    socket.ack(&event).await;
    socket.ping().await;
    event["timestamp"].as_str().unwrap().to_owned()
}

/// For a while nothing happens that a clock might have caused.
async fn calm(server: &Server, socket: &mut Socket) {
    let before = server.processor_time();
    socket.expect_quiet(Duration::from_millis(2500)).await;
    let took = server.processor_time().saturating_sub(before);
    // A timer that is always due would take a whole processor.
    assert!(took < Duration::from_millis(1200), "{took:?}");
    socket.ping().await;
}

both_engines! {
    async fn a_clock_that_is_set_disturbs_no_socket_and_no_order(engine) {
        let settings = [
            ("sync.heartbeat_secs", "1"),
            ("sync.heartbeat_timeout_secs", "2"),
            ("sync.head_check_ms", "100"),
        ];
        let server = Server::with(engine, &settings).await;
        let mut me = server.api().newcomer("one").await;
        let mut socket = Socket::open(&me).await;
        let first = round(&me, &mut socket, 1).await;

        set_clock(&server, -HOUR);
        let back = round(&me, &mut socket, 2).await;
        assert!(back < first, "{back} {first}");
        calm(&server, &mut socket).await;
        // A token of what is now the future is good: it was signed here.
        let second = server.api().login(&me.phone, "two").await;
        second.put("song", "t3").await.ok(201);
        socket.expect_event(3).await;
        Socket::open(&second).await.close().await;

        set_clock(&server, DAY);
        // Every access token is over for requests, those of sockets were judged before.
        for device in [&me, &second] {
            device.me().await.problem(401, "token_expired");
        }
        calm(&server, &mut socket).await;
        me = Device::new(&me.api, &me.api.rotate(&me.refresh, None).await.ok(200));
        socket.send(json!({"type": "auth", "token": me.access})).await;
        let ahead = round(&me, &mut socket, 4).await;
        assert!(ahead > first, "{ahead} {first}");
        // One who asks for a code today...
        let third = server.api().login(&me.phone, "three").await;

        set_clock(&server, 0);
        // ...is not kept from asking again until that day has come.
        server.api().login(&me.phone, "four").await;
        third.me().await.ok(200);
        round(&me, &mut socket, 5).await;
        calm(&server, &mut socket).await;
        let log = me.log().await;
        assert_eq!(log.len(), 5);
        let listed = me.all_favorites(2).await;
        assert_eq!(listed.len(), 5, "pages are whole, whatever the times are");
    }

    async fn a_socket_ends_with_its_token_by_the_time_that_passes(engine) {
        let server = Server::with(engine, &[("auth.access_token_secs", "3")]).await;
        let me = server.api().newcomer("one").await;
        let mut socket = Socket::open(&me).await;
        let opened = tokio::time::Instant::now();
        set_clock(&server, -HOUR);
        socket.ping().await;
        // Requests are judged by the wall clock: the token is good for another hour.
        tokio::time::sleep(Duration::from_secs(4)).await;
        me.me().await.ok(200);
        socket.expect_close(4003).await;
        let lived = opened.elapsed();
        assert!(lived < Duration::from_secs(8), "{lived:?}");
    }
}
