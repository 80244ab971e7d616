//! `[history]`: how long histories are, and when what is left over is cleaned up.

use chrono::NaiveTime;
use chrono_tz::Tz;

use crate::{
    domain::{daily::Daily, library::MAX_PLAYS},
    settings::reader::Reader,
};

/// What is kept of what users played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Plays that a history has at most.
    pub max_plays: u32,
    /// When the daily clean-up is.
    pub cleanup: Daily,
}

impl History {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        Self {
            max_plays: from.number("history.max_plays", MAX_PLAYS, &(1..=MAX_PLAYS)),
            cleanup: Daily {
                at: from.text(
                    "history.cleanup_at",
                    NaiveTime::from_hms_opt(2, 0, 0).unwrap_or_default(),
                    "a time of day such as \"02:00\"",
                    |text| NaiveTime::parse_from_str(text, "%H:%M").ok(),
                    |at| at.format("%H:%M").to_string(),
                ),
                zone: from.text(
                    "history.time_zone",
                    Tz::UTC,
                    "a name of the time zone database such as \"UTC\" or \"Asia/Shanghai\"",
                    |text| text.parse().ok(),
                    |zone| zone.name().to_owned(),
                ),
            },
        }
    }
}
