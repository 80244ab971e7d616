//! Panics end one life of one actor; the next is made by the policy.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use actix::Arbiter;
use futures_util::{future::join_all, poll};
use listen_stream::{
    actors::kernel::{CallError, Class, Life, Registry, Reply, RestartPolicy},
    domain::clock::{Clock, System},
};
use tokio::sync::oneshot;

use crate::probe::{
    Bench, Do, Fate, PLACE, Probe, QUICK, Seen, command, echo, fail, hint, long, place, until,
    well, which_life,
};

/// Fails in the given way in its first life only.
fn first(fate: Fate) -> impl Fn(u32) -> Fate {
    move |life| if life == 1 { fate } else { Fate::Well }
}

#[actix_rt::test]
async fn a_panic_ends_one_life_and_its_neighbour_notices_nothing() {
    let bench = Bench::new();
    let (neighbour, its) = bench.start(PLACE, well);
    let (end, ended) = oneshot::channel::<()>();
    let mut held =
        Box::pin(neighbour.ask(command(|_, _| Reply::later(ended, |_, _, _| 9)), long()));
    assert!(poll!(&mut held).is_pending());

    let in_work: fn() -> Do<0> =
        || command(|_, _| Reply::later(async { panic!("planted in later") }, |_, (), _| 0));
    let in_then: fn() -> Do<0> =
        || command(|_, _| Reply::later(async {}, |_, (), _| panic!("planted in then")));
    let ways: [fn() -> Do<0>; 3] = [fail, in_work, in_then];
    for way in ways {
        let (probe, seen) = bench.start(PLACE, well);
        assert_eq!(probe.ask(way(), long()).await, Err(CallError::Gone));
        assert_eq!(probe.ask(which_life(), long()).await, Ok(2));
        assert_eq!((seen.made(), probe.restarts()), (2, 1));
        assert_eq!(probe.life(), Life::Up(1));
        assert_eq!(probe.in_progress(Class::Command), 0);
    }
    for fate in [Fate::FailsInMake, Fate::FailsInStarted] {
        let (probe, seen) = bench.start(PLACE, first(fate));
        probe.life_after(Life::Up(0)).await;
        assert_eq!(probe.ask(which_life(), long()).await, Ok(2));
        assert_eq!((seen.made(), probe.restarts()), (2, 1));
    }

    end.send(()).unwrap();
    assert_eq!(held.await, Ok(9));
    assert_eq!((its.made(), neighbour.restarts()), (1, 0));
    assert_eq!(neighbour.life(), Life::Up(0));
}

#[actix_rt::test]
async fn a_panic_in_work_beside_the_mailbox_ends_the_life_too() {
    let (probe, _) = Bench::new().start(PLACE, well);
    let ways = [
        hint(|_, cx| cx.spawn(async {}, |_, (), _| panic!("planted in spawn"))),
        hint(|_, cx| {
            cx.after(Duration::ZERO, |_, _| panic!("planted in a timer"));
        }),
        hint(|_, _| panic!("planted in a tell")),
    ];
    for (life, way) in (0..).zip(ways) {
        assert_eq!(probe.tell(way), Ok(()));
        probe.life_after(Life::Up(life)).await;
        assert_eq!(
            probe.ask(which_life(), long()).await,
            Ok(u64::from(life) + 2)
        );
    }
}

#[actix_rt::test]
async fn a_panic_while_the_broken_state_is_dropped_does_not_end_the_process() {
    let (probe, _) = Bench::new().start(PLACE, first(Fate::FailsInDrop));
    assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
    assert_eq!(probe.ask(which_life(), long()).await, Ok(2));
}

#[actix_rt::test]
async fn what_is_behind_a_panic_is_handled_at_most_once() {
    let (probe, seen) = Bench::new().start(PLACE, well);
    let before = probe.ask(echo(1), long());
    let behind = join_all((3..9).map(|n| probe.ask(echo(n), long())));
    let (before, failed, behind) = futures_util::join!(before, probe.ask(fail(), long()), behind);
    assert_eq!((before, failed), (Ok(1), Err(CallError::Gone)));
    assert!(behind.iter().all(|a| *a == Err(CallError::Gone)));
    assert_eq!(probe.ask(echo(9), long()).await, Ok(9));
    assert_eq!(seen.handled(), 3, "one before, the failed one, one after");
}

