//! Works at broadcasts, and answers for them.
//!
//! Owns those that this node holds a lease of. Handlers ask it to start, show, list and cancel them. It
//! looks once a second for one that no node works at: a node that died is followed by another when its
//! lease is over. It goes on in small steps, one broadcast after another, with pauses as long as the
//! steps. All that counts is in the database: two nodes at the same broadcast, or a step whose outcome
//! is unknown, give nobody an event twice. After each step it tells the sessions of this node, and by
//! hints those of others. The node serves without it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::TimeDelta;

use super::{
    ServiceMetrics,
    job::{Job, Round, Taken},
    leases::Leases,
};
use crate::{
    actors::{
        kernel::{Cx, Public, Unit, view},
        session::{Broadcasted, Sessions},
    },
    domain::{
        ids::{BroadcastId, EventId},
        services::Quotas,
    },
    store::{FreeBroadcast, Hints, Stepped, Store, StoreError, TakenBroadcast},
};

/// What the broadcaster works with.
#[derive(Debug, Clone)]
pub struct BroadcasterParts {
    pub(crate) store: Store,
    pub(crate) sessions: Sessions,
    /// Where hints go to other nodes, if there may be any.
    pub(crate) hints: Option<Hints>,
    pub(crate) metrics: ServiceMetrics,
    /// Set once when the node is going away.
    pub(crate) draining: Arc<AtomicBool>,
    /// The node's name: who holds its leases.
    pub node: String,
    /// What a key may append that has no quota of its own, and all keys together.
    pub quotas: Quotas,
}

/// See the module.
#[derive(Debug)]
pub struct Broadcaster {
    pub(super) parts: BroadcasterParts,
    /// Those it works at, the next one first.
    jobs: VecDeque<Job>,
    /// The one whose step is under way.
    at_work: Option<BroadcastId>,
    looking: bool,
    leases: Leases,
    steps: u64,
    reached: u64,
    lost: u64,
    failures: u64,
}

view! {
    /// What the broadcaster shows of itself.
    pub struct BroadcasterView {
        working: Public<bool>,
        holds: Vec<HeldView>,
        steps: Public<u64>,
        reached: Public<u64>,
        lost: Public<u64>,
        failures: Public<u64>,
    }

    /// A broadcast that it works at.
    pub struct HeldView {
        id: Public<String>,
        position: Public<String>,
        batch: Public<u32>,
        failures: Public<u32>,
    }
}

impl Broadcaster {
    /// Between two looks for broadcasts that nobody works at.
    const LOOK: Duration = Duration::from_secs(1);
    /// Between two sweeps of those that were finished long ago.
    const SWEEP: Duration = Duration::from_mins(10);
    /// For how long no other node takes one over. Each step begins it anew.
    const LEASE: TimeDelta = TimeDelta::seconds(5);
    /// How long a step may take.
    const BUDGET: Duration = Duration::from_secs(5);
    /// Broadcasts that it works at, in turn.
    const ROOM: usize = 4;
    /// Unfinished ones that a look goes through.
    const LOOKED_AT: u32 = 100;

    /// Looks for broadcasts at once.
    #[must_use]
    pub fn new(parts: BroadcasterParts) -> Self {
        Self {
            parts,
            jobs: VecDeque::new(),
            at_work: None,
            looking: false,
            leases: Leases::default(),
            steps: 0,
            reached: 0,
            lost: 0,
            failures: 0,
        }
    }

    fn is_leaving(&self) -> bool {
        self.parts.draining.load(Ordering::Relaxed)
    }

    fn holds(&self, id: BroadcastId) -> bool {
        self.at_work == Some(id) || self.jobs.iter().any(|job| job.taken.id == id)
    }

    /// Looks for one that nobody works at, and takes it.
    pub(super) fn look(&mut self, cx: &mut Cx<'_, Self>) {
        let held = self.jobs.len() + usize::from(self.at_work.is_some());
        if self.looking || self.is_leaving() || held >= Self::ROOM {
            return;
        }
        self.looking = true;
        let (store, deadline) = (self.parts.store.clone(), cx.world.instant() + Self::BUDGET);
        cx.spawn(
            async move { store.broadcasts_unfinished(deadline, Self::LOOKED_AT).await },
            |it, found, cx| {
                it.looking = false;
                match found {
                    Ok(found) => it.take_one(&found, cx),
                    Err(_) => it.failures += 1,
                }
            },
        );
    }

    fn take_one(&mut self, found: &[FreeBroadcast], cx: &mut Cx<'_, Self>) {
        let (now, at) = (cx.world.now(), cx.world.instant());
        self.leases.seen(found, at);
        // What it held in an earlier life, or lost sight of, is its own still.
        let is_free = |it: &&FreeBroadcast| {
            let is_ours = it.lease_owner.as_ref() == Some(&self.parts.node);
            let is_over = self.leases.is_over(it, Self::LEASE, now, at);
            (is_over || is_ours) && !self.holds(it.id)
        };
        let Some(free) = found.iter().find(is_free) else {
            return;
        };
        let (id, seen) = (free.id, free.lease_until);
        self.looking = true;
        let (store, owner) = (self.parts.store.clone(), self.parts.node.clone());
        let (deadline, until) = (at + Self::BUDGET, now + Self::LEASE);
        cx.spawn(
            async move {
                store
                    .broadcast_take(deadline, id, &owner, now, seen, until)
                    .await
            },
            |it, taken, cx| {
                it.looking = false;
                it.took(taken, cx);
            },
        );
    }

