//! The one writer of SQLite, and what must hold on both engines when a command misbehaves.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::store::{command::Command, error::Failed, on_tx};

on_both!(bad_members, late_commands, callers_that_leave);

/// What a member does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Good,
    /// Breaks a constraint after it wrote.
    Sql,
    /// Panics after it wrote.
    Panic,
}

/// Writes a code row for its phone, then does what its kind does.
struct Member {
    phone: String,
    kind: Kind,
    runs: Arc<AtomicUsize>,
}

impl Command for Member {
    const NAME: &'static str = "member";
    type Out = String;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<String, Failed> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let phone = self.phone.clone();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO sms_codes VALUES ($1, 'h', 1, FALSE, $2, $2, $2, 1)")
            .bind(&phone).bind(t(0)).execute(conn).await?.rows_affected());
        match self.kind {
            Kind::Good => {}
            Kind::Sql => {
                on_tx!(tx, conn => sqlx::query("UPDATE sms_codes SET tries_left = -1")
                    .execute(conn).await?.rows_affected());
            }
            Kind::Panic => panic!("planted"),
        }
        Ok(phone)
    }
}

async fn codes(bed: &Bed) -> i64 {
    bed.count("SELECT count(*) FROM sms_codes").await
}

/// Good, broken and panicking members at once: on SQLite they share groups.
async fn bad_members(bed: &Bed) {
    let runs = Arc::new(AtomicUsize::new(0));
    let kinds = [Kind::Good, Kind::Sql, Kind::Good, Kind::Panic, Kind::Good];
    // A lock held from outside keeps the group waiting, so that all are in it.
    let mut outside = match bed.store.engine() {
        Engine::Sqlite => Some(bed.beside().await),
        Engine::Postgres => None,
    };
    if let Some(conn) = &mut outside {
        sqlx::raw_sql("BEGIN IMMEDIATE")
            .execute(conn)
            .await
            .unwrap();
    }
    let tasks: Vec<_> = (0..60)
        .map(|i| {
            let member = Member {
                phone: format!("+{i}"),
                kind: kinds[i % kinds.len()],
                runs: runs.clone(),
            };
            let (store, soon) = (bed.store.clone(), bed.soon());
            tokio::spawn(async move { store.write(soon, member).await })
        })
        .collect();
    if let Some(conn) = &mut outside {
        tokio::time::sleep(Duration::from_millis(200)).await;
        sqlx::raw_sql("COMMIT").execute(conn).await.unwrap();
    }
    for (i, task) in tasks.into_iter().enumerate() {
        let expected = match kinds[i % kinds.len()] {
            Kind::Good => Ok(format!("+{i}")),
            Kind::Sql => Err(StoreError::Constraint(Constraint::SmsCodeTries)),
            Kind::Panic => Err(StoreError::Unavailable),
        };
        assert_eq!(task.await.unwrap(), expected, "member {i}");
    }
    assert_eq!(codes(bed).await, 36);
    let ran = runs.load(Ordering::Relaxed);
    if bed.store.engine() == Engine::Sqlite {
        assert!(ran > 60, "no group ran member by member: {ran} runs");
    } else {
        assert_eq!(ran, 60);
    }
    assert_eq!(bed.store.ping(bed.soon()).await, Ok(()));
}

fn good(phone: &str) -> Member {
    Member {
        phone: phone.into(),
        kind: Kind::Good,
        runs: Arc::default(),
    }
}

async fn late_commands(bed: &Bed) {
    let passed = bed.world.instant();
    let late = bed.store.write(passed, good("+1")).await;
    assert_eq!(late, Err(StoreError::Deadline));
    let late = bed.store.user_fetch(passed, UserId(bed.uuid())).await;
    assert_eq!(late, Err(StoreError::Deadline));
    assert_eq!(codes(bed).await, 0);
}

async fn callers_that_leave(bed: &Bed) {
    let (store, soon) = (bed.store.clone(), bed.soon());
    let caller = tokio::spawn(async move { store.write(soon, good("+1")).await });
    tokio::task::yield_now().await;
    caller.abort();
    // Whether or not it was begun, the writer goes on, and nothing is left half done.
    bed.store.write(bed.soon(), good("+2")).await.unwrap();
    assert!((1..=2).contains(&codes(bed).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_lets_reads_pass_and_writes_wait_their_deadline() {
    let bed = Bed::sqlite().await;
    let s = bed.user().await;
    let mut outside = bed.beside().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut outside)
        .await
        .unwrap();
    let short = bed.world.instant() + Duration::from_millis(300);
    let waiting: Vec<_> = (0..10)
        .map(|i| {
            let store = bed.store.clone();
            tokio::spawn(async move { store.write(short, good(&format!("+{i}"))).await })
        })
        .collect();
    for _ in 0..20 {
        let user = bed.store.user_fetch(bed.soon(), s.user.id).await.unwrap();
        assert_eq!(user.as_ref(), Some(&s.user));
    }
    for task in waiting {
        assert_eq!(task.await.unwrap(), Err(StoreError::Deadline));
    }
    let waited = bed.world.instant().saturating_duration_since(short);
    assert!(
        waited < Duration::from_secs(1),
        "the answer came {waited:?} late"
    );
    sqlx::raw_sql("COMMIT").execute(&mut outside).await.unwrap();
    bed.store.write(bed.soon(), good("+99")).await.unwrap();
    assert_eq!(
        bed.count("SELECT count(*) FROM sms_codes WHERE phone < '+86'")
            .await,
        0
    );
    bed.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_stays_locked_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(Database::Sqlite(dir.path().join("listen-stream.db")));
    config.write_timeout = Duration::from_millis(200);
    let bed = Bed::new(config, dir).await;
    let mut outside = bed.beside().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut outside)
        .await
        .unwrap();
    let refused = bed.store.write(bed.soon(), good("+1")).await.unwrap_err();
    let refusals = [StoreError::Deadline, StoreError::Unavailable];
    assert!(refusals.contains(&refused), "{refused}");
    sqlx::raw_sql("COMMIT").execute(&mut outside).await.unwrap();
    bed.store.write(bed.soon(), good("+2")).await.unwrap();
    bed.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_answers_what_was_taken_on() {
    let bed = Bed::sqlite().await;
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let (store, soon) = (bed.store.clone(), bed.soon());
            tokio::spawn(async move { store.write(soon, good(&format!("+{i}"))).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    bed.store.close().await;
    let mut written = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => written += 1,
            Err(e) => assert_eq!(e, StoreError::Unavailable),
        }
    }
    let mut conn = bed.beside().await;
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM sms_codes")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(stored, written);
}

/// Breaks a foreign key that is looked at when the transaction commits.
struct BadCommit;

impl Command for BadCommit {
    const NAME: &'static str = "bad_commit";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        let sql = "PRAGMA defer_foreign_keys = ON;
             INSERT INTO user_logs VALUES (X'aa', X'aa', 0, 0)";
        on_tx!(tx, conn => sqlx::raw_sql(sql).execute(conn).await?.rows_affected());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_writes_nothing_and_hurts_nobody_after_it() {
    let bed = Bed::sqlite().await;
    let refused = bed.store.write(bed.soon(), BadCommit).await;
    assert_eq!(refused, Err(StoreError::Unavailable));
    assert_eq!(bed.count("SELECT count(*) FROM user_logs").await, 0);
    bed.store.write(bed.soon(), good("+1")).await.unwrap();
    bed.done().await;
}
