use std::collections::BTreeSet;

use chrono::TimeDelta;

use super::*;
use crate::domain::{
    idempotency::IdempotencyKey,
    ids::PlayId,
    library::{
        ArtistName, IgnoredBecause, MAX_EVENT_DATA, MAX_REMOVED, NewPlay, Play, PlayResult,
        PlayStatus, SongName,
    },
};

on_both!(
    large_batches,
    the_501st,
    late_after_a_clearing,
    a_cleared_play_of_a_clock_far_ahead_stays_cleared,
    a_clearing_far_ahead_swallows_nothing,
    what_was_removed_is_known_by_its_id_alone,
    a_clearing_brings_nothing_back,
    removed_plays_are_remembered,
    calls_that_come_again,
    keys_are_forgotten,
    two_devices_at_once,
    what_is_left_over,
    a_run_is_one_nodes,
);

fn id(n: i64) -> PlayId {
    PlayId(Uuid::from_u128(u128::try_from(n).unwrap()))
}

/// Play `n`, so many seconds after the start.
fn play(n: i64, secs: i64) -> NewPlay {
    NewPlay {
        id: id(n),
        song_id: TargetId::parse("s:1").unwrap(),
        song_name: SongName::parse("Song").unwrap(),
        artist_name: ArtistName::parse("Artist").unwrap(),
        duration: 200,
        played_at: t(secs),
    }
}

pub(super) fn plays(ns: std::ops::Range<i64>) -> Vec<NewPlay> {
    ns.map(|n| play(n, n)).collect()
}

impl Bed {
    fn issued(&self, user: UserId, now: DateTime<Utc>) -> Issued {
        Issued {
            user,
            origin: Some(ClientDeviceId::parse("phone-1").unwrap()),
            now,
            event_id: EventId(self.uuid()),
        }
    }

    pub(super) fn add(&self, user: UserId, now: DateTime<Utc>, plays: Vec<NewPlay>) -> HistoryAdd {
        HistoryAdd {
            issued: self.issued(user, now),
            key: None,
            plays,
            keep: 500,
        }
    }

    pub(super) async fn added(&self, add: HistoryAdd) -> Written<Vec<PlayResult>> {
        match self.store.history_add(self.soon(), add).await.unwrap() {
            Once::Ran(written) => written,
            Once::Reused => panic!("the key was used"),
        }
    }

    async fn cleared(&self, user: UserId, now: DateTime<Utc>) -> Written<DateTime<Utc>> {
        let clear = HistoryClear {
            issued: self.issued(user, now),
            key: None,
        };
        match self.store.history_clear(self.soon(), clear).await.unwrap() {
            Once::Ran(written) => written,
            Once::Reused => panic!("the key was used"),
        }
    }

    async fn removed(&self, user: UserId, n: i64, now: DateTime<Utc>) -> PlayRemoved {
        let issued = self.issued(user, now);
        let removed = self.store.history_remove(self.soon(), issued, id(n)).await;
        removed.unwrap().value
    }

    /// The whole history, by pages.
    async fn history(&self, user: UserId) -> Vec<Play> {
        let mut query = HistoryQuery {
            user,
            limit: 77,
            before: None,
        };
        let mut all = Vec::new();
        loop {
            let page = self.store.history_list(self.soon(), query.clone()).await;
            let page = page.unwrap();
            let Some(last) = page.last() else { break all };
            query.before = Some(last.place());
            all.extend(page);
        }
    }
}

fn statuses(results: &[PlayResult], status: PlayStatus) -> usize {
    results.iter().filter(|it| it.status == status).count()
}

