//! Types and rules that need neither disk nor network nor the actor framework.
//!
//! Owns: ids, clock and randomness as values, the closed error table, and the rules of each
//! domain as plain types. Every other layer calls in here; this one imports none of them.

pub mod clock;
pub mod cursor;
pub mod daily;
pub mod error;
pub mod few;
pub mod forwarded;
pub mod idempotency;
pub mod identity;
pub mod ids;
pub mod library;
pub mod limit;
pub mod mask;
pub mod nodes;
pub mod object;
pub mod services;
pub mod sync;
pub mod text;
pub mod time;
