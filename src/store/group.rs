//! Group commit: the one writer of an SQLite file.
//!
//! Owns the writing connection. Commands of many users share a transaction and are answered after
//! its one commit. The task must never end before it is closed, whatever its members do.

use std::{
    any::Any,
    cell::Cell,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    StoreError, StoreMetrics, Tx,
    command::{Command, guarded},
    error::{Failed, NoUser, commit_error, sql_error},
    metrics::{Queue, Waiting},
};
use crate::domain::clock::World;

/// Commands that may wait.
const QUEUE: usize = 1024;
/// Commands that may share a transaction.
const GROUP: usize = 64;

/// A command waits for its group.
const WAITING: u8 = 0;
/// It is in a transaction: its answer will come.
const ENTERED: u8 = 1;
/// Its caller was told that the deadline passed.
const GIVEN_UP: u8 = 2;

/// The way to the writer's task.
pub(super) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    stop: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
    world: World,
    queue: Queue,
}

impl Writer {
    /// Starts the task. `options` make another connection when one is given up.
    pub(super) fn start(
        conn: SqliteConnection,
        options: SqliteConnectOptions,
        world: World,
        metrics: StoreMetrics,
    ) -> Self {
        let (jobs, taken) = mpsc::channel(QUEUE);
        let queue = metrics.queue.clone();
        let stop = Arc::new(Notify::new());
        let file = File {
            conn: Some(conn),
            options,
            world: world.clone(),
            metrics,
        };
        let task = tokio::spawn(file.serve(taken, stop.clone()));
        Self {
            jobs,
            stop,
            task: Mutex::new(Some(task)),
            world,
            queue,
        }
    }

    /// Whether commands are taken.
    pub(super) fn is_alive(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Answers what was taken on, then closes the connection.
    pub(super) async fn close(&self) {
        self.stop.notify_one();
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task
            && let Err(e) = task.await
        {
            tracing::error!(cause = %e, "the writer did not end by itself");
        }
    }

    /// Has a command run in some group. Until it enters one the deadline counts.
    pub(super) async fn submit<C: Command>(
        &self,
        command: C,
        deadline: Instant,
    ) -> Result<C::Out, StoreError> {
        let (reply, mut answer) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(WAITING));
        let now = self.world.instant();
        let job = Box::new(Pending {
            command,
            out: None,
            reply,
            state: state.clone(),
            deadline,
            waiting: Cell::new(Some(self.queue.waiting(now))),
        });
        let left = deadline.saturating_duration_since(now);
        let mut limit = pin!(tokio::time::sleep(left));
        tokio::select! {
            biased;
            sent = self.jobs.send(job) => sent.map_err(|_| StoreError::Unavailable)?,
            () = &mut limit => return Err(StoreError::Deadline),
        }
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            () = &mut limit => {
                if switch(&state, GIVEN_UP) {
                    return Err(StoreError::Deadline);
                }
                answer.await
            }
        };
        answered.unwrap_or_else(|_| {
            Err(if state.load(Ordering::Acquire) == ENTERED {
                StoreError::OutcomeUnknown
            } else {
                StoreError::Unavailable
            })
        })
    }
}

/// Moves a waiting command on; `false` when the other side was faster.
fn switch(state: &AtomicU8, to: u8) -> bool {
    state
        .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
}

/// A command and its waiting caller, whatever the command's type.
trait Job: Any + Send {
    fn name(&self) -> &'static str;
    /// See [`Command::weight`].
    fn weight(&self) -> usize;
    /// Whether it shall run now; from then on its caller waits for the answer.
    fn enter(&self, now: Instant) -> bool;
    /// Runs it and others of its type, and keeps what they bring back for their answers.
    fn run<'t>(
        &'t mut self,
        others: Vec<&'t mut dyn Job>,
        tx: &'t mut Tx<'_>,
    ) -> BoxFuture<'t, Result<(), Failed>>;
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

struct Pending<C: Command> {
    command: C,
    out: Option<Result<C::Out, NoUser>>,
    reply: oneshot::Sender<Result<C::Out, StoreError>>,
    state: Arc<AtomicU8>,
    deadline: Instant,
    /// Until it enters a transaction.
    waiting: Cell<Option<Waiting>>,
}

impl<C: Command> Job for Pending<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn weight(&self) -> usize {
        self.command.weight()
    }

    fn enter(&self, now: Instant) -> bool {
        // One that runs once more alone has entered before.
        let enters = self.state.load(Ordering::Acquire) == ENTERED
            || (now < self.deadline && switch(&self.state, ENTERED));
        if let Some(waiting) = self.waiting.take().filter(|_| enters) {
            waiting.entered(now);
        }
        enters
    }

    fn run<'t>(
        &'t mut self,
        others: Vec<&'t mut dyn Job>,
        tx: &'t mut Tx<'_>,
    ) -> BoxFuture<'t, Result<(), Failed>> {
        let mut all = vec![self];
        let others = others.into_iter().map(|other| other as &mut dyn Any);
        all.extend(others.filter_map(|other| other.downcast_mut::<Self>()));
        Box::pin(async move {
            let commands: Vec<&C> = all.iter().map(|job| &job.command).collect();
            let outs = C::run_all(&commands, tx).await?;
            for (job, out) in all.into_iter().zip(outs) {
                job.out = Some(out);
            }
            Ok(())
        })
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { out, reply, .. } = *self;
        let out = out.ok_or(StoreError::Corrupt("a command without outcome"));
        let answer = result.and(out.and_then(|out| out.map_err(StoreError::from)));
        // A caller that went away needs no answer.
        let _ = reply.send(answer);
    }
}

type Jobs = Vec<Box<dyn Job>>;

