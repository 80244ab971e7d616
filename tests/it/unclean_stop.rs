//! `database.synchronous = "normal"`: after a stop that was not in order writes may be lost, so the
//! clients are told; after any other they are not, also when the setting changes.

use std::time::Duration;

use serde_json::json;

use crate::support::{Engine, Server, Socket, assert_shape, client, eventually, phone, unique};

/// Longer than two looks at the heads.
const SILENCE: Duration = Duration::from_millis(2500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_of_a_stop_after_which_writes_may_be_lost() {
    let settings = [("database.synchronous", "normal")];
    let mut server = Server::with(Engine::Sqlite, &settings).await;
    let mut me = server.api().newcomer("mine").await;
    let other = server.api().login(&me.phone, "other").await;
    for _ in 0..3 {
        other.put("song", &unique()).await.ok(201);
    }
    let mut socket = Socket::open(&me).await;
    let events = socket.expect_events(1, 3).await;
    socket.ack(&events[2]).await;
    eventually("the ack is stored", async || me.waiting().await.is_empty()).await;
    let mut epoch = socket.epoch();
    socket.close().await;

    let mut told = 0;
    for (step, (killed, then, renews)) in [
        (false, "normal", false),
        (true, "normal", true),
        (false, "normal", false),
        (true, "full", true),
        // What stopped here was a server with "full".
        (true, "full", false),
        (true, "normal", false),
        (false, "full", false),
        (false, "normal", false),
        (true, "normal", true),
    ]
    .into_iter()
    .enumerate()
    {
        let stranger = phone();
        let code = server.api().new_code(&stranger).await;
        if killed {
            server.kill9();
        } else {
            server.stop().await;
        }
        server.set("database.synchronous", then);
        server.restart().await;
        me = me.at(&server);
        let mut socket = Socket::open_with(&me, &format!("?since=3&epoch={epoch}")).await;
        assert_eq!(socket.epoch() != epoch, renews, "step {step}");
        if renews {
            epoch = socket.epoch();
            let resync = socket.next_frame("resync").await;
            assert_shape(
                &resync,
                json!({
                    "type": "resync",
                    "epoch": epoch,
                    "floor_seq": 0,
                    "head_seq": 3,
                    "reason": "epoch_changed",
                }),
            );
            socket.expect_quiet(SILENCE).await;
            socket.ack_up_to(3, &epoch).await;
            eventually("the ack is stored", async || me.waiting().await.is_empty()).await;
            told += 1;
        }
        // Nothing but the answer.
        socket.ping().await;
        socket.close().await;
        let said = server.output().matches("renewed the epochs").count();
        assert_eq!(said, told, "step {step}\n{}", server.output());

        // Nobody is signed out, and no code is spent.
        me = me.renewed().await;
        let body = client::login_body(&stranger, &code, "new");
        server.api().sign_in(&body).await.ok(201);
    }
}
