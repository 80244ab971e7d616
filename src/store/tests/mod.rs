//! Tests of the store, each on both engines.
//!
//! PostgreSQL is named by `LISTEN_STREAM_TEST_POSTGRES_URL`, a superuser's address; each test
//! makes a database of its own there and drops it. Without it that half of the tests fails.

mod constraints;
mod group;
mod history;
mod idempotency;
mod identity;
mod keys;
mod library;
mod model;
mod nodes;
mod playlists;
mod postgres;
mod retention;
mod rotation;
mod schema;
mod services;
mod snapshot;
mod sync;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeZone, Utc};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, postgres::PgConnectOptions};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::*;
use crate::domain::{
    identity::{ClientDeviceId, Fingerprint, KeyMaterial, NewDevice, Phone, Platform, Secrets},
    ids::{DeviceId, Epoch, EventId, FavoriteId, NodeId, TokenFamily, UserId},
    library::{FavoriteKey, FavoriteType, TargetId},
};

/// The node that devices attach to.
pub(crate) const NODE: NodeId = NodeId(Uuid::from_u128(0x000d_e000));

const POSTGRES_URL: &str = "LISTEN_STREAM_TEST_POSTGRES_URL";

/// A store of its own for one test.
pub(crate) struct Bed {
    pub(crate) store: Store,
    pub(super) world: World,
    pub(super) config: StoreConfig,
    secrets: Arc<Secrets>,
    /// The SQLite file's folder.
    pub(super) dir: tempfile::TempDir,
    next: AtomicU64,
}

/// Runs each function on a fresh SQLite file and on a fresh PostgreSQL database.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let bed = $crate::store::tests::Bed::sqlite().await;
                super::$test(&bed).await;
                bed.done().await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let bed = $crate::store::tests::Bed::postgres().await;
                super::$test(&bed).await;
                bed.done().await;
            })+
        }
    };
}
pub(super) use on_both;

fn config(database: Database) -> StoreConfig {
    StoreConfig {
        database,
        max_connections: 8,
        read_connections: 4,
        write_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
        synchronous_full: false,
    }
}

pub(super) async fn open(config: &StoreConfig) -> Result<Store, OpenError> {
    Store::open(
        config.clone(),
        World::system(),
        Handle::current(),
        StoreMetrics::default(),
    )
    .await
}

fn server() -> PgConnectOptions {
    let url = std::env::var(POSTGRES_URL).unwrap_or_else(|_| {
        panic!(
            "{POSTGRES_URL} is not set: the PostgreSQL half of the store's tests needs a \
             superuser's address such as postgres://postgres@127.0.0.1:5432/postgres"
        )
    });
    url.parse().unwrap()
}

async fn on_server(sql: String) {
    let mut conn = server().connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
}