async fn large_batches(bed: &Bed) {
    let user = bed.user().await.user.id;
    let long = |n| NewPlay {
        // Each takes four bytes, or two when it is escaped.
        song_name: SongName::parse("𝄞".repeat(256)).unwrap(),
        artist_name: ArtistName::parse("\"".repeat(256)).unwrap(),
        song_id: TargetId::parse("x".repeat(128)).unwrap(),
        ..play(n, n)
    };
    let mut last = 0;
    for batch in 0..3 {
        let sent: Vec<_> = (batch * 200..(batch + 1) * 200).map(long).collect();
        let written = bed.added(bed.add(user, t(600), sent)).await;
        assert_eq!(statuses(&written.value, PlayStatus::Added), 200);
        assert!(written.events.len() > 10, "{}", written.events.len());
        let mut told = 0;
        for (n, event) in (1..).zip(&written.events) {
            assert_eq!((event.seq, &*event.event_type), (last + 1, "history.added"));
            last = event.seq;
            let size = event.data.to_string().len();
            assert!(size <= MAX_EVENT_DATA, "{size}");
            told += event.data["plays"].as_array().unwrap().len();
            // Only the last of the third batch says what went.
            let trims = batch == 2 && n == written.events.len();
            assert_eq!(event.data["oldest"].is_object(), trims, "{batch} {n}");
        }
        assert_eq!(told, 200);
    }
    let page = bed.store.log_page(bed.soon(), user, 0, 10_000).await;
    assert_eq!(page.unwrap().unwrap().log.head_seq, last);
    let listed = bed.history(user).await;
    assert_eq!(listed.len(), 500);
    assert_eq!((listed[0].id, listed[499].id), (id(599), id(100)));
    assert_eq!(listed[7], long(592).at(t(592)));
}

async fn the_501st(bed: &Bed) {
    let user = bed.user().await.user.id;
    for from in [1, 201] {
        bed.added(bed.add(user, t(600), plays(from..from + 200)))
            .await;
    }
    bed.added(bed.add(user, t(600), plays(401..501))).await;
    assert_eq!(bed.history(user).await.len(), 500);
    // One that is newer pushes out the oldest; one that is older has no room.
    let written = bed
        .added(bed.add(user, t(600), vec![play(501, 501), play(0, 0)]))
        .await;
    assert_eq!(written.value[0].status, PlayStatus::Added);
    assert_eq!(written.value[1].reason, Some(IgnoredBecause::TooOld));
    let event = &written.events[0];
    assert_eq!(event.data["oldest"]["id"], id(2).to_string());
    let kept: Vec<_> = bed.history(user).await.iter().map(|it| it.id).collect();
    assert!(kept.into_iter().eq((2..=501).rev().map(id)));
    // Another's history has room, and the ids are that user's own.
    let other = bed.user().await.user.id;
    let theirs = bed.added(bed.add(other, t(600), plays(0..3))).await;
    assert_eq!(statuses(&theirs.value, PlayStatus::Added), 3);
    let nothing = bed.added(bed.add(user, t(600), vec![play(0, 0)])).await;
    assert!(nothing.events.is_empty());
}

async fn late_after_a_clearing(bed: &Bed) {
    let user = bed.user().await.user.id;
    // The last one's clock is ahead.
    bed.added(bed.add(user, t(10), vec![play(1, 1), play(2, 12)]))
        .await;
    let first = bed.cleared(user, t(10)).await;
    assert_eq!((first.value, first.events.len()), (t(10), 1));
    assert!(bed.history(user).await.is_empty());
    let sent = vec![play(1, 1), play(2, 12), play(3, 10), play(4, 11)];
    let late = bed.added(bed.add(user, t(12), sent)).await.value;
    let reasons: Vec<_> = late.iter().map(|it| it.reason).collect();
    assert_eq!(
        reasons,
        [
            Some(IgnoredBecause::Cleared),
            Some(IgnoredBecause::Removed),
            Some(IgnoredBecause::Cleared),
            None
        ]
    );
    bed.cleared(user, t(20)).await;
    // Cleared again while it is empty: what came between is late now.
    bed.cleared(user, t(30)).await;
    let late = bed.added(bed.add(user, t(31), vec![play(5, 25)])).await;
    assert_eq!(late.value[0].reason, Some(IgnoredBecause::Cleared));
    // A clock that was set back takes nothing back, and an empty history says nothing.
    let back = bed.cleared(user, t(5)).await;
    assert_eq!((back.value, back.events.len()), (t(30), 0));
    assert!(bed.history(user).await.is_empty());
    // What was cleared is known by its id alone.
    assert_eq!(bed.count(NAMED).await, 0);
}

