//! Asks, tells, deadlines, and how much is let in.

use std::{
    future::pending,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::Arbiter;
use futures_util::{future::join_all, poll};
use listen_stream::{
    actors::kernel::{CallError, Class, Handle, Life, Reply},
    domain::clock::{Clock, System},
};
use tokio::sync::oneshot;

use crate::probe::{
    Bench, PLACE, Probe, QUICK, act, command, control, echo, hint, long, place, until, well,
    which_life,
};

#[actix_rt::test]
async fn an_ask_is_answered_at_once_or_later() {
    let (probe, seen) = Bench::new().start(PLACE, well);
    assert_eq!(probe.ask(echo(7), long()).await, Ok(7));
    let later = command(|_, _| {
        Reply::later(tokio::task::yield_now(), |probe: &mut Probe, (), _| {
            u64::from(probe.life)
        })
    });
    assert_eq!(probe.ask(later, long()).await, Ok(1));
    assert_eq!((seen.made(), seen.handled()), (1, 2));
    assert_eq!(probe.life(), Life::Up(0));
}

#[actix_rt::test]
async fn an_ask_ends_at_its_deadline_and_holds_its_place_until_the_work_ends() {
    let (probe, _) = Bench::new().start(place(1, QUICK), well);
    let (end, ended) = oneshot::channel::<()>();
    let slow = command(|_, _| Reply::later(ended, |_, _, _| 1));
    let deadline = System.instant() + Duration::from_millis(20);
    assert_eq!(probe.ask(slow, deadline).await, Err(CallError::Timeout));
    assert!(System.instant() >= deadline);
    assert_eq!(probe.in_progress(Class::Command), 1);
    assert_eq!(
        probe.ask(echo(2), long()).await,
        Err(CallError::Overloaded),
        "the work goes on, so its place is taken"
    );
    end.send(()).unwrap();
    until("the place is free", || {
        probe.in_progress(Class::Command) == 0
    })
    .await;
    assert_eq!(probe.ask(echo(3), long()).await, Ok(3));
}

#[actix_rt::test]
async fn an_ask_whose_deadline_passed_in_the_mailbox_is_not_handled() {
    let bench = Bench::new();
    let (probe, seen) = bench.start(PLACE, well);
    let clock = Arc::clone(&bench.clock);
    let blocks = command(move |_, _| {
        clock.forward(Duration::from_hours(1));
        Reply::Now(1)
    });
    let (first, second) = futures_util::join!(
        probe.ask(blocks, long() + Duration::from_hours(2)),
        probe.ask(echo(2), long()),
    );
    assert_eq!((first, second), (Ok(1), Err(CallError::Timeout)));
    assert_eq!((seen.handled(), probe.handled()), (1, 1));
    assert_eq!(probe.in_progress(Class::Command), 0);
    assert!(
        bench
            .text()
            .contains("actor_expired_total{kind=\"probe\"} 1")
    );
}

#[actix_rt::test]
async fn an_ask_that_nobody_waits_for_is_not_handled() {
    let (probe, seen) = Bench::new().start(PLACE, well);
    {
        let mut ask = Box::pin(probe.ask(echo(1), long()));
        assert!(poll!(&mut ask).is_pending());
        assert_eq!(probe.in_progress(Class::Command), 1);
    }
    assert_eq!(probe.ask(echo(2), long()).await, Ok(2));
    assert_eq!(seen.handled(), 1);
    assert_eq!(probe.in_progress(Class::Command), 0);
}

#[actix_rt::test]
async fn of_a_thousand_callers_as_many_as_the_cap_get_in_and_control_always_does() {
    let bench = Bench::new();
    let (probe, seen) = bench.start(place(32, QUICK), well);
    let (end, _) = tokio::sync::broadcast::channel::<()>(1);
    let commands = join_all((0..1000).map(|n| {
        let mut ended = end.subscribe();
        let work = command(move |probe, _| {
            probe.seen.enter();
            let work = async move { ended.recv().await.is_ok() };
            Reply::later(work, move |probe: &mut Probe, _, _| {
                probe.seen.leave();
                n
            })
        });
        probe.ask(work, long())
    }));
    let others = async {
        until("all that may run do", || seen.running.load(SeqCst) == 32).await;
        let control = (0..1000).map(|n| probe.ask(control(move |_, _| Reply::Now(n)), long()));
        let reads = (0..64).map(|n| probe.ask(act::<1>(move |_, _| Reply::Now(n)), long()));
        let (control, reads) = futures_util::join!(join_all(control), join_all(reads));
        assert!(control.iter().chain(&reads).all(Result::is_ok));
        end.send(()).unwrap();
    };
    let (answers, ()) = futures_util::join!(commands, others);
    let refused = |answer: &&Result<u64, CallError>| **answer == Err(CallError::Overloaded);
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 32);
    assert_eq!(answers.iter().filter(refused).count(), 968);
    assert_eq!(seen.most_running.load(SeqCst), 32);
    assert!(
        bench
            .text()
            .contains("actor_shed_total{kind=\"probe\"} 968")
    );
}

