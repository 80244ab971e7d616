use serde_json::json;

use super::*;
use crate::store::{HistoryClear, Issued};

on_both!(
    favorites,
    lists,
    concurrent_writers,
    many_at_once,
    no_log,
    gone_among_others,
    an_id_twice,
    an_id_twice_at_once,
);

async fn favorites(bed: &Bed) {
    let s = bed.user().await;
    let (store, user) = (&bed.store, s.user.id);
    let command = |at| bed.favorite(user, "song:1", t(at));

    let never = store.favorite_remove(bed.soon(), command(1)).await.unwrap();
    assert_eq!(
        (never.value, never.events.len(), never.log.head_seq),
        (false, 0, 0)
    );
    let never = store
        .favorite_restore(bed.soon(), command(1))
        .await
        .unwrap();
    assert_eq!((never.value, never.events.len()), (None, 0));

    let added = store.favorite_put(bed.soon(), command(2)).await.unwrap();
    assert!(added.value.added);
    assert_eq!(added.log.head_seq, 1);
    let favorite = added.value.favorite.clone();
    assert_eq!(favorite.created_at, t(2));
    let event = &added.events[0];
    assert_eq!(
        (event.seq, event.event_type.as_str()),
        (1, "favorite.added")
    );
    assert_eq!(event.origin_device_id, Some(s.device.device_id.clone()));
    assert_eq!(
        event.data,
        json!({
            "id": favorite.id, "type": "song", "target_id": "song:1",
            "created_at": "2026-11-18T11:06:42.123456Z", "version": 1,
        })
    );

    let again = store.favorite_put(bed.soon(), command(3)).await.unwrap();
    assert_eq!(
        (again.value.added, &again.value.favorite),
        (false, &favorite)
    );
    assert_eq!((again.events.len(), again.log.head_seq), (0, 1));
    let in_force = store
        .favorite_restore(bed.soon(), command(3))
        .await
        .unwrap();
    assert_eq!(
        (in_force.value, in_force.events.len()),
        (Some(favorite.clone()), 0)
    );

    let removed = store.favorite_remove(bed.soon(), command(4)).await.unwrap();
    assert_eq!((removed.value, removed.log.head_seq), (true, 2));
    assert_eq!(removed.events[0].event_type, "favorite.removed");
    let twice = store.favorite_remove(bed.soon(), command(5)).await.unwrap();
    assert_eq!(
        (twice.value, twice.events.len(), twice.log.head_seq),
        (true, 0, 2)
    );

    let restored = store
        .favorite_restore(bed.soon(), command(6))
        .await
        .unwrap();
    assert_eq!(restored.value, Some(favorite.clone()), "created_at is kept");
    assert_eq!(restored.events[0].event_type, "favorite.restored");
    assert_eq!(restored.events[0].data["version"], 3);

    store.favorite_remove(bed.soon(), command(7)).await.unwrap();
    let back = store.favorite_put(bed.soon(), command(8)).await.unwrap();
    assert!(back.value.added);
    assert_eq!(back.value.favorite.id, favorite.id, "the id is kept");
    assert_eq!(back.value.favorite.created_at, t(8));
    assert_eq!(back.events[0].event_type, "favorite.added");

    let page = store
        .log_page(bed.soon(), user, 0, 100)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(page.log.head_seq, 5);
    assert_eq!(page.events[0], added.events[0]);
    assert_eq!(page.events[4], back.events[0]);
}

async fn lists(bed: &Bed) {
    let user = bed.user().await.user.id;
    for i in 0..7 {
        // Pairs of one moment: the id decides.
        let mut command = bed.favorite(user, &format!("x{i}"), t(i / 2));
        command.favorite_id = FavoriteId(Uuid::from_u128(u128::try_from(i).unwrap()));
        if i == 3 {
            command.key.kind = FavoriteType::Album;
        }
        bed.store.favorite_put(bed.soon(), command).await.unwrap();
    }
    let gone = bed.favorite(user, "x6", t(9));
    bed.store.favorite_remove(bed.soon(), gone).await.unwrap();
    let mut query = FavoriteQuery {
        user,
        kind: None,
        limit: 2,
        before: None,
    };
    let mut seen = Vec::new();
    loop {
        let page = bed
            .store
            .favorite_list(bed.soon(), query.clone())
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        query.before = Some((last.created_at, last.id));
        seen.extend(page.iter().map(|f| f.target_id.as_str().to_owned()));
    }
    assert_eq!(seen, ["x5", "x4", "x3", "x2", "x1", "x0"]);
    query.kind = Some(FavoriteType::Album);
    query.before = None;
    let albums = bed.store.favorite_list(bed.soon(), query).await.unwrap();
    assert_eq!(albums.len(), 1);
}

