use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;

use super::*;
use crate::{
    actors::kernel::{Caps, Handle, Kernel, KernelMetrics, Place, RestartPolicy},
    domain::clock::{Clock, System, World},
    store::tests::Bed,
};

/// A wall clock that a test sets.
struct Wall(Mutex<DateTime<Utc>>);

impl Wall {
    fn at(text: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(text.parse().unwrap())))
    }

    fn set(&self, text: &str) {
        *self.0.lock().unwrap() = text.parse().unwrap();
    }
}

impl Clock for Wall {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    fn instant(&self) -> Instant {
        System.instant()
    }
}

fn start(bed: &Bed, wall: &Arc<Wall>, keep: u32) -> Handle<HistoryJanitor> {
    let parts = HistoryJanitorParts {
        store: bed.store.clone(),
        metrics: HistoryJanitorMetrics::register(&mut Registry::default()),
        daily: Daily {
            at: "02:00:00".parse().unwrap(),
            zone: "Asia/Shanghai".parse().unwrap(),
        },
        keep,
        period: Duration::from_millis(5),
    };
    let place = Place {
        caps: Caps {
            commands: 64,
            reads: 64,
        },
        policy: RestartPolicy::ROOT,
    };
    let world = World::new(wall.clone(), Arc::new(System));
    let metrics = KernelMetrics::register(&mut Registry::default());
    Kernel::new(world, metrics).start(place, move || HistoryJanitor::new(parts.clone()))
}

/// Waits until what the janitor shows is so.
async fn until(
    bed: &Bed,
    janitor: &Handle<HistoryJanitor>,
    so: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let deadline = bed.soon();
    loop {
        let view = janitor.observe(bed.soon()).await.unwrap();
        if so(&view) {
            return view;
        }
        assert!(World::system().instant() < deadline, "{view}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn next_is(at: &str) -> impl Fn(&serde_json::Value) -> bool {
    move |view| view["next_at"] == at
}

#[actix_rt::test]
async fn once_a_day_and_what_was_missed_at_the_start() {
    let bed = Bed::sqlite().await;
    let mut users = Vec::new();
    for n in 0..3 {
        let user = bed.user().await.user.id;
        bed.plays(user, 10 + n).await;
        users.push(user);
    }
    // It is noon in Shanghai, and nobody was up at two.
    let wall = Wall::at("2026-11-20T04:00:00Z");
    let janitor = start(&bed, &wall, 11);
    let view = until(&bed, &janitor, next_is("2026-11-20T18:00:00Z")).await;
    assert_eq!(view["last_removed"]["plays"], 1, "{view}");
    assert_eq!(view["last_removed"]["users"], 1, "{view}");
    assert_eq!(view["last_finished_at"], "2026-11-20T04:00:00Z");
    assert_eq!(bed.count_of_plays().await, 10 + 11 + 11);
    // Nothing more until two.
    bed.plays(users[0], 20).await;
    wall.set("2026-11-20T17:59:59Z");
    let other = start(&bed, &wall, 11);
    until(&bed, &other, next_is("2026-11-20T18:00:00Z")).await;
    assert_eq!(bed.count_of_plays().await, 20 + 11 + 11);
    // Then one of two nodes does it, and both know.
    wall.set("2026-11-20T18:00:00Z");
    for it in [&janitor, &other] {
        let view = until(&bed, it, next_is("2026-11-21T18:00:00Z")).await;
        assert_eq!(view["last_removed"]["plays"], 9, "{view}");
    }
    assert_eq!(bed.count_of_runs().await, 2);
    assert_eq!(bed.count_of_plays().await, 11 + 11 + 11);
    bed.done().await;
}

#[actix_rt::test]
async fn a_run_that_was_broken_off_is_carried_on() {
    let bed = Bed::sqlite().await;
    let user = bed.user().await.user.id;
    bed.plays(user, 15).await;
    let wall = Wall::at("2026-11-20T18:00:00Z");
    // A node took the run, and was never heard of again.
    let due = DueJob {
        job: JOB,
        due_at: wall.now(),
    };
    let taken = bed.store.run_claim(bed.soon(), due, wall.now(), wall.now());
    assert!(matches!(taken.await, Ok(Claim::Mine { .. })));
    let progress = Progress {
        after: None,
        removed: Removed {
            plays: 100,
            ..Removed::default()
        },
    };
    let report = RunReport {
        due,
        heard_at: wall.now(),
        now: wall.now(),
        progress,
        finished: false,
    };
    assert_eq!(bed.store.run_progress(bed.soon(), report).await, Ok(true));
    wall.set("2026-11-20T18:01:59Z");
    let janitor = start(&bed, &wall, 11);
    for _ in 0..20 {
        let view = janitor.observe(bed.soon()).await.unwrap();
        assert_eq!(view["next_at"], serde_json::Value::Null, "{view}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bed.count_of_plays().await, 15);
    wall.set("2026-11-20T18:02:00Z");
    let view = until(&bed, &janitor, next_is("2026-11-21T18:00:00Z")).await;
    assert_eq!(view["last_removed"]["plays"], 104, "{view}");
    bed.done().await;
}

#[actix_rt::test]
async fn a_clock_that_was_ahead_costs_no_day() {
    let bed = Bed::sqlite().await;
    let user = bed.user().await.user.id;
    let wall = Wall::at("2027-11-20T18:00:00Z");
    let janitor = start(&bed, &wall, 11);
    until(&bed, &janitor, next_is("2027-11-21T18:00:00Z")).await;
    bed.plays(user, 15).await;
    wall.set("2026-11-20T18:00:00Z");
    let view = until(&bed, &janitor, next_is("2026-11-21T18:00:00Z")).await;
    assert_eq!(view["last_removed"]["plays"], 4, "{view}");
    bed.done().await;
}

#[actix_rt::test]
async fn a_history_that_cannot_be_trimmed_keeps_no_other_from_its_turn() {
    let bed = Bed::sqlite().await;
    let mut users = Vec::new();
    for _ in 0..3 {
        let user = bed.user().await.user.id;
        bed.plays(user, 5).await;
        users.push(user);
    }
    users.sort_unstable_by_key(|user| user.0);
    let sql = format!(
        "CREATE TRIGGER broken BEFORE DELETE ON plays WHEN OLD.user_id = x'{}'
         BEGIN SELECT RAISE(ABORT, 'broken'); END",
        users[0].0.simple()
    );
    bed.sql(&sql).await.unwrap();
    let wall = Wall::at("2026-11-20T18:00:00Z");
    let janitor = start(&bed, &wall, 2);
    let view = until(&bed, &janitor, next_is("2026-11-21T18:00:00Z")).await;
    let removed = &view["last_removed"];
    assert_eq!(
        (&removed["plays"], &removed["failed"]),
        (&6.into(), &1.into())
    );
    assert_eq!(view["failures"], 1);
    bed.done().await;
}
