//! What other services need of the node: who they are, and broadcasts.
//!
//! `KeyKeeper` keeps the snapshot of keys that requests are checked against, `Broadcaster` works at
//! broadcasts and answers for them. What concerns one user goes to the user's session.

mod answers;
mod broadcaster;
mod job;
mod key_keeper;
mod leases;
mod messages;
mod metrics;

use std::sync::Arc;

pub use broadcaster::{Broadcaster, BroadcasterParts};
pub use key_keeper::{KeyKeeper, RefreshKeys};
pub use messages::{CancelBroadcast, ListBroadcasts, ShowBroadcast, StartBroadcast};
pub use metrics::ServiceMetrics;

use super::kernel::Handle;
use crate::domain::services::{ApiKey, KeyRing, Quotas};

/// What handlers need to serve other services.
#[derive(Debug, Clone)]
pub struct Services {
    /// The keys in force: a snapshot that requests are checked against.
    pub keys: Arc<KeyRing>,
    /// Reads them anew when it is asked.
    pub keeper: Handle<KeyKeeper>,
    /// Works at broadcasts.
    pub broadcaster: Handle<Broadcaster>,
    /// What is counted.
    pub metrics: ServiceMetrics,
    /// What a key may append that has no quota of its own, and all keys together.
    pub quotas: Quotas,
}

impl Services {
    /// What a key may append.
    #[must_use]
    pub fn quotas_of(&self, key: &ApiKey) -> Quotas {
        own_quota(self.quotas, key.events_per_hour)
    }
}

/// The quotas in force for a key with this quota of its own, if it has one.
fn own_quota(all: Quotas, own: Option<i64>) -> Quotas {
    Quotas {
        of_key: own.unwrap_or(all.of_key),
        ..all
    }
}