#[actix_rt::test]
async fn whoever_has_an_answer_has_room_for_the_next_ask() {
    let (probe, _) = Bench::new().start(place(1, QUICK), well);
    let (done, all) = oneshot::channel();
    let elsewhere = Arbiter::new();
    elsewhere.spawn(async move {
        let mut answers = Vec::new();
        for n in 0..20_000 {
            answers.push(probe.ask(echo(n), long()).await);
        }
        let _ = done.send(answers);
    });
    for (n, answer) in (0..).zip(all.await.unwrap()) {
        assert_eq!(answer, Ok(n));
    }
    elsewhere.stop();
}

#[actix_rt::test]
async fn a_tell_is_handled_unless_the_actor_is_not_up() {
    let (probe, seen) = Bench::new().start(PLACE, well);
    for _ in 0..3 {
        assert_eq!(probe.tell(hint(|_, _| ())), Ok(()));
    }
    until("the tells are handled", || seen.handled() == 3).await;
    assert_eq!(probe.tell(hint(|_, cx| assert!(cx.rest()))), Ok(()));
    assert_eq!(probe.life_after(Life::Up(0)).await, Life::Stopped);
    assert_eq!(probe.tell(hint(|_, _| ())), Err(CallError::Gone));
    assert_eq!(probe.ask(echo(1), long()).await, Err(CallError::Gone));
}

#[actix_rt::test]
async fn an_actor_does_not_rest_before_what_it_was_told() {
    let (probe, seen) = Bench::new().start(PLACE, well);
    assert_eq!(probe.ask(echo(1), long()).await, Ok(1));
    assert_eq!(probe.tell(hint(|_, cx| assert!(!cx.rest()))), Ok(()));
    assert_eq!(probe.tell(hint(|_, cx| assert!(cx.rest()))), Ok(()));
    assert_eq!(probe.life_after(Life::Up(0)).await, Life::Stopped);
    assert_eq!(seen.handled(), 3);
}

#[actix_rt::test]
async fn a_flooded_actor_starves_neither_its_neighbour_nor_its_own_work() {
    const FLOOD: u64 = 100_000;
    fn again(me: &Arc<OnceLock<Handle<Probe>>>, left: u64) {
        let too = Arc::clone(me);
        let next = hint(move |_, _| {
            if left > 0 {
                again(&too, left - 1);
            }
        });
        if let Some(me) = me.get() {
            me.tell(next).unwrap();
        }
    }
    let bench = Bench::new();
    let (probe, seen) = bench.start(PLACE, well);
    let (neighbour, _) = bench.start(PLACE, well);
    let me = Arc::new(OnceLock::new());
    me.set(probe.clone()).unwrap();
    again(&me, FLOOD);
    let at_work = Arc::new(AtomicU64::new(0));
    let (at_work_too, seen_too) = (Arc::clone(&at_work), Arc::clone(&seen));
    let own = command(move |_, _| {
        Reply::later(tokio::task::yield_now(), move |_, (), _| {
            at_work_too.store(seen_too.handled(), SeqCst);
            0
        })
    });
    let (life, own) = futures_util::join!(neighbour.ask(which_life(), long()), async {
        probe.ask(own, long()).await
    });
    let at_neighbour = seen.handled();
    assert_eq!((life, own), (Ok(1), Ok(0)));
    assert!(at_work.load(SeqCst) < FLOOD / 2, "its own work waited");
    assert!(at_neighbour < FLOOD / 2, "the neighbour waited");
    until("the flood ends", || seen.handled() > FLOOD).await;
}

#[actix_rt::test]
async fn work_in_progress_never_ends_with_its_caller() {
    let (probe, seen) = Bench::new().start(PLACE, well);
    let (end, ended) = oneshot::channel::<()>();
    {
        let slow = command(|_, _| {
            Reply::later(ended, |probe: &mut Probe, _, _| {
                probe.seen.enter();
                1
            })
        });
        let mut ask = Box::pin(probe.ask(slow, long()));
        assert!(poll!(&mut ask).is_pending());
        until("it is handled", || seen.handled() == 1).await;
    }
    end.send(()).unwrap();
    until("the work ends", || seen.running.load(SeqCst) == 1).await;
    until("its place is free", || {
        probe.in_progress(Class::Command) == 0
    })
    .await;
}

#[actix_rt::test]
async fn a_stuck_actor_still_sheds_and_still_hears_control() {
    let (probe, _) = Bench::new().start(place(2, QUICK), well);
    let stuck = || command(|_, _| Reply::later(pending::<()>(), |_, (), _| 0));
    let mut held: Vec<_> = (0..2)
        .map(|_| Box::pin(probe.ask(stuck(), long())))
        .collect();
    for ask in &mut held {
        assert!(poll!(ask).is_pending());
    }
    assert_eq!(probe.ask(stuck(), long()).await, Err(CallError::Overloaded));
    let heard = control(|_, _| Reply::Now(7));
    assert_eq!(probe.ask(heard, long()).await, Ok(7));
    assert_eq!(probe.in_progress(Class::Command), 2);
}
