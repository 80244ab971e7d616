//! Many events at once, written straight into the database as another process's commands would be:
//! in one transaction, with the favorites that they make and the head that they move.

use chrono::{DateTime, SubsecRound as _, Utc};
use listen_stream::domain::clock::World;
use sqlx::{Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::time::Duration;
use uuid::Uuid;

use super::{Device, Server};

/// Appends `count` events to the user's log: `targets` favorites are added, removed and restored in
/// turn, all of them again and again, and are there in the end.
pub async fn append(server: &Server, user: &Device, prefix: &str, count: u32, targets: u32) {
    assert!(
        count.is_multiple_of(targets) && (count / targets) % 3 != 2,
        "all are there in the end"
    );
    let rows = Rows {
        user: Uuid::parse_str(&user.user_id).unwrap(),
        prefix,
        count: i64::from(count),
        targets: i64::from(targets),
        now: World::system().now().trunc_subsecs(6),
    };
    if let Some(url) = server.database_url() {
        let mut db = PgConnection::connect(url).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        rows.append(&mut tx).await;
        tx.commit().await.unwrap();
        db.close().await.unwrap();
    } else {
        let options = SqliteConnectOptions::new()
            .filename(server.data().join("listen-stream.db"))
            .busy_timeout(Duration::from_secs(10));
        let mut db = SqliteConnection::connect_with(&options).await.unwrap();
        let mut tx = db.begin_with("BEGIN IMMEDIATE").await.unwrap();
        rows.append_sqlite(&mut tx).await;
        tx.commit().await.unwrap();
        db.close().await.unwrap();
    }
}

/// Counts the first so many events of the user's log as those of services.
pub async fn are_of_services(server: &Server, user: &Device, events: i64) {
    let sql =
        "INSERT INTO service_shares (user_id, piece, events, last_seq) VALUES ($1, 0, $2, $2)";
    let user = Uuid::parse_str(&user.user_id).unwrap();
    if let Some(url) = server.database_url() {
        let mut db = PgConnection::connect(url).await.unwrap();
        let query = sqlx::query(sql).bind(user).bind(events);
        query.execute(&mut db).await.unwrap();
    } else {
        let options = SqliteConnectOptions::new()
            .filename(server.data().join("listen-stream.db"))
            .busy_timeout(Duration::from_secs(10));
        let mut db = SqliteConnection::connect_with(&options).await.unwrap();
        let query = sqlx::query(sql).bind(user).bind(events);
        query.execute(&mut db).await.unwrap();
    }
}

struct Rows<'a> {
    user: Uuid,
    prefix: &'a str,
    count: i64,
    targets: i64,
    now: DateTime<Utc>,
}

const HEAD: &str =
    "UPDATE user_logs SET head_seq = head_seq + $2 WHERE user_id = $1 RETURNING head_seq - $2";

/// `uuid` makes a new id, `text` shows one, `json` makes an object: what the engines call differently.
fn favorites(uuid: &str) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $4 - 1)
         INSERT INTO favorites (id, user_id, type, target_id, version, created_at)
         SELECT {uuid}, $1, 'song', $2 || CAST(i AS TEXT), $3 - $4 + i + 1, $5 FROM n"
    )
}

fn events(uuid: &str, text: &str, json: &str) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $4 - 1)
         INSERT INTO sync_events (user_id, seq, id, event_type, data, created_at)
         SELECT $1, $3 + i + 1, {uuid},
             CASE (i / $5) % 3 WHEN 0 THEN 'favorite.added' WHEN 1 THEN 'favorite.removed'
                 ELSE 'favorite.restored' END,
             {json}('id', {text}, 'type', 'song', 'target_id', f.target_id,
                 'created_at', CAST($7 AS TEXT), 'version', $3 + i + 1),
             $6
         FROM n CROSS JOIN favorites f
         WHERE f.user_id = $1 AND f.type = 'song' AND f.target_id = $2 || CAST(i % $5 AS TEXT)"
    )
}

