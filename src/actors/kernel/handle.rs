//! How an actor is reached, whichever life it is in.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use actix::{Addr, prelude::SendError};
use tokio::{
    sync::{oneshot, watch},
    time::{error::Elapsed, timeout_at},
};

use super::{
    Ask, Class, Deadline,
    admission::{Gate, Permit, Refusal},
    envelope::{Asked, Envelope, Serve, Shell, Unit, Way, span_of_now},
    meter::{Meters, Sent},
    timing::stands_for,
    view::Observe,
};
use crate::domain::clock::World;

/// Why an ask has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// As much as allowed is in progress there.
    #[error("the actor is full")]
    Overloaded,
    /// The deadline passed. The work may still be done.
    #[error("no answer in time")]
    Timeout,
    /// The actor failed or ended while it held the message. The work may have been done.
    #[error("the actor ended while it held the message")]
    Gone,
    /// The actor failed too often and is left alone.
    #[error("the actor is quarantined")]
    Quarantined {
        /// When it will be tried again.
        retry_after: Duration,
    },
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Overloaded,
            Refusal::Closed => Self::Gone,
        }
    }
}

/// What life an actor is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It takes messages; raised by one with each restart.
    Up(u32),
    /// It failed, and is about to be made anew.
    Restarting,
    /// It failed too often, and is left alone until then.
    Quarantined(Instant),
    /// It ended.
    Stopped,
}

pub(super) struct State<A: Unit> {
    pub life: Life,
    /// While up, and while leaving for the next life.
    pub addr: Option<Addr<Shell<A>>>,
}

impl<A: Unit> State<A> {
    /// An operator asked for the next life, and the present one is not over.
    pub fn is_leaving(&self) -> bool {
        self.life == Life::Restarting && self.addr.is_some()
    }
}

pub(super) struct Inner<A: Unit> {
    pub gate: Arc<Gate>,
    pub state: watch::Sender<State<A>>,
    pub meters: Meters,
    pub world: World,
}

/// Reaches one actor through all its lives. Cheap to clone.
pub struct Handle<A: Unit>(pub(super) Arc<Inner<A>>);

impl<A: Unit> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Unit> std::fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle<{}>({:?})", A::KIND, self.life())
    }
}

impl<A: Unit> Handle<A> {
    /// Asks, and waits for the answer until `deadline`. While the actor is being made anew the
    /// message waits too; it is handed over at most once.
    ///
    /// # Errors
    /// [`CallError`]. After `Timeout` and `Gone` the work may have been done.
    pub async fn ask<M: Ask>(&self, msg: M, deadline: Deadline) -> Result<M::Reply, CallError>
    where
        A: Serve<M>,
    {
        let permit = self.enter(M::CLASS)?;
        Ok(self.deliver(permit, msg, deadline).await?)
    }

    pub(super) fn enter(&self, class: Class) -> Result<Permit, Refusal> {
        self.0.gate.enter(class).inspect_err(|refusal| {
            if *refusal == Refusal::Full {
                self.0.meters.1.shed.inc();
            }
        })
    }

    pub(super) async fn deliver<M: Ask>(
        &self,
        permit: Permit,
        msg: M,
        deadline: Deadline,
    ) -> Result<M::Reply, Missed<M>>
    where
        A: Serve<M>,
    {
        let (answer, answered) = oneshot::channel();
        let envelope = Envelope {
            msg,
            span: span_of_now(),
            way: Way::Asked(Asked {
                sent: self.0.world.instant(),
                deadline,
                permit,
                answer,
            }),
        };
        // Its own statement: the lock is not held beyond.
        let handed = hand_over(&self.0.state.borrow(), envelope, &self.0.world);
        match handed {
            Ok(()) => {}
            Err(Undelivered::Never(missed)) => return Err(missed),
            // On the heap, so that no ask has to have room for what is rare.
            Err(Undelivered::NotNow(back)) => {
                Box::pin(self.hand_over_later(back, deadline)).await?;
            }
        }
        match timeout_at(deadline.into(), answered).await {
            Ok(Ok(reply)) => Ok(reply),
            // Dropped unanswered: the actor ended, or found that the deadline had passed.
            Ok(Err(_)) if self.0.world.instant() >= deadline => Err(CallError::Timeout.into()),
            Ok(Err(_)) => Err(CallError::Gone.into()),
            Err(Elapsed { .. }) => Err(CallError::Timeout.into()),
        }
    }

