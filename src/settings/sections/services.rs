//! `[services]`: how much other services may put into users' logs.

use crate::settings::reader::Reader;

/// What other services may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// Events that a key may append to a user's log in an hour, where it has no quota of its own.
    pub events_per_hour: u32,
    /// Events that all keys together may append to a user's log in an hour.
    pub user_events_per_hour: u32,
}

impl Services {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        Self {
            events_per_hour: from.number("services.events_per_hour", 100, &(1..=1_000_000)),
            user_events_per_hour: from.number(
                "services.user_events_per_hour",
                200,
                &(1..=1_000_000),
            ),
        }
    }
}
