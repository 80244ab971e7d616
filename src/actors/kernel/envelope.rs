//! What really travels, and the shell that turns it into a call of the actor's own code.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, Recipient, fut::ActorFutureExt,
};
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use super::{
    Ask, Class, Deadline,
    admission::{Gate, Permit},
    meter::Meters,
};
use crate::domain::clock::World;

/// An actor's own code: state, and what it shows of it. Handlers are [`Serve`].
pub trait Unit: Sized + Unpin + 'static {
    /// The kind's name, in metrics, views and logs.
    const KIND: &'static str;

    /// What the actor shows of its state: no secrets, no numbers of persons.
    type View: Serialize;

    /// Runs before the first message of each life.
    fn started(&mut self, _cx: &mut Cx<'_, Self>) {}

    /// Its state, for people.
    fn view(&self) -> Self::View;
}

/// How a unit answers one kind of message.
pub trait Serve<M: Ask>: Unit {
    /// Handles `msg`. It must not block: what takes time goes into [`Reply::later`].
    fn serve(&mut self, msg: M, cx: &mut Cx<'_, Self>) -> Reply<Self, M::Reply>;
}

type ActFuture<A, T> = Pin<Box<dyn actix::fut::ActorFuture<Shell<A>, Output = T>>>;

/// When the answer comes, and whether the actor hears others meanwhile.
pub enum Reply<A: Unit, T> {
    /// At once.
    Now(T),
    /// Later; other messages are handled meanwhile, so nothing that was checked before still holds
    /// after. Ends with the actor.
    Later(Later<A, T>),
}

/// See [`Reply::later`].
pub struct Later<A: Unit, T>(ActFuture<A, T>);

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
    gate: std::sync::Arc<Gate>,
    meters: Meters,
    world: World,
    life: u32,
    /// Messages taken in this turn.
    taken: u32,
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
        }
    }

    /// Ends the actor's turn when it took enough messages.
    fn take_turns(&mut self, ctx: &mut Context<Self>) {
        self.taken += 1;
        if self.taken == TURN {
            self.taken = 0;
            ctx.wait(actix::fut::wrap_future(tokio::task::yield_now()));
        }
    }

    fn with<T>(
        &mut self,
        ctx: &mut Context<Self>,
        run: impl FnOnce(&mut A, &mut Cx<'_, A>) -> T,
    ) -> T {
        self.with_deadline(ctx, None, run)
    }

    fn with_deadline<T>(
        &mut self,
        ctx: &mut Context<Self>,
        deadline: Option<Deadline>,
        run: impl FnOnce(&mut A, &mut Cx<'_, A>) -> T,
    ) -> T {
        let mut cx = Cx {
            ctx,
            gate: &self.gate,
            world: &self.world,
            deadline,
            life: self.life,
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
    pub sent: std::time::Instant,
    pub way: Way<M::Reply>,
}

/// What is owed for a message. While a permit is held the actor does not rest.
pub(super) enum Way<T> {
    /// Nothing; the permit is held until its turn comes.
    Told(Permit),
    /// An answer; the permit is held until then.
    Asked(Asked<T>),
}

/// The way back of an ask. Whether used or dropped, the permit is given back first: who hears of
/// the end finds room for the next ask.
pub(super) struct Asked<T> {
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
        let Envelope {
            msg,
            span,
            sent,
            way,
        } = envelope;
        self.take_turns(ctx);
        let begun = self.world.instant();
        let asked = match way {
            Way::Told(permit) => {
                drop(permit);
                None
            }
            Way::Asked(asked) => Some(asked),
        };
        if asked
            .as_ref()
            .is_some_and(|a| a.answer.is_closed() || a.deadline <= begun)
        {
            self.meters.1.expired.inc();
            return;
        }
        let deadline = asked.as_ref().map(|a| a.deadline);
        let reply =
            span.in_scope(|| self.with_deadline(ctx, deadline, |unit, cx| unit.serve(msg, cx)));
        let took = self.world.instant().saturating_duration_since(begun);
        self.meters
            .0
            .handled(&self.meters.1, begun.saturating_duration_since(sent), took);
        match (reply, asked) {
            (Reply::Now(value), Some(asked)) => asked.answer(value),
            (Reply::Now(_), None) => {}
            (Reply::Later(Later(work)), Some(asked)) => {
                ctx.spawn(work.map(|value, _, _| asked.answer(value)));
            }
            (Reply::Later(Later(work)), None) => {
                ctx.spawn(work.map(|_, _, _| ()));
            }
        }
    }
}

/// Asks any actor for a view of its state.
#[derive(Debug)]
pub struct Observe;

impl Ask for Observe {
    type Reply = Option<serde_json::Value>;
    const CLASS: Class = Class::Control;
}

impl<A: Unit> Serve<Observe> for A {
    fn serve(
        &mut self,
        _: Observe,
        _: &mut Cx<'_, Self>,
    ) -> Reply<Self, Option<serde_json::Value>> {
        Reply::Now(serde_json::to_value(self.view()).ok())
    }
}

/// Something pushed to an actor outside the kernel, such as a connection.
#[derive(Debug)]
pub struct Push<T>(pub T);

impl<T: Send + 'static> Message for Push<T> {
    type Result = ();
}

/// What can be pushed: says how many frames for its receiver's peer are in it.
pub trait Frames: Send + 'static {
    /// Frames that count as unread until the peer's system has them.
    fn frames(&self) -> usize;
}

/// A way to push to an actor outside the kernel. Bounded by what its user allows itself to send.
#[derive(Clone)]
pub struct Outlet<T: Frames> {
    to: Recipient<Push<T>>,
    unread: Arc<AtomicUsize>,
}

impl<T: Frames> Outlet<T> {
    /// To an actor that takes from `unread` the frames that it has handed on.
    #[must_use]
    pub fn new(to: Recipient<Push<T>>, unread: Arc<AtomicUsize>) -> Self {
        Self { to, unread }
    }

    /// Pushes `value`; lost when the actor is gone, which it tells by itself.
    pub fn push(&self, value: T) {
        self.unread.fetch_add(value.frames(), Relaxed);
        self.to.do_send(Push(value));
    }

    /// Frames that were pushed and are not yet in the system's buffer for the peer.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.unread.load(Relaxed)
    }
}

impl<T: Frames> std::fmt::Debug for Outlet<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlet")
    }
}
