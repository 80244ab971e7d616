//! While the store makes a user's command wait, the user's session answers all the same.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use crate::support::{Device, Engine, Got, Raw, Server, Socket, eventually};

/// Longer than the tests hold the store.
const SETTINGS: &[(&str, &str)] = &[("database.write_timeout_ms", "20000")];

both_engines! {
    async fn a_session_with_a_slow_store_answers(engine) {
        let server = Server::with(engine, SETTINGS).await;
        let me = server.api().newcomer("mine").await;
        for target in ["a", "b"] {
            me.put("song", target).await.ok(201);
        }
        let mut socket = Socket::open(&me).await;
        let events = socket.expect_events(1, 2).await;
        let other = server.api().newcomer("other").await;
        let mut other_socket = Socket::open(&other).await;

        let held = Held::take(&server, &me).await;
        let (writer, other_task) = (me.clone(), other.clone());
        let writing = tokio::spawn(async move { writer.put("song", "c").await });
        for round in 0..20 {
            socket.ping_within(Duration::from_secs(1)).await;
            other_socket.ping_within(Duration::from_secs(1)).await;
            if round == 10 {
                socket.ack(&events[0]).await;
            }
            // Long enough in all for the write to have arrived and to hang.
            tokio::time::sleep(Duration::from_millis(75)).await;
            assert!(!writing.is_finished(), "the store is held, but the write went through");
        }
        // One that the session does not take: it is answered, and nothing else is lost.
        let beyond = json!({"type": "ack", "up_to": 99, "epoch": socket.epoch(), "ref": "r"});
        socket.send(beyond).await;
        socket.expect_error("ack_beyond_head", "r").await;
        // Reading is not held up either.
        other_task.me().await.ok(200);
        assert!(!writing.is_finished());

        held.release().await;
        let added = writing.await.unwrap();
        assert_eq!(added.seq(), 3);
        added.ok(201);
        socket.expect_event(3).await;
        eventually("the ack was taken", async || me.waiting().await == [2, 3]).await;
        other.put("song", "x").await.ok(201);
        other_socket.expect_event(1).await;
    }
}

// Of the two engines this one is held as a whole.
#[tokio::test]
async fn a_connection_that_was_replaced_while_it_waited_writes_nothing() {
    let server = Server::with(Engine::Sqlite, SETTINGS).await;
    let me = server.api().newcomer("mine").await;
    let held = Held::take(&server, &me).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::at(&me).await;
        let answer = raw.upgrade(&me).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        sockets.push(raw);
    }
    // Long enough for all of them to have asked their session, in whatever order.
    tokio::time::sleep(Duration::from_millis(500)).await;
    held.release().await;
    let mut welcome = 0;
    for raw in &mut sockets {
        match raw.next().await {
            Got::Text(frame) if frame["type"] == "welcome" => welcome += 1,
            Got::Close(Some((4001, _))) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(welcome >= 1, "the last one stays");
    // The first was at it already, and one more may have come late.
    let raised = raised(&server).await;
    assert!((2..=4).contains(&raised), "{raised} of 10 were written");
}

/// How often a device attached.
async fn raised(server: &Server) -> i64 {
    let options = SqliteConnectOptions::new().filename(server.data().join("listen-stream.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query_scalar("SELECT MAX(attach_epoch) FROM devices")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

/// The store, held in a way that makes the user's next write wait.
pub enum Held {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Held {
    pub async fn take(server: &Server, me: &Device) -> Self {
        if let Some(url) = server.database_url() {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
            let row = sqlx::query("SELECT 1 FROM user_logs WHERE user_id = $1 FOR UPDATE")
                .bind(Uuid::parse_str(&me.user_id).unwrap())
                .fetch_optional(&mut connection)
                .await
                .unwrap();
            assert!(row.is_some(), "the user has a log");
            Self::Postgres(connection)
        } else {
            let options = SqliteConnectOptions::new()
                .filename(server.data().join("listen-stream.db"))
                .busy_timeout(Duration::from_secs(10));
            let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::query("BEGIN IMMEDIATE")
                .execute(&mut connection)
                .await
                .unwrap();
            Self::Sqlite(connection)
        }
    }

    pub async fn release(self) {
        match self {
            Self::Sqlite(mut connection) => {
                sqlx::query("ROLLBACK")
                    .execute(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres(mut connection) => {
                sqlx::query("ROLLBACK")
                    .execute(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
            }
        }
    }
}
