//! Keeps the logs of all users as short as the rule of retention says.
//!
//! Owns a timer and a queue of users whose logs have something to delete. A round goes through all
//! logs in pages; a session tells it [`Trim`] when its log should not wait for the next round. It
//! works in small steps with pauses between, each a transaction of its own, so that it never keeps
//! others from the writer. Every step decides anew by what is stored: a step that is lost or done
//! twice, here or on another node, does no harm. Nobody waits for it, and the node serves without it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::measured::Measured;
use crate::{
    actors::kernel::{Cx, Public, Reply, Serve, Unit, asks, view},
    domain::{ids::UserId, sync::Retention},
    store::{Store, StoreError, TrimPage, Trimmed},
};

/// This user's log is longer than it may be.
#[derive(Debug)]
pub struct Trim(pub UserId);

asks! {
    Control Trim -> ();
}

/// What the janitor counts.
#[derive(Debug, Clone, Default)]
pub struct JanitorMetrics {
    trimmed: Counter,
    rounds: Counter,
    failures: Counter,
    measured: Arc<Measured>,
}

impl JanitorMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register(
            "sync_log_trimmed_events",
            "Events deleted from the logs of all users",
            it.trimmed.clone(),
        );
        registry.register(
            "sync_log_trim_rounds",
            "Rounds through all logs that came to their end",
            it.rounds.clone(),
        );
        registry.register(
            "sync_log_trim_failures",
            "Steps and looks that failed",
            it.failures.clone(),
        );
        it.measured.register(registry);
        it
    }
}

/// What the janitor works with.
#[derive(Debug, Clone)]
pub struct JanitorParts {
    pub(crate) store: Store,
    pub(crate) metrics: JanitorMetrics,
    /// What is kept.
    pub rule: Retention,
    /// The time between two rounds.
    pub period: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct SyncLogJanitor {
    parts: JanitorParts,
    /// Logs with something to delete.
    queue: VecDeque<UserId>,
    /// The same, to find who is in it.
    queued: HashSet<UserId>,
    round: Round,
    /// Where the last round's look failed: the next goes on from there. One that failed there again
    /// is followed by a whole one, so that no log keeps those before it from their turn.
    broken_off: Option<UserId>,
    /// Logs and events that this round has come by; none if it did not begin at the beginning.
    counted: Option<(u64, u64)>,
    /// One step at a time, and a pause after it.
    busy: bool,
}

/// How far a round through all logs has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Over,
    /// After this user; from the beginning when there is none.
    At(Option<UserId>),
}

view! {
    /// What the janitor shows of itself.
    pub struct SyncLogJanitorView {
        in_round: Public<bool>,
        queued: Public<usize>,
        trimmed: Public<u64>,
        rounds: Public<u64>,
        failures: Public<u64>,
    }
}

impl SyncLogJanitor {
    /// How long a step may take.
    const BUDGET: Duration = Duration::from_secs(5);
    /// Between two steps, which are the writer's for a few milliseconds each.
    const PAUSE: Duration = Duration::from_millis(20);
    /// After a step that failed: the store may not serve at all.
    const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
    /// Logs that are looked at together.
    const PAGE: u32 = 500;
    /// The longest time between two looks at the room that the database takes.
    const MEASURE: Duration = Duration::from_mins(1);
    /// Users that may wait; the next round finds the others.
    const ROOM: usize = 4096;

    /// Waits for its first round.
    #[must_use]
    pub fn new(parts: JanitorParts) -> Self {
        Self {
            parts,
            queue: VecDeque::new(),
            queued: HashSet::new(),
            round: Round::Over,
            broken_off: None,
            counted: None,
            busy: false,
        }
    }

    fn begin_round(&mut self, cx: &mut Cx<'_, Self>) {
        if self.round == Round::Over {
            self.round = Round::At(self.broken_off);
            self.counted = self.broken_off.is_none().then_some((0, 0));
        }
        self.work(cx);
    }

