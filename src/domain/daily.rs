//! Once a day, at a time of the clocks on the wall of some place.
//!
//! Each day of the calendar there has one such moment. Where the clocks are put forward over the
//! time, it is the first moment after that; where they are put back and show it twice, the first.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// A time of each day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daily {
    /// What the clocks show.
    pub at: NaiveTime,
    /// Whose clocks.
    pub zone: Tz,
}

/// Clocks were never put forward by more: an island that changed sides of the date line left out a day.
const LONGEST_GAP: TimeDelta = TimeDelta::hours(25);
/// Clocks are put forward by a multiple of this, since there are time zones.
const GAP_STEP: TimeDelta = TimeDelta::minutes(15);

impl Daily {
    /// The last such moment up to `now`.
    #[must_use]
    pub fn last(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.around(now).filter(|at| *at <= now).max()
    }

    /// The first such moment after `now`.
    #[must_use]
    pub fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.around(now).filter(|at| *at > now).min()
    }

    /// The moments of the days before, of and after `now`.
    fn around(&self, now: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        let today = now.with_timezone(&self.zone).date_naive();
        let first = today.checked_sub_days(Days::new(2)).unwrap_or(today);
        first.iter_days().take(5).filter_map(|date| self.on(date))
    }

    /// The moment of a day; none at the ends of the calendar.
    fn on(&self, date: NaiveDate) -> Option<DateTime<Utc>> {
        let mut shown = date.and_time(self.at);
        let last = shown.checked_add_signed(LONGEST_GAP)?;
        while shown <= last {
            if let Some(at) = self.zone.from_local_datetime(&shown).earliest() {
                return Some(at.to_utc());
            }
            shown = shown.checked_add_signed(GAP_STEP)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn daily(at: &str, zone: &str) -> Daily {
        Daily {
            at: at.parse().unwrap(),
            zone: zone.parse().unwrap(),
        }
    }

    /// The next moments from `now` on.
    fn next(it: Daily, now: &str, n: usize) -> Vec<String> {
        let next = |at: &DateTime<Utc>| it.next(*at);
        let all = std::iter::successors(it.next(now.parse().unwrap()), next);
        all.take(n).map(|at| at.to_rfc3339()).collect()
    }

    #[test]
    fn at_two_in_shanghai() {
        let it = daily("02:00:00", "Asia/Shanghai");
        assert_eq!(
            next(it, "2026-11-20T17:59:59Z", 2),
            ["2026-11-20T18:00:00+00:00", "2026-11-21T18:00:00+00:00"]
        );
        let at: DateTime<Utc> = "2026-11-20T18:00:00Z".parse().unwrap();
        assert_eq!(it.last(at), Some(at), "the moment itself has come");
        assert_eq!(it.next(at).unwrap() - at, TimeDelta::days(1));
    }

    #[test]
    fn where_two_does_not_exist() {
        // In Berlin the clocks go from 02:00 to 03:00 on the 29th.
        let it = daily("02:00:00", "Europe/Berlin");
        assert_eq!(
            next(it, "2026-03-28T00:00:00Z", 3),
            [
                "2026-03-28T01:00:00+00:00",
                "2026-03-29T01:00:00+00:00",
                "2026-03-30T00:00:00+00:00"
            ]
        );
        // And half past two is three, as it is then.
        let it = daily("02:30:00", "Europe/Berlin");
        assert_eq!(
            next(it, "2026-03-28T12:00:00Z", 1),
            ["2026-03-29T01:00:00+00:00"]
        );
    }

    #[test]
    fn where_two_comes_twice() {
        let it = daily("02:00:00", "Europe/Berlin");
        assert_eq!(
            next(it, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:00:00+00:00", "2026-10-26T01:00:00+00:00"]
        );
        let between = "2026-10-25T00:30:00Z".parse().unwrap();
        let second: DateTime<Utc> = "2026-10-25T01:00:00Z".parse().unwrap();
        assert_ne!(it.next(between), Some(second), "not again");
        assert_eq!(it.last(second), it.last(between));
    }

    #[test]
    fn where_a_day_was_left_out() {
        // Samoa had no 30 December 2011: its moment is the first of the 31st.
        let it = daily("02:00:00", "Pacific/Apia");
        assert_eq!(
            next(it, "2011-12-29T11:00:00Z", 3),
            [
                "2011-12-29T12:00:00+00:00",
                "2011-12-30T10:00:00+00:00",
                "2011-12-30T12:00:00+00:00"
            ]
        );
    }

    proptest! {
        #[test]
        fn every_day_has_its_moment(
            secs in 1_500_000_000_i64..4_000_000_000, minute in 0_u32..1440,
            zone in prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec()),
        ) {
            let at = NaiveTime::from_num_seconds_from_midnight_opt(minute * 60, 0).unwrap();
            let it = Daily { at, zone };
            let now = DateTime::from_timestamp(secs, 0).unwrap();
            let (last, next) = (it.last(now).unwrap(), it.next(now).unwrap());
            prop_assert!(last <= now && now < next);
            prop_assert_eq!(it.last(next), Some(next));
            prop_assert_eq!(it.next(last), Some(next));
            let between = next - last;
            prop_assert!(between >= TimeDelta::hours(21) && between <= TimeDelta::hours(27), "{between}");
        }
    }
}
