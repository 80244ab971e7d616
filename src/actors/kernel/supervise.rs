//! Keeps an actor alive: a panic ends one life, and the next is made from what is stored.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
};

use actix::{Addr, AsyncContext, Context};
use futures_util::{FutureExt, poll};
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
    ///
    /// # Panics
    /// Outside an arbiter there is nowhere to start it.
    pub fn start<A: Unit>(&self, place: Place, make: impl FnMut() -> A + 'static) -> Handle<A> {
        self.start_then(place, make, || ())
    }

    /// Like [`Self::start`]; `ended` runs once the actor ended.
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
        // The first mailbox is open before the actor is made: its starter may tell it at once.
        let mut context = open();
        inner.announce(Life::Up(0), Some(context.address()));
        let it = Arc::clone(&inner);
        let ending = Ending::new(&inner);
        actix::spawn(async move {
            // Bound first, so that it is dropped after all that belongs to a life.
            let mut ending = ending;
            ending.then = Some(ended);
            let mut budget = RestartBudget::new(place.policy);
            let mut life = 0_u32;
            while !live(&it, life, context, &mut make).await {
                it.meters.0.restarts.fetch_add(1, Relaxed);
                it.meters.1.restarts.inc();
                if it.gate.is_closed() {
                    tracing::warn!(kind = A::KIND, "actor failed on its way to rest");
                    break;
                }
                life = life.wrapping_add(1);
                pause(&it, &mut budget).await;
                context = open();
            }
        });
        Handle(inner)
    }
}

/// Announces an actor's end: at its rest, and when its arbiter ends before it and drops its task.
struct Ending<A: Unit, F: FnOnce()> {
    inner: Arc<Inner<A>>,
    then: Option<F>,
}

impl<A: Unit, F: FnOnce()> Ending<A, F> {
    fn new(inner: &Arc<Inner<A>>) -> Self {
        inner.meters.1.live.inc();
        Self {
            inner: Arc::clone(inner),
            then: None,
        }
    }
}

impl<A: Unit, F: FnOnce()> Drop for Ending<A, F> {
    fn drop(&mut self) {
        self.inner.gate.close();
        self.inner.meters.1.live.dec();
        self.inner.announce(Life::Stopped, None);
        if let Some(then) = self.then.take() {
            then();
        }
    }
}

impl<A: Unit> Inner<A> {
    fn announce(&self, life: Life, addr: Option<Addr<Shell<A>>>) {
        self.state.send_replace(State { life, addr });
    }
}

/// Opens the mailbox of a new life.
fn open<A: Unit>() -> Context<Shell<A>> {
    let mut context = Context::new();
    // Unbounded: what may be in progress is counted by the gate, which the mailbox's bound is not.
    context.set_mailbox_capacity(0);
    context
}

/// One life, from its making until it is dropped; says whether it ended well.
async fn live<A: Unit>(
    inner: &Inner<A>,
    life: u32,
    context: Context<Shell<A>>,
    make: &mut impl FnMut() -> A,
) -> bool {
    let addr = context.address();
    let Ok(unit) = catch_unwind(AssertUnwindSafe(make)) else {
        return false;
    };
    let shell = Shell::new(
        unit,
        Arc::clone(&inner.gate),
        inner.meters.clone(),
        inner.world.clone(),
        life,
    );
    let mut body = context.into_future(shell);
    // The first poll runs `started`. Only then is the life announced: whoever waits for it is not
    // handed to one that fails to begin.
    let begun = AssertUnwindSafe(async { poll!(&mut body) })
        .catch_unwind()
        .await;
    let well = match begun {
        Ok(Poll::Pending) => {
            inner.announce(Life::Up(life), Some(addr));
            AssertUnwindSafe(&mut body).catch_unwind().await.is_ok()
        }
        Ok(Poll::Ready(())) => true,
        Err(_) => false,
    };
    // Not while its panic unwinds: a second one, from a destructor, would end the process.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(body)));
    well && dropped.is_ok()
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
    inner.announce(life, None);
    tokio::time::sleep(delay).await;
}
