use chrono::TimeDelta;

use super::*;
use crate::domain::sync::{LogHead, Position, Retention};

on_both!(
    trims_what_nobody_lacks,
    keeps_what_a_device_lacks,
    age_and_number_end_what_is_kept,
    young_events_stay,
    long_logs_go_step_by_step,
    finds_what_is_worth_it,
    reads_beside_a_trim_are_whole,
);

/// Events are a second apart: see [`Bed::favorites`].
fn rule(max_events: i64, min_events: i64, max_secs: i64, min_secs: i64) -> Retention {
    Retention {
        max_age: TimeDelta::seconds(max_secs),
        min_age: TimeDelta::seconds(min_secs),
        max_events,
        min_events,
    }
}

async fn head(bed: &Bed, user: UserId) -> LogHead {
    bed.store.log_heads(bed.soon(), &[user]).await.unwrap()[0].1
}

/// Trims to the end; says how many events went.
async fn trim(bed: &Bed, user: UserId, rule: Retention, now: DateTime<Utc>) -> u64 {
    let mut events = 0;
    for _ in 0..100 {
        let trimmed = bed.store.log_trim(bed.soon(), user, rule, now).await;
        let trimmed = trimmed.unwrap();
        events += trimmed.events;
        if !trimmed.more {
            return events;
        }
    }
    panic!("a trim that does not end");
}

/// The floor, and that what is above it is whole and nothing else is there.
async fn floor(bed: &Bed, user: UserId) -> i64 {
    let log = head(bed, user).await;
    let page = bed
        .store
        .log_page(bed.soon(), user, 0, 10_000)
        .await
        .unwrap();
    let seqs: Vec<i64> = page.unwrap().events.iter().map(|e| e.seq).collect();
    let whole: Vec<i64> = (log.floor_seq + 1..=log.head_seq).collect();
    assert_eq!(seqs, whole);
    log.floor_seq
}

async fn ack(bed: &Bed, s: &Session, seq: i64) {
    let epoch = head(bed, s.user.id).await.epoch;
    let position = Position { epoch, seq };
    let acked = bed
        .store
        .cursor_ack(bed.soon(), s.user.id, s.device.id, position)
        .await;
    assert_eq!(acked, Ok(CursorAck::Acked(seq)));
}

async fn trims_what_nobody_lacks(bed: &Bed) {
    let (s, neighbour) = (bed.user().await, bed.user().await);
    let user = s.user.id;
    bed.favorites(user, 20).await;
    bed.favorites(neighbour.user.id, 20).await;
    ack(bed, &s, 20).await;
    let rule = rule(100, 5, 1_000, 0);
    assert_eq!(trim(bed, user, rule, t(50)).await, 15);
    assert_eq!(floor(bed, user).await, 15);
    // Again: there is nothing left to do.
    assert_eq!(trim(bed, user, rule, t(50)).await, 0);
    assert_eq!(floor(bed, user).await, 15);
    assert_eq!(floor(bed, neighbour.user.id).await, 0);
    // The log goes on where it was.
    let command = bed.favorite(user, "more", t(51));
    let put = bed.store.favorite_put(bed.soon(), command).await.unwrap();
    assert_eq!((put.log.head_seq, put.log.floor_seq), (21, 15));
    // Without a device nothing is lacked.
    bed.sql("DELETE FROM devices").await.unwrap();
    assert_eq!(trim(bed, neighbour.user.id, rule, t(50)).await, 15);
    let nobody = trim(bed, UserId(bed.uuid()), rule, t(50)).await;
    assert_eq!(nobody, 0);
}

async fn keeps_what_a_device_lacks(bed: &Bed) {
    let s = bed.user().await;
    let user = s.user.id;
    bed.favorites(user, 30).await;
    let rule = rule(100, 5, 1_000, 0);
    assert_eq!(trim(bed, user, rule, t(50)).await, 0);
    ack(bed, &s, 12).await;
    assert_eq!(trim(bed, user, rule, t(50)).await, 12);
    // A second device starts at the head: the one behind it still counts.
    bed.session(&s.user.phone, "phone-2", t(60)).await;
    ack(bed, &s, 14).await;
    assert_eq!(trim(bed, user, rule, t(70)).await, 2);
    assert_eq!(floor(bed, user).await, 14);
}

async fn age_and_number_end_what_is_kept(bed: &Bed) {
    let (aged, counted) = (rule(1_000, 5, 100, 0), rule(30, 5, 1_000, 0));
    for (rule, gone) in [(aged, 20_i64), (counted, 30)] {
        let s = bed.user().await;
        let user = s.user.id;
        bed.favorites(user, 60).await;
        // The device lacks all of it. 20 events are 100 s old or older.
        let trimmed = bed.store.log_trim(bed.soon(), user, rule, t(119)).await;
        let (events, more) = (gone.unsigned_abs(), true);
        assert_eq!(trimmed, Ok(Trimmed { events, more }));
        assert_eq!(floor(bed, user).await, gone);
        // Left behind it loads everything anew: for it nothing is kept.
        assert_eq!(trim(bed, user, rule, t(119)).await, 55 - events);
        assert_eq!(floor(bed, user).await, 55);
    }
}

