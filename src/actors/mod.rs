//! The living graph: one actor a user, a device, a slice of phones.
//!
//! HTTP handlers send each actor one message; actors call the store and never see a request.
//! Rules are in `domain`; an actor here is the shell that turns messages into steps of a core and
//! its effects into sends.

pub mod kernel;
