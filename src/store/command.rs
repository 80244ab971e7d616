//! How reads and writes run: on the store's runtime, so that a caller who goes away interrupts
//! nothing, each with a deadline.

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Db, Inner, Store, StoreError, Tx, Writes,
    error::{Failed, NoUser, commit_error, is_transient, sql_error},
};
use crate::domain::sync::{Event, LogHead};

/// What a command that is written into the user's log brings back.
#[derive(Debug, Clone, PartialEq)]
pub struct Written<T> {
    /// The outcome.
    pub value: T,
    /// The log after the command.
    pub log: LogHead,
    /// What the command appended.
    pub events: Vec<Event>,
    /// When the store had the answer to the commit.
    pub committed_at: Option<Instant>,
}

/// A function of one transaction. It may run more than once, so it changes nothing but the
/// database, and its ids and times are made before. A refusal is a value of `Out`, and a run that
/// refuses has written nothing but what the refusal itself asks for. [`StoreError::NoUser`] is said
/// before anything is written, so others of the same transaction are not touched by it.
pub(super) trait Command: Send + Sync + 'static {
    /// The name in logs and metrics.
    const NAME: &'static str;
    /// What it brings back.
    type Out: Send + 'static;
    /// Runs within `tx`; an error rolls everything back.
    fn run(&self, tx: &mut Tx<'_>) -> impl Future<Output = Result<Self::Out, Failed>> + Send;
    /// Runs commands that share a transaction, with the outcomes that they would have one after
    /// another. Each statement goes through another thread on SQLite, so a kind that comes often
    /// says how many are done with few.
    fn run_all(
        commands: &[&Self],
        tx: &mut Tx<'_>,
    ) -> impl Future<Output = Result<Vec<Result<Self::Out, NoUser>>, Failed>> + Send {
        async move {
            let mut outs = Vec::with_capacity(commands.len());
            for command in commands {
                outs.push(match command.run(tx).await {
                    Ok(out) => Ok(out),
                    Err(Failed::Store(StoreError::NoUser)) => Err(NoUser),
                    Err(failed) => return Err(failed),
                });
            }
            Ok(outs)
        }
    }
    /// How much work it is: 1 for a few rows. A group ends with a member that is much work, so that
    /// those who wait for the group's commit do not wait for many of them.
    fn weight(&self) -> usize {
        1
    }
    /// Notes when it was committed, if somebody wants to know.
    fn committed(_: &mut Self::Out, _: Instant) {}
}

/// The weight of a command that writes about so many rows.
pub(super) const fn weight_of(rows: usize) -> usize {
    1 + rows / ROWS_OF_WEIGHT
}

/// So many rows in few statements cost about as much as a small command of its own.
const ROWS_OF_WEIGHT: usize = 160;

/// How often PostgreSQL may ask for a transaction to be repeated.
const REPEATS: u32 = 5;

impl Store {
    /// Runs a command in one transaction, shared or not.
    pub(super) async fn write<C: Command>(
        &self,
        deadline: Instant,
        command: C,
    ) -> Result<C::Out, StoreError> {
        let inner = self.inner.clone();
        let asked = inner.world.instant();
        let deadline = deadline.min(asked + inner.write_timeout);
        let task = self.inner.rt.spawn(async move {
            let mut result = match &inner.writes {
                Writes::Group(writer) => writer.submit(command, deadline).await,
                Writes::Pool(pool) => inner.write_pooled(pool, &command, deadline).await,
            };
            let now = inner.world.instant();
            if let Ok(out) = &mut result {
                C::committed(out, now);
            }
            let took = now.saturating_duration_since(asked);
            inner.metrics.command(C::NAME, took, result.as_ref().err());
            result
        });
        joined(C::NAME, task, StoreError::OutcomeUnknown).await
    }

    /// Runs a read against the pool of readers.
    pub(super) async fn read<T, F, R>(
        &self,
        name: &'static str,
        deadline: Instant,
        read: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Db) -> R + Send + 'static,
        R: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        let inner = self.inner.clone();
        let asked = inner.world.instant();
        let left = deadline
            .saturating_duration_since(asked)
            .min(inner.read_timeout);
        let task = self.inner.rt.spawn(async move {
            let result = if left.is_zero() {
                Err(StoreError::Deadline)
            } else {
                match timeout(left, read(inner.db.clone())).await {
                    Ok(result) => result.map_err(|e| e.into_error(name)),
                    Err(_) => Err(StoreError::Deadline),
                }
            };
            let took = inner.world.instant().saturating_duration_since(asked);
            inner.metrics.read(name, took, result.as_ref().err());
            result
        });
        joined(name, task, StoreError::Unavailable).await
    }
}

