//! What only PostgreSQL does: lost connections, repeated transactions, slow statements.

use std::{collections::BTreeSet, sync::atomic::AtomicUsize};

use super::*;
use crate::store::{command::Command, error::Failed, on_tx, sync::logs_lock};

/// Runs one text in a transaction, another one from the third run on.
struct Text {
    first: &'static str,
    later: &'static str,
    runs: Arc<AtomicUsize>,
}

impl Command for Text {
    const NAME: &'static str = "text";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        let early = self.runs.fetch_add(1, Ordering::Relaxed) < 2;
        let sql = if early { self.first } else { self.later };
        on_tx!(tx, conn => sqlx::raw_sql(sql).execute(conn).await?.rows_affected());
        Ok(())
    }
}

fn text(first: &'static str, later: &'static str) -> Text {
    Text {
        first,
        later,
        runs: Arc::default(),
    }
}

const CODE: &str = "INSERT INTO sms_codes VALUES ('+1', 'h', 1, FALSE, now(), now(), now(), 1)";
const CONFLICT: &str = "DO $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '40001'; END $$";

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_repeated_but_not_for_ever() {
    let bed = Bed::postgres().await;
    let command = text(CONFLICT, CODE);
    let runs = command.runs.clone();
    assert_eq!(bed.store.write(bed.soon(), command).await, Ok(()));
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    assert_eq!(bed.count("SELECT count(*) FROM sms_codes").await, 1);
    let command = text(CONFLICT, CONFLICT);
    let runs = command.runs.clone();
    let given_up = bed.store.write(bed.soon(), command).await;
    assert_eq!(given_up, Err(StoreError::Unavailable));
    assert_eq!(runs.load(Ordering::Relaxed), 6);
    bed.done().await;
}

const SUICIDE: &str = "SELECT pg_terminate_backend(pg_backend_pid())";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_from_a_lost_commit() {
    let bed = Bed::postgres().await;
    let lost = bed.store.write(bed.soon(), text(SUICIDE, SUICIDE)).await;
    assert_eq!(lost, Err(StoreError::Unavailable));
    bed.sql(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER die AFTER INSERT ON sms_codes
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()",
    )
    .await
    .unwrap();
    let lost = bed.store.write(bed.soon(), text(CODE, CODE)).await;
    assert_eq!(lost, Err(StoreError::OutcomeUnknown));
    bed.user_without_code().await;
    bed.done().await;
}

impl Bed {
    /// That the store serves, without a code's row.
    async fn user_without_code(&self) {
        let nobody = self
            .store
            .user_fetch(self.soon(), UserId(self.uuid()))
            .await;
        assert_eq!(nobody, Ok(None));
        let (user, device) = (UserId(self.uuid()), DeviceId(self.uuid()));
        let written = self
            .store
            .device_attach(self.soon(), user, device, None, NODE)
            .await;
        assert_eq!(written, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_statements_end() {
    let mut bed = Bed::postgres().await;
    bed.store.close().await;
    bed.config.write_timeout = Duration::from_millis(300);
    bed.store = open(&bed.config).await.unwrap();
    let slow = text("SELECT pg_sleep(20)", "");
    let ended = bed.store.write(bed.soon(), slow).await;
    assert_eq!(ended, Err(StoreError::Unavailable));
    let short = bed.world.instant() + Duration::from_millis(100);
    let read = bed.store.read("slow", short, async |db| {
        let Db::Postgres(pool) = db else {
            return Ok(());
        };
        sqlx::query("SELECT pg_sleep(20)").execute(&pool).await?;
        Ok(())
    });
    assert_eq!(read.await, Err(StoreError::Deadline));
    bed.user_without_code().await;
    bed.done().await;
}

/// A way to the server that can fall silent without breaking a connection.
async fn tunnel(to: std::net::SocketAddr) -> (u16, tokio::sync::watch::Sender<bool>) {
    use tokio::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (silence, silent) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut silent = silent.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let is_silent = tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
                    fell = silent.wait_for(|it| *it) => fell.is_ok(),
                };
                if is_silent {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (port, silence)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_holds_up_neither_writes_nor_the_end() {
    let mut bed = Bed::postgres().await;
    let direct = bed.config.clone();
    let Database::Postgres(url) = &direct.database else {
        panic!("not PostgreSQL");
    };
    let options: PgConnectOptions = url.parse().unwrap();
    let address = format!("{}:{}", options.get_host(), options.get_port());
    let (port, silence) = tunnel(address.parse().unwrap()).await;
    bed.store.close().await;
    bed.config.database = Database::Postgres(options.port(port).to_url_lossy().to_string());
    bed.config.write_timeout = Duration::from_millis(300);
    bed.store = open(&bed.config).await.unwrap();
    bed.user_without_code().await;

    silence.send(true).unwrap();
    let started = bed.world.instant();
    let silent = bed.store.write(bed.soon(), text("SELECT 1", "")).await;
    assert!(
        matches!(silent, Err(StoreError::Unavailable | StoreError::Deadline)),
        "{silent:?}"
    );
    let read = bed.store.ping(started + Duration::from_millis(500)).await;
    assert!(read.is_err());
    bed.store.close().await;
    let took = bed.world.instant() - started;
    assert!(took < Duration::from_secs(9), "{took:?}");
    bed.config = direct;
    bed.done().await;
}

/// Locks the logs of many users, as a step of a broadcast does.
struct Lock(BTreeSet<UserId>);

impl Command for Lock {
    const NAME: &'static str = "lock";
    type Out = usize;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<usize, Failed> {
        Ok(logs_lock(tx, &self.0).await?.len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_logs_are_locked_in_one_order() {
    let bed = Bed::postgres().await;
    let other = open(&bed.config).await.unwrap();
    let mut users = BTreeSet::new();
    for _ in 0..96 {
        users.insert(bed.user().await.user.id);
    }
    // Rows lie in the order in which they were changed last, not in that of their users.
    bed.sql(
        "DO $$ DECLARE u uuid; BEGIN
             FOR u IN SELECT user_id FROM user_logs ORDER BY md5(user_id::text) LOOP
                 UPDATE user_logs SET head_seq = head_seq WHERE user_id = u;
             END LOOP;
         END $$",
    )
    .await
    .unwrap();
    // They are locked in pieces, which are others where the users are others.
    let all = users.clone();
    let some: BTreeSet<_> = users.into_iter().skip(32).collect();
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let (store, users) = if n % 2 == 0 {
                (bed.store.clone(), all.clone())
            } else {
                (other.clone(), some.clone())
            };
            let soon = bed.soon();
            tokio::spawn(async move { store.write(soon, Lock(users)).await })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        let locked = if n % 2 == 0 { 96 } else { 64 };
        assert_eq!(task.await.unwrap(), Ok(locked));
    }
    for store in [&bed.store, &other] {
        assert_eq!(store.inner.metrics.repeats.get(), 0);
    }
    other.close().await;
    bed.done().await;
}
