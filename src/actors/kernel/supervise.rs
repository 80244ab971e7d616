//! Keeps an actor alive: a panic ends one life, and the next is made from what is stored.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use actix::{Addr, AsyncContext, Context, dev::ContextFut};
use futures_util::{FutureExt, poll};
use tokio::sync::watch;

use super::{
    admission::{Caps, Gate},
    envelope::{Shell, Unit},
    halt::{Halt, Leave},
    handle::{Handle, Inner, Life, State},
    kinds::{KernelMetrics, Totals},
    meter::{Failure, Meter},
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

    /// What the actors of a kind did so far.
    pub(super) fn totals(&self, kind: &'static str) -> Totals {
        self.metrics.kind(kind).totals()
    }

    /// Starts a supervised actor on the current arbiter. `make` is called for each of its lives.
    ///
    /// # Panics
    /// Outside an arbiter there is nowhere to start it.
    pub fn start<A: Unit>(&self, place: Place, make: impl FnMut() -> A + 'static) -> Handle<A> {
        self.start_then(&Arc::new(place), make, || ())
    }

    /// Like [`Self::start`]; `ended` runs once the actor ended.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub(super) fn start_then<A: Unit>(
        &self,
        place: &Arc<Place>,
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
            meters: (Arc::new(Meter::new(self.world.instant())), kind),
            world: self.world.clone(),
        });
        // The first mailbox is open before the actor is made: its starter may tell it at once.
        let mut context = open();
        inner.announce(Life::Up(0), Some(context.address()));
        let (ending, place) = (Ending::new(&inner), Arc::clone(place));
        actix::spawn(async move {
            // Bound first, so that it is dropped after all that belongs to a life.
            let mut ending = ending;
            // Only now: where nothing can be started, the starter holds what `ended` would ask for.
            ending.then = Some(ended);
            let it = &ending.inner;
            let mut budget = None;
            let mut life = 0_u32;
            loop {
                let ended = live(it, life, context, &mut make).await;
                if !it.is_to_go_on(&ended) {
                    break;
                }
                match ended {
                    // Its gate is open: it was not its own will.
                    Ok(()) => it.note(life, ON_DEMAND, false),
                    Err(reason) => {
                        let new = || Box::new(RestartBudget::new(place.policy));
                        let budget = budget.get_or_insert_with(new);
                        // Boxed: most actors never fail.
                        Box::pin(pause(it, budget, life, reason)).await;
                    }
                }
                if it.gate.is_closed() {
                    break;
                }
                life = life.saturating_add(1);
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

/// What is noted of a life that an operator ended.
const ON_DEMAND: &str = "restarted by an operator";

impl<A: Unit> Inner<A> {
    /// Counts the end of a life; says whether there is to be another.
    fn is_to_go_on(&self, ended: &Result<(), &'static str>) -> bool {
        let (meter, kind) = &self.meters;
        meter.life_over();
        let (failed, closed) = (ended.is_err(), self.gate.is_closed());
        if failed {
            kind.restarts.inc();
        }
        if failed || !closed {
            meter.restarts.fetch_add(1, Relaxed);
        }
        if failed && closed {
            tracing::warn!(kind = A::KIND, "actor failed on its way to rest");
        }
        !closed
    }

    fn note(&self, life: u32, reason: &'static str, quarantined: bool) {
        let at = self.world.now();
        self.meters.0.failed(Failure {
            at,
            life,
            reason,
            quarantined,
        });
    }

    fn announce(&self, life: Life, addr: Option<Addr<Shell<A>>>) {
        self.state.send_replace(State { life, addr });
    }
}

/// An actor with its mailbox and all that it has begun.
type Body<A> = ContextFut<Shell<A>, Context<Shell<A>>>;

/// Opens the mailbox of a new life. Boxed: what is moved within a future has a place there for each
/// move, and the future of an idle actor is to be small.
fn open<A: Unit>() -> Box<Context<Shell<A>>> {
    let mut context = Box::new(Context::new());
    // Unbounded: what may be in progress is counted by the gate, which the mailbox's bound is not.
    context.set_mailbox_capacity(0);
    context
}

/// One life, from its making until it is dropped; an error is what its panic said.
async fn live<A: Unit>(
    inner: &Inner<A>,
    life: u32,
    context: Box<Context<Shell<A>>>,
    make: &mut impl FnMut() -> A,
) -> Result<(), &'static str> {
    // An actor that nobody has the address of ends by itself.
    let addr = context.address();
    let mut body = begin(inner, life, *context, make)?;
    // The first poll runs `started`. Only then is the life announced: whoever waits for it is not
    // handed to one that fails to begin.
    let begun = AssertUnwindSafe(async { poll!(&mut body) })
        .catch_unwind()
        .await;
    let ended = match begun {
        Ok(Poll::Pending) => {
            // The first one was before it was made, and may have been told to leave since.
            if life > 0 {
                inner.announce(Life::Up(life), Some(addr.clone()));
                if inner.gate.is_closed() {
                    // Who stopped it meanwhile found nobody to tell. The mailbox is open: it lives.
                    let _ = addr.try_send(Leave(Halt::Stop));
                }
            }
            drop(addr);
            AssertUnwindSafe(&mut body).catch_unwind().await
        }
        Ok(Poll::Ready(())) => Ok(()),
        Err(panic) => Err(panic),
    };
    // Not while its panic unwinds: a second one, from a destructor, would end the process.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(body)));
    ended.and(dropped).map_err(said)
}

/// Makes the actor of a life, and puts it where it stays.
fn begin<A: Unit>(
    inner: &Inner<A>,
    life: u32,
    context: Context<Shell<A>>,
    make: impl FnOnce() -> A,
) -> Result<Box<Body<A>>, &'static str> {
    let unit = catch_unwind(AssertUnwindSafe(make)).map_err(said)?;
    let shell = Shell::new(
        unit,
        Arc::clone(&inner.gate),
        inner.meters.clone(),
        inner.world.clone(),
        life,
    );
    Ok(Box::new(context.into_future(shell)))
}

/// What a panic said, if that is text of the program: what is formatted may carry a user's data.
fn said(panic: Box<dyn Any + Send>) -> &'static str {
    let text = panic.downcast_ref::<&'static str>().copied();
    // Its destructor must not have its way either.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    text.unwrap_or("a panic (what it said is not shown)")
}

/// Waits as long as the policy says, with the life announced meanwhile.
async fn pause<A: Unit>(
    inner: &Inner<A>,
    budget: &mut RestartBudget,
    ended: u32,
    reason: &'static str,
) {
    let now = inner.world.instant();
    let verdict = budget.failed(now);
    // Before it is announced, so that no word of an operator is missed after it.
    let mut state = inner.state.subscribe();
    let (mut life, mut delay) = (Life::Restarting, Duration::ZERO);
    // At once with the look at what an operator wants: nothing is said in between.
    inner.state.send_modify(|state| {
        match verdict {
            Verdict::Restart(pause) => delay = pause,
            // An operator asked for the next life before this was said.
            Verdict::Quarantine(_) if state.is_leaving() => {}
            Verdict::Quarantine(pause) => (life, delay) = (Life::Quarantined(now + pause), pause),
        }
        (state.life, state.addr) = (life, None);
    });
    let recent = budget.recent(now);
    inner.note(ended, reason, matches!(life, Life::Quarantined(_)));
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
    // A stop closes the gate before it looks at the life: it may have seen the one that is over.
    if inner.gate.is_closed() {
        return;
    }
    let shortened = state.wait_for(|state| state.life != life);
    // An operator may end a quarantine.
    let _ = tokio::time::timeout(delay, shortened).await;
}