/// Waits for a task of the store; `lost` is what is said when the runtime ended it.
async fn joined<T>(
    name: &'static str,
    task: JoinHandle<Result<T, StoreError>>,
    lost: StoreError,
) -> Result<T, StoreError> {
    task.await.unwrap_or_else(|e| {
        tracing::error!(name, cause = %e, "a task of the store did not end");
        Err(if e.is_panic() {
            StoreError::Unavailable
        } else {
            lost
        })
    })
}

/// Why one try on PostgreSQL did not do.
enum Miss {
    Final(StoreError),
    Repeat(Failed),
}

impl Inner {
    /// One transaction a command; PostgreSQL may ask for it to be repeated.
    async fn write_pooled<C: Command>(
        &self,
        pool: &PgPool,
        command: &C,
        deadline: Instant,
    ) -> Result<C::Out, StoreError> {
        let mut pause = Duration::from_millis(5);
        let mut repeats = 0;
        loop {
            match self.try_pooled(pool, command, deadline).await {
                Ok(out) => return Ok(out),
                Err(Miss::Final(e)) => return Err(e),
                Err(Miss::Repeat(failed)) => {
                    let past = self.world.instant() + pause >= deadline;
                    if repeats == REPEATS || past {
                        return Err(failed.into_error(C::NAME));
                    }
                }
            }
            repeats += 1;
            self.metrics.repeats.inc();
            tokio::time::sleep(self.world.jitter(pause)).await;
            pause *= 2;
        }
    }

    async fn try_pooled<C: Command>(
        &self,
        pool: &PgPool,
        command: &C,
        deadline: Instant,
    ) -> Result<C::Out, Miss> {
        let now = self.world.instant();
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(Miss::Final(StoreError::Deadline));
        }
        let waiting = self.metrics.queue.waiting(now);
        // Waiting for a connection is still before the work: here the deadline counts.
        let mut conn = match timeout(left, pool.acquire()).await {
            Ok(Ok(conn)) => conn,
            Ok(Err(e)) => return Err(Miss::Final(sql_error(C::NAME, &e))),
            Err(_) => return Err(Miss::Final(StoreError::Deadline)),
        };
        waiting.entered(self.world.instant());
        // A server that is there ends a statement by itself; one that went without a word would
        // keep the connection for as long as the system repeats what it sent: minutes.
        let committing = AtomicBool::new(false);
        let work = self.transact(&mut conn, command, &committing);
        if let Ok(result) = timeout(self.write_timeout * 2, work).await {
            return result;
        }
        conn.close_on_drop();
        let lost = if committing.load(Ordering::Relaxed) {
            self.metrics.unclear(self.write_timeout * 2);
            StoreError::OutcomeUnknown
        } else {
            self.metrics.rolled_back(self.write_timeout * 2);
            StoreError::Unavailable
        };
        tracing::warn!(
            name = C::NAME,
            result = lost.as_str(),
            "the database is silent"
        );
        Err(Miss::Final(lost))
    }

    /// Runs `command` on `conn`; `committing` is set before its outcome can be in doubt.
    async fn transact<C: Command>(
        &self,
        conn: &mut PgConnection,
        command: &C,
        committing: &AtomicBool,
    ) -> Result<C::Out, Miss> {
        let begun = self.world.instant();
        let tx = conn.begin().await;
        let tx = tx.map_err(|e| Miss::Final(sql_error(C::NAME, &e)))?;
        let mut tx = Tx::Postgres(tx);
        let out = match guarded(command.run(&mut tx)).await {
            Ok(out) => out,
            Err(failed) => {
                let took = self.world.instant().saturating_duration_since(begun);
                self.metrics.rolled_back(took);
                // Dropping the transaction rolls it back.
                return Err(if failed.is_transient() {
                    Miss::Repeat(failed)
                } else {
                    Miss::Final(failed.into_error(C::NAME))
                });
            }
        };
        committing.store(true, Ordering::Relaxed);
        let done = self.world.instant();
        let result = match tx.commit().await {
            Ok(()) => Ok(out),
            Err(e) if is_transient(&e) => Err(Miss::Repeat(e.into())),
            Err(e) => Err(Miss::Final(commit_error(C::NAME, &e))),
        };
        let error = match &result {
            Ok(_) => None,
            Err(Miss::Final(e)) => Some(e),
            Err(Miss::Repeat(_)) => Some(&StoreError::Unavailable),
        };
        self.metrics.commit(&self.world, begun, done, error);
        result
    }
}

/// Turns a panic of a command into its failure.
pub(super) async fn guarded<T>(run: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    // The transaction is rolled back after a panic, so nothing half-changed is seen.
    AssertUnwindSafe(run)
        .catch_unwind()
        .await
        .unwrap_or(Err(Failed::Panicked))
}

impl Tx<'_> {
    pub(super) async fn commit(self) -> sqlx::Result<()> {
        match self {
            Tx::Sqlite(tx) => tx.commit().await,
            Tx::Postgres(tx) => tx.commit().await,
        }
    }
}