async fn young_events_stay(bed: &Bed) {
    let s = bed.user().await;
    let user = s.user.id;
    bed.favorites(user, 60).await;
    ack(bed, &s, 60).await;
    let rule = rule(1_000, 5, 1_000, 40);
    assert_eq!(trim(bed, user, rule, t(70)).await, 31);
    assert_eq!(floor(bed, user).await, 31);
    // A clock that was set back makes nothing of it again, nor more go.
    assert_eq!(trim(bed, user, rule, t(0)).await, 0);
    assert_eq!(floor(bed, user).await, 31);
}

async fn long_logs_go_step_by_step(bed: &Bed) {
    let s = bed.user().await;
    let user = s.user.id;
    bed.favorites(user, 1).await;
    let more = match bed.store.engine() {
        Engine::Sqlite => {
            "WITH RECURSIVE n(seq) AS (SELECT 2 UNION ALL SELECT seq + 1 FROM n WHERE seq < 1300)
             INSERT INTO sync_events SELECT user_id, n.seq, randomblob(16), event_type, data,
                 origin_device_id, created_at FROM sync_events, n;"
        }
        Engine::Postgres => {
            "INSERT INTO sync_events SELECT user_id, n, gen_random_uuid(), event_type, data,
                 origin_device_id, created_at FROM sync_events, generate_series(2, 1300) n;"
        }
    };
    bed.sql(&format!(
        "{more} UPDATE user_logs SET head_seq = 1300; UPDATE devices SET acked_seq = 1300"
    ))
    .await
    .unwrap();
    let rule = rule(10_000, 100, 1_000, 0);
    let step = async || {
        let trimmed = bed.store.log_trim(bed.soon(), user, rule, t(50)).await;
        trimmed.unwrap()
    };
    for (events, more, floor_seq) in [(500, true, 500), (500, true, 1000), (200, false, 1200)] {
        assert_eq!(step().await, Trimmed { events, more });
        assert_eq!(floor(bed, user).await, floor_seq);
    }
    let nothing = Trimmed {
        events: 0,
        more: false,
    };
    assert_eq!(step().await, nothing);
    assert_eq!(floor(bed, user).await, 1200);
}

async fn finds_what_is_worth_it(bed: &Bed) {
    let rule = rule(20, 5, 1_000, 30);
    let mut users = Vec::new();
    let mut expected = Vec::new();
    for (events, acked, worth) in [
        (3, 3, false),
        // Nobody lacks them, and the first ones are old.
        (10, 10, true),
        (10, 1, true),
        (10, 0, false),
        // Too many, whoever lacks them.
        (25, 0, true),
        (0, 0, false),
    ] {
        let s = bed.user().await;
        bed.favorites(s.user.id, events).await;
        if acked > 0 {
            ack(bed, &s, acked).await;
        }
        users.push(s.user.id);
        expected.extend(worth.then_some(s.user.id));
    }
    users.sort_unstable();
    expected.sort_unstable();
    let page = async |after, limit, now| {
        let page = bed
            .store
            .logs_to_trim(bed.soon(), after, limit, rule, now)
            .await;
        page.unwrap()
    };
    let all = page(None, 100, t(40)).await;
    assert_eq!((all.users, all.next), (expected.clone(), None));
    // Piece by piece, each user once.
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let piece = page(after, 2, t(40)).await;
        found.extend(piece.users);
        pages += 1;
        match piece.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((found, pages), (expected.clone(), 4));
    // While everything is young, only what is too much is worth it.
    assert_eq!(page(None, 100, t(10)).await.users.len(), 1);
    // Once trimmed, nothing is.
    for user in expected {
        assert!(trim(bed, user, rule, t(40)).await > 0);
    }
    assert_eq!(page(None, 100, t(40)).await.users, []);
}

/// A page is of one moment: its events are whole above the floor that it names, whatever a trim
/// does meanwhile.
async fn reads_beside_a_trim_are_whole(bed: &Bed) {
    const EVENTS: i64 = 150;
    let s = bed.user().await;
    let user = s.user.id;
    bed.favorites(user, EVENTS).await;
    ack(bed, &s, EVENTS).await;
    let (store, soon) = (bed.store.clone(), bed.soon());
    let trimming = tokio::spawn(async move {
        for kept in (0..EVENTS).rev() {
            let rule = rule(1_000, kept, 1_000, 0);
            let trimmed = store.log_trim(soon, user, rule, t(1_000)).await.unwrap();
            assert_eq!(trimmed.events, 1);
        }
    });
    let mut behind = 0;
    for round in 0.. {
        let ended = trimming.is_finished();
        let after = round % EVENTS;
        // A page with a hole is refused by the store itself.
        let page = bed.store.log_page(bed.soon(), user, after, 100).await;
        let page = page.unwrap().unwrap();
        let first = page.events.first().map(|e| e.seq);
        if after < page.log.floor_seq {
            behind += 1;
            assert!(first.is_none_or(|seq| seq == page.log.floor_seq + 1));
        } else {
            assert_eq!(first, (after < EVENTS).then_some(after + 1));
        }
        if ended {
            break;
        }
    }
    trimming.await.unwrap();
    assert!(behind > 0, "no read met a trim");
    assert_eq!(floor(bed, user).await, EVENTS);
}
