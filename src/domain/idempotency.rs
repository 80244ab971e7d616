//! Calls that may be repeated: what names one, and how long it is remembered.

use chrono::TimeDelta;

/// For how long an answer is kept.
pub const REMEMBERED: TimeDelta = TimeDelta::hours(24);

/// Names a call of its owner, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// SHA-256 of the key that the caller made.
    pub key_hash: String,
    /// SHA-256 of what is asked: method, path and body.
    pub asked_hash: String,
}
