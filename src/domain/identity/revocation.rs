//! What is no longer trusted before its time is over.
//!
//! Owns the published snapshot that token checks read. The revocation keeper and the sessions of
//! this node add to it; nothing takes away but the end of the tokens' own life.

use chrono::{DateTime, TimeDelta, Utc};
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

    /// How long a revocation is kept: as long as a token that it refuses could hold, and some more
    /// for clocks that differ.
    #[must_use]
    pub fn life(access_life: TimeDelta) -> TimeDelta {
        access_life + TimeDelta::minutes(1)
    }
}

/// How a token was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its device is no longer one of the user's.
    DeviceRemoved,
    /// A newer login or a sign-out took its place.
    TokenOver,
}

/// Every revocation in force, read at each token check.
#[derive(Debug, Default)]
pub struct RevocationSet {
    entries: DashMap<Uuid, (i64, DateTime<Utc>)>,
}

impl RevocationSet {
    /// Puts a revocation in force; says whether it was news.
    #[expect(clippy::must_use_candidate, reason = "mostly called for its effect")]
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

    /// How the caller's token was revoked, if it was.
    #[must_use]
    pub fn refusal(&self, caller: &Caller) -> Option<Refusal> {
        let min_version = |subject: Uuid| self.entries.get(&subject).map_or(i64::MIN, |e| e.0);
        let device = min_version(caller.device.0);
        if device == Revocation::ALL {
            Some(Refusal::DeviceRemoved)
        } else if caller.device_version < device || caller.user_version < min_version(caller.user.0)
        {
            Some(Refusal::TokenOver)
        } else {
            None
        }
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
