//! The log over the socket: welcome, push, replay, acks, and the window.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Device, Server, Socket, assert_shape, eventually, unique};

/// An epoch that no log has.
const OTHER_EPOCH: &str = "0193a0f2-5b7c-7c3e-8a1b-0123456789ab";
/// Longer than the head check, which would bring what a push did not.
const SILENCE: Duration = Duration::from_millis(1500);

both_engines! {
    async fn the_welcome_says_where_things_stand(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 3).await;
        let (head, epoch) = me.head().await;
        me.ack(2, &epoch).await.ok(200);
        let mut socket = Socket::open(&me).await;
        let welcome = |head: u64, acked: u64| json!({
            "type": "welcome",
            "conn_id": "<uuid>",
            "user_id": me.user_id,
            "device_id": "mine",
            "node": "<string>",
            "epoch": epoch,
            "head_seq": head,
            "acked_seq": acked,
            "window": 256,
            "heartbeat_secs": 30,
        });
        assert_shape(&socket.welcome, welcome(head, 2));
        socket.expect_event(3).await;
        socket.ping().await;
        let first = socket.welcome["conn_id"].clone();
        socket.close().await;
        let second = Socket::open(&me).await;
        assert_shape(&second.welcome, welcome(3, 2));
        assert_ne!(second.welcome["conn_id"], first);
    }

    async fn a_ticket_opens_one_socket(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let ticket = me.ticket().await;
        let socket = Socket::with_ticket(&me.api, &ticket).await;
        let mut socket = socket.expect("the ticket opens").welcomed().await;
        assert_eq!(socket.welcome["device_id"], "mine");
        let again = Socket::with_ticket(&me.api, &ticket).await;
        again.err().expect("not twice").problem(401, "ticket_invalid");
        for ticket in ["lst_", "lst_AAAA", "nonsense"] {
            let refused = Socket::with_ticket(&me.api, ticket).await;
            refused.err().expect("made up").problem(401, "ticket_invalid");
        }
        socket.ping().await;
    }

    async fn a_ticket_of_a_removed_device_opens_nothing(engine) {
        let server = Server::start(engine).await;
        let owner = server.api().newcomer("owner").await;
        let lost = server.api().login(&owner.phone, "lost").await;
        let ticket = lost.ticket().await;
        owner.remove_device(&lost.id).await.ok(204);
        let refused = Socket::with_ticket(&owner.api, &ticket).await;
        assert_eq!(refused.err().expect("removed").status, 401);
    }

    async fn a_change_reaches_every_device(engine) {
        let server = Server::start(engine).await;
        let one = server.api().newcomer("one").await;
        let two = server.api().login(&one.phone, "two").await;
        let other = server.api().newcomer("other").await;
        let mut first = Socket::open(&one).await;
        let mut second = Socket::open(&two).await;
        let mut stranger = Socket::open(&other).await;

        one.put("song", "x").await.ok(201);
        two.remove("song", "x").await.ok(204);
        // Nothing changes, so nothing comes.
        two.remove("song", "x").await.ok(204);
        one.restore("song", "x").await.ok(200);

        let log = one.log().await;
        for socket in [&mut first, &mut second] {
            for (event, origin) in log.iter().zip(["one", "two", "one"]) {
                let mut expected = event.clone();
                expected["type"] = json!("event");
                let pushed = socket.next_frame("event").await;
                assert_eq!(pushed, expected);
                assert_eq!(pushed["origin_device_id"], origin);
            }
            socket.ping().await;
        }
        stranger.ping().await;
        stranger.expect_quiet(SILENCE).await;
    }

    async fn an_offline_device_gets_exactly_what_it_missed(engine) {
        let server = Server::start(engine).await;
        let writer = server.api().newcomer("writer").await;
        let reader = server.api().login(&writer.phone, "reader").await;
        let mut socket = Socket::open(&reader).await;
        add(&writer, 2).await;
        let events = socket.expect_events(1, 2).await;
        socket.ack(&events[1]).await;
        eventually("the ack is stored", async || reader.waiting().await.is_empty()).await;
        socket.close().await;

        writer.put("song", "a").await.ok(201);
        writer.put("mv", "b").await.ok(201);
        writer.remove("song", "a").await.ok(204);

        let mut socket = Socket::open(&reader).await;
        assert_eq!(socket.welcome["acked_seq"], 2);
        assert_eq!(socket.welcome["head_seq"], 5);
        let events = socket.expect_events(3, 5).await;
        let told: Vec<_> = events
            .iter()
            .map(|event| (&event["event_type"], &event["data"]["target_id"]))
            .collect();
        let expected = [
            (&json!("favorite.added"), &json!("a")),
            (&json!("favorite.added"), &json!("b")),
            (&json!("favorite.removed"), &json!("a")),
        ];
        assert_eq!(told, expected);
        socket.ping().await;
        socket.expect_quiet(SILENCE).await;
    }

    async fn acks_are_cumulative(engine) {
        let server = Server::start(engine).await;
        let writer = server.api().newcomer("writer").await;
        let reader = server.api().login(&writer.phone, "reader").await;
        add(&writer, 6).await;

        let mut socket = Socket::open(&reader).await;
        let events = socket.expect_events(1, 6).await;
        socket.ack(&events[2]).await;
        eventually("by token", async || reader.waiting().await == [4, 5, 6]).await;
        // An older one does not move it back; an ack is not answered.
        socket.ack(&events[0]).await;
        socket.ping().await;
        socket.close().await;

        let mut socket = Socket::open(&reader).await;
        assert_eq!(socket.welcome["acked_seq"], 3);
        socket.expect_events(4, 6).await;
        let epoch = socket.epoch();
        socket.ack_up_to(5, &epoch).await;
        eventually("by position", async || reader.waiting().await == [6]).await;
        socket.close().await;

        // A token holds on another connection too.
        let mut socket = Socket::open(&reader).await;
        socket.expect_event(6).await;
        socket.ack(&events[5]).await;
        eventually("by an old token", async || reader.waiting().await.is_empty()).await;
        add(&writer, 1).await;
        socket.expect_event(7).await;
    }

    async fn an_ack_on_leaving_is_kept(engine) {
        let server = Server::start(engine).await;
        let writer = server.api().newcomer("writer").await;
        let reader = server.api().login(&writer.phone, "reader").await;
        add(&writer, 3).await;
        let mut socket = Socket::open(&reader).await;
        let events = socket.expect_events(1, 3).await;
        socket.ack(&events[1]).await;
        socket.close().await;
        eventually("the ack is stored", async || reader.waiting().await == [3]).await;
    }

    async fn a_client_may_say_where_it_is(engine) {
        let server = Server::start(engine).await;
        let writer = server.api().newcomer("writer").await;
        let reader = server.api().login(&writer.phone, "reader").await;
        add(&writer, 5).await;
        let (_, epoch) = writer.head().await;

        // Above the cursor it counts as an ack.
        let mut socket = Socket::open_with(&reader, &format!("?since=3&epoch={epoch}")).await;
        assert_eq!(socket.welcome["acked_seq"], 3);
        socket.expect_events(4, 5).await;
        socket.ping().await;
        eventually("since is an ack", async || reader.waiting().await == [4, 5]).await;
        socket.close().await;

        // Below it is honoured: the client has lost data.
        let mut socket = Socket::open_with(&reader, &format!("?since=1&epoch={epoch}")).await;
        socket.expect_events(2, 5).await;
        add(&writer, 1).await;
        socket.expect_event(6).await;
        socket.close().await;

        // And from the very beginning no epoch is needed.
        let mut socket = Socket::open_with(&reader, "?since=0").await;
        socket.expect_events(1, 6).await;
        socket.ping().await;
    }

    async fn an_ack_beyond_the_head_is_an_error(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 1).await;
        let mut socket = Socket::open(&me).await;
        socket.expect_event(1).await;
        let epoch = socket.epoch();
        socket.send(json!({"type": "ack", "up_to": 2, "epoch": epoch, "ref": "r1"})).await;
        socket.expect_error("ack_beyond_head", "r1").await;
        assert_eq!(me.waiting().await, [1]);
        add(&me, 1).await;
        socket.expect_event(2).await;
    }

    async fn another_epoch_means_resync(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 2).await;
        let (_, epoch) = me.head().await;
        let mut socket = Socket::open_with(&me, &format!("?since=1&epoch={OTHER_EPOCH}")).await;
        assert_eq!(socket.epoch(), epoch);
        let resync = socket.next_frame("resync").await;
        assert_shape(&resync, json!({
            "type": "resync",
            "epoch": epoch,
            "floor_seq": "<number>",
            "head_seq": 2,
            "reason": "epoch_changed",
        }));
        // It reloads, and is not disturbed while it does.
        add(&me, 1).await;
        socket.ping().await;
        socket.expect_quiet(SILENCE).await;
        socket.ack_up_to(2, &epoch).await;
        socket.expect_event(3).await;
        add(&me, 1).await;
        socket.expect_event(4).await;
        socket.ping().await;
    }

    async fn only_a_window_is_in_flight(engine) {
        let server = Server::start(engine).await;
        let writer = server.api().newcomer("writer").await;
        let reader = server.api().login(&writer.phone, "reader").await;
        let mut live = Socket::open(&reader).await;
        add(&writer, 300).await;
        let events = live.expect_events(1, 256).await;
        live.ping().await;
        live.expect_quiet(SILENCE).await;
        live.ack(&events[9]).await;
        live.expect_events(257, 266).await;
        live.ping().await;
        live.expect_quiet(SILENCE).await;
        live.ack(&events[255]).await;
        live.expect_events(267, 300).await;
        live.ping().await;
        eventually("the ack is stored", async || {
            reader.changes("").await.body["events"][0]["seq"] == 257
        })
        .await;
        live.close().await;

        // The same on replay.
        let mut socket = Socket::open_with(&reader, "?since=0").await;
        let events = socket.expect_events(1, 256).await;
        socket.ping().await;
        socket.expect_quiet(SILENCE).await;
        socket.ack(&events[255]).await;
        socket.expect_events(257, 300).await;
        socket.ping().await;
    }

    async fn pushes_keep_their_order_under_many_writers(engine) {
        let server = Server::start(engine).await;
        let one = server.api().newcomer("one").await;
        let two = server.api().login(&one.phone, "two").await;
        let mut sockets = [Socket::open(&one).await, Socket::open(&two).await];
        let writers = (0..8).map(|index| {
            let device = if index % 2 == 0 { one.clone() } else { two.clone() };
            async move { add(&device, 20).await }
        });
        let writing = tokio::spawn(futures_util::future::join_all(writers));
        for socket in &mut sockets {
            socket.expect_events(1, 160).await;
            socket.ping().await;
        }
        writing.await.unwrap();
    }
}

/// Adds this many favorites.
async fn add(me: &Device, count: usize) -> Vec<Value> {
    let mut added = Vec::new();
    for _ in 0..count {
        added.push(me.put("song", &unique()).await.ok(201));
    }
    added
}
