//! What services put into logs: their share of a log, the counts of hours, who works at a broadcast.

use chrono::TimeDelta;

use super::*;
use crate::{
    domain::{
        ids::{ApiKeyId, BroadcastId},
        services::{
            ApiKey, Appended, BroadcastStarted, EventData, EventType, KeyName, Over, Quota, Quotas,
            Segment, StoredKey,
        },
        sync::Retention,
    },
    store::{BroadcastPage, BroadcastStep, Issued, NewBroadcast, Once, ServiceAppend},
};

on_both!(shares, counts_of_hours, leases);

const QUOTAS: Quotas = Quotas {
    of_key: 1000,
    of_user: 1000,
    of_log: 5,
};

async fn key(bed: &Bed) -> ApiKeyId {
    let id = ApiKeyId(bed.uuid());
    let key = StoredKey {
        key: ApiKey {
            id,
            name: KeyName::parse("billing").unwrap(),
            scopes: Vec::new(),
            events_per_hour: None,
            created_at: t(0),
            revoked_at: None,
        },
        hash: "h".to_owned(),
    };
    bed.store.api_key_create(bed.soon(), key).await.unwrap();
    id
}

fn data() -> EventData {
    EventData::try_from(serde_json::Map::new()).unwrap()
}

async fn append(bed: &Bed, key: ApiKeyId, user: UserId, now: DateTime<Utc>) -> Appended {
    let command = ServiceAppend {
        issued: Issued {
            user,
            origin: None,
            now,
            event_id: EventId(bed.uuid()),
        },
        key,
        quotas: QUOTAS,
        event_type: EventType::parse("a.b").unwrap(),
        data: data(),
    };
    match bed.store.service_append(bed.soon(), command, None).await {
        Ok(Once::Ran(written)) => written.value,
        other => panic!("{other:?}"),
    }
}

async fn broadcast(bed: &Bed, key: ApiKeyId) -> BroadcastId {
    let id = BroadcastId(bed.uuid());
    let new = NewBroadcast {
        id,
        key,
        event_type: EventType::parse("a.b").unwrap(),
        data: data(),
        segment: Segment::Everybody,
        now: t(0),
    };
    let started = bed.store.broadcast_start(bed.soon(), new, None).await;
    assert_eq!(started, Ok(BroadcastStarted::Accepted(id)));
    id
}

/// However slowly they come, services' events are no more than their share of what the log holds.
async fn shares(bed: &Bed) {
    let (user, other) = (bed.user().await.user.id, bed.user().await.user.id);
    let key = key(bed).await;
    let hour = |n: i64| t(0) + TimeDelta::hours(n);
    for n in 0..5 {
        let stored = append(bed, key, user, hour(n)).await;
        assert!(matches!(stored, Appended::Stored { .. }), "{stored:?}");
    }
    let full = |value| {
        assert!(
            matches!(
                value,
                Appended::OverQuota(Over {
                    what: Quota::Log,
                    ..
                })
            ),
            "{value:?}"
        );
    };
    full(append(bed, key, user, hour(100)).await);
    // The user's own events do not count.
    for n in 0..5 {
        let own = bed.favorite(user, &format!("s{n}"), t(n));
        bed.store.favorite_put(bed.soon(), own).await.unwrap();
    }
    full(append(bed, key, user, hour(200)).await);

    // A broadcast goes past that user, and counts for the other one.
    let id = broadcast(bed, key).await;
    let taken = bed
        .store
        .broadcast_take(bed.soon(), id, "a", t(0), t(0), t(9))
        .await;
    let taken = taken.unwrap().unwrap();
    let step = BroadcastStep {
        id,
        owner: "a".to_owned(),
        lease_until: t(9),
        position: taken.position,
        page: BroadcastPage {
            users: vec![user, other],
            to: taken.last_user,
            last: true,
        },
        key,
        quotas: QUOTAS,
        event_type: "a.b".to_owned(),
        data: serde_json::json!({}),
        event_id: EventId(bed.uuid()),
        now: hour(300),
    };
    let stepped = bed.store.broadcast_step(bed.soon(), step).await;
    let stepped = stepped.unwrap().unwrap();
    assert_eq!((stepped.events.len(), stepped.skipped), (1, 1));
    for _ in 0..4 {
        append(bed, key, other, hour(400)).await;
    }
    full(append(bed, key, other, hour(400)).await);

    // What is trimmed makes room.
    let rule = Retention {
        max_age: TimeDelta::days(1000),
        min_age: TimeDelta::zero(),
        max_events: 4,
        min_events: 0,
    };
    let trimmed = bed.store.log_trim(bed.soon(), user, rule, hour(500)).await;
    assert_eq!(trimmed.unwrap().events, 6);
    let stored = append(bed, key, user, hour(500)).await;
    assert!(matches!(stored, Appended::Stored { .. }), "{stored:?}");
    full(append(bed, key, other, hour(500)).await);
    // Of what is counted together no more than is left.
    let rule = Retention {
        max_events: 3,
        ..rule
    };
    let trimmed = bed.store.log_trim(bed.soon(), other, rule, hour(500)).await;
    assert_eq!(trimmed.unwrap().events, 2);
    for _ in 0..2 {
        let stored = append(bed, key, other, hour(500)).await;
        assert!(matches!(stored, Appended::Stored { .. }), "{stored:?}");
    }
    full(append(bed, key, other, hour(500)).await);
}

/// Counts of hours that are long over go, and no others.
async fn counts_of_hours(bed: &Bed) {
    let key = key(bed).await;
    let hour = |n: i64| t(0) + TimeDelta::hours(n);
    let weeks = |n: i64| 24 * 7 * n;
    for n in [0, 1, weeks(4)] {
        let user = bed.user().await.user.id;
        append(bed, key, user, hour(n)).await;
    }
    let sweep = async |n| bed.store.service_quotas_sweep(bed.soon(), hour(n)).await;
    // By a clock that is ahead, as it may be.
    assert_eq!(sweep(weeks(3)).await, Ok((0, false)));
    assert_eq!(sweep(weeks(4) + 2).await, Ok((2, false)));
    assert_eq!(bed.count("SELECT count(*) FROM service_quotas").await, 1);
}

/// A lease is taken as it was seen, by one.
async fn leases(bed: &Bed) {
    let key = key(bed).await;
    let id = broadcast(bed, key).await;
    let take = async |owner, seen, until| {
        let soon = bed.soon();
        let taken = bed
            .store
            .broadcast_take(soon, id, owner, t(1), seen, until)
            .await;
        taken.unwrap().is_some()
    };
    // The clock of the first one is an hour ahead, and it dies.
    assert!(take("a", t(0), t(3600)).await);
    assert!(!take("b", t(0), t(6)).await);
    assert!(take("b", t(3600), t(6)).await);
    assert!(!take("c", t(3600), t(6)).await);
}
