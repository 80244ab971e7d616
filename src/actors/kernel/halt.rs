//! Ends an actor's life on an operator's word, without loss.
//!
//! Owns how a life is brought to its end from outside: what comes from then on waits for the next
//! life, what is in hand is finished, and the actor does what it must do before it goes
//! ([`Unit::leaving`]). A life that holds on for too long is ended all the same, and who waits for its
//! answers is told so.

use std::time::{Duration, Instant};

use actix::{ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message};
use tokio::time::timeout_at;

use super::{
    envelope::{Later, Reply, Shell, Unit},
    handle::{Handle, Life},
};

/// How a life is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// The actor ends. One that is made on demand is made anew when somebody asks for it.
    Stop,
    /// The next life begins at once. It also ends a quarantine.
    Restart,
}

/// What became of a [`Halt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halted {
    /// The life that it met.
    pub was: Life,
    /// The life that it left.
    pub is: Life,
    /// Whether that is what was asked for; else it is still under way.
    pub done: bool,
}

/// Longer than an ask may wait for its answer: what is in hand ends by itself.
const LIMIT: Duration = Duration::from_secs(11);
/// Between two looks whether everything in hand is done.
const LOOK: Duration = Duration::from_millis(5);

/// Told to the shell behind everything that was handed over before.
pub(super) struct Leave(pub Halt);

impl Message for Leave {
    type Result = ();
}

impl<A: Unit> Handler<Leave> for Shell<A> {
    type Result = ();

    fn handle(&mut self, Leave(how): Leave, ctx: &mut Context<Self>) {
        if let Reply::Later(Later(work)) = self.with(ctx, |unit, cx| unit.leaving(how, cx)) {
            self.in_hand += 1;
            ctx.spawn(work.map(|(), shell: &mut Self, _| shell.in_hand -= 1));
        }
        ctx.run_later(LIMIT, |_, ctx| ctx.stop());
        self.leave_when_done(how, ctx);
    }
}

impl<A: Unit> Shell<A> {
    fn leave_when_done(&self, how: Halt, ctx: &mut Context<Self>) {
        // With a restart no ask comes: it waits for the next life. With a stop, what was let in
        // before the gate closed may still be on its way.
        let waits = how == Halt::Stop && !self.gate.is_empty();
        if self.in_hand == 0 && !waits {
            ctx.stop();
        } else {
            ctx.run_later(LOOK, move |shell, ctx| shell.leave_when_done(how, ctx));
        }
    }
}

impl<A: Unit> Handle<A> {
    /// Ends the actor's life, and waits until `deadline` for what comes of it. Asks that come
    /// meanwhile wait for the next life; those in hand are answered first.
    pub async fn halt(&self, how: Halt, deadline: Instant) -> Halted {
        let was = self.begin_halt(how);
        let mut state = self.0.state.subscribe();
        let done = state.wait_for(|state| match (how, state.life) {
            (_, Life::Stopped) => true,
            (Halt::Restart, Life::Up(_)) => state.life != was,
            _ => false,
        });
        let done = timeout_at(deadline.into(), done).await.is_ok();
        let is = self.life();
        Halted { was, is, done }
    }

    fn begin_halt(&self, how: Halt) -> Life {
        if how == Halt::Stop {
            self.0.gate.close();
        }
        let (mut was, mut to) = (Life::Stopped, None);
        self.0.state.send_if_modified(|state| {
            was = state.life;
            match (state.life, how) {
                (Life::Up(_), Halt::Restart) => {
                    // Asks wait from now on. What is told still reaches the life that leaves.
                    state.life = Life::Restarting;
                    to.clone_from(&state.addr);
                    true
                }
                (Life::Up(_), Halt::Stop) => {
                    to.clone_from(&state.addr);
                    false
                }
                (Life::Quarantined(_), _) => {
                    // The supervisor waits no longer.
                    state.life = Life::Restarting;
                    true
                }
                (Life::Restarting | Life::Stopped, _) => false,
            }
        });
        if let Some(to) = to {
            // One that has just failed is made anew without being told.
            let _ = to.try_send(Leave(how));
        }
        was
    }
}