    /// Hands over to the next life that is announced.
    async fn hand_over_later<M: Ask>(
        &self,
        mut envelope: Envelope<M>,
        deadline: Deadline,
    ) -> Result<(), Missed<M>>
    where
        A: Serve<M>,
    {
        let mut state = self.0.state.subscribe();
        loop {
            envelope = match hand_over(&state.borrow_and_update(), envelope, &self.0.world) {
                Ok(()) => return Ok(()),
                Err(Undelivered::Never(missed)) => return Err(missed),
                Err(Undelivered::NotNow(envelope)) => envelope,
            };
            match timeout_at(deadline.into(), state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Missed::Ended(Box::new(envelope.msg))),
                Err(_) => return Err(CallError::Timeout.into()),
            }
        }
    }

    /// Tells, without waiting. Let in as [`Class::Control`] whatever the message's class, so not
    /// shed. A life that leaves for the next still takes it; lost when it fails or ends before it gets
    /// there.
    ///
    /// # Errors
    /// [`CallError::Gone`] when there is no life that takes it, `Overloaded` when a million tells wait there.
    pub fn tell<M: Ask<Reply = ()>>(&self, msg: M) -> Result<(), CallError>
    where
        A: Serve<M>,
    {
        let permit = self.enter(Class::Control)?;
        let sent = stands_for(permit.alone()).map(|stands_for| Sent {
            at: self.0.world.instant(),
            stands_for,
        });
        let envelope = Envelope {
            msg,
            span: span_of_now(),
            way: Way::Told(permit, sent),
        };
        hand_over(&self.0.state.borrow(), envelope, &self.0.world).map_err(|_| CallError::Gone)
    }

    /// A view of its state, `None` when it does not answer in time.
    pub async fn observe(&self, deadline: Deadline) -> Option<serde_json::Value> {
        self.ask(Observe, deadline).await.ok().flatten()
    }

    /// Whether it does its work: it is up, or an operator restarts it and it ends what is in hand.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        let state = self.0.state.borrow();
        matches!(state.life, Life::Up(_)) || state.is_leaving()
    }

    /// What life it is in.
    #[must_use]
    pub fn life(&self) -> Life {
        self.0.state.borrow().life
    }

    /// How often it was made anew.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.0.meters.0.restarts.load(Relaxed)
    }

    /// Messages that it handled, over all its lives.
    #[must_use]
    pub fn handled(&self) -> u64 {
        self.0.meters.0.handled_so_far()
    }

    /// Messages in progress of a class.
    #[must_use]
    pub fn in_progress(&self, class: Class) -> u64 {
        self.0.gate.in_progress(class)
    }

    /// Waits until its life is not `known` any more; says what it is.
    pub async fn life_after(&self, known: Life) -> Life {
        let mut state = self.0.state.subscribe();
        // The sender lives as long as this handle.
        state
            .wait_for(|s| s.life != known)
            .await
            .map_or(Life::Stopped, |s| s.life)
    }
}

/// Why a message was not answered.
pub(super) enum Missed<M> {
    /// The actor ended before the message was handed over: another one may take it. On the heap, so
    /// that no ask has to have room for what is rare.
    Ended(Box<M>),
    /// All else.
    Failed(CallError),
}

impl<M> From<CallError> for Missed<M> {
    fn from(e: CallError) -> Self {
        Self::Failed(e)
    }
}

impl<M> From<Missed<M>> for CallError {
    fn from(missed: Missed<M>) -> Self {
        match missed {
            Missed::Ended(_) => Self::Gone,
            Missed::Failed(e) => e,
        }
    }
}

enum Undelivered<M: Ask> {
    NotNow(Envelope<M>),
    Never(Missed<M>),
}

fn hand_over<A: Serve<M>, M: Ask>(
    state: &State<A>,
    envelope: Envelope<M>,
    world: &World,
) -> Result<(), Undelivered<M>> {
    match (state.life, &state.addr) {
        (Life::Quarantined(until), _) => {
            let retry_after = until.saturating_duration_since(world.instant());
            let quarantined = CallError::Quarantined { retry_after };
            Err(Undelivered::Never(quarantined.into()))
        }
        (Life::Stopped, _) => Err(Undelivered::Never(Missed::Ended(Box::new(envelope.msg)))),
        // The next life answers.
        (Life::Restarting, _) if matches!(envelope.way, Way::Asked(_)) => {
            Err(Undelivered::NotNow(envelope))
        }
        (_, Some(addr)) => addr.try_send(envelope).map_err(|back| match back {
            // It just failed; its next life is about to be announced.
            SendError::Closed(envelope) | SendError::Full(envelope) => {
                Undelivered::NotNow(envelope)
            }
        }),
        (_, None) => Err(Undelivered::NotNow(envelope)),
    }
}