impl Bed {
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("listen-stream.db");
        Self::new(config(Database::Sqlite(file)), dir).await
    }

    pub(super) async fn postgres() -> Self {
        let name = format!("listen_stream_{}", World::system().uuid().unwrap().simple());
        on_server(format!("CREATE DATABASE {name}")).await;
        let url = server().database(&name).to_url_lossy().to_string();
        Self::new(
            config(Database::Postgres(url)),
            tempfile::tempdir().unwrap(),
        )
        .await
    }

    /// The same with another limit of what a write may wait.
    pub(crate) async fn sqlite_with(write_timeout: Duration) -> Self {
        let mut bed = Self::sqlite().await;
        bed.store.close().await;
        bed.config.write_timeout = write_timeout;
        bed.store = open(&bed.config).await.unwrap();
        bed
    }

    /// Makes writes to the SQLite file wait until it is dropped.
    pub(crate) async fn hold(&self) -> impl Sized {
        let mut conn = self.beside().await;
        sqlx::raw_sql("BEGIN IMMEDIATE")
            .execute(&mut conn)
            .await
            .unwrap();
        conn
    }

    async fn new(config: StoreConfig, dir: tempfile::TempDir) -> Self {
        let key = KeyMaterial {
            kid: "k".into(),
            bytes: [1; 32],
        };
        Self {
            store: open(&config).await.unwrap(),
            world: World::system(),
            config,
            secrets: Arc::new(Secrets::new(vec![key], &[2; 32])),
            dir,
            next: AtomicU64::new(1),
        }
    }

    pub(crate) async fn done(self) {
        self.store.close().await;
        if let Database::Postgres(url) = &self.config.database {
            let options: PgConnectOptions = url.parse().unwrap();
            let name = options.get_database().unwrap();
            on_server(format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }

    pub(crate) fn soon(&self) -> Instant {
        self.world.instant() + Duration::from_secs(5)
    }

    fn uuid(&self) -> Uuid {
        self.world.uuid().unwrap()
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs SQL beside the store.
    pub(crate) async fn sql(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.store.inner.db {
            Db::Postgres(pool) => sqlx::raw_sql(sql).execute(pool).await.map(|_| ()),
            Db::Sqlite(_) => {
                let mut conn = self.beside().await;
                sqlx::raw_sql(sql).execute(&mut conn).await.map(|_| ())
            }
        }
    }

    /// A number from SQL.
    pub(super) async fn count(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        on_pool!(&self.store.inner.db, pool => {
            sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
        })
    }

    /// A connection to the SQLite file as another process has one.
    async fn beside(&self) -> sqlx::SqliteConnection {
        sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.dir.path().join("listen-stream.db"))
            .foreign_keys(true)
            .connect()
            .await
            .unwrap()
    }

    /// A code in force, `tries` guesses.
    async fn code(&self, phone: &Phone, hash: &str, tries: i64, at: DateTime<Utc>) {
        let code = NewSmsCode {
            phone: phone.clone(),
            code_hash: hash.into(),
            tries,
            sent_at: at,
            expires_at: at + chrono::Duration::minutes(5),
            cooldown: chrono::Duration::zero(),
            per_hour: 1000,
        };
        let put = self.store.sms_code_put(self.soon(), code).await.unwrap();
        assert_eq!(put, SmsCodePut::Stored);
    }

    fn login(&self, phone: &Phone, device: &str, at: DateTime<Utc>) -> Login {
        Login {
            phone: phone.clone(),
            code_hash: "right".into(),
            device: NewDevice {
                device_id: ClientDeviceId::parse(device).unwrap(),
                platform: Platform::Ios,
                name: None,
                fingerprint: Fingerprint::default(),
            },
            replace: None,
            ip: Some([127, 0, 0, 1].into()),
            now: at,
            max_devices: 5,
            revocation_life: chrono::Duration::minutes(15),
            secrets: self.secrets.clone(),
            ids: LoginIds {
                event: EventId(self.uuid()),
                user: UserId(self.uuid()),
                epoch: Epoch(self.uuid()),
                device: DeviceId(self.uuid()),
                family: TokenFamily(self.uuid()),
            },
        }
    }

    /// Logs in with a good code.
    async fn session(&self, phone: &Phone, device: &str, at: DateTime<Utc>) -> Session {
        self.code(phone, "right", 5, at).await;
        logged_in(
            self.store
                .login(self.soon(), self.login(phone, device, at))
                .await
                .unwrap(),
        )
    }

    /// A new user with one device.
    pub(crate) async fn user(&self) -> Session {
        let phone = Phone::parse(format!("+861380000{:04}", self.number())).unwrap();
        self.session(&phone, "phone-1", t(0)).await
    }

    fn favorite(&self, user: UserId, target: &str, at: DateTime<Utc>) -> FavoriteCommand {
        FavoriteCommand {
            user,
            key: FavoriteKey {
                kind: FavoriteType::Song,
                target_id: TargetId::parse(target).unwrap(),
            },
            origin: Some(ClientDeviceId::parse("phone-1").unwrap()),
            now: at,
            favorite_id: FavoriteId(self.uuid()),
            event_id: EventId(self.uuid()),
        }
    }

    /// Gives the user the first `n` of some plays.
    pub(crate) async fn plays(&self, user: UserId, n: i64) {
        self.added(self.add(user, t(600), history::plays(0..n)))
            .await;
    }

    pub(crate) async fn count_of_plays(&self) -> i64 {
        self.count("SELECT count(*) FROM plays").await
    }

    pub(crate) async fn count_of_runs(&self) -> i64 {
        self.count("SELECT count(*) FROM janitor_runs").await
    }

    /// Puts `n` favorites, each an event.
    pub(crate) async fn favorites(&self, user: UserId, n: i64) {
        for i in 0..n {
            let command = self.favorite(user, &format!("song-{i}"), t(i));
            self.store.favorite_put(self.soon(), command).await.unwrap();
        }
    }
}

/// `secs` after a fixed moment, with microseconds that text must keep.
fn t(secs: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_795_000_000 + secs, 123_456_000)
        .unwrap()
}

fn phone() -> Phone {
    Phone::parse("+8613800138000").unwrap()
}

fn logged_in(outcome: LoginOutcome) -> Session {
    match outcome {
        LoginOutcome::LoggedIn(session) => *session,
        other => panic!("not logged in: {other:?}"),
    }
}