async fn concurrent_writers(bed: &Bed) {
    let user = bed.user().await.user.id;
    let tasks: Vec<_> = (0..32)
        .map(|i| {
            let command = bed.favorite(user, &format!("song-{i}"), t(i));
            let (store, soon) = (bed.store.clone(), bed.soon());
            tokio::spawn(async move { store.favorite_put(soon, command).await.unwrap() })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.push(task.await.unwrap().events[0].seq);
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=32).collect::<Vec<i64>>());
    let page = bed
        .store
        .log_page(bed.soon(), user, 0, 100)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(page.events.len(), 32);
}

/// Changes of several users that meet on the same favorites: on SQLite they share transactions, and
/// statements.
async fn many_at_once(bed: &Bed) {
    let mut users = Vec::new();
    for _ in 0..3 {
        users.push(bed.user().await.user.id);
    }
    let tasks: Vec<_> = (0..150)
        .map(|i| {
            let (user, target) = (users[i % 3], format!("song-{}", i % 7));
            let command = bed.favorite(user, &target, t(i64::try_from(i).unwrap()));
            let (store, soon) = (bed.store.clone(), bed.soon());
            tokio::spawn(async move {
                match i % 5 {
                    0 | 1 => store.favorite_put(soon, command).await.unwrap().events,
                    2 | 3 => store.favorite_remove(soon, command).await.unwrap().events,
                    _ => store.favorite_restore(soon, command).await.unwrap().events,
                }
            })
        })
        .collect();
    let mut told = Vec::new();
    for task in tasks {
        told.extend(task.await.unwrap());
    }
    let splits = bed.store.inner.metrics.splits.get();
    assert_eq!(splits, 0, "commands that share a transaction get on");
    for user in users {
        let page = bed.store.log_page(bed.soon(), user, 0, 200).await.unwrap();
        let events = page.unwrap().events;
        let mut told: Vec<_> = told.iter().filter(|e| e.user_id == user).cloned().collect();
        told.sort_unstable_by_key(|e| e.seq);
        assert_eq!(events, told, "what was answered is what is stored");
        // Who applies the events has what the table has.
        let mut in_force = std::collections::BTreeMap::new();
        for event in &events {
            let id = event.data["id"].as_str().unwrap().to_owned();
            assert_eq!(event.data["version"], event.seq);
            let was = match event.event_type.as_str() {
                "favorite.removed" => in_force.remove(&id).is_some(),
                _ => in_force
                    .insert(id, event.data["created_at"].clone())
                    .is_none(),
            };
            assert!(was, "each event changes something: {event:?}");
        }
        let query = FavoriteQuery {
            user,
            kind: None,
            limit: 100,
            before: None,
        };
        let listed = bed.store.favorite_list(bed.soon(), query).await.unwrap();
        let listed = listed.into_iter().map(|f| {
            let at = json!(crate::domain::time::rfc3339(f.created_at));
            (f.id.to_string(), at)
        });
        assert_eq!(
            listed.collect::<std::collections::BTreeMap<_, _>>(),
            in_force
        );
    }
}

async fn no_log(bed: &Bed) {
    let command = bed.favorite(UserId(bed.uuid()), "x", t(0));
    let refused = bed.store.favorite_put(bed.soon(), command).await;
    assert_eq!(refused, Err(StoreError::NoUser));
}

