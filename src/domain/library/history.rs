//! What a history takes in and what it lets go: the newest plays are kept, up to a number.
//!
//! A play is ignored when it is known already, was played before the history was cleared, or is
//! older than those that are kept. Which plays are in a history in the end does not depend on the
//! order in which they came.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::play::{HistoryPlace, NewPlay, Play};
use crate::domain::{ids::PlayId, text::named_enum};

/// Plays that a history has at most, unless a setting says less.
pub const MAX_PLAYS: u32 = 500;
/// Removed plays that are remembered, so that a late repeat does not bring them back. As many again of
/// those that went with a clearing.
pub const MAX_REMOVED: u32 = 500;
/// For how long they are.
pub const REMOVED_FOR: TimeDelta = TimeDelta::days(30);
/// A clock may be so much ahead, a client's or a node's, before its times are not believed.
pub const AHEAD: TimeDelta = TimeDelta::minutes(5);

named_enum! {
    /// What became of a play.
    PlayStatus {
        /// It is in the history now.
        Added = "added",
        /// It is not taken in; nothing is to be done about it.
        Ignored = "ignored",
    }
}

named_enum! {
    /// Why a play is not taken in.
    IgnoredBecause {
        /// It is in the history already.
        Duplicate = "duplicate",
        /// It was removed.
        Removed = "removed",
        /// It is not newer than the moment up to which the history was cleared.
        Cleared = "cleared",
        /// It is older than those that are kept.
        TooOld = "too_old",
    }
}

/// What became of a play that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlayResult {
    /// Which.
    pub id: PlayId,
    /// Whether it is new in the history.
    pub status: PlayStatus,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<IgnoredBecause>,
    /// The time that counts: another than was sent when that was ahead of the server's clock, or when the
    /// play is known with another.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub played_at: DateTime<Utc>,
}

/// A play that is or was in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPlay {
    /// When it was played.
    pub played_at: DateTime<Utc>,
    /// Whether it was removed.
    pub removed: bool,
}

/// What a call brings to a history, before it is known what the number of plays lets in.
#[derive(Debug)]
pub struct Arrivals {
    results: Vec<PlayResult>,
    /// Those that may be taken in, with their places among the results.
    fresh: Vec<(usize, Play)>,
}

/// What a call does to a history.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    /// One for each play that was sent, in the same order.
    pub results: Vec<PlayResult>,
    /// To be stored.
    pub added: Vec<Play>,
    /// Stored plays before this place go; none when none does.
    pub oldest: Option<HistoryPlace>,
}

impl Arrivals {
    /// Judges what was sent by what is known of the same ids, and by the last clearing.
    #[must_use]
    pub fn new(
        sent: &[NewPlay],
        now: DateTime<Utc>,
        cleared_at: Option<DateTime<Utc>>,
        known: &HashMap<PlayId, KnownPlay>,
    ) -> Self {
        let mut it = Self {
            results: Vec::with_capacity(sent.len()),
            fresh: Vec::new(),
        };
        // A node whose clock is wrong would keep all plays away until then.
        let cleared_at = cleared_at.filter(|at| *at <= now + AHEAD);
        let is_cleared = |played_at| cleared_at.is_some_and(|at| played_at <= at);
        // Of two with one id in a call the first counts.
        let mut here: HashMap<PlayId, KnownPlay> = HashMap::new();
        for play in sent {
            let of_it = known.get(&play.id).or_else(|| here.get(&play.id));
            let played_at = of_it.map_or_else(|| believed(play.played_at, now), |k| k.played_at);
            let reason = match of_it {
                Some(KnownPlay { removed: true, .. }) if !is_cleared(played_at) => {
                    Some(IgnoredBecause::Removed)
                }
                Some(KnownPlay { removed: false, .. }) => Some(IgnoredBecause::Duplicate),
                Some(_) => Some(IgnoredBecause::Cleared),
                None => is_cleared(played_at).then_some(IgnoredBecause::Cleared),
            };
            if reason.is_none() {
                it.fresh.push((it.results.len(), play.at(played_at)));
                let removed = false;
                here.insert(play.id, KnownPlay { played_at, removed });
            }
            it.results.push(PlayResult {
                id: play.id,
                status: PlayStatus::Ignored,
                reason,
                played_at,
            });
        }
        it
    }

    /// How many of the oldest of `stored` plays must be known to settle: none if there is room.
    #[must_use]
    pub fn needs(&self, stored: usize, keep: usize) -> usize {
        match self.over(stored, keep) {
            0 => 0,
            // The first that is kept is where the others end.
            over => over + 1,
        }
    }