#[actix_rt::test]
async fn an_ask_that_comes_while_it_is_made_anew_is_answered_by_the_next_life() {
    let (probe, seen) = Bench::new().start(place(32, RestartPolicy::ENTITY), well);
    assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
    assert_eq!(probe.life_after(Life::Up(0)).await, Life::Restarting);
    assert_eq!(probe.tell(hint(|_, _| ())), Err(CallError::Gone));
    let answers = join_all((0..10).map(|_| probe.ask(which_life(), long()))).await;
    assert!(answers.iter().all(|a| *a == Ok(2)));
    assert_eq!(seen.handled(), 11);
    assert_eq!(probe.life(), Life::Up(1));
}

#[actix_rt::test]
async fn an_ask_from_another_thread_is_not_handed_to_a_life_that_fails_to_begin() {
    for fate in [Fate::FailsInMake, Fate::FailsInStarted] {
        let begins_badly = move |life| {
            if (2..=4).contains(&life) {
                fate
            } else {
                Fate::Well
            }
        };
        let (probe, seen) = Bench::new().start(PLACE, begins_badly);
        assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
        assert_eq!(probe.life_after(Life::Up(0)).await, Life::Restarting);
        let (done, all) = oneshot::channel();
        let elsewhere = Arbiter::new();
        elsewhere.spawn(async move {
            let asks = (0..10).map(|_| probe.ask(which_life(), long()));
            let _ = done.send(join_all(asks).await);
        });
        let answers = all.await.unwrap();
        assert!(answers.iter().all(|a| *a == Ok(5)), "{fate:?}: {answers:?}");
        assert_eq!(seen.handled(), 11);
        elsewhere.stop();
    }
}

