//! What other services need stored: their keys, what they append to logs, and broadcasts.
//!
//! `keys.rs` has the keys, `append.rs` an event for one user, `quota.rs` what is counted of both ways,
//! `broadcast.rs` broadcasts as they are asked for and shown, `step.rs` how one goes on, `offline.rs`
//! what devices have not acknowledged.

mod append;
mod broadcast;
mod keys;
mod offline;
mod quota;
mod step;

pub use append::ServiceAppend;
pub use broadcast::{FreeBroadcast, NewBroadcast, TakenBroadcast};
pub use step::{BroadcastPage, BroadcastStep, Stepped};