/// Parts what was queued, in its order, so that no part weighs much more than a whole group of
/// small commands.
fn by_weight(jobs: Jobs) -> Vec<Jobs> {
    let (mut groups, mut weight): (Vec<Jobs>, usize) = (Vec::new(), GROUP);
    for job in jobs {
        if weight >= GROUP {
            groups.push(Vec::new());
            weight = 0;
        }
        weight = weight.saturating_add(job.weight());
        if let Some(group) = groups.last_mut() {
            group.push(job);
        }
    }
    groups
}

fn answer_all(jobs: Jobs, result: Result<(), StoreError>) {
    for job in jobs {
        job.answer(result);
    }
}

/// How a transaction went.
enum Outcome {
    /// Every member was answered.
    Answered,
    /// No transaction could begin; every member was answered.
    Shut,
    /// A member failed, nothing is written, nobody was answered.
    Broken(Jobs, Failed),
}

/// The file's writing side.
struct File {
    /// None after it was given up; the next group connects again.
    conn: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    world: World,
    metrics: StoreMetrics,
}

impl File {
    async fn serve(mut self, mut queue: mpsc::Receiver<Box<dyn Job>>, stop: Arc<Notify>) {
        loop {
            let mut jobs = Vec::with_capacity(GROUP);
            tokio::select! {
                biased;
                () = stop.notified() => {
                    // What is queued is still served: from now on the queue only empties.
                    queue.close();
                    continue;
                }
                taken = queue.recv_many(&mut jobs, GROUP) => if taken == 0 { break },
            }
            for jobs in by_weight(jobs) {
                // Members' panics are caught one by one; this is for one of the task itself, whose
                // callers then see their replies dropped.
                let done = AssertUnwindSafe(self.group(jobs)).catch_unwind().await;
                if done.is_err() {
                    tracing::error!("the writer panicked; its group's outcome is unknown");
                    self.conn = None;
                }
            }
        }
        if let Some(mut conn) = self.conn.take() {
            let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
            if let Err(e) = checkpoint.execute(&mut conn).await {
                tracing::warn!(cause = %e, "the last checkpoint failed");
            }
            // The file is safe without: the next start reads the log.
            let _ = conn.close().await;
        }
    }

    /// Runs a group together, or its members alone when one of them fails.
    async fn group(&mut self, jobs: Jobs) {
        self.metrics.group(jobs.len());
        let (jobs, failed) = match self.together(jobs).await {
            Outcome::Answered | Outcome::Shut => return,
            Outcome::Broken(jobs, failed) => (jobs, failed),
        };
        if jobs.len() == 1 {
            return fail(jobs, failed);
        }
        tracing::debug!(members = jobs.len(), cause = ?failed, "a group runs member by member");
        self.metrics.splits.inc();
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            match self.together(vec![job]).await {
                Outcome::Answered => {}
                Outcome::Broken(job, failed) => fail(job, failed),
                // The others would each wait as long for the same refusal.
                Outcome::Shut => return answer_all(jobs.collect(), Err(StoreError::Unavailable)),
            }
        }
    }

    /// One transaction for all of `jobs`.
    async fn together(&mut self, jobs: Jobs) -> Outcome {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => match self.options.connect().await {
                Ok(conn) => conn,
                Err(e) => return shut(jobs, &e),
            },
        };
        let (outcome, sound) = transact(&mut conn, jobs, &self.world, &self.metrics).await;
        if sound {
            self.conn = Some(conn);
        } else if let Err(e) = conn.close().await {
            // Closing rolls back what is open; the next group connects again.
            tracing::debug!(cause = %e, "a connection did not close cleanly");
        }
        outcome
    }
}

/// Runs `jobs` in one transaction; says also whether the connection may serve again.
async fn transact(
    conn: &mut SqliteConnection,
    jobs: Jobs,
    world: &World,
    metrics: &StoreMetrics,
) -> (Outcome, bool) {
    let tx = match conn.begin_with("BEGIN IMMEDIATE").await {
        Ok(tx) => tx,
        Err(e) => return (shut(jobs, &e), false),
    };
    // Only now the work begins: waiting for another process's lock counts against deadlines.
    let now = world.instant();
    let (mut jobs, late): (Jobs, Jobs) = jobs.into_iter().partition(|job| job.enter(now));
    answer_all(late, Err(StoreError::Deadline));
    let mut tx = Tx::Sqlite(tx);
    // None of them was answered yet, so they may run in any order.
    let mut left: Vec<&mut dyn Job> = jobs.iter_mut().map(|job| &mut **job).collect();
    while !left.is_empty() {
        let first = left.remove(0);
        let kind = (*first).type_id();
        let (same, others) = left.into_iter().partition(|job| (**job).type_id() == kind);
        left = others;
        if let Err(failed) = guarded(first.run(same, &mut tx)).await {
            metrics.rolled_back(world.instant().saturating_duration_since(now));
            return (Outcome::Broken(jobs, failed), false);
        }
    }
    let name = jobs.first().map_or("empty_group", |job| job.name());
    let done = world.instant();
    let committed = tx.commit().await.map_err(|e| commit_error(name, &e));
    metrics.commit(world, now, done, committed.as_ref().err());
    answer_all(jobs, committed);
    (Outcome::Answered, committed.is_ok())
}

fn fail(jobs: Jobs, failed: Failed) {
    let name = jobs.first().map_or("empty_group", |job| job.name());
    answer_all(jobs, Err(failed.into_error(name)));
}

fn shut(jobs: Jobs, e: &sqlx::Error) -> Outcome {
    answer_all(jobs, Err(sql_error("begin", e)));
    Outcome::Shut
}
