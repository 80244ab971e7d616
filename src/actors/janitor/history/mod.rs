//! Once a day looks through all histories for what is left over, and forgets answers to calls that
//! may no longer be repeated.
//!
//! Owns a timer, and the run under way. Several nodes may be up: the one that makes the run's row runs
//! it, the others find that it is taken or over. A run that no node was up for is made up for at the
//! next start, and one whose node went silent is carried on by another. It works in small steps with
//! pauses between; each step decides anew by what is stored, so one that is lost or done twice does no
//! harm. Nobody asks it anything, and the node serves without it. What it changes is in the users' logs:
//! devices hear of it by the next look at the logs' heads.

mod metrics;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};

pub use self::metrics::HistoryJanitorMetrics;
use crate::{
    actors::kernel::{Cx, Public, Unit, view},
    domain::{
        clock::EntropyError,
        daily::Daily,
        ids::{EventId, UserId},
    },
    store::{
        Claim, DueJob, HistoryTrim, HistoryTrimPage, Issued, Progress, Removed, RunReport, Store,
        StoreError, Written,
    },
};

/// The job's name in the table of runs.
const JOB: &str = "history";

/// What the janitor works with.
#[derive(Debug, Clone)]
pub struct HistoryJanitorParts {
    pub(crate) store: Store,
    pub(crate) metrics: HistoryJanitorMetrics,
    /// When it runs.
    pub daily: Daily,
    /// Plays that a history has at most.
    pub keep: u32,
    /// The time between two looks at the clock, which may be set.
    pub period: Duration,
}

/// A run under way here.
#[derive(Debug)]
struct Run {
    due: DueJob,
    progress: Progress,
    /// All histories were looked at: what is left are the keys.
    walked: bool,
    /// Users of the page with something left over, and where the next page begins.
    queue: VecDeque<UserId>,
    next: Option<UserId>,
    /// When the store was told last how far it has come, by both clocks.
    told_at: Instant,
    heard_at: DateTime<Utc>,
}

/// What a step of a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Trim(UserId),
    Look,
    Forget,
}

/// See the module.
#[derive(Debug)]
pub struct HistoryJanitor {
    parts: HistoryJanitorParts,
    run: Option<Run>,
    /// The moment whose run is over, as far as this node knows.
    over: Option<DateTime<Utc>>,
    /// The last run that is over, as far as this node knows.
    last: Option<(DateTime<Utc>, Removed)>,
    /// The store is asked whose a run is.
    claiming: bool,
}

view! {
    /// What the janitor shows of itself.
    pub struct HistoryJanitorView {
        running: Public<bool>,
        next_at: Public<Option<DateTime<Utc>>>,
        last_finished_at: Public<Option<DateTime<Utc>>>,
        last_removed: Public<Option<Removed>>,
        removed_so_far: Public<Option<Removed>>,
        failures: Public<u64>,
    }
}

impl HistoryJanitor {
    /// How long a step may take.
    const BUDGET: Duration = Duration::from_secs(5);
    /// Between two steps, which are the writer's for a few milliseconds each.
    const PAUSE: Duration = Duration::from_millis(20);
    /// Users that are looked at together.
    const PAGE: u32 = 200;
    /// Keys that are forgotten together.
    const KEYS: u32 = 500;
    /// The longest time between two signs of life.
    const TELL: Duration = Duration::from_secs(10);
    /// After so long without a sign of life a run is anybody's.
    const SILENT: TimeDelta = TimeDelta::minutes(2);

    /// Waits for the moment.
    #[must_use]
    pub fn new(parts: HistoryJanitorParts) -> Self {
        Self {
            parts,
            run: None,
            over: None,
            last: None,
            claiming: false,
        }
    }

