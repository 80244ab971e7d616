//! What really travels, and the shell that turns it into a call of the actor's own code.

use std::{
    any::type_name,
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, fut::ActorFutureExt};
use tokio::sync::oneshot;
use tracing::{Instrument, Span, level_filters::LevelFilter};

use super::{
    Ask, Class, Deadline, Halt,
    admission::{Gate, Permit},
    meter::{Meters, Sent},
    view::View,
};
use crate::domain::clock::World;

/// An actor's own code: state, and what it shows of it. Handlers are [`Serve`].
pub trait Unit: Sized + Unpin + 'static {
    /// The kind's name, in metrics, views and logs.
    const KIND: &'static str;

    /// What the actor shows of its state; who may see what of it, its fields say by their types.
    type View: View;

    /// Runs before the first message of each life.
    fn started(&mut self, _cx: &mut Cx<'_, Self>) {}

    /// Runs when an operator ends this life: what must be done before it is over. What asks are in
    /// hand is waited for in any case.
    fn leaving(&mut self, _how: Halt, _cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        Reply::Now(())
    }

    /// Its state at `now`, for people.
    fn view(&self, now: Instant) -> Self::View;
}

/// How a unit answers one kind of message.
pub trait Serve<M: Ask>: Unit {
    /// Handles `msg`. It must not block: what takes time goes into [`Reply::later`].
    fn serve(&mut self, msg: M, cx: &mut Cx<'_, Self>) -> Reply<Self, M::Reply>;
}

pub(super) type ActFuture<A, T> = Pin<Box<dyn actix::fut::ActorFuture<Shell<A>, Output = T>>>;

/// When the answer comes, and whether the actor hears others meanwhile.
pub enum Reply<A: Unit, T> {
    /// At once.
    Now(T),
    /// Later; other messages are handled meanwhile, so nothing that was checked before still holds
    /// after. Ends with the actor.
    Later(Later<A, T>),
}

/// See [`Reply::later`].
pub struct Later<A: Unit, T>(pub(super) ActFuture<A, T>);

impl<A: Unit, T: 'static> Reply<A, T> {
    /// Runs `work`, then `then` with the actor's state; what `then` returns is the answer.
    pub fn later<F>(
        work: F,
        then: impl FnOnce(&mut A, F::Output, &mut Cx<'_, A>) -> T + 'static,
    ) -> Self
    where
        F: Future + 'static,
    {
        Self::Later(Later(resume(work, then)))
    }
}

/// An actor future that runs `work`, then `then`, both within the span of now.
fn resume<A: Unit, F: Future + 'static, T: 'static>(
    work: F,
    then: impl FnOnce(&mut A, F::Output, &mut Cx<'_, A>) -> T + 'static,
) -> ActFuture<A, T> {
    let span = Span::current();
    let work = work.instrument(span.clone());
    Box::pin(actix::fut::wrap_future::<_, Shell<A>>(work).map(
        move |out, shell: &mut Shell<A>, ctx: &mut Context<Shell<A>>| {
            span.in_scope(|| shell.with(ctx, |unit, cx| then(unit, out, cx)))
        },
    ))
}

/// A timer that can be cancelled.
#[derive(Debug, Clone, Copy)]
pub struct Timer(actix::SpawnHandle);

/// What an actor may do besides changing its state.
pub struct Cx<'c, A: Unit> {
    ctx: &'c mut Context<Shell<A>>,
    gate: &'c Gate,
    /// Clock and randomness.
    pub world: &'c World,
    /// When the asker of the message being handled no longer waits; none outside of asks.
    pub deadline: Option<Deadline>,
    /// Which of its lives the actor is in: see [`super::Life::Up`].
    pub life: u32,
    /// The type of the message being handled, as views and meters name it; empty outside of messages.
    pub message: &'static str,
}

impl<A: Unit> Cx<'_, A> {
    /// Runs `work` beside the mailbox, then `then` with the actor's state. Ends with the actor.
    pub fn spawn<F: Future + 'static>(
        &mut self,
        work: F,
        then: impl FnOnce(&mut A, F::Output, &mut Cx<'_, A>) + 'static,
    ) {
        self.ctx.spawn(resume(work, then));
    }

