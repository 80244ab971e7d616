//! The log by REST: reading it, and moving a device's cursor.

use serde_json::{Value, json};

use crate::support::{Device, Server, assert_shape, client::seqs, unique};

/// An epoch that no log has.
const OTHER_EPOCH: &str = "0193a0f2-5b7c-7c3e-8a1b-0123456789ab";

both_engines! {
    async fn an_event_says_all_about_its_change(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let favorite = me.put("song", "s1").await.ok(201);
        me.remove("song", "s1").await.ok(204);
        me.restore("song", "s1").await.ok(200);

        let body = me.changes("?since=0").await.ok(200);
        let expected = |seq: u64, event_type: &str| json!({
            "id": "<uuid>",
            "seq": seq,
            "event_type": event_type,
            "user_id": me.user_id,
            "data": {
                "id": favorite["id"],
                "type": "song",
                "target_id": "s1",
                "created_at": "<time>",
                "version": seq,
            },
            "origin_device_id": "mine",
            "ack_token": "<string>",
            "timestamp": "<time>",
        });
        assert_shape(&body, json!({
            "events": [
                expected(1, "favorite.added"),
                expected(2, "favorite.removed"),
                expected(3, "favorite.restored"),
            ],
            "epoch": "<string>",
            "head_seq": 3,
            "has_more": false,
        }));
        assert_eq!(body["events"][0]["data"]["created_at"], favorite["created_at"]);
        let mut ids: Vec<&str> = body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["id"].as_str().unwrap())
            .collect();
        ids.dedup();
        assert_eq!(ids.len(), 3);
    }

    async fn the_log_is_read_in_parts(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let (head, epoch) = me.head().await;
        assert_eq!(head, 0);
        add(&me, 5).await;
        assert_eq!(me.head().await, (5, epoch.clone()));

        let parts: [(&str, &[u64], bool); 6] = [
            ("?since=0&limit=2", &[1, 2], true),
            ("?since=2&limit=2&epoch=E", &[3, 4], true),
            ("?since=4&limit=2&epoch=E", &[5], false),
            ("?since=3&limit=2&epoch=E", &[4, 5], false),
            ("?since=5&epoch=E", &[], false),
            ("?since=0&epoch=E", &[1, 2, 3, 4, 5], false),
        ];
        for (query, expected, more) in parts {
            let body = me.changes(&query.replace('E', &epoch)).await.ok(200);
            assert_eq!(seqs(body["events"].as_array().unwrap()), expected, "{query}");
            assert_eq!(body["has_more"], more, "{query}");
            assert_eq!((&body["head_seq"], &body["epoch"]), (&json!(5), &json!(epoch)));
        }
    }

    async fn a_position_needs_its_epoch(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 2).await;
        me.changes("?since=1").await.invalid("epoch");
        for since in ["since=1&", "since=0&", ""] {
            let query = format!("?{since}epoch={OTHER_EPOCH}");
            me.changes(&query).await.problem(410, "epoch_changed");
        }
        let stranger = server.api().newcomer("mine").await;
        let (_, theirs) = stranger.head().await;
        let (_, mine) = me.head().await;
        assert_ne!(theirs, mine, "an epoch belongs to one log");
        me.ack(1, &theirs).await.problem(410, "epoch_changed");
        assert_eq!(me.waiting().await, [1, 2]);
    }

    async fn a_position_that_no_log_reaches_is_of_another_life(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 2).await;
        let (_, epoch) = me.head().await;
        let since = i64::MAX;
        let query = format!("?since={since}&epoch={epoch}");
        me.changes(&query).await.problem(410, "epoch_changed");
    }

    async fn a_bad_query_is_refused_by_field(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        let cases = [
            ("?since=-1", "since"),
            ("?since=x", "since"),
            ("?limit=0", "limit"),
            ("?limit=-1", "limit"),
            ("?limit=x", "limit"),
        ];
        for (query, field) in cases {
            let answer = me.changes(query).await;
            assert_eq!(answer.status, 422, "{query}: {:#}", answer.body);
            answer.invalid(field);
        }
    }

    async fn only_an_ack_moves_the_cursor(engine) {
        let server = Server::start(engine).await;
        let writer = server.api().newcomer("writer").await;
        let reader = server.api().login(&writer.phone, "reader").await;
        add(&writer, 4).await;
        let (_, epoch) = writer.head().await;

        assert_eq!(reader.waiting().await, [1, 2, 3, 4]);
        let body = reader.changes(&format!("?since=3&epoch={epoch}")).await.ok(200);
        assert_eq!(seqs(body["events"].as_array().unwrap()), [4]);
        assert_eq!(reader.waiting().await, [1, 2, 3, 4], "reading moved the cursor");

        assert_eq!(reader.ack(2, &epoch).await.ok(200), json!({"acked_seq": 2}));
        assert_eq!(reader.waiting().await, [3, 4]);
        // Never back.
        assert_eq!(reader.ack(1, &epoch).await.ok(200), json!({"acked_seq": 2}));
        assert_eq!(reader.ack(0, &epoch).await.ok(200), json!({"acked_seq": 2}));
        assert_eq!(reader.waiting().await, [3, 4]);
        assert_eq!(reader.ack(4, &epoch).await.ok(200), json!({"acked_seq": 4}));
        assert!(reader.waiting().await.is_empty());
        // The cursor is the device's own.
        assert_eq!(writer.waiting().await, [1, 2, 3, 4]);
    }

    async fn an_ack_cannot_pass_the_head(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 2).await;
        let (_, epoch) = me.head().await;
        me.ack(3, &epoch).await.problem(422, "ack_beyond_head");
        me.ack(u64::from(u32::MAX), &epoch).await.problem(422, "ack_beyond_head");
        me.ack(1, OTHER_EPOCH).await.problem(410, "epoch_changed");
        assert_eq!(me.waiting().await, [1, 2]);
    }

    async fn a_bad_ack_is_refused_by_field(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 1).await;
        let (_, epoch) = me.head().await;
        let cases = [
            (json!({"epoch": epoch}), "up_to"),
            (json!({"up_to": 1}), "epoch"),
            (json!({"up_to": -1, "epoch": epoch}), "up_to"),
            (json!({"up_to": "1", "epoch": epoch}), "up_to"),
            (json!({"up_to": 1.5, "epoch": epoch}), "up_to"),
            (json!({"up_to": 1, "epoch": 7}), "epoch"),
            (json!({"up_to": 1, "epoch": epoch, "more": 1}), "more"),
        ];
        for (body, field) in cases {
            let answer = me.ack_with(&body).await;
            assert_eq!(answer.status, 422, "{body}: {:#}", answer.body);
            answer.invalid(field);
        }
        assert_eq!(me.waiting().await, [1]);
    }

    async fn a_new_device_starts_at_the_head(engine) {
        let server = Server::start(engine).await;
        let writer = server.api().newcomer("writer").await;
        add(&writer, 3).await;
        let late = server.api().login(&writer.phone, "late").await;
        assert!(late.waiting().await.is_empty());
        add(&writer, 1).await;
        assert_eq!(late.waiting().await, [4]);
        // What went before can still be read by asking for it.
        assert_eq!(late.log().await.len(), 4);
    }

    async fn a_device_that_logs_in_again_keeps_its_cursor(engine) {
        let server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 3).await;
        let (_, epoch) = me.head().await;
        me.ack(1, &epoch).await.ok(200);
        let again = server.api().login(&me.phone, "mine").await;
        assert_eq!(again.waiting().await, [2, 3]);
    }

    async fn a_cursor_outlives_a_restart(engine) {
        let mut server = Server::start(engine).await;
        let me = server.api().newcomer("mine").await;
        add(&me, 3).await;
        let before = me.log().await;
        let (_, epoch) = me.head().await;
        me.ack(2, &epoch).await.ok(200);
        server.stop().await;
        server.restart().await;
        let me = me.at(&server);
        assert_eq!(me.waiting().await, [3]);
        assert_eq!(me.head().await, (3, epoch));
        assert_eq!(me.log().await, before, "the same events, with the same tokens");
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
