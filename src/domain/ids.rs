//! The registry of id types: one newtype each, so that a user's id is never taken for a device's.
//!
//! All are UUID v7 inside, shown hyphenated and lower case, and stored natively by both engines.

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
    /// One WebSocket connection; new at every connect.
    ConnId,
    /// A registered device of a user; new at every registration, never used again.
    DeviceId,
    /// The life of a user's log between restores: positions of another epoch mean nothing.
    Epoch,
    /// A sync event.
    EventId,
    /// A favorite.
    FavoriteId,
    /// A line of refresh tokens that descend from one login.
    TokenFamily,
    /// A user.
    UserId,
}
