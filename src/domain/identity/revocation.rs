//! What is no longer trusted before its time is over.
//!
//! Owns the published snapshot that token checks read. The revocation keeper and the sessions of
//! this node add to it; nothing takes away but the end of the tokens' own life.

use chrono::{DateTime, Utc};
use dashmap::DashMap;
use uuid::Uuid;

use super::token::Caller;

/// Tokens of `subject` below `min_version` are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// The id of a user or a device.
    pub subject: Uuid,
    /// The oldest version that still holds; `i64::MAX` when none does.
    pub min_version: i64,
    /// When the last token that this refuses is over anyway.
    pub expires_at: DateTime<Utc>,
}

impl Revocation {
    /// Refuses every token of the subject, also later ones.
    pub const ALL: i64 = i64::MAX;
}

/// Every revocation in force, read at each token check.
#[derive(Debug, Default)]
pub struct RevocationSet {
    entries: DashMap<Uuid, (i64, DateTime<Utc>)>,
}

impl RevocationSet {
    /// Puts a revocation in force; says whether it was news.
    #[must_use]
    pub fn add(&self, revocation: &Revocation) -> bool {
        let mut entry = self
            .entries
            .entry(revocation.subject)
            .or_insert((i64::MIN, revocation.expires_at));
        let news = entry.0 < revocation.min_version;
        entry.0 = entry.0.max(revocation.min_version);
        entry.1 = entry.1.max(revocation.expires_at);
        news
    }

    /// Whether the caller's token was revoked.
    #[must_use]
    pub fn refuses(&self, caller: &Caller) -> bool {
        let below =
            |subject: Uuid, version: i64| self.entries.get(&subject).is_some_and(|e| version < e.0);
        below(caller.user.0, caller.user_version) || below(caller.device.0, caller.device_version)
    }

    /// Forgets what is over at `now`.
    pub fn sweep(&self, now: DateTime<Utc>) {
        self.entries.retain(|_, (_, expires_at)| *expires_at > now);
    }

    /// How many are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is in force.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