    /// Calls `then` after `delay`, unless cancelled.
    pub fn after(
        &mut self,
        delay: Duration,
        then: impl FnOnce(&mut A, &mut Cx<'_, A>) + 'static,
    ) -> Timer {
        Timer(
            self.ctx
                .run_later(delay, move |shell, ctx| shell.with(ctx, then)),
        )
    }

    /// Calls `then` every `period`, first after one.
    pub fn every(
        &mut self,
        period: Duration,
        mut then: impl FnMut(&mut A, &mut Cx<'_, A>) + 'static,
    ) {
        self.ctx
            .run_interval(period, move |shell, ctx| shell.with(ctx, &mut then));
    }

    /// Cancels a timer.
    pub fn cancel(&mut self, timer: Timer) {
        self.ctx.cancel_future(timer.0);
    }

    /// Goes to rest if no message is in progress: from then on asks wait for the next life, so that
    /// none falls between. Says whether it does.
    pub fn rest(&mut self) -> bool {
        let closed = self.gate.close_if_idle();
        if closed {
            self.ctx.stop();
        }
        closed
    }
}

/// Messages that an actor handles before it lets its own work and its neighbours run. The framework
/// would empty the mailbox first, which under a flood is never.
const TURN: u32 = 64;

/// Holds a unit within the framework.
pub struct Shell<A: Unit> {
    unit: A,
    pub(super) gate: std::sync::Arc<Gate>,
    meters: Meters,
    world: World,
    life: u32,
    /// Messages taken in this turn.
    taken: u32,
    /// Messages that are answered later.
    pub(super) in_hand: u32,
    /// Asks of each class among them.
    owed: [u32; Class::COUNT],
}

impl<A: Unit> Shell<A> {
    pub(super) const fn new(
        unit: A,
        gate: std::sync::Arc<Gate>,
        meters: Meters,
        world: World,
        life: u32,
    ) -> Self {
        Self {
            unit,
            gate,
            meters,
            world,
            life,
            taken: 0,
            in_hand: 0,
            owed: [0; Class::COUNT],
        }
    }

    /// An ask that is answered later is about to be.
    fn settle(&mut self, class: Class, what: &'static str, sent: Instant) {
        self.in_hand -= 1;
        let owed = &mut self.owed[class as usize];
        *owed -= 1;
        let now = self.world.instant();
        let (meter, kind) = &self.meters;
        meter.answered(kind, what, sent, now);
        // Not those that only wait in the mailbox: they may be answered at once, and nobody settles then.
        meter.settled(class, now, *owed > 0);
    }

    /// Ends the actor's turn when it took enough messages.
    fn take_turns(&mut self, ctx: &mut Context<Self>) {
        self.taken += 1;
        if self.taken == TURN {
            self.taken = 0;
            ctx.wait(actix::fut::wrap_future(tokio::task::yield_now()));
        }
    }

    pub(super) fn with<T>(
        &mut self,
        ctx: &mut Context<Self>,
        run: impl FnOnce(&mut A, &mut Cx<'_, A>) -> T,
    ) -> T {
        self.with_message(ctx, None, "", run)
    }

    fn with_message<T>(
        &mut self,
        ctx: &mut Context<Self>,
        deadline: Option<Deadline>,
        message: &'static str,
        run: impl FnOnce(&mut A, &mut Cx<'_, A>) -> T,
    ) -> T {
        let mut cx = Cx {
            ctx,
            gate: &self.gate,
            world: &self.world,
            deadline,
            life: self.life,
            message,
        };
        run(&mut self.unit, &mut cx)
    }
}

impl<A: Unit> Actor for Shell<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.with(ctx, Unit::started);
    }
}

/// A message on its way: with its caller's span and deadline, the right to be in progress, and the
/// way back.
pub(super) struct Envelope<M: Ask> {
    pub msg: M,
    pub span: Span,
    pub way: Way<M::Reply>,
}

/// The span of now, to go with a message. Cheap where nothing listens.
pub(super) fn span_of_now() -> Span {
    if LevelFilter::current() == LevelFilter::OFF {
        Span::none()
    } else {
        Span::current()
    }
}

/// What is owed for a message. While a permit is held the actor does not rest.
pub(super) enum Way<T> {
    /// Nothing; the permit is held until its turn comes. Not all are timed.
    Told(Permit, Option<Sent>),
    /// An answer; the permit is held until then.
    Asked(Asked<T>),
}

/// The way back of an ask. Whether used or dropped, the permit is given back first: who hears of
/// the end finds room for the next ask.
pub(super) struct Asked<T> {
    pub sent: Instant,
    pub deadline: Deadline,
    pub permit: Permit,
    pub answer: oneshot::Sender<T>,
}

impl<T> Asked<T> {
    fn answer(self, value: T) {
        drop(self.permit);
        // The caller may be gone.
        let _ = self.answer.send(value);
    }
}

impl<M: Ask> Message for Envelope<M> {
    type Result = ();
}

impl<A: Serve<M>, M: Ask> Handler<Envelope<M>> for Shell<A> {
    type Result = ();

    fn handle(&mut self, envelope: Envelope<M>, ctx: &mut Context<Self>) {
        let Envelope { msg, span, way } = envelope;
        self.take_turns(ctx);
        match way {
            Way::Told(permit, sent) => {
                drop(permit);
                self.told(msg, &span, sent, ctx);
            }
            Way::Asked(asked) => self.asked(msg, &span, asked, ctx),
        }
    }
}

impl<A: Unit> Shell<A> {
    fn told<M: Ask>(&mut self, msg: M, span: &Span, sent: Option<Sent>, ctx: &mut Context<Self>)
    where
        A: Serve<M>,
    {
        let timed = sent.map(|sent| (sent, self.world.instant()));
        let reply = self.serve(msg, span, None, ctx);
        let (meter, kind) = &self.meters;
        meter.handled(kind);
        if let Some((sent, begun)) = timed {
            meter.timed(kind, sent, begun, self.world.instant());
        }
        if let Reply::Later(Later(work)) = reply {
            self.in_hand += 1;
            ctx.spawn(work.map(|_, shell: &mut Self, _| shell.in_hand -= 1));
        }
    }

    fn asked<M: Ask>(
        &mut self,
        msg: M,
        span: &Span,
        asked: Asked<M::Reply>,
        ctx: &mut Context<Self>,
    ) where
        A: Serve<M>,
    {
        let begun = self.world.instant();
        if asked.answer.is_closed() || asked.deadline <= begun {
            self.meters.1.expired.inc();
            return;
        }
        let (sent, what) = (asked.sent, type_name::<M>());
        let reply = self.serve(msg, span, Some(asked.deadline), ctx);
        let ended = self.world.instant();
        let (meter, kind) = &self.meters;
        meter.handled(kind);
        meter.timed(kind, Sent::at(sent), begun, ended);
        match reply {
            Reply::Now(value) => {
                meter.answered(kind, what, sent, ended);
                asked.answer(value);
            }
            Reply::Later(Later(work)) => {
                meter.owes(M::CLASS, begun);
                self.in_hand += 1;
                self.owed[M::CLASS as usize] += 1;
                ctx.spawn(work.map(move |value, shell: &mut Self, _| {
                    shell.settle(M::CLASS, what, sent);
                    asked.answer(value);
                }));
            }
        }
    }

    /// Runs the actor's own code for a message, within its sender's span.
    fn serve<M: Ask>(
        &mut self,
        msg: M,
        span: &Span,
        deadline: Option<Deadline>,
        ctx: &mut Context<Self>,
    ) -> Reply<A, M::Reply>
    where
        A: Serve<M>,
    {
        let what = type_name::<M>();
        span.in_scope(|| self.with_message(ctx, deadline, what, |unit, cx| unit.serve(msg, cx)))
    }
}