/// The answer was lost, and another device cleared the history before the client asks again.
async fn a_cleared_play_of_a_clock_far_ahead_stays_cleared(bed: &Bed) {
    let user = bed.user().await.user.id;
    let sent = || vec![play(1, 86_400)];
    let first = bed.added(bed.add(user, t(0), sent())).await;
    assert_eq!(first.value[0].played_at, t(0));
    bed.cleared(user, t(1)).await;
    for at in [2, 3600, 86_400] {
        let again = bed.added(bed.add(user, t(at), sent())).await;
        assert_eq!(again.value[0].reason, Some(IgnoredBecause::Cleared));
        assert!(again.events.is_empty() && bed.history(user).await.is_empty());
    }
}

/// A node whose clock is wrong clears; those whose clocks are right go on.
async fn a_clearing_far_ahead_swallows_nothing(bed: &Bed) {
    let user = bed.user().await.user.id;
    bed.added(bed.add(user, t(0), plays(0..3))).await;
    bed.cleared(user, t(86_400)).await;
    let new = bed
        .added(bed.add(user, t(60), vec![play(5, 50), play(1, 1)]))
        .await;
    let reasons: Vec<_> = new.value.iter().map(|it| it.reason).collect();
    assert_eq!(reasons, [None, Some(IgnoredBecause::Removed)]);
    // The next clearing is of its own time.
    assert_eq!(bed.cleared(user, t(70)).await.value, t(70));
    let late = bed
        .added(bed.add(user, t(80), vec![play(6, 65), play(7, 75)]))
        .await;
    let reasons: Vec<_> = late.value.iter().map(|it| it.reason).collect();
    assert_eq!(reasons, [Some(IgnoredBecause::Cleared), None]);
}

/// Plays of which anything but the id and the time is kept.
const NAMED: &str = "SELECT count(*) FROM plays
    WHERE song_id || song_name || artist_name <> '' OR duration <> 0";

async fn what_was_removed_is_known_by_its_id_alone(bed: &Bed) {
    let user = bed.user().await.user.id;
    bed.added(bed.add(user, t(5), plays(0..3))).await;
    assert_eq!(bed.removed(user, 0, t(6)).await, PlayRemoved::Gone);
    assert_eq!(bed.count(NAMED).await, 2);
    // Sent again it is another song, which changes nothing.
    let other = NewPlay {
        song_id: TargetId::parse("s:2").unwrap(),
        ..play(0, 4)
    };
    let again = bed.added(bed.add(user, t(7), vec![other])).await;
    assert_eq!(again.value[0].reason, Some(IgnoredBecause::Removed));
    assert_eq!((again.value[0].played_at, again.events.len()), (t(0), 0));
    // As servers kept it before.
    bed.sql("UPDATE plays SET song_id = 's:1', song_name = 'Song' WHERE deleted_at IS NOT NULL")
        .await
        .unwrap();
    bed.cleared(user, t(8)).await;
    assert_eq!(bed.count(NAMED).await, 0);
    assert_eq!(bed.removed(user, 0, t(9)).await, PlayRemoved::Gone);
    // When it was removed stays: it is forgotten when it would have been.
    let removed = "SELECT count(*) FROM plays WHERE version = 2";
    assert_eq!(bed.count(removed).await, 1);
    let moments = "SELECT count(DISTINCT deleted_at) FROM plays";
    assert_eq!(bed.count(moments).await, 2);
}

