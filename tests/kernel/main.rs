//! Proves the actor kernel on tiny actors that fail on purpose.

mod delivery;
mod failure;
mod halt;
mod probe;
mod resting;
mod seen;