    fn took(&mut self, taken: Result<Option<TakenBroadcast>, StoreError>, cx: &mut Cx<'_, Self>) {
        match taken {
            Ok(Some(taken)) => {
                tracing::info!(broadcast = %taken.id, "works at a broadcast");
                self.jobs.push_back(Job::new(taken));
                self.work(cx);
                // There may be more.
                self.look(cx);
            }
            // Another node was faster.
            Ok(None) => {}
            Err(_) => self.failures += 1,
        }
    }

    /// Takes the next step, unless one is under way.
    fn work(&mut self, cx: &mut Cx<'_, Self>) {
        if self.at_work.is_some() || self.is_leaving() {
            return;
        }
        let Some(mut job) = self.jobs.pop_front() else {
            return;
        };
        let Ok(event_id) = cx.world.uuid().map(EventId) else {
            // Without randomness nothing goes on; the lease ends, and the next look takes it up.
            self.failures += 1;
            return;
        };
        self.at_work = Some(job.taken.id);
        let (began, now) = (cx.world.instant(), cx.world.now());
        let round = Round {
            store: self.parts.store.clone(),
            owner: self.parts.node.clone(),
            quotas: self.parts.quotas,
            event_id,
            now,
            lease_until: now + Self::LEASE,
            deadline: began + Self::BUDGET,
        };
        cx.spawn(
            async move {
                let outcome = job.step(round).await;
                (job, outcome)
            },
            move |it, (job, outcome), cx| {
                let pause = it.stepped(job, outcome, began, cx.world.instant());
                cx.after(pause, |it, cx| {
                    it.at_work = None;
                    it.work(cx);
                });
            },
        );
    }

    /// Says how long to pause.
    fn stepped(
        &mut self,
        mut job: Job,
        outcome: Result<(Taken, bool), StoreError>,
        began: Instant,
        now: Instant,
    ) -> Duration {
        let took = now.saturating_duration_since(began);
        match outcome {
            Ok((Taken::Step(stepped), last)) => {
                let pause = job.pace.took(took);
                self.tell(stepped, began, took);
                if last {
                    tracing::info!(broadcast = %job.taken.id, "a broadcast is finished");
                    self.parts.metrics.broadcast("finished");
                } else {
                    self.jobs.push_back(job);
                }
                pause
            }
            // It is cancelled, or the next look finds where it is.
            Ok((Taken::Lost, _)) => {
                self.lost += 1;
                Duration::ZERO
            }
            Err(_) => {
                self.failures += 1;
                self.parts.metrics.failed();
                let pause = job.failed();
                self.jobs.push_back(job);
                pause
            }
        }
    }

    /// Tells whoever may have a device of these users: sessions of this node at once, others by hints.
    fn tell(&mut self, stepped: Stepped, asked_at: Instant, took: Duration) {
        let Stepped {
            events,
            skipped,
            missing,
            committed_at,
        } = stepped;
        let reached = events.len() as u64;
        self.steps += 1;
        self.reached += reached;
        self.parts.metrics.stepped(took, reached, skipped, missing);
        for (log, event) in events {
            let user = event.user_id;
            let Some(session) = self.parts.sessions.find(&user) else {
                if let Some(hints) = &self.parts.hints {
                    hints.publish(user, log);
                }
                continue;
            };
            // One that is not up reads the log when its devices attach again.
            let _ = session.tell(Broadcasted {
                log,
                event,
                asked_at,
                committed_at,
            });
        }
    }

    fn sweep(&mut self, cx: &mut Cx<'_, Self>) {
        let (store, now) = (self.parts.store.clone(), cx.world.now());
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move { store.broadcasts_sweep(deadline, now).await },
            |it, swept, _| it.failures += u64::from(swept.is_err()),
        );
        self.sweep_quotas(cx);
    }

    /// Step by step, with pauses, until nothing is left of hours that are over.
    fn sweep_quotas(&mut self, cx: &mut Cx<'_, Self>) {
        let (store, now) = (self.parts.store.clone(), cx.world.now());
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move { store.service_quotas_sweep(deadline, now).await },
            |it, swept, cx| match swept {
                Ok((_, true)) => {
                    cx.after(Self::LOOK, Self::sweep_quotas);
                }
                Ok((_, false)) => {}
                Err(_) => it.failures += 1,
            },
        );
    }
}

impl Unit for Broadcaster {
    const KIND: &'static str = "broadcaster";
    type View = BroadcasterView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        self.look(cx);
        cx.every(Self::LOOK, Self::look);
        cx.every(Self::SWEEP, Self::sweep);
    }

    fn view(&self, _now: Instant) -> BroadcasterView {
        let held = |job: &Job| HeldView {
            id: Public(job.taken.id.to_string()),
            position: Public(job.taken.position.to_string()),
            batch: Public(job.pace.batch()),
            failures: Public(job.failures),
        };
        BroadcasterView {
            working: Public(self.at_work.is_some()),
            holds: self.jobs.iter().map(held).collect(),
            steps: Public(self.steps),
            reached: Public(self.reached),
            lost: Public(self.lost),
            failures: Public(self.failures),
        }
    }
}
