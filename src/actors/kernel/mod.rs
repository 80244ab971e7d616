//! What every actor gets without asking, and the only code that deals with the framework's edges.
//!
//! Owns delivery ([`Handle`]: typed asks with deadlines, messages given back when a mailbox is
//! closed), admission ([`Class`], a permit that travels with the message), supervision (a panic
//! ends one actor, which is made anew from what is stored), the [`Registry`] of actors that are
//! started on demand and put to rest, meters, views of an actor's state, the [`Directory`] in which
//! every actor is found, and the end of a life on an operator's word ([`Halt`]).
//!
//! Actors implement [`Unit`] and [`Serve`] and never name the framework. What is relied on here is
//! pinned in `tests/actix_facts.rs`: mailboxes are made unbounded because the framework's bound
//! does not hold, and admission is counted outside them; replies travel by a channel of our own, so
//! that a message for a closed mailbox comes back instead of being lost; an actor's future is
//! driven under `catch_unwind` because the framework's supervisor does not survive a panic.

mod admission;
mod directory;
mod envelope;
mod halt;
mod handle;
mod kinds;
mod meter;
mod outlet;
mod registry;
mod restart;
mod supervise;
mod timing;
mod view;

pub use admission::{Caps, Class};
pub use directory::{Directory, Kind, Observed, Powers, Seen, Singles};
pub use envelope::{Cx, Reply, Serve, Timer, Unit};
pub use halt::{Halt, Halted};
pub use handle::{CallError, Handle, Life};
pub use kinds::{KernelMetrics, Totals, short_name};
pub use meter::{Bookkeeping, Failure, Reading, Slowest};
pub use outlet::{Frames, Outlet, Push};
pub use registry::Registry;
pub use restart::{RestartBudget, RestartPolicy, Verdict};
#[doc(hidden)]
pub use serde::Serialize;
pub use supervise::{Kernel, Place};
pub use timing::Timed;
#[doc(hidden)]
pub use view::sealed;
pub use view::{Masked, Observe, Public, Secret, Shown, View, millis_since, view};

use std::time::Instant;

/// A message with a typed answer.
pub trait Ask: Send + 'static {
    /// What comes back.
    type Reply: Send + 'static;
    /// What is bounded together.
    const CLASS: Class;
}

/// Says of messages what comes back, and what they are bounded with: `Read ListThings -> Vec<Thing>;`.
macro_rules! asks {
    ($($class:ident $name:ident -> $reply:ty;)+) => {$(
        impl $crate::actors::kernel::Ask for $name {
            type Reply = $reply;
            const CLASS: $crate::actors::kernel::Class = $crate::actors::kernel::Class::$class;
        }
    )+};
}
pub(in crate::actors) use asks;

/// When an answer is no longer of use.
pub type Deadline = Instant;
