//! Other services that call this one: their keys, what they may append to users' logs and how much of
//! it, and events for many users at once.
//!
//! Owns the rules. Knows no database and no request.

mod broadcast;
mod event;
mod key;
mod outcome;
mod quota;
mod segment;

pub use broadcast::{Broadcast, BroadcastCursor, BroadcastState, Pace};
pub use event::{EventData, EventType};
pub use key::{ApiKey, KeyName, KeyRefusal, KeyRing, KeyText, Scope, StoredKey};
pub use outcome::{Appended, BroadcastStarted, OfflineDevice, OfflinePage, OfflineState};
pub use quota::{Count, Counts, Over, Quota, Quotas, decide, hour_of};
pub use segment::Segment;
