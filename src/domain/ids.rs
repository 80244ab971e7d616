//! The registry of id types: one newtype each, so that a user's id is never taken for a device's.
//!
//! All but a client's are UUID v7 inside, shown hyphenated and lower case, and stored natively by both engines.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            Serialize, Deserialize, sqlx::Type, utoipa::ToSchema,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    )+};
}

ids! {
    /// A key with which another service calls.
    ApiKeyId,
    /// An event for many users.
    BroadcastId,
    /// One WebSocket connection; new at every connect.
    ConnId,
    /// A registered device of a user; new at every registration, never used again.
    DeviceId,
    /// The life of a user's log between restores: positions of another epoch mean nothing.
    Epoch,
    /// A sync event.
    EventId,
    /// A place in a playlist; a song may have several.
    EntryId,
    /// A favorite.
    FavoriteId,
    /// A play of a song, made by the client.
    PlayId,
    /// A playlist.
    PlaylistId,
    /// A process that serves; new at every start.
    NodeId,
    /// A line of refresh tokens that descend from one login.
    TokenFamily,
    /// A user.
    UserId,
}

impl EntryId {
    /// The id of the entry that is `n` after the one of this id: those that one command makes.
    #[must_use]
    pub const fn after(self, n: u32) -> Self {
        Self(Uuid::from_u128(self.0.as_u128().wrapping_add(n as u128)))
    }
}

impl EventId {
    /// The id of the event that is `n` after the one of this id. A command that may run again draws
    /// one id beforehand, and does not know yet how many events it makes.
    #[must_use]
    pub const fn after(self, n: u32) -> Self {
        Self(Uuid::from_u128(self.0.as_u128().wrapping_add(n as u128)))
    }
}
