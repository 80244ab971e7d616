//! What is no longer trusted before its time is over.
//!
//! Owns the published snapshot that token checks read. The revocation keeper and the sessions of
//! this node add to it; nothing takes away but the end of the tokens' own life.

use chrono::{DateTime, TimeDelta, Utc};
use dashmap::DashMap;
use uuid::Uuid;

use super::token::Caller;
use crate::domain::clock::CLOCK_MARGIN;

/// Tokens of `subject` below `min_version` are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// The id of a user or a device.
    pub subject: Uuid,
    /// The oldest version that still holds; `i64::MAX` when none does.
    pub min_version: i64,
    /// When the last token that this refuses is over anyway.
    pub expires_at: DateTime<Utc>,
}

impl Revocation {
    /// Refuses every token of the subject, also later ones.
    pub const ALL: i64 = i64::MAX;

    /// How long a revocation is kept: as long as a token that it refuses could hold, and some more
    /// for clocks that differ.
    #[must_use]
    pub fn life(access_life: TimeDelta) -> TimeDelta {
        access_life + TimeDelta::minutes(1)
    }

    /// When a revocation at `now` is over, of a subject whose newest token was made at `made_at`. That
    /// may be later than now: clocks are set right, and the token would come back to life.
    #[must_use]
    pub fn end(now: DateTime<Utc>, made_at: DateTime<Utc>, life: TimeDelta) -> DateTime<Utc> {
        now.max(made_at) + life
    }
}

/// How a token was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its device is no longer one of the user's.
    DeviceRemoved,
    /// A newer login or a sign-out took its place.
    TokenOver,
}

/// Every revocation in force, read at each token check.
#[derive(Debug, Default)]
pub struct RevocationSet {
    entries: DashMap<Uuid, (i64, DateTime<Utc>)>,
}

impl RevocationSet {
    /// Puts a revocation in force; says whether it was news.
    #[expect(clippy::must_use_candidate, reason = "mostly called for its effect")]
    pub fn add(&self, revocation: &Revocation) -> bool {
        let mut entry = self
            .entries
            .entry(revocation.subject)
            .or_insert((i64::MIN, revocation.expires_at));
        let news = entry.0 < revocation.min_version;
        entry.0 = entry.0.max(revocation.min_version);
        entry.1 = entry.1.max(revocation.expires_at);
        news
    }

    /// How the caller's token was revoked, if it was.
    #[must_use]
    pub fn refusal(&self, caller: &Caller) -> Option<Refusal> {
        let min_version = |subject: Uuid| self.entries.get(&subject).map_or(i64::MIN, |e| e.0);
        let device = min_version(caller.device.0);
        if device == Revocation::ALL {
            Some(Refusal::DeviceRemoved)
        } else if caller.device_version < device || caller.user_version < min_version(caller.user.0)
        {
            Some(Refusal::TokenOver)
        } else {
            None
        }
    }

    /// Forgets what is over at `now` by the [`CLOCK_MARGIN`]: `now` may be of a clock that is ahead.
    pub fn sweep(&self, now: DateTime<Utc>) {
        let over = now - CLOCK_MARGIN;
        self.entries.retain(|_, (_, expires_at)| *expires_at > over);
    }

