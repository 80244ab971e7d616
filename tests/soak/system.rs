//! Three nodes, their `PostgreSQL` and their Redis, and the ways between them, each of which can be cut,
//! slowed and made silent for itself.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep};

use crate::{
    NODES,
    device::behind,
    shared::Shared,
    support::{
        Server,
        admin::{Admin, WITH_TOKEN},
        postgres_server::PostgresServer,
        proxy::{Proxy, Way},
        redis_server::RedisServer,
        service::INTERNAL,
        unique,
    },
};

/// After a fault is over: every node is ready, with Redis, and every device that wants to be connected
/// has all that was stored when the fault ended.
pub const RECOVERY: Duration = Duration::from_secs(30);

/// After so long it is told what is lacking.
const LONG: Duration = Duration::from_secs(8);

pub struct System {
    pub nodes: Vec<Server>,
    /// Which nodes run, as far as this test is concerned.
    pub alive: [bool; NODES],
    pub postgres: PostgresServer,
    pub redis: RedisServer,
    pub redis_runs: bool,
    /// For each node the way to `PostgreSQL` and that to Redis.
    pub ways: Vec<[Proxy; 2]>,
    pub shared: Arc<Shared>,
}

/// What came into the log, kept beside it by the database itself: the log is trimmed.
const WITNESS: &str = "
    CREATE TABLE soak_log (
        n BIGSERIAL PRIMARY KEY, user_id UUID NOT NULL, seq BIGINT NOT NULL, id UUID NOT NULL,
        event_type TEXT NOT NULL, data JSONB NOT NULL, origin TEXT);
    CREATE FUNCTION soak_witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO soak_log (user_id, seq, id, event_type, data, origin)
        VALUES (NEW.user_id, NEW.seq, NEW.id, NEW.event_type, NEW.data, NEW.origin_device_id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER soak_witness AFTER INSERT ON sync_events
        FOR EACH ROW EXECUTE FUNCTION soak_witness();";

impl System {
    pub async fn start(shared: Arc<Shared>) -> Self {
        let (postgres, redis) = (PostgresServer::start().await, RedisServer::start().await);
        let (mut nodes, mut ways) = (Vec::new(), Vec::new());
        // A master key of the cluster's own.
        let key = format!("{}{}", unique(), unique());
        let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key);
        for _ in 0..NODES {
            let way = [
                Proxy::start(&postgres.address()).await,
                Proxy::start(&redis.address()).await,
            ];
            let redis_url = format!("redis://127.0.0.1:{}", way[1].port());
            let settings = [
                ("database.url", postgres.url_by(way[0].port())),
                ("redis.url", redis_url),
                ("keys.master_key", key.clone()),
                // A run may be longer than a token's life otherwise.
                ("auth.access_token_secs", "86400".to_owned()),
                ("database.max_connections", "10".to_owned()),
                // So short that a device that was away for long has to load anew.
                ("sync.retention_max_events", "100".to_owned()),
                ("sync.retention_min_events", "20".to_owned()),
                ("sync.retention_min_hours", "0".to_owned()),
                ("sync.trim_interval_ms", "500".to_owned()),
                // All that such a log admits.
                ("services.events_per_hour", "2".to_owned()),
                ("services.user_events_per_hour", "2".to_owned()),
                ("log.level", "warn".to_owned()),
                (INTERNAL.0, INTERNAL.1.to_owned()),
                (WITH_TOKEN.0, WITH_TOKEN.1.to_owned()),
            ];
            let settings: Vec<_> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
            nodes.push(Server::on_stores(&settings).await);
            ways.push(way);
        }
        let mut system = Self {
            nodes,
            alive: [true; NODES],
            postgres,
            redis,
            redis_runs: true,
            ways,
            shared,
        };
        let mut database = system.database().await;
        sqlx::raw_sql(WITNESS).execute(&mut database).await.unwrap();
        for node in 0..NODES {
            system.introduce(node).await;
        }
        system
    }

    /// A connection that no fault is in the way of, but that of the server itself.
    pub async fn database(&self) -> PgConnection {
        PgConnection::connect(&self.postgres.url()).await.unwrap()
    }

    /// Shows a node that has started to the balancers, and learns its name.
    async fn introduce(&mut self, node: usize) {
        let server = &self.nodes[node];
        let shared = &self.shared;
        let nodes = Admin::of(server).get("/nodes").await.ok(200);
        let items = nodes["items"].as_array().unwrap();
        let this = items.iter().find(|it| it["this"] == true).unwrap();
        shared.name(this["name"].as_str().unwrap().to_owned(), node);
        shared.public.place(node, Some(server.listen().to_owned()));
        shared.internal.place(node, server.internal_listen());
        self.alive[node] = true;
    }

    /// Takes a node that is to end away from the balancers.
    pub fn dismiss(&mut self, node: usize) {
        self.alive[node] = false;
        self.shared.public.place(node, None);
        self.shared.internal.place(node, None);
    }

    /// Redis is away for all nodes: what is written now crosses by their looks at the heads alone.
    pub fn without_redis(&self) {
        self.shared.step("no node reaches Redis");
        for way in &self.ways {
            way[1].set(Way::Gone);
        }
    }

    /// Ends every fault.
    pub async fn mend(&mut self) {
        for way in self.ways.iter().flatten() {
            way.set(Way::Open);
            // A node that cannot store its first beat does not start.
            way.spare_commits();
        }
        self.postgres.launch().await;
        if !self.redis_runs {
            self.redis.launch().await;
            self.redis_runs = true;
        }
        for node in 0..NODES {
            if !self.alive[node] {
                self.nodes[node].restart().await;
                self.introduce(node).await;
            }
        }
    }

    /// The heads of all logs.
    pub async fn heads(&self) -> HashMap<String, u64> {
        let mut database = self.database().await;
        let heads: Vec<(uuid::Uuid, i64)> =
            sqlx::query_as("SELECT user_id, head_seq FROM user_logs")
                .fetch_all(&mut database)
                .await
                .unwrap();
        let heads = heads.into_iter();
        heads
            .map(|(user, head)| (user.to_string(), u64::try_from(head).unwrap()))
            .collect()
    }

    /// The heads of all logs once they stand still: what a caller gave up may still be under way.
    pub async fn last_heads(&self) -> HashMap<String, u64> {
        let mut heads = self.heads().await;
        loop {
            sleep(Duration::from_secs(1)).await;
            let later = self.heads().await;
            if later == heads {
                return heads;
            }
            heads = later;
        }
    }

    /// Waits until everything is as it should be, and tells how long that took.
    pub async fn recovered(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        let heads = self.heads().await;
        let mut told = false;
        loop {
            let mut lacking = Vec::new();
            for (n, node) in self.nodes.iter().enumerate() {
                let ready = node.api().get("/ready").await;
                let checks: &Value = &ready.body["checks"];
                if ready.status != 200 || checks["redis"] != "ok" || checks["limits"] != "ok" {
                    lacking.push(format!("node {n}: {checks}"));
                }
            }
            lacking.extend(behind(&self.shared, &heads));
            if lacking.is_empty() {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > RECOVERY {
                return Err(format!(
                    "not recovered after {RECOVERY:?}: {}",
                    lacking.join(" ")
                ));
            }
            if self.shared.broken().is_some() {
                return Ok(begun.elapsed());
            }
            if !told && begun.elapsed() > LONG {
                told = true;
                let lacking = lacking.join(" ");
                self.shared
                    .step(&format!("after {LONG:?} still lacking: {lacking}"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Asks each node again and again whether it is ready, and tells the balancers.
pub async fn watch_health(shared: Arc<Shared>) {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    loop {
        for node in 0..NODES {
            let Some(address) = shared.public.address_of(node) else {
                continue;
            };
            let answer = http.get(format!("http://{address}/ready")).send().await;
            let ready = answer.is_ok_and(|it| it.status() == 200);
            shared.public.note_ready(node, ready);
            shared.internal.note_ready(node, ready);
        }
        sleep(Duration::from_millis(200)).await;
    }
}
