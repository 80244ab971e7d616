//! Actors that an operator looks at because they are slow or fail, and whose lives an operator ends:
//! nothing is lost by it.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    slow_store::Held,
    support::{
        Device, Engine, Got, Incoming, Raw, Server, Socket,
        admin::{Admin, WITH_TOKEN, session_id},
        eventually,
    },
};

/// Longer than the tests hold the store.
const SLOW: &[(&str, &str)] = &[WITH_TOKEN, ("database.write_timeout_ms", "20000")];

/// Writes favorites one after another until told to stop; each must be stored. Tells how many.
fn write(me: &Device, prefix: &str, count: u64) -> tokio::task::JoinHandle<()> {
    let (me, prefix) = (me.clone(), prefix.to_owned());
    tokio::spawn(async move {
        for n in 0..count {
            me.put("song", &format!("{prefix}-{n}")).await.ok(201);
        }
    })
}

/// Reads events from `first` to `last`, each at least once and none left out.
async fn hear(socket: &mut Socket, first: u64, last: u64) {
    let mut next = first;
    while next <= last {
        let event = socket.next_frame("event").await;
        let seq = event["seq"].as_u64().unwrap();
        assert!(seq <= next, "expected {next}: {event:#}");
        next = next.max(seq + 1);
        socket.ack(&event).await;
    }
}