    fn enqueue(&mut self, user: UserId) {
        if self.queue.len() < Self::ROOM && self.queued.insert(user) {
            self.queue.push_back(user);
        }
    }

    /// Takes the next step, unless one is under way.
    fn work(&mut self, cx: &mut Cx<'_, Self>) {
        if self.busy {
            return;
        }
        if let Some(user) = self.queue.pop_front() {
            self.queued.remove(&user);
            self.trim(user, cx);
        } else if let Round::At(after) = self.round {
            self.look(after, cx);
        }
    }

    fn trim(&mut self, user: UserId, cx: &mut Cx<'_, Self>) {
        self.busy = true;
        let (store, rule, now) = (self.parts.store.clone(), self.parts.rule, cx.world.now());
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move { store.log_trim(deadline, user, rule, now).await },
            move |janitor, result, cx| {
                let pause = janitor.trimmed(user, result);
                janitor.pause(pause, cx);
            },
        );
    }

    /// What is wrong with one log must not keep the others from their turn; it has its own again in
    /// the next round. Says how long to pause.
    fn trimmed(&mut self, user: UserId, result: Result<Trimmed, StoreError>) -> Duration {
        let Ok(Trimmed { events, more }) = result else {
            self.parts.metrics.failures.inc();
            return Self::PAUSE_AFTER_FAILURE;
        };
        self.parts.metrics.trimmed.inc_by(events);
        if more {
            self.enqueue(user);
        }
        Self::PAUSE
    }

    /// Looks for logs that have something to delete.
    fn look(&mut self, after: Option<UserId>, cx: &mut Cx<'_, Self>) {
        self.busy = true;
        let (store, rule, now) = (self.parts.store.clone(), self.parts.rule, cx.world.now());
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move {
                store
                    .logs_to_trim(deadline, after, Self::PAGE, rule, now)
                    .await
            },
            move |janitor, page, cx| {
                janitor.looked(after, page);
                janitor.pause(Self::PAUSE, cx);
            },
        );
    }

    fn looked(&mut self, after: Option<UserId>, page: Result<TrimPage, StoreError>) {
        let Ok(TrimPage {
            users,
            logs,
            events,
            next,
        }) = page
        else {
            // A store that does not serve is left in peace until the next round.
            self.parts.metrics.failures.inc();
            self.round = Round::Over;
            self.broken_off = after.filter(|_| self.broken_off != after);
            return;
        };
        for user in users {
            self.enqueue(user);
        }
        self.counted = self.counted.map(|(l, e)| (l + logs, e + events));
        if next.is_none() {
            self.parts.metrics.rounds.inc();
            if let Some((logs, events)) = self.counted {
                self.parts.metrics.measured.logs(logs, events);
            }
        }
        self.broken_off = None;
        self.round = next.map_or(Round::Over, |next| Round::At(Some(next)));
    }

    /// Looks how much room the database takes.
    fn measure(&mut self, cx: &mut Cx<'_, Self>) {
        let (store, deadline) = (self.parts.store.clone(), cx.world.instant() + Self::BUDGET);
        cx.spawn(
            async move { store.size(deadline).await },
            |janitor, size, _| {
                // What was measured last stays until the store serves again.
                if let Ok(size) = size {
                    janitor.parts.metrics.measured.size(size);
                }
            },
        );
    }

    fn pause(&self, pause: Duration, cx: &mut Cx<'_, Self>) {
        let delay = if self.queue.is_empty() && self.round == Round::Over {
            Duration::ZERO
        } else {
            pause
        };
        cx.after(delay, |janitor, cx| {
            janitor.busy = false;
            janitor.work(cx);
        });
    }
}

