//! `[services]`: how much other services may put into users' logs.

use crate::settings::reader::Reader;

/// What other services may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// Events that a key may append to a user's log in an hour, where it has no quota of its own.
    pub events_per_hour: u32,
    /// Events that all keys together may append to a user's log in an hour.
    pub user_events_per_hour: u32,
    /// Percent of the events that a user's log keeps at most that may be other services'.
    pub log_share_percent: u32,
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
            log_share_percent: from.number("services.log_share_percent", 50, &(1..=99)),
        }
    }
}
