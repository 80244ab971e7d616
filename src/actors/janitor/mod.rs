//! Actors that throw away what nobody needs any more.

mod history;
mod measured;
mod sync_log;

pub use history::{HistoryJanitor, HistoryJanitorMetrics, HistoryJanitorParts};
pub use sync_log::{JanitorMetrics, JanitorParts, SyncLogJanitor, Trim};