both_engines! {
    async fn a_restart_loses_nothing_and_keeps_the_socket(engine) {
        let server = Server::with(engine, &[WITH_TOKEN]).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("one").await;
        let mut socket = Socket::open(&me).await;
        let writing: Vec<_> = (0..4).map(|n| write(&me, &format!("w{n}"), 50)).collect();
        let path = format!("/actors/{}/restart", session_id(&me));
        for life in 1..=3 {
            sleep(Duration::from_millis(20)).await;
            let done = admin.post(&path).await.ok(200);
            assert_eq!(done, json!({
                "id": session_id(&me), "action": "restart", "was": "up", "is": "up", "done": true,
            }));
            let view = admin.session(&me).await;
            assert_eq!((&view["life"], &view["restarts"]), (&json!(life), &json!(life)));
        }
        for task in writing {
            task.await.unwrap();
        }
        // No second welcome, no close: only events come.
        hear(&mut socket, 1, 200).await;
        let view = admin.session(&me).await;
        let ends = view["ends"].as_array().unwrap();
        assert_eq!(ends.len(), 3);
        assert_eq!((&ends[0]["life"], &ends[0]["reason"]), (&json!(2), &json!("restarted by an operator")));
        // Live again.
        me.put("song", "after").await.ok(201);
        hear(&mut socket, 201, 201).await;
        assert_eq!(me.all_favorites(200).await.len(), 201);
        assert_eq!(server.metric("actor_restarts_total{kind=\"user_session\"}").await, 0, "no panic");
    }

    async fn a_stop_loses_nothing_and_tells_the_socket_to_come_again(engine) {
        let server = Server::with(engine, &[WITH_TOKEN]).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("one").await;
        let mut socket = Socket::open(&me).await;
        let writing: Vec<_> = (0..4).map(|n| write(&me, &format!("w{n}"), 25)).collect();
        sleep(Duration::from_millis(30)).await;
        let done = admin.post(&format!("/actors/{}/stop", session_id(&me))).await.ok(200);
        assert_eq!((&done["action"], &done["is"], &done["done"]), (&json!("stop"), &json!("stopped"), &json!(true)));
        let mut acked = 0;
        loop {
            match socket.next().await {
                Incoming::Frame(frame) if frame["type"] == "event" => {
                    acked = frame["seq"].as_u64().unwrap();
                }
                Incoming::Frame(frame) => {
                    assert_eq!((&frame["type"], &frame["reason"]), (&json!("goodbye"), &json!("going_away")));
                    assert!(frame["retry_after_ms"].as_u64().unwrap() <= 5000);
                    break;
                }
                other => panic!("{other:#?}"),
            }
        }
        socket.expect_close(1001).await;
        for task in writing {
            // Those that came meanwhile waited for the next life.
            task.await.unwrap();
        }
        let epoch = socket.epoch();
        let mut again = Socket::open_with(&me, &format!("?since={acked}&epoch={epoch}")).await;
        hear(&mut again, acked + 1, 100).await;
        // It is another actor, with a life of its own.
        let view = admin.session(&me).await;
        assert_eq!((&view["state"], &view["life"], &view["restarts"]), (&json!("up"), &json!(0), &json!(0)));
        let text = server.admin().get("/metrics").await.ok(200);
        let counted = "actor_interventions_total{kind=\"user_session\",action=\"stop\"} 1";
        assert!(text.as_str().unwrap().contains(counted), "{text}");
        let log = server.output();
        let line = log.lines().find(|line| line.contains("an operator ended an actor's life")).unwrap();
        assert!(line.contains("admin token") && line.contains("request_id=") && line.contains(&me.user_id), "{line}");
    }

    async fn what_the_node_needs_is_restarted_and_not_stopped(engine) {
        let server = Server::with(engine, &[WITH_TOKEN]).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("one").await;
        let mut socket = Socket::open(&me).await;
        for root in ["cursor_keeper:node", "head_watcher:node", "revocation_keeper:node",
                     "sync_log_janitor:node", "history_janitor:node", "public_playlists:node", "key_keeper:node", "broadcaster:node", "node_keeper:node", "login_desk:0"] {
            admin.post(&format!("/actors/{root}/stop")).await.problem(409, "actor_not_stoppable");
            me.put("song", root).await.ok(201);
            let event = socket.next_frame("event").await;
            socket.ack(&event).await;
            let done = admin.post(&format!("/actors/{root}/restart")).await.ok(200);
            assert_eq!(done["is"], "up", "{done:#}");
        }
        server.admin().get("/ready").await.ok(200);
        // The keeper stored what it held before it went.
        eventually("acks are stored", async || me.waiting().await.is_empty()).await;
        server.api().newcomer("two").await.me().await.ok(200);

        let conn = socket.welcome["conn_id"].as_str().unwrap();
        let id = format!("device_connection:{conn}");
        admin.post(&format!("/actors/{id}/restart")).await.problem(409, "actor_not_restartable");
        let path = format!("/actors/{id}/stop");
        let stopping = admin.post(&path);
        let reading = async move {
            socket.next_frame("goodbye").await;
            // Its part of the handshake, and the end of the connection.
            socket.expect_close(1001).await;
        };
        let (stopped, ()) = tokio::join!(stopping, reading);
        assert_eq!(stopped.ok(200)["done"], true);
        admin.get(&format!("/actors/{id}")).await.problem(404, "actor_not_found");
        for action in ["stop", "restart"] {
            let path = format!("/actors/{id}/{action}");
            admin.post(&path).await.problem(404, "actor_not_found");
        }
        admin.post("/actors/inspector:0/restart").await.problem(409, "actor_not_restartable");
    }

    async fn a_slow_store_is_told_from_a_long_queue(engine) {
        let server = Server::with(engine, SLOW).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("slow").await;
        me.put("song", "a").await.ok(201);
        let mut socket = Socket::open(&me).await;
        let event = socket.expect_event(1).await;
        let api = server.api();
        let others = join_all((0..5).map(|_| api.newcomer("quick"))).await;
        join_all(others.iter().map(Device::me)).await;

        let held = Held::take(&server, &me).await;
        let first = write(&me, "first", 1);
        let view = async || admin.session(&me).await;
        eventually("one is at the store", async || {
            view().await["view"]["command"]["waits_for"] == "store"
        }).await;
        let more: Vec<_> = (0..3).map(|n| write(&me, &format!("more-{n}"), 1)).collect();
        eventually("others wait for their turn", async || {
            view().await["view"]["commands_waiting"] == 3
        }).await;
        // Long enough for the first to be the slowest of all.
        sleep(Duration::from_millis(700)).await;
        let seen = view().await;
        let command = &seen["view"]["command"];
        assert_eq!((&command["name"], &command["waits_for"]), (&json!("PutFavorite"), &json!("store")));
        assert!(command["waits_ms"].as_u64().unwrap() >= 700, "{seen:#}");
        let waiting = &seen["view"]["first_waiting"];
        assert_eq!((&waiting["name"], &waiting["waits_for"]), (&json!("PutFavorite"), &json!("turn")));
        assert_eq!((&seen["freshness"], &seen["in_progress"]["commands"]), (&json!("live"), &json!(4)));
        assert!(seen["owing_ms"].as_u64().unwrap() >= 700, "{seen:#}");
        // Found among all, without knowing whose it is, while it hangs.
        for sort in ["slowest", "waiting"] {
            let found = admin.list(&format!("kind=user_session&sort={sort}&limit=1")).await;
            assert_eq!(found[0]["id"], json!(session_id(&me)), "{sort}: {found:#?}");
        }
        socket.ack(&event).await;

        held.release().await;
        first.await.unwrap();
        for task in more {
            task.await.unwrap();
        }
        let seen = view().await;
        assert_eq!(seen["view"]["command"], Value::Null);
        let slow = seen["view"]["slow_commands"].as_array().unwrap();
        assert_eq!(slow.len(), 4, "{seen:#}");
        let (last, first) = (&slow[0], &slow[3]);
        assert!(first["store_ms"].as_u64().unwrap() >= 700 && first["turn_ms"].as_u64().unwrap() < 100, "{seen:#}");
        assert!(last["turn_ms"].as_u64().unwrap() >= 700, "{seen:#}");
        assert!(seen["slowest"]["ms"].as_f64().unwrap() >= 700.0, "{seen:#}");
        assert_eq!((&seen["slowest"]["what"], &seen["owing_ms"]), (&json!("PutFavorite"), &Value::Null));
    }

    async fn a_restart_waits_for_what_is_in_hand(engine) {
        let server = Server::with(engine, SLOW).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("one").await;
        me.put("song", "a").await.ok(201);
        let held = Held::take(&server, &me).await;
        let before: Vec<_> = (0..3).map(|n| write(&me, &format!("before-{n}"), 1)).collect();
        eventually("they are in hand", async || {
            admin.session(&me).await["in_progress"]["commands"] == 3
        }).await;
        let path = format!("/actors/{}/restart", session_id(&me));
        let asked = admin.post(&path).await.ok(202);
        assert_eq!((&asked["was"], &asked["is"], &asked["done"]), (&json!("up"), &json!("restarting"), &json!(false)));
        let seen = admin.session(&me).await;
        assert_eq!((&seen["freshness"], &seen["view"]), (&json!("restarting"), &Value::Null));
        assert_eq!(seen["in_progress"]["commands"], 3, "the meters show without asking");
        let after = write(&me, "after", 1);
        sleep(Duration::from_millis(100)).await;
        assert!(before.iter().all(|task| !task.is_finished()) && !after.is_finished());
        held.release().await;
        for task in before {
            task.await.unwrap();
        }
        after.await.unwrap();
        let stored: BTreeSet<_> = me.all_favorites(200).await.iter()
            .map(|it| it["target_id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(stored.len(), 5, "{stored:?}");
        let view = admin.session(&me).await;
        assert_eq!((&view["life"], &view["freshness"]), (&json!(1), &json!("live")));
    }
}

// Of the two engines this one is held as a whole.
#[tokio::test]
async fn nobody_attaches_behind_a_stop() {
    let server = Server::with(Engine::Sqlite, SLOW).await;
    let admin = Admin::of(&server);
    let me = server.api().newcomer("one").await;
    let held = Held::take(&server, &me).await;
    let mut raw = Raw::at(&me).await;
    let answer = raw.upgrade(&me).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    eventually("it waits for the store", async || {
        // The handshake is answered before the session is started.
        let session = admin.get(&format!("/actors/{}", session_id(&me))).await;
        session.body["view"]["attachment"]["waits_for"] == "store"
    })
    .await;
    let path = format!("/actors/{}/stop", session_id(&me));
    assert_eq!(admin.post(&path).await.ok(202)["done"], false);
    held.release().await;
    match raw.next().await {
        Got::Text(frame) => assert_eq!(frame["type"], "goodbye"),
        other => panic!("{other:?}"),
    }
    let closed = raw.next().await;
    assert!(matches!(closed, Got::Close(Some((1001, _)))), "{closed:?}");
    assert_eq!(server.metric("sync_users_attached").await, 0);
}

#[cfg(feature = "faults")]
both_engines! {
    async fn a_session_that_panics_shows_why_and_an_operator_ends_its_quarantine(engine) {
        let server = Server::with(engine, &[WITH_TOKEN]).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("one").await;
        me.put("song", "a").await.ok(201);
        let _socket = Socket::open(&me).await;
        eventually("it is attached", async || server.metric("sync_users_attached").await == 1).await;
        me.put("song", "fault:panic").await.problem(503, "session_restarting");
        let view = admin.session(&me).await;
        let end = &view["ends"][0];
        assert_eq!((&end["life"], &end["reason"], &end["quarantined"]), (&json!(0), &json!("planted fault"), &json!(false)));
        assert_eq!(view["restarts"], 1);
        let found = admin.list("kind=user_session&sort=restarts&limit=1").await;
        assert_eq!(found[0]["id"], json!(session_id(&me)));
        eventually("it is quarantined", async || {
            me.put("song", "fault:panic").await.code() == "session_quarantined"
        }).await;
        assert_eq!(server.metric("sync_users_attached").await, 0, "nobody is");
        let view = admin.session(&me).await;
        assert_eq!((&view["state"], &view["freshness"], &view["view"]), (&json!("quarantined"), &json!("quarantined"), &Value::Null));
        assert!(view["quarantined_for_ms"].as_u64().unwrap() > 30_000, "{view:#}");
        assert_eq!(view["ends"][0]["quarantined"], true, "{view:#}");
        assert_eq!(view["ends"].as_array().unwrap().len(), 6);
        assert_eq!(admin.kind("user_session").await["quarantines"], 1);
        let path = format!("/actors/{}/restart", session_id(&me));
        let done = admin.post(&path).await.ok(200);
        assert_eq!((&done["was"], &done["is"]), (&json!("quarantined"), &json!("up")));
        me.put("song", "b").await.ok(201);
        // On trial: one more and it is left alone again, and may also be ended for good.
        me.put("song", "fault:panic").await.problem(503, "session_restarting");
        eventually("it is quarantined again", async || {
            admin.session(&me).await["state"] == "quarantined"
        }).await;
        let path = format!("/actors/{}/stop", session_id(&me));
        let done = admin.post(&path).await.ok(200);
        assert_eq!((&done["was"], &done["is"]), (&json!("quarantined"), &json!("stopped")));
        me.put("song", "c").await.ok(201);
        assert_eq!(admin.session(&me).await["restarts"], 0, "another actor");
    }
}