    /// Looks at the clock: a run may be due, or one of a node that fell silent.
    fn look_at_clock(&mut self, cx: &mut Cx<'_, Self>) {
        let now = cx.world.now();
        let Some(due_at) = self.parts.daily.last(now) else {
            return;
        };
        // A clock that was ahead, and is set back, must not keep the node from the days between.
        if self.claiming || self.run.is_some() || self.over == Some(due_at) {
            return;
        }
        self.claiming = true;
        let (store, due) = (self.parts.store.clone(), DueJob { job: JOB, due_at });
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move {
                let silent_since = now - Self::SILENT;
                store.run_claim(deadline, due, now, silent_since).await
            },
            move |janitor, claim, cx| janitor.claimed(due, claim, cx),
        );
    }

    fn claimed(&mut self, due: DueJob, claim: Result<Claim, StoreError>, cx: &mut Cx<'_, Self>) {
        self.claiming = false;
        match claim {
            Ok(Claim::Mine { progress, heard_at }) => {
                self.run = Some(Run {
                    due,
                    progress,
                    walked: false,
                    queue: VecDeque::new(),
                    next: progress.after,
                    told_at: cx.world.instant(),
                    heard_at,
                });
                self.work(cx);
            }
            Ok(Claim::Done {
                finished_at,
                removed,
            }) => {
                self.over = Some(due.due_at);
                self.last = Some((finished_at, removed));
            }
            Ok(Claim::Elsewhere) => {}
            Err(_) => {
                self.parts.metrics.failures.inc();
            }
        }
    }

    /// Takes the run's next step.
    fn work(&mut self, cx: &mut Cx<'_, Self>) {
        let Some(run) = &mut self.run else { return };
        let step = match run.queue.pop_front() {
            Some(user) => Step::Trim(user),
            None if run.walked => Step::Forget,
            None => Step::Look,
        };
        let (store, now) = (self.parts.store.clone(), cx.world.now());
        let deadline = cx.world.instant() + Self::BUDGET;
        let (keep, after) = (self.parts.keep, run.next);
        match step {
            Step::Trim(user) => {
                let issued = cx.world.uuid().map(|id| Issued {
                    user,
                    origin: None,
                    now,
                    event_id: EventId(id),
                });
                cx.spawn(
                    async move {
                        let issued = issued.map_err(|EntropyError| StoreError::Randomness)?;
                        store.history_trim(deadline, issued, keep).await
                    },
                    |janitor, result, cx| {
                        janitor.trimmed(result);
                        janitor.go_on(cx);
                    },
                );
            }
            Step::Look => cx.spawn(
                async move {
                    let page = Self::PAGE;
                    store
                        .histories_to_trim(deadline, after, page, keep, now)
                        .await
                },
                |janitor, result, cx| {
                    janitor.looked(result);
                    janitor.go_on(cx);
                },
            ),
            Step::Forget => cx.spawn(
                async move { store.idempotency_sweep(deadline, now, Self::KEYS).await },
                Self::forgot,
            ),
        }
    }

    /// What is wrong with one history must not keep the others from their turn; it has its own again
    /// on the next day.
    fn trimmed(&mut self, result: Result<Written<HistoryTrim>, StoreError>) {
        let (Some(run), metrics) = (&mut self.run, &self.parts.metrics) else {
            return;
        };
        let removed = &mut run.progress.removed;
        match result.map(|written| written.value) {
            Ok(HistoryTrim {
                plays,
                removed_plays,
            }) => {
                removed.users += u64::from(plays + removed_plays > 0);
                removed.plays += plays;
                removed.removed_plays += removed_plays;
                metrics.plays.inc_by(plays);
                metrics.removed_plays.inc_by(removed_plays);
            }
            // Gone since the look.
            Err(StoreError::NoUser) => {}
            Err(_) => {
                metrics.failures.inc();
                removed.failed += 1;
            }
        }
    }

    fn looked(&mut self, page: Result<HistoryTrimPage, StoreError>) {
        let Some(run) = &mut self.run else { return };
        match page {
            Ok(HistoryTrimPage { users, next }) => {
                // All of the page before are done.
                run.progress.after = run.next;
                run.queue = users.into();
                run.walked = next.is_none();
                run.next = next;
            }
            Err(_) => self.give_up(),
        }
    }

    fn forgot(&mut self, keys: Result<u64, StoreError>, cx: &mut Cx<'_, Self>) {
        let (Some(run), metrics) = (&mut self.run, &self.parts.metrics) else {
            return;
        };
        match keys {
            Ok(n) => {
                run.progress.removed.idempotency_keys += n;
                metrics.idempotency_keys.inc_by(n);
                if n < u64::from(Self::KEYS) {
                    self.tell(true, cx);
                } else {
                    self.go_on(cx);
                }
            }
            Err(_) => self.give_up(),
        }
    }

    /// A store that does not serve is left in peace. The run stays unfinished, and is carried on
    /// when it has been silent for long enough.
    fn give_up(&mut self) {
        self.parts.metrics.failures.inc();
        self.run = None;
    }

    /// After a pause the next step, or first a sign of life.
    fn go_on(&mut self, cx: &mut Cx<'_, Self>) {
        let Some(run) = &self.run else { return };
        let silent = cx.world.instant().saturating_duration_since(run.told_at);
        if silent >= Self::TELL {
            self.tell(false, cx);
        } else {
            cx.after(Self::PAUSE, Self::work);
        }
    }

    /// Tells the store how far the run has come.
    fn tell(&mut self, finished: bool, cx: &mut Cx<'_, Self>) {
        let Some(run) = &mut self.run else { return };
        run.told_at = cx.world.instant();
        let (due, progress, now) = (run.due, run.progress, cx.world.now());
        let report = RunReport {
            due,
            heard_at: run.heard_at,
            now,
            progress,
            finished,
        };
        let (store, deadline) = (self.parts.store.clone(), run.told_at + Self::BUDGET);
        cx.spawn(
            async move { store.run_progress(deadline, report).await },
            move |janitor, told, cx| match told {
                Ok(true) if finished => janitor.finished(due, progress.removed, now),
                Ok(true) => {
                    if let Some(run) = &mut janitor.run {
                        run.heard_at = now;
                    }
                    janitor.work(cx);
                }
                // It was silent for so long that another node went on with it.
                Ok(false) => janitor.run = None,
                Err(_) => janitor.give_up(),
            },
        );
    }

    fn finished(&mut self, due: DueJob, removed: Removed, now: DateTime<Utc>) {
        let Removed {
            users,
            plays,
            removed_plays,
            idempotency_keys,
            failed,
        } = removed;
        tracing::info!(
            due_at = %due.due_at,
            users,
            plays,
            removed_plays,
            idempotency_keys,
            failed,
            "histories were cleaned up"
        );
        self.parts.metrics.runs.inc();
        self.run = None;
        self.over = Some(due.due_at);
        self.last = Some((now, removed));
    }
}

impl Unit for HistoryJanitor {
    const KIND: &'static str = "history_janitor";
    type View = HistoryJanitorView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        // A start has other work first, and nodes that start together do not all ask at once.
        let first = self.parts.period + cx.world.jitter(self.parts.period);
        cx.after(first, |janitor, cx| {
            janitor.look_at_clock(cx);
            cx.every(janitor.parts.period, Self::look_at_clock);
        });
    }

    fn view(&self, _now: Instant) -> HistoryJanitorView {
        let next = self.over.and_then(|over| self.parts.daily.next(over));
        let running = self.run.as_ref().map(|run| run.progress.removed);
        HistoryJanitorView {
            running: Public(running.is_some()),
            next_at: Public(next),
            last_finished_at: Public(self.last.map(|(at, _)| at)),
            last_removed: Public(self.last.map(|(_, removed)| removed)),
            removed_so_far: Public(running),
            failures: Public(self.parts.metrics.failures.get()),
        }
    }
}
