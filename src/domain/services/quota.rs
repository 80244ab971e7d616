//! How many events services may append to a user's log in an hour: each, and all together; and how many
//! of the events that a log holds may be theirs, so that they never push the user's own out of it.
//!
//! Hours are those of the clock, in UTC. What each key appended in its last hour is a [`Count`]; a
//! count of an hour that is over is none. Clocks of nodes differ a little: around the turn of an hour
//! the later hour that one of them wrote counts for all, so that no count begins twice.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

const HOUR: i64 = 3600;
/// Seconds after which a log that is full of services' events may have been trimmed.
const TRIMMED: u64 = 600;

/// Events of a user and hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Of one key.
    pub of_key: i64,
    /// Of all keys together.
    pub of_user: i64,
    /// Of all keys together, of what the log holds.
    pub of_log: i64,
}

/// What a key appended to a user's log in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Hours since 1970.
    pub hour: i64,
    /// How many.
    pub events: i64,
}

/// One more would be too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// What is used up.
    pub what: Quota,
    /// Seconds until there may be room: until the hour is over, or the log was trimmed.
    pub retry_after: u64,
}

/// A quota that can be used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quota {
    /// The key's, of the hour.
    Key,
    /// The user's, of the hour.
    User,
    /// The services' share of the log.
    Log,
}

/// What is counted of a user, as it concerns one key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    /// The key's own.
    pub own: Option<Count>,
    /// Those of all other keys.
    pub others: Vec<Count>,
    /// Events of services that the log holds.
    pub held: i64,
}

/// The hour of a moment.
#[must_use]
pub const fn hour_of(now: DateTime<Utc>) -> i64 {
    now.timestamp().div_euclid(HOUR)
}

/// Decides on one more event: the key's count after it.
///
/// # Errors
/// [`Over`].
pub fn decide(now: DateTime<Utc>, counts: &Counts, quotas: Quotas) -> Result<Count, Over> {
    let ours = hour_of(now);
    let all = || counts.own.iter().chain(&counts.others);
    // One that is further ahead was written by a clock that was wrong.
    let next = all().any(|count| count.hour == ours + 1);
    let hour = if next { ours + 1 } else { ours };
    let events = |count: &Count| if count.hour == hour { count.events } else { 0 };
    let mine = counts.own.as_ref().map_or(0, events);
    let what = if mine >= quotas.of_key {
        Quota::Key
    } else if all().map(events).fold(0, i64::saturating_add) >= quotas.of_user {
        Quota::User
    } else if counts.held >= quotas.of_log {
        return Err(Over {
            what: Quota::Log,
            retry_after: TRIMMED,
        });
    } else {
        return Ok(Count {
            hour,
            events: mine + 1,
        });
    };
    let left = (hour + 1) * HOUR - now.timestamp();
    Err(Over {
        what,
        retry_after: u64::try_from(left).unwrap_or(1).max(1),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use chrono::{TimeDelta, TimeZone};
    use proptest::prelude::*;

    use super::*;

    fn at(secs: i64) -> DateTime<Utc> {
        Utc.timestamp_opt(secs, 0).unwrap()
    }

    const QUOTAS: Quotas = Quotas {
        of_key: 3,
        of_user: 5,
        of_log: 1_000_000,
    };

    /// Decides with what is counted of the hour.
    fn decide(
        now: DateTime<Utc>,
        own: Option<Count>,
        others: &[Count],
        quotas: Quotas,
    ) -> Result<Count, Over> {
        let counts = Counts {
            own,
            others: others.to_vec(),
            held: 0,
        };
        super::decide(now, &counts, quotas)
    }

    #[test]
    fn services_have_a_share_of_the_log() {
        let quotas = Quotas {
            of_log: 10,
            ..QUOTAS
        };
        let of = |held| Counts {
            held,
            ..Counts::default()
        };
        assert!(super::decide(at(0), &of(9), quotas).is_ok());
        let over = super::decide(at(0), &of(10), quotas).unwrap_err();
        assert_eq!((over.what, over.retry_after), (Quota::Log, TRIMMED));
    }

    #[test]
    fn the_hour_ends_by_the_clock() {
        let start = 500_000 * HOUR;
        let full = Count {
            hour: 500_000,
            events: 3,
        };
        let over = decide(at(start + 3599), Some(full), &[], QUOTAS).unwrap_err();
        assert_eq!((over.what, over.retry_after), (Quota::Key, 1));
        let over = decide(at(start), Some(full), &[], QUOTAS).unwrap_err();
        assert_eq!(over.retry_after, 3600);
        let next = decide(at(start + 3600), Some(full), &[], QUOTAS).unwrap();
        assert_eq!((next.hour, next.events), (500_001, 1));
    }

    #[test]
    fn keys_do_not_add_up_beyond_the_users_quota() {
        let now = at(500_000 * HOUR);
        let of = |events| Count {
            hour: 500_000,
            events,
        };
        assert!(decide(now, None, &[of(2), of(2)], QUOTAS).is_ok());
        let over = decide(now, None, &[of(3), of(2)], QUOTAS).unwrap_err();
        assert_eq!(over.what, Quota::User);
    }

    #[test]
    fn a_clock_that_was_days_ahead_locks_nobody_out() {
        let ahead = Count {
            hour: 500_048,
            events: 3,
        };
        let now = decide(at(500_000 * HOUR), Some(ahead), &[ahead], QUOTAS).unwrap();
        assert_eq!((now.hour, now.events), (500_000, 1));
    }

    proptest! {
        /// Two keys and three nodes, whose clocks differ by up to half a minute.
        #[test]
        fn no_hour_has_more_than_its_quotas(
            steps in prop::collection::vec((0..2_usize, -30..=30_i64, 0..400_i64), 1..200)
        ) {
            let mut passed = 500_000 * HOUR + 3000;
            let mut counts: [Option<Count>; 2] = [None, None];
            let mut appended: HashMap<(usize, i64), i64> = HashMap::new();
            for (key, skew, pause) in steps {
                passed += pause;
                let now = at(passed) + TimeDelta::seconds(skew);
                let others: Vec<Count> = counts[1 - key].into_iter().collect();
                match decide(now, counts[key], &others, QUOTAS) {
                    Ok(count) => {
                        counts[key] = Some(count);
                        *appended.entry((key, count.hour)).or_default() += 1;
                        let mine = appended[&(key, count.hour)];
                        let other = appended.get(&(1 - key, count.hour)).copied().unwrap_or(0);
                        prop_assert_eq!(mine, count.events);
                        prop_assert!(mine <= QUOTAS.of_key && mine + other <= QUOTAS.of_user);
                        prop_assert!((hour_of(now)..=hour_of(now) + 1).contains(&count.hour));
                    }
                    // A minute later than said, whatever the clocks say, there is room again.
                    Err(over) => {
                        let wait = i64::try_from(over.retry_after).unwrap();
                        prop_assert!((1..=2 * HOUR).contains(&wait));
                        let later = at(passed + wait + 60);
                        prop_assert!(decide(later, counts[key], &others, QUOTAS).is_ok());
                    }
                }
            }
        }
    }
}
