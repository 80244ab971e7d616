use std::sync::Mutex;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;

use super::*;
use crate::{
    domain::clock::{Clock, System},
    store::library::snapshot::{Places, SnapshotLines},
};

/// Moves only when a test says so.
struct Hand {
    base: Instant,
    passed: Mutex<Duration>,
}

impl Clock for Hand {
    fn now(&self) -> DateTime<Utc> {
        System.now()
    }
    fn instant(&self) -> Instant {
        self.base + *self.passed.lock().unwrap()
    }
}

struct Bench {
    places: Places,
    hand: Arc<Hand>,
    world: World,
}

impl Bench {
    fn new(readers: u32) -> Self {
        let hand = Arc::new(Hand {
            base: System.instant(),
            passed: Mutex::default(),
        });
        Self {
            places: Places::new(readers),
            world: World::new(hand.clone(), Arc::new(System)),
            hand,
        }
    }

    fn advance(&self, secs: u64) {
        *self.hand.passed.lock().unwrap() += Duration::from_secs(secs);
    }

    /// One that was read so fast that its pace says nothing for long, and its reader.
    async fn batches(&self) -> (Batches, SnapshotLines) {
        let turn = SnapshotTurn::default();
        let lines = SnapshotLines(Arc::clone(&turn.going));
        let place = self.places.take().await.unwrap();
        let mut batches = Batches::new(turn, place, &self.world);
        batches.sent = 1 << 30;
        (batches, lines)
    }

    /// One that waits for its reader.
    async fn slow(&self) -> (Batches, SnapshotLines) {
        let (mut batches, lines) = self.batches().await;
        let room = batches.wait_for_room(0).await;
        assert!(room.is_ok());
        (batches, lines)
    }
}

/// A line that fills a room.
fn long(batches: &mut Batches) {
    batches.size = WAITING;
}

#[tokio::test]
async fn a_slow_one_keeps_its_place() {
    let bench = Bench::new(4);
    let slow = bench.slow().await;
    let _quick = bench.batches().await;
    assert_eq!(bench.places.free(), (0, false));
    assert!(bench.places.take().now_or_never().is_none());
    drop(slow);
    assert_eq!(bench.places.free(), (1, true));
}

#[tokio::test]
async fn a_slow_one_has_a_minute_when_another_waits() {
    let bench = Bench::new(4);
    let (first, mut lines) = bench.slow().await;
    let (mut second, _lines) = bench.batches().await;
    bench.advance(59);
    assert!(second.wait_for_room(0).now_or_never().is_none());
    let going = Arc::clone(&first.going);
    assert!(!going.has_ended());
    bench.advance(1);
    // Nobody waits now.
    assert!(lines.recv().now_or_never().is_none());
    // Who works for the first one drops what it holds once that has ended.
    let working = going.unless_ended(async move {
        let first = first;
        std::future::pending::<()>().await;
        drop(first);
    });
    // Sooner than one is given up that waits for its place.
    let both = async { tokio::join!(working, second.wait_for_room(0)) };
    let (ended, room) = timeout(Duration::from_secs(1), both).await.unwrap();
    assert!(ended.is_none() && room.is_ok());
    assert!(lines.recv().await.is_none());
    assert!(!second.going.has_ended());
    assert_eq!(bench.places.free(), (1, false));
}

#[tokio::test]
async fn what_was_read_to_its_end_is_not_ended_for_those_who_wait() {
    let bench = Bench::new(8);
    let (mut first, mut lines) = bench.slow().await;
    first.flush().await.ok().unwrap();
    let going = Arc::downgrade(&first.going);
    // Its reader takes it later.
    drop(first);
    assert_eq!(going.strong_count(), 1, "the place still knows it");
    let (second, _lines) = bench.slow().await;
    bench.advance(600);
    let (mut third, _lines) = bench.batches().await;
    assert!(third.wait_for_room(0).now_or_never().is_none());
    assert!(second.going.has_ended());
    assert!(lines.recv().await.is_some());
}

#[tokio::test]
async fn with_one_place_for_all_a_slow_one_has_a_minute() {
    for (readers, ends) in [(1, true), (3, true), (4, false)] {
        let bench = Bench::new(readers);
        let (mut batches, _lines) = bench.slow().await;
        long(&mut batches);
        batches.flush().await.ok().unwrap();
        bench.advance(60);
        long(&mut batches);
        if ends {
            // Long before a reader is given up.
            let stopped = timeout(Duration::from_secs(1), batches.flush()).await;
            assert!(matches!(stopped, Ok(Err(Stop::Left))), "{readers}");
        } else {
            assert!(batches.flush().now_or_never().is_none(), "{readers}");
        }
    }
}
