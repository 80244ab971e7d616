//! What the broadcaster is asked.

use crate::{
    actors::{Failure, kernel::asks},
    domain::{
        idempotency::IdempotencyKey,
        ids::{ApiKeyId, BroadcastId},
        services::{Broadcast, BroadcastCursor, BroadcastStarted, EventData, EventType, Segment},
    },
};

asks! {
    Command StartBroadcast -> Result<BroadcastStarted, Failure>;
    Command CancelBroadcast -> Result<Option<Broadcast>, Failure>;
    Read ShowBroadcast -> Result<Option<Broadcast>, Failure>;
    Read ListBroadcasts -> Result<Vec<Broadcast>, Failure>;
}

/// Append an event to many users' logs, from now on and as fast as others allow.
#[derive(Debug)]
pub struct StartBroadcast {
    /// The key that asks.
    pub key: ApiKeyId,
    /// The event's type.
    pub event_type: EventType,
    /// What it says.
    pub data: EventData,
    /// For whom.
    pub segment: Segment,
    /// Names the call, if it may be repeated.
    pub once: Option<IdempotencyKey>,
}

/// End a broadcast of a key. None: the key began no such.
#[derive(Debug)]
pub struct CancelBroadcast(pub ApiKeyId, pub BroadcastId);

/// A broadcast of a key. None: the key began no such.
#[derive(Debug)]
pub struct ShowBroadcast(pub ApiKeyId, pub BroadcastId);

/// Broadcasts of a key, the newest first.
#[derive(Debug)]
pub struct ListBroadcasts {
    /// The key.
    pub key: ApiKeyId,
    /// At most so many.
    pub limit: u32,
    /// Only those before this one.
    pub before: Option<BroadcastCursor>,
}
