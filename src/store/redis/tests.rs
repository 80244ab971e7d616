use proptest::prelude::*;

use std::time::Duration;

use uuid::Uuid;

use super::{
    hints::ROOM,
    words::{channel, read, write_attached, write_head},
    *,
};
use crate::domain::{
    ids::{DeviceId, Epoch, UserId},
    limit::{LimitKey, Rate, Verdict},
    sync::LogHead,
};

fn metrics() -> (HintMetrics, LimitMetrics) {
    let registry = &mut prometheus_client::registry::Registry::default();
    (
        HintMetrics::register(registry),
        LimitMetrics::register(registry),
    )
}

fn url() -> String {
    std::env::var("LISTEN_STREAM_TEST_REDIS_URL")
        .expect("LISTEN_STREAM_TEST_REDIS_URL: run through scripts/servers.sh or make test")
}

fn start(metrics: (HintMetrics, LimitMetrics)) -> (Redis, mpsc::Receiver<Hint>) {
    Redis::start(&url(), &Handle::current(), &World::system(), metrics).unwrap()
}

/// The next hint but [`Hint::Revoked`], which other tests may send.
async fn next(heard: &mut mpsc::Receiver<Hint>) -> Option<Hint> {
    loop {
        match heard.recv().await {
            Some(Hint::Revoked) => {}
            other => return other,
        }
    }
}

proptest! {
    #[test]
    fn a_hint_is_read_as_it_was_written(user: u128, id: u128, head in 0..i64::MAX, floor in 0..i64::MAX) {
        let user = UserId(Uuid::from_u128(user));
        let channel = channel(user);
        let log = LogHead { epoch: Epoch(Uuid::from_u128(id)), head_seq: head, floor_seq: floor };
        let hint = read(channel.as_bytes(), write_head(log).as_bytes());
        prop_assert_eq!(hint, Some(Hint::Head(user, log)));
        let superseded = Superseded { device: DeviceId(Uuid::from_u128(!id)), attach_epoch: head };
        let text = write_attached(log.epoch, superseded.device, head);
        let hint = read(channel.as_bytes(), text.as_bytes());
        prop_assert_eq!(hint, Some(Hint::Attached(user, log.epoch, superseded)));
    }

    #[test]
    fn any_text_is_read_without_harm(channel: Vec<u8>, text: Vec<u8>) {
        let _ = read(&channel, &text);
    }
}

#[test]
fn what_another_release_says_is_passed_over() {
    let user = channel(UserId(Uuid::from_u128(7)));
    assert_eq!(read(b"listen-stream:revoked", b"revoked/2"), None);
    assert_eq!(
        read(b"listen-stream:revoked", b"revoked/1"),
        Some(Hint::Revoked)
    );
    let id = Uuid::from_u128(9);
    for text in [
        format!("attached/1 {id} 4"),
        format!("attached/3 {id} {id} 4"),
        format!("attached/2 {id} {id} 4 more"),
        format!("attached/2 {id} {id}"),
        "told/1 {\"node\":\"n\",\"news\":{\"present\":{\"devices\":[],\"answer\":true}}}"
            .to_owned(),
        format!("{id} 4 3 2"),
        "dance/1 now".to_owned(),
    ] {
        assert_eq!(read(user.as_bytes(), text.as_bytes()), None, "{text}");
    }
}