/// A whole history that is cleared does not push out what is remembered of a play that was removed before:
/// that of a clock far ahead has a newer time with each try.
async fn a_clearing_brings_nothing_back(bed: &Bed) {
    let user = bed.user().await.user.id;
    let ahead = || vec![play(9999, 86_400)];
    bed.added(bed.add(user, t(0), ahead())).await;
    assert_eq!(bed.removed(user, 9999, t(1)).await, PlayRemoved::Gone);
    let most = i64::from(MAX_REMOVED);
    for round in 1..3 {
        let at = round * 1000;
        for from in (0..most).step_by(100) {
            let sent = (from..from + 100).map(|n| play(at + n, at + n)).collect();
            bed.added(bed.add(user, t(at + most), sent)).await;
        }
        assert_eq!(bed.history(user).await.len(), 500);
        bed.cleared(user, t(at + most)).await;
        let again = bed.added(bed.add(user, t(at + most + 1), ahead())).await;
        assert_eq!(again.value[0].reason, Some(IgnoredBecause::Cleared));
        assert!(again.events.is_empty() && bed.history(user).await.is_empty());
    }
    // What is remembered of clearings has its own limit.
    assert_eq!(bed.count_of_plays().await, most + 1);
    // Nor does removing push out what was cleared.
    bed.added(bed.add(user, t(4000), vec![play(1, 3999)])).await;
    assert_eq!(bed.removed(user, 1, t(4001)).await, PlayRemoved::Gone);
    assert_eq!(bed.count_of_plays().await, most + 2);
}

async fn removed_plays_are_remembered(bed: &Bed) {
    let user = bed.user().await.user.id;
    assert_eq!(bed.removed(user, 1, t(0)).await, PlayRemoved::Unknown);
    let most = i64::from(MAX_REMOVED);
    for from in (0..=most).step_by(100) {
        bed.added(bed.add(user, t(600), plays(from..from + 100)))
            .await;
        for n in from..from + 100 {
            assert_eq!(bed.removed(user, n, t(n)).await, PlayRemoved::Gone);
        }
    }
    let remembered = "SELECT count(*) FROM plays WHERE deleted_at IS NOT NULL";
    assert_eq!(bed.count(remembered).await, most);
    assert_eq!(bed.removed(user, 99, t(0)).await, PlayRemoved::Unknown);
    assert_eq!(bed.removed(user, 100, t(0)).await, PlayRemoved::Gone);
    let again = bed.added(bed.add(user, t(600), plays(100..102))).await;
    assert!(again.events.is_empty());
    assert_eq!(again.value[0].reason, Some(IgnoredBecause::Removed));
}

async fn calls_that_come_again(bed: &Bed) {
    let user = bed.user().await.user.id;
    let key = |asked: &str| IdempotencyKey {
        key_hash: "key".into(),
        asked_hash: asked.into(),
    };
    let keyed = |now, asked: &str, plays| HistoryAdd {
        key: Some(key(asked)),
        ..bed.add(user, now, plays)
    };
    let first = bed.added(keyed(t(0), "a", plays(0..3))).await;
    assert_eq!((first.events.len(), first.log.head_seq), (1, 1));
    // Even when the plays are gone since.
    bed.removed(user, 0, t(1)).await;
    let again = bed.added(keyed(t(1), "a", plays(0..3))).await;
    assert_eq!(again.value, first.value);
    assert_eq!((again.events.len(), again.log.head_seq), (0, 1));
    let reused = keyed(t(2), "b", plays(5..6));
    let reused = bed.store.history_add(bed.soon(), reused).await.unwrap();
    assert_eq!(reused, Once::Reused);
    // Another user's key is another key.
    let other = bed.user().await.user.id;
    let mut theirs = keyed(t(2), "b", plays(5..6));
    theirs.issued.user = other;
    assert_eq!(bed.added(theirs).await.events.len(), 1);
    // What changed nothing is remembered, too.
    let nothing = HistoryAdd {
        key: Some(IdempotencyKey {
            key_hash: "other".into(),
            asked_hash: "a".into(),
        }),
        ..bed.add(user, t(3), plays(0..1))
    };
    let first = bed.added(nothing.clone()).await;
    assert!(first.events.is_empty());
    assert_eq!(bed.added(nothing.clone()).await.value, first.value);
    let something = HistoryAdd {
        key: Some(IdempotencyKey {
            key_hash: "other".into(),
            asked_hash: "b".into(),
        }),
        plays: plays(7..8),
        ..nothing
    };
    let reused = bed.store.history_add(bed.soon(), something).await.unwrap();
    assert_eq!(reused, Once::Reused);
    // After a day the key is free.
    let day = t(0) + TimeDelta::days(1);
    let just_before = keyed(day - TimeDelta::microseconds(1), "b", plays(8..9));
    let reused = bed.store.history_add(bed.soon(), just_before).await;
    assert_eq!(reused.unwrap(), Once::Reused);
    let free = bed.added(keyed(day, "b", plays(8..9))).await;
    assert_eq!(free.events.len(), 1);
    assert_eq!(
        bed.added(keyed(day, "b", plays(8..9))).await.value,
        free.value
    );
    assert_eq!(bed.history(user).await.len(), 3);
}