impl Unit for SyncLogJanitor {
    const KIND: &'static str = "sync_log_janitor";
    type View = SyncLogJanitorView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        self.measure(cx);
        cx.every(self.parts.period.min(Self::MEASURE), Self::measure);
        // Nodes that start together do not go through the logs together.
        let first = cx.world.jitter(self.parts.period);
        cx.after(first, |janitor, cx| {
            janitor.begin_round(cx);
            cx.every(janitor.parts.period, Self::begin_round);
        });
    }

    fn view(&self, _now: Instant) -> SyncLogJanitorView {
        let JanitorMetrics {
            trimmed,
            rounds,
            failures,
            ..
        } = &self.parts.metrics;
        SyncLogJanitorView {
            in_round: Public(self.round != Round::Over),
            queued: Public(self.queue.len()),
            trimmed: Public(trimmed.get()),
            rounds: Public(rounds.get()),
            failures: Public(failures.get()),
        }
    }
}

impl Serve<Trim> for SyncLogJanitor {
    fn serve(&mut self, Trim(user): Trim, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.enqueue(user);
        self.work(cx);
        Reply::Now(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;
    use crate::{
        actors::kernel::{Caps, Kernel, KernelMetrics, Place, RestartPolicy},
        domain::clock::World,
        store::tests::Bed,
    };

    fn parts(bed: &Bed) -> JanitorParts {
        JanitorParts {
            store: bed.store.clone(),
            metrics: JanitorMetrics::default(),
            // Events of the bed are old, whenever this runs.
            rule: Retention {
                max_age: TimeDelta::days(-10_000),
                min_age: TimeDelta::days(-10_000),
                max_events: 2,
                min_events: 1,
            },
            period: Duration::from_millis(50),
        }
    }

    #[actix_rt::test]
    async fn a_log_that_cannot_be_trimmed_keeps_no_other_from_its_turn() {
        let bed = Bed::sqlite().await;
        let mut users = Vec::new();
        for _ in 0..3 {
            let user = bed.user().await.user.id;
            bed.favorites(user, 5).await;
            users.push(user);
        }
        // The one that a look finds first.
        users.sort_unstable_by_key(|user| user.0);
        let sql = format!(
            "CREATE TRIGGER broken BEFORE DELETE ON sync_events WHEN OLD.user_id = x'{}'
             BEGIN SELECT RAISE(ABORT, 'broken'); END",
            users[0].0.simple()
        );
        bed.sql(&sql).await.unwrap();
        let place = Place {
            caps: Caps {
                commands: 64,
                reads: 64,
            },
            policy: RestartPolicy::ROOT,
        };
        let metrics =
            KernelMetrics::register(&mut prometheus_client::registry::Registry::default());
        let parts = parts(&bed);
        let janitor = Kernel::new(World::system(), metrics)
            .start(place, move || SyncLogJanitor::new(parts.clone()));
        let deadline = bed.soon();
        loop {
            let view = janitor.observe(bed.soon()).await.unwrap();
            if view["rounds"].as_u64() > Some(1) {
                assert!(view["failures"].as_u64() > Some(0), "{view}");
                break;
            }
            assert!(World::system().instant() < deadline, "{view}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let heads = bed.store.log_heads(bed.soon(), &users).await.unwrap();
        for (user, log) in heads {
            assert_eq!(log.floor_seq == 0, user == users[0], "{user} {log:?}");
        }
        bed.done().await;
    }

    #[actix_rt::test]
    async fn a_round_goes_on_where_a_look_failed_and_then_begins_anew() {
        let bed = Bed::sqlite().await;
        let mut janitor = SyncLogJanitor::new(parts(&bed));
        let (at, waits) = (Some(UserId(Uuid::from_u128(1))), UserId(Uuid::from_u128(2)));
        janitor.enqueue(waits);
        for next in [at, None, at] {
            janitor.round = Round::At(at);
            janitor.looked(at, Err(StoreError::Deadline));
            assert_eq!((janitor.round, janitor.broken_off), (Round::Over, next));
            assert_eq!(janitor.queue, [waits]);
        }
        let (users, next) = (Vec::new(), None);
        janitor.looked(
            at,
            Ok(TrimPage {
                users,
                logs: 3,
                events: 7,
                next,
            }),
        );
        assert_eq!((janitor.round, janitor.broken_off), (Round::Over, None));
        bed.done().await;
    }
}