/// Whoever is gone fails alone: nobody's transaction is broken by it.
async fn gone_among_others(bed: &Bed) {
    let mut users = Vec::new();
    for _ in 0..20 {
        users.push(bed.user().await.user.id);
    }
    // Held from outside, so that they share a transaction.
    let held = match bed.store.engine() {
        Engine::Sqlite => Some(bed.hold().await),
        Engine::Postgres => None,
    };
    let put = |user| {
        let command = bed.favorite(user, "x", t(0));
        let (store, soon) = (bed.store.clone(), bed.soon());
        tokio::spawn(async move { store.favorite_put(soon, command).await })
    };
    let mut puts: Vec<_> = users.iter().map(|user| put(*user)).collect();
    let gone = put(UserId(bed.uuid()));
    let clear = HistoryClear {
        issued: Issued {
            user: UserId(bed.uuid()),
            origin: None,
            now: t(0),
            event_id: EventId(bed.uuid()),
        },
        key: None,
    };
    let (store, soon) = (bed.store.clone(), bed.soon());
    let cleared = tokio::spawn(async move { store.history_clear(soon, clear).await });
    let metrics = &bed.store.inner.metrics;
    while held.is_some() && metrics.queue.length.get() < 22 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(held);
    for put in puts.drain(..) {
        assert_eq!(put.await.unwrap().unwrap().log.head_seq, 1);
    }
    assert_eq!(gone.await.unwrap().unwrap_err(), StoreError::NoUser);
    assert_eq!(cleared.await.unwrap().unwrap_err(), StoreError::NoUser);
    assert_eq!(metrics.splits.get(), 0);
}

/// An id that comes twice damages nothing.
async fn an_id_twice(bed: &Bed) {
    let (one, two) = (bed.user().await.user.id, bed.user().await.user.id);
    let first = bed.favorite(one, "x", t(0));
    for (user, target) in [(two, "x"), (one, "y")] {
        bed.store
            .favorite_put(bed.soon(), first.clone())
            .await
            .unwrap();
        let mut second = bed.favorite(user, target, t(1));
        second.favorite_id = first.favorite_id;
        let refused = bed.store.favorite_put(bed.soon(), second).await;
        assert!(
            matches!(refused, Err(StoreError::Corrupt(_))),
            "{refused:?}"
        );
    }
    assert_eq!(bed.count("SELECT count(*) FROM favorites").await, 1);
    assert_eq!(bed.count("SELECT version FROM favorites").await, 1);
    assert_eq!(bed.count("SELECT count(*) FROM sync_events").await, 1);
}

/// The same of two that come at once: on SQLite in one transaction.
async fn an_id_twice_at_once(bed: &Bed) {
    let (one, two) = (bed.user().await.user.id, bed.user().await.user.id);
    let (metrics, engine) = (&bed.store.inner.metrics, bed.store.engine());
    for (user, from) in [(two, 0), (one, 100)] {
        let splits = metrics.splits.get();
        // Until they have met in a transaction.
        for n in from..from + 100 {
            let count = async |table| bed.count(&format!("SELECT count(*) FROM {table}")).await;
            let before = (count("favorites").await, count("sync_events").await);
            let held = match engine {
                Engine::Sqlite => Some(bed.hold().await),
                Engine::Postgres => None,
            };
            let put = |command| {
                let (store, soon) = (bed.store.clone(), bed.soon());
                tokio::spawn(async move { store.favorite_put(soon, command).await })
            };
            let wait = async |length| {
                while held.is_some() && metrics.queue.length.get() < length {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            // The writer waits with this one, so that the others are taken together.
            let other = put(bed.favorite(one, "z", t(0)));
            wait(1).await;
            let first = bed.favorite(one, &format!("x{n}"), t(0));
            let mut second = bed.favorite(user, &format!("y{n}"), t(1));
            second.favorite_id = first.favorite_id;
            let both = [put(first), put(second)];
            wait(3).await;
            drop(held);
            let other = other.await.unwrap().unwrap();
            let (mut stored, mut refused) = (0, 0);
            for put in both {
                match put.await.unwrap() {
                    Ok(_) => stored += 1,
                    Err(StoreError::Corrupt(_)) => refused += 1,
                    Err(e) => panic!("{e:?}"),
                }
            }
            assert_eq!((stored, refused), (1, 1));
            let new = 1 + i64::from(other.value.added);
            let after = (count("favorites").await, count("sync_events").await);
            assert_eq!(after, (before.0 + new, before.1 + new));
            if engine == Engine::Postgres || metrics.splits.get() > splits {
                break;
            }
        }
        let met = metrics.splits.get() > splits;
        assert_eq!(met, engine == Engine::Sqlite);
    }
}