async fn keys_are_forgotten(bed: &Bed) {
    let user = bed.user().await.user.id;
    for n in 0..5 {
        let add = HistoryAdd {
            key: Some(IdempotencyKey {
                key_hash: n.to_string(),
                asked_hash: "a".into(),
            }),
            ..bed.add(user, t(n), plays(n..n + 1))
        };
        bed.added(add).await;
    }
    let now = t(2) + TimeDelta::days(1);
    let forget = async |limit| bed.store.idempotency_sweep(bed.soon(), now, limit).await;
    assert_eq!(forget(2).await, Ok(2));
    assert_eq!(forget(2).await, Ok(1));
    assert_eq!(forget(2).await, Ok(0));
    let left = "SELECT count(*) FROM idempotency_keys";
    assert_eq!(bed.count(left).await, 2);
}

/// Batches of two devices that overlap: one of each id is added, and the newest are kept.
async fn two_devices_at_once(bed: &Bed) {
    let user = bed.user().await.user.id;
    let batches = (0..10_i64).flat_map(|n| [n * 60..n * 60 + 100, n * 60 + 30..n * 60 + 130]);
    let tasks: Vec<_> = batches
        .map(|ns| {
            let add = bed.add(user, t(700), plays(ns));
            let (store, soon) = (bed.store.clone(), bed.soon());
            tokio::spawn(async move { store.history_add(soon, add).await.unwrap() })
        })
        .collect();
    let (mut seqs, mut added) = (BTreeSet::new(), Vec::new());
    for task in tasks {
        let Once::Ran(written) = task.await.unwrap() else {
            panic!("no key was used")
        };
        seqs.extend(written.events.iter().map(|it| it.seq));
        let results = written.value.into_iter();
        let new = results.filter(|it| it.status == PlayStatus::Added);
        added.extend(new.map(|it| it.id));
    }
    let head = i64::try_from(seqs.len()).unwrap();
    assert_eq!(seqs, (1..=head).collect());
    let kept: Vec<_> = bed.history(user).await.iter().map(|it| it.id).collect();
    assert!(kept.into_iter().eq((170..670).rev().map(id)));
    let once: BTreeSet<_> = added.iter().collect();
    assert_eq!(once.len(), added.len(), "an id was added twice");
}