/// Waits until a channel has so many subscribers.
async fn eventually(client: &Client, channel: &str, subscribers: i64) {
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for _ in 0..500 {
        let (_, now): (String, i64) = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg(channel)
            .query_async(&mut connection)
            .await
            .unwrap();
        if now == subscribers {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{channel} never had {subscribers} subscribers");
}

#[tokio::test]
async fn who_is_unwanted_while_redis_is_away_is_not_listened_for_after() {
    let client = Client::open(url()).unwrap();
    let (Redis { hints, .. }, _heard) = start(metrics());
    let user = UserId(Uuid::from_u128(u128::from(std::process::id()) << 64 | 7));
    hints.listen(user);
    eventually(&client, &channel(user), 1).await;
    // As if the connection had been lost; the next probe finds Redis again.
    hints.link.lost();
    hints.unlisten(user);
    eventually(&client, &channel(user), 0).await;
}

#[tokio::test]
async fn who_is_wanted_is_never_lost_however_much_waits() {
    let client = Client::open(url()).unwrap();
    let (Redis { hints, .. }, mut heard) = start(metrics());
    let user = |n: u128| UserId(Uuid::from_u128(u128::from(std::process::id()) << 64 | n));
    // The worker shares this thread: it takes nothing before the test waits.
    let log = LogHead {
        epoch: Epoch(Uuid::from_u128(8)),
        head_seq: 1,
        floor_seq: 0,
    };
    let fill = || {
        for _ in 0..=ROOM {
            hints.publish(user(8), log);
        }
        assert_eq!(hints.texts.capacity(), 0);
    };
    fill();
    hints.listen(user(9));
    eventually(&client, &channel(user(9)), 1).await;
    assert_eq!(next(&mut heard).await, Some(Hint::Listening(user(9))));
    // A wish that takes the place of another is answered as well.
    fill();
    hints.unlisten(user(9));
    hints.listen(user(9));
    let answer = tokio::time::timeout(Duration::from_secs(10), next(&mut heard));
    assert_eq!(answer.await.unwrap(), Some(Hint::Listening(user(9))));
    fill();
    hints.unlisten(user(9));
    eventually(&client, &channel(user(9)), 0).await;
}

#[tokio::test]
async fn a_hint_that_redis_is_not_there_to_take_is_counted_as_lost() {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = HintMetrics::register(&mut registry);
    let (Redis { hints, .. }, _heard) = start((metrics, self::metrics().1));
    let counted = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        !text.contains("redis_hints_lost_total{kind=\"head\",reason=\"away\"} 0\n")
    };
    assert!(!counted());
    let log = LogHead {
        epoch: Epoch(Uuid::from_u128(8)),
        head_seq: 1,
        floor_seq: 0,
    };
    // Redis is found to be there once a second, and then takes one.
    for _ in 0..500 {
        hints.link.lost();
        hints.publish(UserId(Uuid::from_u128(7)), log);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if counted() {
            return;
        }
    }
    panic!("no hint was counted as lost");
}

#[test]
fn an_unusable_url_is_not_shown() {
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error =
        Redis::start("redis://:secret@", rt.handle(), &World::system(), metrics()).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

/// What several nodes together let through of one caller.
#[tokio::test]
async fn nodes_share_a_bucket() {
    let nodes = [start(metrics()), start(metrics())];
    let limits = nodes.each_ref().map(|(redis, _)| redis.limits.clone());
    for it in &limits {
        for _ in 0..500 {
            if it.are_shared() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(it.are_shared());
    }
    let key = LimitKey::User(UserId(World::system().uuid().unwrap()));
    let rate = Rate {
        interval: Duration::from_mins(1),
        burst: 10,
    };
    let (mut passed, mut refused) = (0, 0);
    for n in 0..40 {
        match limits[n % 2].take(key, rate, 1) {
            Some(Verdict::Pass(_)) => passed += 1,
            Some(Verdict::Refuse(wait)) => {
                assert!(wait > Duration::from_secs(30), "{wait:?}");
                refused += 1;
            }
            None => panic!("not shared"),
        }
        // So that each question has its answer before the next is asked.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One a node may have been let through while it asked.
    assert!(
        (10..=12).contains(&passed),
        "{passed} passed, {refused} were refused"
    );
}

#[tokio::test]
async fn a_redis_that_forgot_the_script_is_taught_it_again() {
    let (redis, _heard) = start(metrics());
    let rate = Rate {
        interval: Duration::from_millis(1),
        burst: 1000,
    };
    let client = Client::open(url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let user = World::system().uuid().unwrap();
    let stored = format!("listen-stream:limit:user:1000:1000:{user}");
    for round in 0..2 {
        let _: () = redis::cmd("SCRIPT")
            .arg("FLUSH")
            .query_async(&mut connection)
            .await
            .unwrap();
        let _: () = redis::cmd("DEL")
            .arg(&stored)
            .query_async(&mut connection)
            .await
            .unwrap();
        let mut found = false;
        for _ in 0..500 {
            let _ = redis.limits.take(LimitKey::User(UserId(user)), rate, 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
            found = redis::cmd("EXISTS")
                .arg(&stored)
                .query_async(&mut connection)
                .await
                .unwrap();
            if found {
                break;
            }
        }
        assert!(found, "round {round}");
        assert!(redis.limits.are_shared());
    }
}
