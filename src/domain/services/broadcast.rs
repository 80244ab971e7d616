//! An event for many users: how far it has come, and how fast it goes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::domain::{
    cursor,
    ids::{BroadcastId, UserId},
    text::named_enum,
};

named_enum! {
    /// How far a broadcast is.
    BroadcastState {
        /// No node has begun.
        Waiting = "waiting",
        /// A node is at work, or was and will be followed by another.
        Running = "running",
        /// Everybody was dealt with.
        Finished = "finished",
        /// It was ended before.
        Cancelled = "cancelled",
    }
}

/// A broadcast and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Broadcast {
    /// The server's id.
    pub id: BroadcastId,
    /// The event's type.
    pub event_type: String,
    /// How far it is.
    pub state: BroadcastState,
    /// Users who have the event.
    pub reached: i64,
    /// Users who were over their quota, and do not get it.
    pub skipped: i64,
    /// Ids of the segment that name nobody.
    pub missing: i64,
    /// Everybody up to this id was dealt with; null before the first.
    pub position: Option<UserId>,
    /// When it was asked for: who came later is not meant.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub created_at: DateTime<Utc>,
    /// When the first node began.
    #[serde(serialize_with = "maybe")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it was finished or cancelled.
    #[serde(serialize_with = "maybe")]
    pub finished_at: Option<DateTime<Utc>>,
}

#[expect(clippy::ref_option, reason = "what serde hands over")]
fn maybe<S: serde::Serializer>(at: &Option<DateTime<Utc>>, s: S) -> Result<S::Ok, S::Error> {
    at.map(crate::domain::time::rfc3339).serialize(s)
}

/// Where a page of the list of broadcasts ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BroadcastCursor {
    /// The last one's time.
    pub created_at: DateTime<Utc>,
    /// The last one's id.
    pub id: BroadcastId,
}

impl BroadcastCursor {
    /// 32 characters of base64url.
    #[must_use]
    pub fn encode(self) -> String {
        cursor::encode(self.created_at, self.id.0)
    }

    /// Reads what [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        cursor::decode(text).map(|(created_at, id)| Self {
            created_at,
            id: BroadcastId(id),
        })
    }
}

/// How many users a step takes, and how long the pause after it is: SQLite's one writer is never kept
/// from others for long, and a store that is slow is given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    batch: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { batch: 64 }
    }
}

impl Pace {
    const LEAST: u32 = 16;
    const MOST: u32 = 256;
    /// A step should not take much longer.
    const AIM: Duration = Duration::from_millis(25);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    /// Users of the next step.
    #[must_use]
    pub const fn batch(&self) -> u32 {
        self.batch
    }

    /// A step took so long, waiting among it; says how long to pause, so that it has the store at
    /// most half of the time.
    pub fn took(&mut self, took: Duration) -> Duration {
        if took > Self::AIM * 2 {
            self.batch = (self.batch / 2).max(Self::LEAST);
        } else if took <= Self::AIM {
            self.batch = (self.batch * 2).min(Self::MOST);
        }
        took.min(Self::LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn the_pace_stays_within_its_bounds_and_follows_the_store(
            steps in prop::collection::vec(0..5000_u64, 0..50)
        ) {
            let mut pace = Pace::default();
            for millis in steps {
                let before = pace.batch();
                let pause = pace.took(Duration::from_millis(millis));
                prop_assert!((Pace::LEAST..=Pace::MOST).contains(&pace.batch()));
                prop_assert!(pace.batch().is_power_of_two());
                prop_assert!(pause <= Pace::LONGEST_PAUSE);
                prop_assert!(pause >= Duration::from_millis(millis).min(Pace::LONGEST_PAUSE));
                prop_assert!(millis <= 50 || pace.batch() <= before);
                prop_assert!(millis > 25 || pace.batch() >= before);
            }
        }

        #[test]
        fn cursors_come_back(micros in 0..4_000_000_000_000_000_i64, id: u128) {
            let created_at = DateTime::from_timestamp_micros(micros).unwrap();
            let cursor = BroadcastCursor { created_at, id: BroadcastId(Uuid::from_u128(id)) };
            prop_assert_eq!(BroadcastCursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn any_text_is_read_without_harm(text in "\\PC{0,40}") {
            let _ = BroadcastCursor::decode(&text);
        }
    }
}