#[actix_rt::test]
async fn the_first_restart_is_within_100_ms() {
    let bench = Bench::new();
    let mut took = Duration::MAX;
    // The best of several: the machine may be busy.
    for _ in 0..5 {
        let (probe, _) = bench.start(place(32, RestartPolicy::ENTITY), well);
        assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
        let failed = System.instant();
        assert_eq!(probe.ask(which_life(), long()).await, Ok(2));
        took = took.min(System.instant() - failed);
    }
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[actix_rt::test]
async fn the_sixth_panic_in_30_s_quarantines_for_60_s() {
    let bench = Bench::new();
    let (probe, _) = bench.start(PLACE, well);
    for life in 0..6 {
        assert_eq!(probe.ask(which_life(), long()).await, Ok(life + 1));
        assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
    }
    let Err(CallError::Quarantined { retry_after }) = probe.ask(echo(1), long()).await else {
        panic!("not quarantined: {probe:?}");
    };
    let minute = Duration::from_mins(1);
    assert!(retry_after <= minute && retry_after > minute / 2);
    let Life::Quarantined(until) = probe.life() else {
        panic!("not quarantined: {probe:?}");
    };
    assert!(until - bench.clock.instant() <= minute);
    assert_eq!(probe.tell(hint(|_, _| ())), Err(CallError::Gone));
    assert_eq!(probe.observe(long()).await, None);
    assert_eq!(
        (probe.restarts(), probe.in_progress(Class::Command)),
        (6, 0)
    );
    bench.clock.forward(Duration::from_secs(30));
    let Err(CallError::Quarantined { retry_after }) = probe.ask(echo(1), long()).await else {
        panic!("not quarantined: {probe:?}");
    };
    assert!(retry_after <= Duration::from_secs(30));
}

#[actix_rt::test]
async fn panics_far_apart_are_forgiven() {
    let bench = Bench::new();
    let (probe, _) = bench.start(PLACE, well);
    let far = long() + Duration::from_hours(1);
    for life in 0..12 {
        assert_eq!(probe.ask(which_life(), far).await, Ok(life + 1));
        assert_eq!(probe.ask(fail(), far).await, Err(CallError::Gone));
        bench.clock.forward(Duration::from_secs(31));
    }
    assert_eq!(probe.ask(which_life(), far).await, Ok(13));
}

#[actix_rt::test]
async fn after_quarantine_it_is_tried_again_and_on_trial_fails_for_longer() {
    let first = Duration::from_millis(200);
    let policy = RestartPolicy {
        budget: 0,
        quarantine: Some(first),
        ..QUICK
    };
    let (probe, _) = Bench::new().start(place(32, policy), well);
    assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
    let quarantined = probe.life_after(Life::Up(0)).await;
    assert!(matches!(quarantined, Life::Quarantined(_)));
    assert_eq!(probe.life_after(quarantined).await, Life::Up(1));
    assert_eq!(probe.ask(which_life(), long()).await, Ok(2));
    assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
    probe.life_after(Life::Up(1)).await;
    let Err(CallError::Quarantined { retry_after }) = probe.ask(echo(1), long()).await else {
        panic!("not quarantined: {probe:?}");
    };
    assert!(retry_after > first && retry_after <= first * 2);
    let quarantined = probe.life();
    assert_eq!(probe.life_after(quarantined).await, Life::Up(2));
}

#[actix_rt::test]
async fn an_actor_that_never_begins_is_quarantined_and_its_callers_told() {
    for fate in [Fate::FailsInMake, Fate::FailsInStarted] {
        let (probe, seen) = Bench::new().start(PLACE, move |_| fate);
        probe.life_after(Life::Up(0)).await;
        let answer = probe.ask(echo(1), long()).await;
        assert!(matches!(answer, Err(CallError::Quarantined { .. })));
        assert_eq!((seen.made(), seen.handled()), (6, 0));
    }
}

/// A registry of actors whose lives go by `fate`, all seen together.
fn registry(
    bench: &Bench,
    fate: impl Fn(u32) -> Fate + Send + Sync + 'static,
) -> (Registry<u8, Probe>, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let seen_too = Arc::clone(&seen);
    let make = move |_: &u8| Probe::make(&seen_too, &fate);
    (Registry::new(bench.kernel.clone(), PLACE, make), seen)
}

#[actix_rt::test]
async fn a_panic_on_the_way_to_rest_leaves_no_closed_gate_behind() {
    let bench = Bench::new();
    for fate in [Fate::Well, Fate::FailsInDrop] {
        let (registry, _) = registry(&bench, first(fate));
        let handle = registry.get_or_start(&1);
        let rests = hint(move |_, cx| {
            assert!(cx.rest());
            assert!(fate == Fate::FailsInDrop, "planted after rest");
        });
        assert_eq!(handle.tell(rests), Ok(()));
        assert_eq!(handle.life_after(Life::Up(0)).await, Life::Stopped);
        assert_eq!(registry.ask(&1, which_life(), long()).await, Ok(2));
    }
}

#[actix_rt::test]
async fn an_actor_whose_arbiter_ended_is_stopped_and_starts_elsewhere() {
    let bench = Bench::new();
    let (registry, seen) = registry(&bench, well);
    let (send, handle) = mpsc::channel();
    let elsewhere = Arbiter::new();
    let registry_too = registry.clone();
    elsewhere.spawn_fn(move || send.send(registry_too.get_or_start(&1)).unwrap());
    let handle = handle.recv().unwrap();
    assert_eq!(registry.ask(&1, which_life(), long()).await, Ok(1));
    // Its answer never comes.
    let ask = handle.ask(
        command(|_, _| Reply::later(std::future::pending::<()>(), |_, (), _| 0)),
        long(),
    );
    let ends = async {
        until("it is stuck", || seen.handled() == 2).await;
        elsewhere.stop();
        elsewhere.join().unwrap();
    };
    let (answer, ()) = futures_util::join!(ask, ends);
    assert_eq!(answer, Err(CallError::Gone));
    assert_eq!(handle.life(), Life::Stopped);
    assert_eq!(handle.ask(echo(1), long()).await, Err(CallError::Gone));
    assert_eq!(registry.ask(&1, which_life(), long()).await, Ok(2));
    assert!(bench.text().contains("actor_live{kind=\"probe\"} 1"));
}

#[test]
fn an_actor_cannot_start_outside_an_arbiter_and_the_attempt_breaks_nothing() {
    let bench = Bench::new();
    let (registry, _) = registry(&bench, well);
    let outside = registry.clone();
    let attempt = std::thread::spawn(move || drop(outside.get_or_start(&1))).join();
    assert!(attempt.is_err());
    assert!(registry.is_empty());
    actix::System::new().block_on(async {
        assert_eq!(registry.ask(&1, which_life(), long()).await, Ok(1));
    });
}