    /// How many are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is in force.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::{
        identity::ClientDeviceId,
        ids::{DeviceId, UserId},
    };

    const USER: Uuid = Uuid::from_u128(1);
    const DEVICE: Uuid = Uuid::from_u128(2);

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(secs)
    }

    fn revocation(subject: Uuid, min_version: i64, secs: i64) -> Revocation {
        Revocation {
            subject,
            min_version,
            expires_at: at(secs),
        }
    }

    fn caller(user_version: i64, device_version: i64) -> Caller {
        Caller {
            user: UserId(USER),
            device: DeviceId(DEVICE),
            device_id: ClientDeviceId::parse("phone").unwrap(),
            user_version,
            device_version,
            expires_at: at(900),
        }
    }

    fn set(revocations: &[Revocation]) -> RevocationSet {
        let set = RevocationSet::default();
        for it in revocations {
            assert!(set.add(it));
        }
        set
    }

    #[test]
    fn tokens_below_the_version_are_refused_and_no_others() {
        let of_device = set(&[revocation(DEVICE, 5, 900)]);
        assert_eq!(of_device.refusal(&caller(0, 4)), Some(Refusal::TokenOver));
        assert_eq!(of_device.refusal(&caller(0, 5)), None);
        let of_user = set(&[revocation(USER, 5, 900)]);
        assert_eq!(of_user.refusal(&caller(4, 9)), Some(Refusal::TokenOver));
        assert_eq!(of_user.refusal(&caller(5, 0)), None);
        let of_others = set(&[revocation(Uuid::from_u128(3), Revocation::ALL, 900)]);
        assert_eq!(of_others.refusal(&caller(0, 0)), None);
        assert_eq!(RevocationSet::default().refusal(&caller(0, 0)), None);
    }

    #[test]
    fn a_removed_device_is_told_so_first() {
        let both = set(&[
            revocation(USER, 5, 900),
            revocation(DEVICE, Revocation::ALL, 900),
        ]);
        let newest = caller(i64::MAX, i64::MAX);
        assert_eq!(both.refusal(&caller(0, 0)), Some(Refusal::DeviceRemoved));
        assert_eq!(both.refusal(&newest), Some(Refusal::DeviceRemoved));
    }

    #[test]
    fn a_revocation_only_grows() {
        let set = set(&[revocation(DEVICE, 5, 900)]);
        assert!(!set.add(&revocation(DEVICE, 5, 900)), "no news");
        assert!(!set.add(&revocation(DEVICE, 3, 100)), "older");
        assert_eq!(set.refusal(&caller(0, 4)), Some(Refusal::TokenOver));
        assert!(!set.add(&revocation(DEVICE, 1, 2000)), "only lasts longer");
        set.sweep(at(900) + CLOCK_MARGIN);
        assert_eq!(set.refusal(&caller(0, 4)), Some(Refusal::TokenOver));
        assert!(set.add(&revocation(DEVICE, 6, 10)));
        assert_eq!(set.refusal(&caller(0, 5)), Some(Refusal::TokenOver));
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn a_revocation_outlives_a_token_of_a_clock_that_was_ahead() {
        let life = TimeDelta::seconds(60);
        assert_eq!(Revocation::end(at(100), at(90), life), at(160));
        assert_eq!(Revocation::end(at(100), at(3700), life), at(3760));
    }

    #[test]
    fn what_is_over_is_forgotten_some_time_after_its_end() {
        let set = set(&[revocation(DEVICE, 5, 900), revocation(USER, 5, 901)]);
        set.sweep(at(899) + CLOCK_MARGIN);
        assert_eq!(set.len(), 2);
        set.sweep(at(900) + CLOCK_MARGIN);
        assert_eq!(set.len(), 1);
        set.sweep(at(901) + CLOCK_MARGIN);
        assert!(set.is_empty());
    }

    #[test]
    fn a_clock_that_is_a_day_ahead_makes_no_revoked_token_good_again() {
        let set = set(&[revocation(DEVICE, Revocation::ALL, 960)]);
        set.sweep(at(1) + TimeDelta::days(1));
        assert_eq!(set.refusal(&caller(0, 4)), Some(Refusal::DeviceRemoved));
    }

    #[test]
    fn of_many_who_add_the_same_one_brings_the_news_and_the_highest_stays() {
        const VERSIONS: i64 = 200;
        let set = RevocationSet::default();
        let news = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..4_i64 {
                let (set, news) = (&set, &news);
                scope.spawn(move || {
                    for step in 1..=VERSIONS {
                        let version = if worker % 2 == 0 { step } else { VERSIONS };
                        if set.add(&revocation(DEVICE, version, step)) && version == VERSIONS {
                            news.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                        let _ = set.refusal(&caller(0, 0));
                        set.sweep(at(0) + CLOCK_MARGIN);
                    }
                });
            }
        });
        assert_eq!(news.into_inner(), 1);
        assert_eq!(set.refusal(&caller(0, VERSIONS)), None);
        assert_eq!(
            set.refusal(&caller(0, VERSIONS - 1)),
            Some(Refusal::TokenOver)
        );
        set.sweep(at(VERSIONS - 1) + CLOCK_MARGIN);
        assert_eq!(set.len(), 1, "the latest end stays");
    }
}
