//! Which events of a log are kept: the rule by which a log is trimmed.
//!
//! An event is kept while some device lacks it, up to an age; the newest ones are kept whether lacked
//! or not, so that a device may lose its place without loading everything anew; and there is a number
//! of events beyond which nothing is kept. Each of these keeps an end of the log, so what is kept is
//! an end of the log too: a floor says it all.

use chrono::{DateTime, TimeDelta, Utc};

use super::event::LogHead;

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// An event is kept no longer than this for a device that lacks it.
    pub max_age: TimeDelta,
    /// An event younger than this is kept, lacked or not.
    pub min_age: TimeDelta,
    /// Never more events than these.
    pub max_events: i64,
    /// The newest ones, kept whether lacked or not.
    pub min_events: i64,
}

/// Where in a log the events begin that are young: its times grow with its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// The first event younger than [`Retention::min_age`]; one beyond the last where none is.
    pub recent_from: i64,
    /// The first event younger than [`Retention::max_age`]; one beyond the last where none is.
    pub held_from: i64,
}

impl Retention {
    /// Events after this moment are younger than [`Self::min_age`].
    #[must_use]
    pub fn recent_after(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        before(now, self.min_age)
    }

    /// Events after this moment are younger than [`Self::max_age`].
    #[must_use]
    pub fn held_after(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        before(now, self.max_age)
    }

    /// Where the log's floor may be raised to: everything up to there may go.
    ///
    /// `lowest_cursor` is the lowest one at or above the floor, none where there is none: a device
    /// behind the floor loads everything anew, and lacks nothing that the log has.
    #[must_use]
    pub fn floor(&self, log: &LogHead, lowest_cursor: Option<i64>, ages: Ages) -> i64 {
        let lowest_cursor = lowest_cursor.filter(|_| !planted!(TrimOfWhatIsLacked));
        let lacked_after = lowest_cursor.unwrap_or(log.head_seq);
        let newest_after = log.head_seq - self.min_events;
        (lacked_after.max(ages.held_from - 1))
            .min(newest_after)
            .min(ages.recent_from - 1)
            .max(log.head_seq - self.max_events)
            .clamp(log.floor_seq, log.head_seq)
    }

    /// Whether a log is so much longer than it may be that it should not wait for the next round.
    #[must_use]
    pub const fn is_overfull(&self, log: &LogHead) -> bool {
        log.head_seq - log.floor_seq > self.max_events + self.max_events / 10
    }
}

