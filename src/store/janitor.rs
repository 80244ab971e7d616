//! Runs of jobs that are due once a day, for all nodes together.
//!
//! Owns the rows of `janitor_runs`. A run belongs to the node that made its row, for as long as it
//! says now and then that it lives; then another may go on where it was. Its last sign of life tells whose
//! it is: who does not know it has lost the run, and changes nothing about it any more.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use super::{Store, StoreError, Tx, command::Command, error::Failed, on_tx};
use crate::domain::ids::UserId;

/// For how long it is kept what a run removed.
const KEPT: TimeDelta = TimeDelta::days(400);

/// A job of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueJob {
    /// Which.
    pub job: &'static str,
    /// The moment at which it is due.
    pub due_at: DateTime<Utc>,
}

/// What a clean-up of histories removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Removed {
    /// Users of whose histories something was removed.
    pub users: u64,
    /// Plays that were too many.
    pub plays: u64,
    /// Removed plays that are no longer remembered.
    pub removed_plays: u64,
    /// Answers to calls that may no longer be repeated.
    pub idempotency_keys: u64,
    /// Users whose history could not be looked after.
    pub failed: u64,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Users up to this one are done.
    pub after: Option<UserId>,
    /// What was removed so far.
    pub removed: Removed,
}

/// Whose a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The caller's, from here on.
    Mine {
        /// How far it has come.
        progress: Progress,
        /// The last sign of life.
        heard_at: DateTime<Utc>,
    },
    /// Another node runs it.
    Elsewhere,
    /// It is over.
    Done {
        /// Since when.
        finished_at: DateTime<Utc>,
        /// What it removed.
        removed: Removed,
    },
}

impl Store {
    /// Takes a run, unless it is over or another node that gave a sign of life after `silent_since`
    /// has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run_claim(
        &self,
        deadline: Instant,
        due: DueJob,
        now: DateTime<Utc>,
        silent_since: DateTime<Utc>,
    ) -> Result<Claim, StoreError> {
        let take = Take {
            due,
            now,
            silent_since,
        };
        self.write(deadline, take).await
    }

    /// Says how far a run has come, and that its node lives. `false`: the run is another's, or over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run_progress(
        &self,
        deadline: Instant,
        report: RunReport,
    ) -> Result<bool, StoreError> {
        self.write(deadline, report).await
    }
}

/// What a node says of its run.
#[derive(Debug, Clone, Copy)]
pub struct RunReport {
    /// Which.
    pub due: DueJob,
    /// When it said something last.
    pub heard_at: DateTime<Utc>,
    /// The next sign of life.
    pub now: DateTime<Utc>,
    /// How far the run has come.
    pub progress: Progress,
    /// It is over.
    pub finished: bool,
}

struct Take {
    due: DueJob,
    now: DateTime<Utc>,
    silent_since: DateTime<Utc>,
}

impl Command for Take {
    const NAME: &'static str = "run_claim";
    type Out = Claim;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Claim, Failed> {
        let (DueJob { job, due_at }, now) = (self.due, self.now);
        let made = on_tx!(tx, conn => sqlx::query(
            "INSERT INTO janitor_runs (job, due_at, started_at, heard_at, removed)
             VALUES ($1, $2, $3, $3, $4) ON CONFLICT (job, due_at) DO NOTHING")
            .bind(job).bind(due_at).bind(now).bind(Json(Removed::default()))
            .execute(conn).await?.rows_affected());
        if made > 0 {
            return Ok(Claim::Mine {
                progress: Progress::default(),
                heard_at: now,
            });
        }
        let left: Option<(Option<UserId>, Json<Removed>)> = on_tx!(tx, conn => sqlx::query_as(
            "UPDATE janitor_runs SET heard_at = $3
             WHERE job = $1 AND due_at = $2 AND finished_at IS NULL AND heard_at <= $4
             RETURNING after_user, removed")
            .bind(job).bind(due_at).bind(now).bind(self.silent_since)
            .fetch_optional(conn).await?);
        if let Some((after, Json(removed))) = left {
            return Ok(Claim::Mine {
                progress: Progress { after, removed },
                heard_at: now,
            });
        }
        let (finished_at, Json(removed)): (Option<DateTime<Utc>>, Json<Removed>) = on_tx!(tx, conn => sqlx::query_as(
                "SELECT finished_at, removed FROM janitor_runs WHERE job = $1 AND due_at = $2")
                .bind(job).bind(due_at).fetch_one(conn).await?);
        Ok(
            finished_at.map_or(Claim::Elsewhere, |finished_at| Claim::Done {
                finished_at,
                removed,
            }),
        )
    }
}

impl Command for RunReport {
    const NAME: &'static str = "run_progress";
    type Out = bool;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Failed> {
        let (DueJob { job, due_at }, now) = (self.due, self.now);
        let Progress { after, removed } = self.progress;
        let finished_at = self.finished.then_some(now);
        let told = on_tx!(tx, conn => sqlx::query(
            "UPDATE janitor_runs
             SET heard_at = $3, after_user = $4, removed = $5, finished_at = $6
             WHERE job = $1 AND due_at = $2 AND heard_at = $7 AND finished_at IS NULL")
            .bind(job).bind(due_at).bind(now).bind(after).bind(Json(removed)).bind(finished_at)
            .bind(self.heard_at).execute(conn).await?.rows_affected());
        if told == 0 {
            return Ok(false);
        }
        if self.finished {
            on_tx!(tx, conn => sqlx::query("DELETE FROM janitor_runs WHERE job = $1 AND due_at < $2")
                .bind(job).bind(due_at - KEPT).execute(conn).await?.rows_affected());
        }
        Ok(true)
    }
}