    fn over(&self, stored: usize, keep: usize) -> usize {
        if self.fresh.is_empty() {
            0
        } else {
            (stored + self.fresh.len()).saturating_sub(keep.max(1))
        }
    }

    /// Lets go of the oldest of all until `keep` are left; `oldest` are as many of the `stored` ones as
    /// [`Self::needs`] says.
    #[must_use]
    pub fn settle(mut self, stored: usize, keep: usize, oldest: &[HistoryPlace]) -> Settled {
        let over = self.over(stored, keep);
        let fresh = self.fresh.iter().map(|(_, play)| play.place());
        let all: BTreeSet<_> = oldest.iter().copied().chain(fresh).collect();
        let first_kept = if over == 0 {
            None
        } else {
            all.into_iter().nth(over)
        };
        let is_over = |place: HistoryPlace| first_kept.is_some_and(|first| place < first);
        let mut added = Vec::with_capacity(self.fresh.len());
        for (n, play) in self.fresh {
            if let Some(result) = self.results.get_mut(n) {
                if is_over(play.place()) {
                    result.reason = Some(IgnoredBecause::TooOld);
                } else {
                    result.status = PlayStatus::Added;
                    added.push(play);
                }
            }
        }
        Settled {
            results: self.results,
            added,
            oldest: first_kept.filter(|_| oldest.iter().any(|place| is_over(*place))),
        }
    }
}

/// A time far ahead is that of a clock that is wrong: such a play would stay the newest for long.
fn believed(played_at: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    if played_at > now + AHEAD {
        now
    } else {
        played_at
    }
}