async fn what_is_left_over(bed: &Bed) {
    let mut users = Vec::new();
    for n in 0..5 {
        let user = bed.user().await.user.id;
        bed.added(bed.add(user, t(0), plays(0..10 + n))).await;
        users.push(user);
    }
    // One who has nothing left over but a play that was removed long ago.
    bed.removed(users[0], 3, t(0)).await;
    let (keep, soon) = (11, bed.soon());
    let page = async |after, now| {
        let page = bed.store.histories_to_trim(soon, after, 2, keep, now).await;
        page.unwrap()
    };
    let walk = async |now| {
        let (mut after, mut all) = (None, BTreeSet::new());
        loop {
            let page = page(after, now).await;
            all.extend(page.users);
            after = page.next;
            if after.is_none() {
                break all;
            }
        }
    };
    assert_eq!(
        walk(t(0)).await,
        BTreeSet::from([users[2], users[3], users[4]])
    );
    let later = t(0) + crate::domain::library::REMOVED_FOR;
    assert_eq!(
        walk(later).await,
        BTreeSet::from([users[0], users[2], users[3], users[4]])
    );
    let trim = async |user, now| {
        let issued = bed.issued(user, now);
        bed.store.history_trim(soon, issued, keep).await.unwrap()
    };
    let trimmed = trim(users[4], later).await;
    assert_eq!((trimmed.value.plays, trimmed.value.removed_plays), (3, 0));
    let event = &trimmed.events[0];
    assert_eq!(event.event_type, "history.trimmed");
    assert_eq!(event.data["oldest"]["id"], id(3).to_string());
    assert_eq!(bed.history(users[4]).await.len(), 11);
    let again = trim(users[4], later).await;
    assert_eq!((again.value.plays, again.events.len()), (0, 0));
    let forgot = trim(users[0], later).await;
    assert_eq!((forgot.value.plays, forgot.value.removed_plays), (0, 1));
    assert!(forgot.events.is_empty());
    assert_eq!(walk(later).await, BTreeSet::from([users[2], users[3]]));
}

async fn a_run_is_one_nodes(bed: &Bed) {
    let due = |secs| DueJob {
        job: "history",
        due_at: t(secs),
    };
    let claim = async |at: i64, silent: i64| {
        let silent_since = t(at - silent);
        let claim = bed.store.run_claim(bed.soon(), due(0), t(at), silent_since);
        claim.await.unwrap()
    };
    let nodes = futures_util::future::join_all((0..8).map(|_| claim(1, 60))).await;
    let mine = nodes.iter().filter(|it| matches!(it, Claim::Mine { .. }));
    assert_eq!(mine.count(), 1, "{nodes:?}");
    let progress = Progress {
        after: Some(UserId(bed.uuid())),
        removed: Removed {
            plays: 7,
            ..Removed::default()
        },
    };
    let report = async |due, heard: i64, at: i64, finished| {
        let report = RunReport {
            due,
            heard_at: t(heard),
            now: t(at),
            progress,
            finished,
        };
        bed.store.run_progress(bed.soon(), report).await.unwrap()
    };
    let of_first = async |heard, at, finished| report(due(0), heard, at, finished).await;
    assert!(of_first(1, 10, false).await);
    assert_eq!(claim(69, 60).await, Claim::Elsewhere);
    let heard_at = t(70);
    assert_eq!(
        claim(70, 60).await,
        Claim::Mine { progress, heard_at },
        "carried on"
    );
    assert_eq!(claim(71, 60).await, Claim::Elsewhere, "by one");
    assert!(!of_first(10, 75, true).await, "not by the one before");
    assert_eq!(
        claim(76, 60).await,
        Claim::Elsewhere,
        "which did not end it"
    );
    assert!(of_first(70, 80, true).await);
    assert!(!of_first(80, 81, false).await, "what is over stays so");
    let (finished_at, removed) = (t(80), progress.removed);
    let done = Claim::Done {
        finished_at,
        removed,
    };
    assert_eq!(claim(1000, 60).await, done);
    // Runs of long ago are forgotten with the end of a new one.
    let year = 86_400 * 401;
    let next = bed
        .store
        .run_claim(bed.soon(), due(year), t(year), t(0))
        .await;
    assert!(matches!(next.unwrap(), Claim::Mine { .. }));
    assert!(report(due(year), year, year, true).await);
    assert_eq!(bed.count("SELECT count(*) FROM janitor_runs").await, 1);
}
