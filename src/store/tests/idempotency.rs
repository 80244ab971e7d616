//! Keys of calls where more than one asks, and calls that were refused.

use super::*;
use crate::{
    domain::{
        idempotency::IdempotencyKey,
        ids::{ApiKeyId, EntryId, PlaylistId},
        library::{NewPlaylist, Place, PlaylistName, PlaylistRefusal},
        services::{Appended, EventData, EventType, Quotas},
    },
    store::{NewSongs, PlaylistCommand, ServiceAppend},
};

on_both!(
    a_services_key_is_for_one_of_two_users,
    a_refused_call_is_decided_anew_and_no_other,
    a_service_over_its_quota_leaves_nothing,
    an_answer_without_a_position_is_told_with_the_head
);

fn key(n: i64, asked: &str) -> IdempotencyKey {
    IdempotencyKey {
        key_hash: n.to_string(),
        asked_hash: asked.into(),
    }
}

/// An event of a service, whose every quota is `quota`.
fn event_of(
    bed: &Bed,
    key: ApiKeyId,
    user: UserId,
    now: DateTime<Utc>,
    quota: i64,
) -> ServiceAppend {
    ServiceAppend {
        issued: Issued {
            user,
            origin: None,
            now,
            event_id: EventId(bed.uuid()),
        },
        key,
        quotas: Quotas {
            of_key: quota,
            of_user: quota,
            of_log: quota,
        },
        event_type: EventType::parse("shop.bought").unwrap(),
        data: serde_json::from_str::<EventData>("{}").unwrap(),
    }
}

impl Bed {
    async fn api_key(&self) -> ApiKeyId {
        let id = ApiKeyId(self.uuid());
        let literal = match self.store.engine() {
            Engine::Sqlite => format!("X'{}'", id.0.simple()),
            Engine::Postgres => format!("'{id}'"),
        };
        let sql = format!(
            "INSERT INTO api_keys (id, name, hash, scopes, events_per_hour, created_at)
             VALUES ({literal}, 'n', 'h', '[]', 1000, '2026-01-01T00:00:00.000000Z')"
        );
        self.sql(&sql).await.unwrap();
        id
    }
}

async fn a_services_key_is_for_one_of_two_users(bed: &Bed) {
    let service = bed.api_key().await;
    let users = [bed.user().await.user.id, bed.user().await.user.id];
    let append = |user: UserId, n: i64| {
        let command = event_of(bed, service, user, t(n), 1000);
        let (store, soon) = (bed.store.clone(), bed.soon());
        async move {
            let key = key(n, &user.to_string());
            store
                .service_append(soon, command, Some(key))
                .await
                .unwrap()
        }
    };
    let stored = |once: &Once<Appended>| match once {
        Once::Ran(written) => {
            assert!(matches!(written.value, Appended::Stored { .. }));
            Some(written.value)
        }
        Once::Reused => None,
    };
    for n in 0..150 {
        let both = users.map(|user| tokio::spawn(append(user, n)));
        let [one, other] = both;
        let both = [one.await.unwrap(), other.await.unwrap()];
        let winner = both.iter().position(|it| stored(it).is_some()).unwrap();
        assert_eq!(both[1 - winner], Once::Reused, "round {n}");
        let again = append(users[winner], n).await;
        assert_eq!(stored(&again), stored(&both[winner]), "round {n}");
    }
    assert_eq!(bed.count("SELECT count(*) FROM sync_events").await, 150);
}

async fn a_refused_call_is_decided_anew_and_no_other(bed: &Bed) {
    let user = bed.user().await.user.id;
    let id = PlaylistId(bed.uuid());
    let command = || PlaylistCommand {
        issued: Issued {
            user,
            origin: None,
            now: t(0),
            event_id: EventId(bed.uuid()),
        },
        id,
        expected: None,
    };
    let add = async |asked: &str| {
        let new = NewSongs {
            place: Place::End,
            songs: vec![TargetId::parse("s").unwrap()],
            first: EntryId(bed.uuid()),
            key: Some(key(1, asked)),
        };
        let once = bed
            .store
            .playlist_songs_add(bed.soon(), command(), new)
            .await;
        match once.unwrap() {
            Once::Ran(written) => Some(written.value.map(|it| it.entries)),
            Once::Reused => None,
        }
    };
    for _ in 0..2 {
        assert_eq!(add("a").await, Some(Err(PlaylistRefusal::NotFound)));
        assert_eq!(add("b").await, None);
    }
    let new = NewPlaylist {
        name: PlaylistName::parse("n").unwrap(),
        cover_url: None,
        is_public: false,
    };
    let made = bed
        .store
        .playlist_create(bed.soon(), command(), new, None)
        .await;
    assert!(matches!(made.unwrap(), Once::Ran(_)));
    let first = add("a").await;
    assert!(matches!(first, Some(Ok(_))));
    assert_eq!(add("a").await, first);
    assert_eq!(add("b").await, None);
}

/// Rows of earlier versions do not say where the log stood.
async fn an_answer_without_a_position_is_told_with_the_head(bed: &Bed) {
    let user = bed.user().await.user.id;
    let id = PlaylistId(bed.uuid());
    let new = NewPlaylist {
        name: PlaylistName::parse("n").unwrap(),
        cover_url: None,
        is_public: false,
    };
    let make = async || {
        let issued = Issued {
            user,
            origin: None,
            now: t(0),
            event_id: EventId(bed.uuid()),
        };
        let command = PlaylistCommand {
            issued,
            id,
            expected: None,
        };
        let key = Some(key(1, "a"));
        let once = bed
            .store
            .playlist_create(bed.soon(), command, new.clone(), key);
        match once.await.unwrap() {
            Once::Ran(written) => (written.value.unwrap().id, written.log.head_seq),
            Once::Reused => panic!("the same call"),
        }
    };
    assert_eq!(make().await, (id, 1));
    bed.favorites(user, 3).await;
    assert_eq!(make().await, (id, 1));
    let old = match bed.store.engine() {
        Engine::Sqlite => "json_remove(answer, '$.seq')",
        Engine::Postgres => "answer - 'seq'",
    };
    bed.sql(&format!("UPDATE idempotency_keys SET answer = {old}"))
        .await
        .unwrap();
    assert_eq!(make().await, (id, 4));
}

async fn a_service_over_its_quota_leaves_nothing(bed: &Bed) {
    let (service, user) = (bed.api_key().await, bed.user().await.user.id);
    for n in 0..3 {
        let command = event_of(bed, service, user, t(0), 1);
        let key = Some(key(n, "a"));
        let once = bed.store.service_append(bed.soon(), command, key).await;
        let Ok(Once::Ran(written)) = once else {
            panic!("{once:?}");
        };
        let stored = matches!(written.value, Appended::Stored { .. });
        assert_eq!(stored, n == 0);
    }
    let kept = bed.count("SELECT count(*) FROM idempotency_keys").await;
    assert_eq!(kept, 1);
}
