//! Logs are trimmed: who is within the limits never notices, who is behind loads everything anew.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::{Device, Engine, Server, Socket, assert_shape, eventually};

/// Little is kept, and what is not goes at once.
const TIGHT: [(&str, &str); 5] = [
    ("sync.retention_max_events", "20"),
    ("sync.retention_min_events", "5"),
    ("sync.retention_min_hours", "0"),
    ("sync.trim_interval_ms", "100"),
    ("sync.head_check_ms", "200"),
];

async fn trimmed_to(device: &Device, floor: u64) {
    let (_, epoch) = head(device).await;
    eventually(&format!("the log begins after {floor}"), async || {
        let since = async |seq| {
            let query = format!("?since={seq}&epoch={epoch}");
            device.changes(&query).await.status
        };
        since(floor - 1).await == 410 && since(floor).await == 200
    })
    .await;
}

/// The head and the epoch, also where the beginning of the log is gone.
async fn head(device: &Device) -> (u64, String) {
    let body = device.changes("?since=0&limit=1").await.body;
    let epoch = body["epoch"].as_str().unwrap().to_owned();
    (body["head_seq"].as_u64().unwrap(), epoch)
}

async fn add(device: &Device, range: std::ops::RangeInclusive<u64>) {
    for n in range {
        assert_eq!(device.put("song", &format!("s{n}")).await.seq(), n);
    }
}

/// The frame that sends a client back to the beginning, and then nothing until it acks.
async fn expect_one_resync(socket: &mut Socket, floor: u64, head: u64) -> Value {
    let resync = socket.next_frame("resync").await;
    assert_shape(
        &resync,
        json!({
            "type": "resync",
            "epoch": "<uuid>",
            "floor_seq": floor,
            "head_seq": head,
            "reason": "compacted",
        }),
    );
    socket.expect_quiet(Duration::from_millis(600)).await;
    socket.ping().await;
    resync
}

both_engines! {
    async fn a_device_behind_the_floor_gets_one_resync_and_others_none(engine) {
        let server = Server::with(engine, &TIGHT).await;
        let writer = server.api().newcomer("writer").await;
        let absent = server.api().login(&writer.phone, "absent").await;
        let present = server.api().login(&writer.phone, "present").await;
        let mut socket = Socket::open(&absent).await;
        let mut live = Socket::open(&present).await;
        add(&writer, 1..=2).await;
        let events = socket.expect_events(1, 2).await;
        socket.ack(&events[1]).await;
        eventually("the ack is stored", async || absent.waiting().await.is_empty()).await;
        socket.close().await;

        // It is away while much happens; the other one goes along, and is not disturbed.
        live.expect_events(1, 2).await;
        for seq in 3..=60 {
            add(&writer, seq..=seq).await;
            let event = live.expect_event(seq).await;
            live.ack(&event).await;
        }
        // Neither the writer nor the absent one reaches back any more: the newest stay for nobody.
        trimmed_to(&writer, 55).await;
        live.expect_quiet(Duration::from_millis(600)).await;
        live.ping().await;

        let mut socket = Socket::open(&absent).await;
        assert_eq!(socket.welcome["acked_seq"], 2);
        let resync = expect_one_resync(&mut socket, 55, 60).await;
        // What happens while it loads is not sent, and not lost.
        add(&writer, 61..=62).await;
        live.expect_events(61, 62).await;
        let epoch = resync["epoch"].as_str().unwrap();
        socket.ack_up_to(60, epoch).await;
        socket.expect_events(61, 62).await;
        socket.ack_up_to(62, epoch).await;
        eventually("the ack is stored", async || {
            absent.changes("").await.body["events"] == json!([])
        })
        .await;
        socket.close().await;
        // Its next connection is one like any other.
        add(&writer, 63..=63).await;
        let mut socket = Socket::open(&absent).await;
        assert_eq!(socket.welcome["acked_seq"], 62);
        socket.expect_event(63).await;
        socket.ping().await;
        live.expect_event(63).await;
        live.ping().await;
    }

    async fn an_attached_device_that_falls_behind_gets_one_resync(engine) {
        let settings: Vec<_> = TIGHT.into_iter().chain([("sync.window_events", "4")]).collect();
        let server = Server::with(engine, &settings).await;
        let writer = server.api().newcomer("writer").await;
        let lazy = server.api().login(&writer.phone, "lazy").await;
        let mut socket = Socket::open(&lazy).await;
        add(&writer, 1..=60).await;
        let events = socket.expect_events(1, 4).await;
        trimmed_to(&writer, 55).await;
        socket.expect_quiet(Duration::from_millis(600)).await;
        // It asks for more only now, and what comes next is gone.
        socket.ack(&events[3]).await;
        let resync = expect_one_resync(&mut socket, 55, 60).await;
        socket.ack_up_to(60, resync["epoch"].as_str().unwrap()).await;
        add(&writer, 61..=61).await;
        socket.expect_event(61).await;
        socket.ping().await;
    }

    async fn what_a_device_lacks_is_kept_for_it(engine) {
        let server = Server::with(engine, &TIGHT).await;
        let writer = server.api().newcomer("writer").await;
        let reader = server.api().login(&writer.phone, "reader").await;
        add(&writer, 1..=15).await;
        let (_, epoch) = head(&writer).await;
        writer.ack(15, &epoch).await.ok(200);
        reader.ack(3, &epoch).await.ok(200);
        trimmed_to(&writer, 3).await;
        let rounds = rounds(&server).await;
        eventually("more rounds went by", async || self::rounds(&server).await > rounds + 2).await;
        let mut socket = Socket::open(&reader).await;
        let events = socket.expect_events(4, 15).await;
        socket.ack(&events[11]).await;
        // The last to lack them has them.
        trimmed_to(&writer, 10).await;
        socket.expect_quiet(Duration::from_millis(300)).await;
        socket.ping().await;
    }

    async fn a_log_much_too_long_does_not_wait_for_a_round(engine) {
        // Also the first round comes at some moment of a day.
        let mut settings = TIGHT;
        settings[3].1 = "86400000";
        let server = Server::with(engine, &settings).await;
        let writer = server.api().newcomer("writer").await;
        add(&writer, 1..=22).await;
        assert_eq!(writer.log().await.len(), 22);
        add(&writer, 23..=23).await;
        // The device that the cut leaves behind lacks nothing more.
        trimmed_to(&writer, 18).await;
        assert_eq!(server.metric("sync_log_trimmed_events_total").await, 18);
    }
}

async fn rounds(server: &Server) -> u64 {
    server.metric("sync_log_trim_rounds_total").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_janitor_whose_store_fails_goes_on_later() {
    let server = Server::with(Engine::Postgres, &TIGHT).await;
    let writer = server.api().newcomer("writer").await;
    let mut database = sqlx::PgConnection::connect(server.database_url().unwrap())
        .await
        .unwrap();
    let sql = "ALTER TABLE sync_events RENAME TO elsewhere";
    sqlx::query(sql).execute(&mut database).await.unwrap();
    eventually("rounds fail", async || {
        server.metric("sync_log_trim_failures_total").await > 0
    })
    .await;
    // The node serves all the same.
    let ready = server.api().get("/ready").await.ok(200);
    assert_eq!(ready["checks"]["actors"], "ok");
    let sql = "ALTER TABLE elsewhere RENAME TO sync_events";
    sqlx::query(sql).execute(&mut database).await.unwrap();
    add(&writer, 1..=30).await;
    trimmed_to(&writer, 25).await;
}