/// Runs the statements on a connection of either engine.
macro_rules! append_rows {
    ($rows:expr, $db:expr, $uuid:expr, $text:expr, $json:expr) => {{
        let Rows {
            user,
            prefix,
            count,
            targets,
            now,
        } = $rows;
        let head: i64 = sqlx::query_scalar(HEAD)
            .bind(user)
            .bind(count)
            .fetch_one(&mut *$db)
            .await
            .unwrap();
        sqlx::query(sqlx::AssertSqlSafe(favorites($uuid)))
            .bind(user)
            .bind(prefix)
            .bind(head + count)
            .bind(targets)
            .bind(now)
            .execute(&mut *$db)
            .await
            .unwrap();
        let done = sqlx::query(sqlx::AssertSqlSafe(events($uuid, $text, $json)))
            .bind(user)
            .bind(prefix)
            .bind(head)
            .bind(count)
            .bind(targets)
            .bind(now)
            .bind(now.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
            .execute(&mut *$db)
            .await
            .unwrap();
        assert_eq!(i64::try_from(done.rows_affected()), Ok(*count));
    }};
}

impl Rows<'_> {
    async fn append(&self, db: &mut PgConnection) {
        append_rows!(self, db, "gen_random_uuid()", "f.id", "jsonb_build_object");
    }

    async fn append_sqlite(&self, db: &mut SqliteConnection) {
        // As text an id has hyphens.
        let text = "lower(substr(hex(f.id), 1, 8) || '-' || substr(hex(f.id), 9, 4) || '-'
            || substr(hex(f.id), 13, 4) || '-' || substr(hex(f.id), 17, 4) || '-'
            || substr(hex(f.id), 21))";
        append_rows!(self, db, "randomblob(16)", text, "json_object");
    }
}

/// Makes so many users without devices, as their logins would: the ids, in their order.
pub async fn users(server: &Server, count: u32) -> Vec<Uuid> {
    let world = World::system();
    let mut ids: Vec<Uuid> = (0..count).map(|_| world.uuid().unwrap()).collect();
    ids.sort_unstable();
    let now = world.now().trunc_subsecs(6);
    macro_rules! insert {
        ($db:expr) => {
            for id in &ids {
                sqlx::query("INSERT INTO users VALUES ($1, $2, 'USER', 1, $3, $3)")
                    .bind(id)
                    .bind(format!("+{}", id.simple()))
                    .bind(now)
                    .execute(&mut *$db)
                    .await
                    .unwrap();
                sqlx::query("INSERT INTO user_logs VALUES ($1, $2, 0, 0)")
                    .bind(id)
                    .bind(world.uuid().unwrap())
                    .execute(&mut *$db)
                    .await
                    .unwrap();
            }
        };
    }
    if let Some(url) = server.database_url() {
        let mut db = PgConnection::connect(url).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        insert!(tx);
        tx.commit().await.unwrap();
    } else {
        let mut db = sqlite(server).await;
        let mut tx = db.begin_with("BEGIN IMMEDIATE").await.unwrap();
        insert!(tx);
        tx.commit().await.unwrap();
    }
    ids
}

/// How many events of this type each user has: those who have some.
pub async fn events_of_type(server: &Server, event_type: &str) -> Vec<(Uuid, i64)> {
    let sql = "SELECT user_id, count(*) FROM sync_events WHERE event_type = $1 \
               GROUP BY user_id ORDER BY user_id";
    let query = |event_type: &str| event_type.to_owned();
    if let Some(url) = server.database_url() {
        let mut db = PgConnection::connect(url).await.unwrap();
        let rows = sqlx::query_as(sql).bind(query(event_type));
        rows.fetch_all(&mut db).await.unwrap()
    } else {
        let mut db = sqlite(server).await;
        let rows = sqlx::query_as(sql).bind(query(event_type));
        rows.fetch_all(&mut db).await.unwrap()
    }
}

/// Runs SQL beside the server.
pub async fn sql(server: &Server, sql: &'static str) {
    if let Some(url) = server.database_url() {
        let mut db = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut db).await.unwrap();
    } else {
        let mut db = sqlite(server).await;
        sqlx::raw_sql(sql).execute(&mut db).await.unwrap();
    }
}

/// Logs whose head is not their newest event's.
pub async fn broken_logs(server: &Server) -> i64 {
    let sql = "SELECT count(*) FROM user_logs l WHERE l.head_seq <> \
               (SELECT COALESCE(max(seq), 0) FROM sync_events e WHERE e.user_id = l.user_id)";
    if let Some(url) = server.database_url() {
        let mut db = PgConnection::connect(url).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap()
    } else {
        let mut db = sqlite(server).await;
        sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap()
    }
}

async fn sqlite(server: &Server) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(server.data().join("listen-stream.db"))
        .busy_timeout(Duration::from_secs(10));
    SqliteConnection::connect_with(&options).await.unwrap()
}
