//! Actors that throw away what nobody needs any more.

mod measured;
mod sync_log;

pub use sync_log::{JanitorMetrics, JanitorParts, SyncLogJanitor, Trim};
