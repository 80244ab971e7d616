//! Keeps an actor alive: a panic ends one life, and the next is made from what is stored.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use actix::{AsyncContext, Context};
use futures_util::FutureExt;
use tokio::sync::watch;

use super::{
    admission::{Caps, Gate},
    envelope::{Shell, Unit},
    handle::{Handle, Inner, Life, State},
    meter::{KernelMetrics, Meter},
    restart::{RestartBudget, RestartPolicy, Verdict},
};
use crate::domain::clock::World;

/// Starts supervised actors. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Clock and randomness of every actor.
    pub world: World,
    metrics: KernelMetrics,
}

/// How an actor is bounded and restarted.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// How much it lets in.
    pub caps: Caps,
    /// When it is made anew.
    pub policy: RestartPolicy,
}

impl Kernel {
    /// With the given clock, randomness and metric families.
    #[must_use]
    pub const fn new(world: World, metrics: KernelMetrics) -> Self {
        Self { world, metrics }
    }

    /// Starts a supervised actor on the current arbiter. `make` is called for each of its lives.
    pub fn start<A: Unit>(&self, place: Place, make: impl FnMut() -> A + 'static) -> Handle<A> {
        self.start_then(place, make, || ())
    }

    /// Like [`Self::start`]; `ended` runs once the actor went to rest.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub(super) fn start_then<A: Unit>(
        &self,
        place: Place,
        mut make: impl FnMut() -> A + 'static,
        ended: impl FnOnce() + 'static,
    ) -> Handle<A> {
        let kind = self.metrics.kind(A::KIND);
        let inner = Arc::new(Inner {
            gate: Gate::new(place.caps),
            state: watch::Sender::new(State {
                life: Life::Restarting,
                addr: None,
            }),
            meters: (Arc::new(Meter::default()), kind),
            world: self.world.clone(),
        });
        let it = Arc::clone(&inner);
        let mut context = begin(&inner, 0);
        actix::spawn(async move {
            let mut budget = RestartBudget::new(place.policy);
            let mut life = 0_u32;
            it.meters.1.live.inc();
            loop {
                let run = async {
                    let shell = Shell::new(
                        make(),
                        Arc::clone(&it.gate),
                        it.meters.clone(),
                        it.world.clone(),
                        life,
                    );
                    context.into_future(shell).await;
                };
                if AssertUnwindSafe(run).catch_unwind().await.is_ok() {
                    break;
                }
                life = life.wrapping_add(1);
                it.meters.0.restarts.fetch_add(1, Relaxed);
                it.meters.1.restarts.inc();
                pause(&it, &mut budget).await;
                context = begin(&it, life);
            }
            it.meters.1.live.dec();
            it.state.send_replace(State {
                life: Life::Stopped,
                addr: None,
            });
            ended();
        });
        Handle(inner)
    }
}

/// Opens the mailbox of a new life and announces it.
fn begin<A: Unit>(inner: &Inner<A>, life: u32) -> Context<Shell<A>> {
    let mut context = Context::new();
    // Unbounded: what may be in progress is counted by the gate, which the mailbox's bound is not.
    context.set_mailbox_capacity(0);
    let addr = Some(context.address());
    inner.state.send_replace(State {
        life: Life::Up(life),
        addr,
    });
    context
}

/// Waits as long as the policy says, with the life announced meanwhile.
async fn pause<A: Unit>(inner: &Inner<A>, budget: &mut RestartBudget) {
    let now = inner.world.instant();
    let (life, delay) = match budget.failed(now) {
        Verdict::Restart(delay) => (Life::Restarting, delay),
        Verdict::Quarantine(delay) => (Life::Quarantined(now + delay), delay),
    };
    let recent = budget.recent(now);
    if let Life::Quarantined(_) = life {
        inner.meters.1.quarantines.inc();
        tracing::error!(kind = A::KIND, ?delay, "actor quarantined");
    } else {
        tracing::warn!(
            kind = A::KIND,
            recent,
            ?delay,
            "actor failed and is made anew"
        );
    }
    inner.state.send_replace(State { life, addr: None });
    tokio::time::sleep(delay).await;
}