fn before(now: DateTime<Utc>, age: TimeDelta) -> DateTime<Utc> {
    now.checked_sub_signed(age)
        .unwrap_or(DateTime::<Utc>::MIN_UTC)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::Epoch;

    const NOW: i64 = 1_800_000_000;

    fn rule(max_events: i64, min_events: i64, max_age: i64, min_age: i64) -> Retention {
        Retention {
            max_age: TimeDelta::seconds(max_age),
            min_age: TimeDelta::seconds(min_age),
            max_events,
            min_events,
        }
    }

    fn log(floor_seq: i64, head_seq: i64) -> LogHead {
        LogHead {
            epoch: Epoch(Uuid::nil()),
            head_seq,
            floor_seq,
        }
    }

    /// The ages of events that lie above `floor`, by how many seconds old they are.
    fn ages(rule: &Retention, floor: i64, old: &[i64]) -> Ages {
        let now = Utc.timestamp_opt(NOW, 0).unwrap();
        let first_after = |moment: DateTime<Utc>| {
            let is_young = |age: &&i64| now - TimeDelta::seconds(**age) > moment;
            let at = old.iter().position(|age| is_young(&age));
            floor + 1 + i64::try_from(at.unwrap_or(old.len())).unwrap()
        };
        Ages {
            recent_from: first_after(rule.recent_after(now)),
            held_from: first_after(rule.held_after(now)),
        }
    }

    #[test]
    fn what_is_kept_case_by_case() {
        const DAY: i64 = 86_400;
        let rule = rule(10_000, 1_000, 30 * DAY, DAY);
        let all = |days: i64, head: i64| Ages {
            recent_from: if days >= 1 { head + 1 } else { 1 },
            held_from: if days >= 30 { head + 1 } else { 1 },
        };
        for (head, lowest, days, floor, what) in [
            (5_000, Some(5_000), 2, 4_000, "the newest are always kept"),
            (5_000, None, 2, 4_000, "no device lacks anything"),
            (5_000, Some(100), 2, 100, "what a device lacks is kept"),
            (5_000, Some(100), 31, 4_000, "but for 30 days"),
            (5_000, Some(5_000), 0, 0, "a day is kept"),
            (20_000, Some(100), 0, 10_000, "but never more than so many"),
            (500, Some(500), 99, 0, "a short log is left alone"),
        ] {
            let got = rule.floor(&log(0, head), lowest, all(days, head));
            assert_eq!(got, floor, "{what}");
        }
        // A floor is never lowered, whatever the settings became.
        assert_eq!(rule.floor(&log(90, 100), Some(95), all(0, 100)), 90);
    }

    #[test]
    fn a_log_is_overfull_a_tenth_beyond_its_measure() {
        let rule = rule(100, 10, 60, 6);
        assert!(!rule.is_overfull(&log(1_000, 1_110)));
        assert!(rule.is_overfull(&log(1_000, 1_111)));
    }

    /// Whether the event at `seq`, so many seconds old, is kept: the rule in its own words.
    fn is_kept(rule: &Retention, head: i64, lowest: Option<i64>, seq: i64, old: i64) -> bool {
        let is_lacked = lowest.is_some_and(|cursor| seq > cursor);
        let among_newest = seq > head - rule.min_events;
        let kept = among_newest
            || TimeDelta::seconds(old) < rule.min_age
            || (is_lacked && TimeDelta::seconds(old) < rule.max_age);
        kept && seq > head - rule.max_events
    }

    /// How much of the log may go, event by event from its beginning.
    fn by_event(rule: &Retention, log: &LogHead, lowest: Option<i64>, old: &[i64]) -> i64 {
        let goes = (log.floor_seq + 1..)
            .zip(old)
            .take_while(|(seq, old)| !is_kept(rule, log.head_seq, lowest, *seq, **old));
        log.floor_seq + i64::try_from(goes.count()).unwrap()
    }

    fn cases() -> impl Strategy<Value = (Retention, i64, Vec<i64>, Option<i64>)> {
        (1..40_i64, 0..40_i64, 0..60_i64, 0..60_i64).prop_flat_map(|(max, min, held, recent)| {
            let rule = rule(max, min.min(max), held.max(recent), held.min(recent));
            (
                Just(rule),
                0..50_i64,
                prop::collection::vec(0..70_i64, 0..60),
                prop::option::of(0..60_i64),
            )
        })
    }

    proptest! {
        /// The floor is as high as the rule in its own words allows, and no higher.
        #[test]
        fn exactly_what_must_be_kept_is_kept((rule, floor, mut old, above) in cases()) {
            old.sort_unstable_by(|a, b| b.cmp(a));
            let log = log(floor, floor + i64::try_from(old.len()).unwrap());
            let lowest = above.map(|n| (floor + n).min(log.head_seq));
            let raised = rule.floor(&log, lowest, ages(&rule, floor, &old));
            prop_assert_eq!(raised, by_event(&rule, &log, lowest, &old));
        }

        /// A clock that was set back makes the rule keep more, never less; and the most that may be
        /// kept holds whatever the clock does.
        #[test]
        fn clocks_that_jump_lose_nothing((rule, floor, old, above) in cases()) {
            let log = log(floor, floor + i64::try_from(old.len()).unwrap());
            let lowest = above.map(|n| (floor + n).min(log.head_seq));
            let raised = rule.floor(&log, lowest, ages(&rule, floor, &old));
            prop_assert!(raised <= by_event(&rule, &log, lowest, &old).max(log.head_seq - rule.max_events));
            prop_assert!(raised >= floor && log.head_seq - raised <= rule.max_events);
        }

        /// Decided step by step, each with a look at a few events only, it comes to the same.
        #[test]
        fn steps_come_to_the_same((rule, floor, mut old, above) in cases(), step in 1..9_i64) {
            old.sort_unstable_by(|a, b| b.cmp(a));
            let whole = log(floor, floor + i64::try_from(old.len()).unwrap());
            let lowest = above.map(|n| (floor + n).min(whole.head_seq));
            let at_once = rule.floor(&whole, lowest, ages(&rule, floor, &old));
            let mut now = whole;
            loop {
                let from = usize::try_from(now.floor_seq - floor).unwrap();
                let end = old.len().min(from + usize::try_from(step).unwrap());
                let seen = ages(&rule, now.floor_seq, &old[from..end]);
                // A device that falls behind on the way lacks nothing any more.
                let lowest = lowest.filter(|cursor| *cursor >= now.floor_seq);
                let to = rule.floor(&now, lowest, seen).min(now.floor_seq + step);
                if to == now.floor_seq {
                    break;
                }
                now.floor_seq = to;
            }
            if lowest.is_none_or(|cursor| cursor >= at_once) {
                prop_assert_eq!(now.floor_seq, at_once);
            } else {
                prop_assert!(now.floor_seq >= at_once);
            }
        }
    }
}