/// Up to when a history is cleared that is cleared now: a clock that was set back a little takes nothing
/// back, and one that was far ahead is not believed for ever.
#[must_use]
pub fn cleared_at(now: DateTime<Utc>, before: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let before = before.filter(|before| *before <= now + AHEAD);
    before.map_or(now, |before| before.max(now))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{
        super::{
            favorite::TargetId,
            play::{ArtistName, SongName},
        },
        *,
    };

    const NOW: i64 = 1_800_000_000;

    fn at(secs: i64) -> DateTime<Utc> {
        Utc.timestamp_opt(NOW + secs, 0).unwrap()
    }

    fn play(n: u8, secs: i64) -> NewPlay {
        NewPlay {
            id: PlayId(Uuid::from_u128(n.into())),
            song_id: TargetId::parse("s").unwrap(),
            song_name: SongName::parse("S").unwrap(),
            artist_name: ArtistName::parse("").unwrap(),
            duration: 1,
            played_at: at(secs),
        }
    }

    /// A history as the store keeps one.
    #[derive(Debug, Default, Clone, PartialEq, Eq)]
    struct History {
        plays: BTreeSet<HistoryPlace>,
        removed: HashMap<PlayId, DateTime<Utc>>,
        cleared_at: Option<DateTime<Utc>>,
    }

    impl History {
        fn add(&mut self, sent: &[NewPlay], keep: usize) -> Settled {
            let known = |removed| move |(id, played_at)| (id, KnownPlay { played_at, removed });
            let there = self.plays.iter().map(|it| (it.id, it.played_at));
            let gone = self.removed.iter().map(|(id, at)| (*id, *at));
            let all = there.map(known(false)).chain(gone.map(known(true)));
            let arrivals = Arrivals::new(sent, at(0), self.cleared_at, &all.collect());
            let stored = self.plays.len();
            let needed = arrivals.needs(stored, keep);
            let oldest: Vec<_> = self.plays.iter().take(needed).copied().collect();
            let settled = arrivals.settle(stored, keep, &oldest);
            if let Some(oldest) = settled.oldest {
                self.plays = self.plays.split_off(&oldest);
            }
            self.plays.extend(settled.added.iter().map(Play::place));
            settled
        }
    }

    fn reasons(settled: &Settled) -> Vec<Option<&'static str>> {
        let reasons = settled.results.iter().map(|it| it.reason);
        reasons.map(|it| it.map(IgnoredBecause::as_str)).collect()
    }

    #[test]
    fn each_reason_to_ignore() {
        let mut history = History {
            cleared_at: Some(at(-100)),
            removed: HashMap::from([(play(1, 0).id, at(-50))]),
            ..History::default()
        };
        let sent = [
            play(1, -9),
            play(2, -100),
            play(3, -99),
            play(3, -98),
            play(4, -10),
            play(5, -20),
        ];
        let settled = history.add(&sent, 2);
        assert_eq!(
            reasons(&settled),
            [
                Some("removed"),
                Some("cleared"),
                Some("too_old"),
                Some("duplicate"),
                None,
                None
            ]
        );
        assert_eq!(settled.results[0].played_at, at(-50), "as it was kept");
        assert_eq!(settled.oldest, None, "nothing that was stored goes");
        let settled = history.add(&[play(6, -15)], 2);
        assert_eq!(settled.oldest, Some(play(6, -15).at(at(-15)).place()));
        assert_eq!(history.plays.len(), 2);
    }

    #[test]
    fn a_time_far_ahead_is_not_believed() {
        let mut history = History::default();
        let settled = history.add(&[play(1, 300), play(2, 301)], 9);
        let times: Vec<_> = settled.results.iter().map(|it| it.played_at).collect();
        assert_eq!(times, [at(300), at(0)]);
        // Its repeat comes when the time is no longer ahead, and is told what is kept.
        let again = history.add(&[play(2, 200)], 9);
        assert_eq!(reasons(&again), [Some("duplicate")]);
        assert_eq!(again.results[0].played_at, at(0));
    }

    #[test]
    fn one_that_is_shorter_than_before_is_trimmed_with_the_next_play() {
        let mut history = History::default();
        let sent: Vec<_> = (0..9).map(|n| play(n, -i64::from(n))).collect();
        history.add(&sent, 9);
        assert_eq!(history.add(&[play(0, 0)], 3).oldest, None, "nothing new");
        let settled = history.add(&[play(20, -20)], 3);
        assert_eq!(reasons(&settled), [Some("too_old")]);
        assert_eq!((settled.added.len(), history.plays.len()), (0, 3));
    }

    #[test]
    fn a_clearing_is_never_taken_back() {
        assert_eq!(cleared_at(at(1), None), at(1));
        assert_eq!(cleared_at(at(1), Some(at(2))), at(2));
        assert_eq!(cleared_at(at(3), Some(at(2))), at(3));
    }

    #[test]
    fn a_clearing_far_ahead_is_not_believed() {
        assert_eq!(cleared_at(at(1), Some(at(301))), at(301));
        assert_eq!(cleared_at(at(1), Some(at(302))), at(1));
        let mut history = History {
            cleared_at: Some(at(301)),
            removed: HashMap::from([(play(1, 0).id, at(-1))]),
            ..History::default()
        };
        let settled = history.add(&[play(1, -1), play(2, 0)], 9);
        assert_eq!(reasons(&settled), [Some("removed"), None]);
        // As far as clocks go it is.
        history.cleared_at = Some(at(300));
        let settled = history.add(&[play(1, -1), play(3, 0)], 9);
        assert_eq!(reasons(&settled), [Some("cleared"), Some("cleared")]);
    }

    /// Batches of plays; the same id is always the same play.
    fn batches() -> impl Strategy<Value = Vec<Vec<NewPlay>>> {
        let times = prop::collection::vec(-40_i64..400, 64);
        let ids = prop::collection::vec(prop::collection::vec(0_u8..64, 1..20), 1..8);
        (times, ids).prop_map(|(times, batches)| {
            let one = |n: u8| play(n, times[usize::from(n)]);
            let batch = |ids: Vec<u8>| ids.into_iter().map(one).collect();
            batches.into_iter().map(batch).collect()
        })
    }

    proptest! {
        #[test]
        fn the_newest_are_kept_in_whatever_order_they_come(
            batches in batches(), keep in 1_usize..30, cleared in proptest::option::of(-40_i64..10)
        ) {
            let cleared_at = cleared.map(at);
            let empty = History { cleared_at, ..History::default() };
            let (mut one, mut other) = (empty.clone(), empty);
            for batch in &batches {
                let settled = one.add(batch, keep);
                prop_assert!(one.plays.len() <= keep);
                prop_assert_eq!(settled.results.len(), batch.len());
                let before = one.clone();
                let again = one.add(batch, keep);
                prop_assert_eq!(&one, &before, "a repeat changes nothing");
                prop_assert!(again.added.is_empty() && again.oldest.is_none());
            }
            for batch in batches.iter().rev() {
                other.add(batch, keep);
            }
            prop_assert_eq!(&one, &other);
            let all = batches.iter().flatten().map(|it| it.at(believed(it.played_at, at(0))).place());
            let newer = all.filter(|it| cleared_at.is_none_or(|at| it.played_at > at));
            let newest: BTreeSet<_> = newer.collect::<BTreeSet<_>>().into_iter().rev().take(keep).collect();
            prop_assert_eq!(one.plays, newest);
        }
    }
}
