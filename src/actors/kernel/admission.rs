//! How much work an actor lets in: counted from the ask until the reply, not by mailbox length.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

/// What kind of work a message is; each kind has its own bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Changes something; waits its turn.
    Command,
    /// Reads; may overlap others.
    Read,
    /// Keeps the actor itself right (attach, detach, acks, hints): never shed.
    Control,
}

impl Class {
    /// How many there are.
    pub(super) const COUNT: usize = 3;

    const fn shift(self) -> u32 {
        match self {
            Self::Command => 0,
            Self::Read => 20,
            Self::Control => 40,
        }
    }
}

/// How many messages of a class may be in progress at an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Commands waiting or running.
    pub commands: u32,
    /// Reads running.
    pub reads: u32,
}

const LANE: u64 = (1 << 20) - 1;
const CLOSED: u64 = 1 << 63;

/// Counts what is in progress at one actor.
///
/// All counts and the closed mark share one word, so that "nothing is in progress, and nothing may
/// come" is one atomic step: an actor that rests loses no message.
#[derive(Debug)]
pub(super) struct Gate {
    state: AtomicU64,
    caps: Caps,
}

/// Why a message was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As much as allowed is in progress.
    Full,
    /// The actor is going to rest; its successor will take the message.
    Closed,
}

/// The right to be in progress; given back on drop.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    class: Class,
    alone: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.state.fetch_sub(1 << self.class.shift(), SeqCst);
    }
}

impl Permit {
    /// Whether nothing of its class was in progress when it was let in.
    pub(super) const fn alone(&self) -> bool {
        self.alone
    }
}

impl Gate {
    pub(super) fn new(caps: Caps) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU64::new(0),
            caps,
        })
    }

    /// Lets one message in.
    pub(super) fn enter(self: &Arc<Self>, class: Class) -> Result<Permit, Refusal> {
        let cap = match class {
            Class::Command => u64::from(self.caps.commands).min(LANE),
            Class::Read => u64::from(self.caps.reads).min(LANE),
            Class::Control => return self.enter_control(),
        };
        let admit = |state: u64| {
            let open = state & CLOSED == 0;
            (open && (state >> class.shift()) & LANE < cap).then(|| state + (1 << class.shift()))
        };
        match self.state.fetch_update(SeqCst, SeqCst, admit) {
            Ok(state) => Ok(self.permit(class, state)),
            Err(state) if state & CLOSED != 0 => Err(Refusal::Closed),
            Err(_) => Err(Refusal::Full),
        }
    }

    /// One step instead of a loop, taken back in the rare case that it may not be. The bits above its
    /// lane are free, so what is too many does not touch another's meanwhile.
    fn enter_control(self: &Arc<Self>) -> Result<Permit, Refusal> {
        let class = Class::Control;
        let state = self.state.fetch_add(1 << class.shift(), SeqCst);
        // Both at once: the closed mark is above the lane.
        if state >> class.shift() < LANE {
            return Ok(self.permit(class, state));
        }
        self.state.fetch_sub(1 << class.shift(), SeqCst);
        Err(if state & CLOSED == 0 {
            Refusal::Full
        } else {
            Refusal::Closed
        })
    }

    /// Of one that was let in; `before` is the state that it met.
    fn permit(self: &Arc<Self>, class: Class, before: u64) -> Permit {
        Permit {
            gate: Arc::clone(self),
            class,
            alone: (before >> class.shift()) & LANE == 0,
        }
    }

    /// Closes for good if nothing is in progress; says whether it did.
    pub(super) fn close_if_idle(&self) -> bool {
        self.state
            .compare_exchange(0, CLOSED, SeqCst, SeqCst)
            .is_ok()
    }

    /// Closes for good, whatever is in progress: its actor ended.
    pub(super) fn close(&self) {
        self.state.fetch_or(CLOSED, SeqCst);
    }

    /// Whether nothing is in progress.
    pub(super) fn is_empty(&self) -> bool {
        self.state.load(SeqCst) & !CLOSED == 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.load(SeqCst) & CLOSED != 0
    }

    /// What is in progress of a class.
    pub(super) fn in_progress(&self, class: Class) -> u64 {
        (self.state.load(SeqCst) >> class.shift()) & LANE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_bounded_apart_and_control_is_never_shed() {
        let gate = Gate::new(Caps {
            commands: 2,
            reads: 1,
        });
        let commands: Vec<_> = (0..2)
            .map(|_| gate.enter(Class::Command).unwrap())
            .collect();
        assert_eq!(gate.enter(Class::Command).unwrap_err(), Refusal::Full);
        let read = gate.enter(Class::Read).unwrap();
        assert_eq!(gate.enter(Class::Read).unwrap_err(), Refusal::Full);
        let control: Vec<_> = (0..1000)
            .map(|_| gate.enter(Class::Control).unwrap())
            .collect();
        drop((commands, read));
        assert_eq!(gate.in_progress(Class::Command), 0);
        assert!(!gate.close_if_idle());
        drop(control);
        assert!(gate.close_if_idle());
        assert_eq!(gate.enter(Class::Control).unwrap_err(), Refusal::Closed);
        // What was refused is not in progress.
        assert!(gate.is_empty() && gate.is_closed());
    }

    #[test]
    fn a_million_control_messages_are_the_most() {
        let gate = Gate::new(Caps {
            commands: 1,
            reads: 1,
        });
        let command = gate.enter(Class::Command).unwrap();
        gate.state
            .fetch_add((LANE - 1) << Class::Control.shift(), SeqCst);
        let last = gate.enter(Class::Control).unwrap();
        assert!(!last.alone() && command.alone());
        for _ in 0..3 {
            assert_eq!(gate.enter(Class::Control).unwrap_err(), Refusal::Full);
        }
        assert_eq!(gate.in_progress(Class::Control), LANE);
        assert!(!gate.is_closed());
        drop(last);
        drop(gate.enter(Class::Control).unwrap());
        assert_eq!(gate.in_progress(Class::Command), 1);
    }

    #[test]
    fn of_many_threads_only_as_many_as_the_cap_are_inside() {
        let gate = Gate::new(Caps {
            commands: 8,
            reads: 0,
        });
        let peak = AtomicU64::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..10_000 {
                        if let Ok(_permit) = gate.enter(Class::Command) {
                            peak.fetch_max(gate.in_progress(Class::Command), SeqCst);
                        }
                    }
                });
            }
        });
        assert!(peak.load(SeqCst) <= 8);
        assert_eq!(gate.in_progress(Class::Command), 0);
    }
}
