//! Lives that are ended from outside: what comes waits, what is in hand is answered, nothing is lost.

use std::{cell::OnceCell, rc::Rc, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::join_all, poll};
use listen_stream::{
    actors::kernel::{
        CallError, Class, Directory, Halt, Halted, Handle, Kind, Life, Registry, Reply,
        RestartPolicy, Seen, Singles,
    },
    domain::clock::{Clock as _, System},
};
use tokio::sync::oneshot;

use crate::probe::{
    Bench, PLACE, Probe, QUICK, Seen as Counts, command, echo, fail, hint, long, place, until,
    well, which_life,
};

/// A command that is answered with 7 when `end` is.
fn held(end: oneshot::Receiver<()>) -> crate::probe::Do<0> {
    command(|_, _| Reply::later(end, |_, _, _| 7))
}

#[actix_rt::test]
async fn a_restart_answers_what_is_in_hand_and_lets_the_rest_wait() {
    let (probe, seen) = Bench::new().start(PLACE, well);
    let (end, ended) = oneshot::channel();
    let mut in_hand = Box::pin(probe.ask(held(ended), long()));
    assert!(poll!(&mut in_hand).is_pending());
    let mut queued = Box::pin(probe.ask(which_life(), long()));
    assert!(poll!(&mut queued).is_pending());
    let mut halt = Box::pin(probe.halt(Halt::Restart, long()));
    assert!(poll!(&mut halt).is_pending());
    assert_eq!(probe.life(), Life::Restarting);
    // What was handed over before is of the old life, what comes now of the next.
    assert_eq!(queued.await, Ok(1));
    let mut next = Box::pin(probe.ask(which_life(), long()));
    assert!(poll!(&mut next).is_pending());
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(poll!(&mut next).is_pending() && poll!(&mut halt).is_pending());
    end.send(()).unwrap();
    assert_eq!(in_hand.await, Ok(7));
    let (was, is) = (Life::Up(0), Life::Up(1));
    let done = true;
    assert_eq!(halt.await, Halted { was, is, done });
    assert_eq!(next.await, Ok(2));
    assert_eq!((seen.made(), probe.restarts()), (2, 1));
    assert_eq!(probe.in_progress(Class::Command), 0);
}

#[actix_rt::test]
async fn under_load_every_ask_is_answered_over_many_restarts() {
    let (probe, seen) = Bench::new().start(place(1000, QUICK), well);
    let asks = join_all((0..500).map(|n| {
        let probe = probe.clone();
        async move {
            tokio::time::sleep(Duration::from_micros(n * 100)).await;
            probe.ask(echo(n), long()).await
        }
    }));
    let halts = async {
        for _ in 0..10 {
            assert!(probe.halt(Halt::Restart, long()).await.done);
        }
    };
    let (answers, ()) = futures_util::join!(asks, halts);
    for (n, answer) in (0..).zip(answers) {
        assert_eq!(answer, Ok(n));
    }
    assert_eq!((seen.handled(), seen.made()), (500, 11));
}

fn registry(bench: &Bench) -> (Registry<u8, Probe>, Arc<Counts>) {
    let seen = Arc::<Counts>::default();
    let seen_too = Arc::clone(&seen);
    let make = move |_: &u8| Probe::make(&seen_too, well);
    (Registry::new(bench.kernel.clone(), PLACE, make), seen)
}

#[actix_rt::test]
async fn a_stop_answers_what_is_in_hand_and_the_next_ask_starts_another() {
    let bench = Bench::new();
    let (registry, seen) = registry(&bench);
    let (end, ended) = oneshot::channel();
    let mut in_hand = Box::pin(registry.ask(&1, held(ended), long()));
    assert!(poll!(&mut in_hand).is_pending());
    let handle = registry.find(&1).unwrap();
    let mut halt = Box::pin(handle.halt(Halt::Stop, long()));
    assert!(poll!(&mut halt).is_pending());
    assert_eq!(handle.tell(hint(|_, _| ())), Err(CallError::Gone));
    let mut next = Box::pin(registry.ask(&1, which_life(), long()));
    assert!(poll!(&mut next).is_pending());
    end.send(()).unwrap();
    assert_eq!(in_hand.await, Ok(7));
    assert!(halt.await.done);
    assert_eq!(handle.life(), Life::Stopped);
    assert_eq!(next.await, Ok(2));
    assert_eq!((seen.made(), registry.len()), (2, 1));
    assert!(bench.text().contains("actor_live{kind=\"probe\"} 1"));
}

#[actix_rt::test]
async fn an_ask_that_waits_for_a_life_that_never_comes_is_another_actors() {
    let bench = Bench::new();
    let (registry, seen) = registry(&bench);
    let (end, ended) = oneshot::channel();
    let mut in_hand = Box::pin(registry.ask(&1, held(ended), long()));
    assert!(poll!(&mut in_hand).is_pending());
    let handle = registry.find(&1).unwrap();
    let mut restart = Box::pin(handle.halt(Halt::Restart, long()));
    assert!(poll!(&mut restart).is_pending());
    let mut waits = Box::pin(registry.ask(&1, which_life(), long()));
    assert!(poll!(&mut waits).is_pending());
    let mut stop = Box::pin(handle.halt(Halt::Stop, long()));
    assert!(poll!(&mut stop).is_pending());
    end.send(()).unwrap();
    assert_eq!(in_hand.await, Ok(7));
    stop.await;
    assert_eq!(handle.life(), Life::Stopped);
    assert_eq!(waits.await, Ok(2));
    assert_eq!((seen.made(), seen.handled(), registry.len()), (2, 2, 1));
}

#[actix_rt::test]
async fn an_end_that_takes_longer_is_said_to_be_under_way() {
    let bench = Bench::new();
    let (probe, _) = bench.start(PLACE, well);
    let (end, ended) = oneshot::channel();
    let mut in_hand = Box::pin(probe.ask(held(ended), long()));
    assert!(poll!(&mut in_hand).is_pending());
    let soon = System.instant() + Duration::from_millis(50);
    let halted = probe.halt(Halt::Restart, soon).await;
    assert_eq!((halted.is, halted.done), (Life::Restarting, false));
    end.send(()).unwrap();
    assert_eq!(in_hand.await, Ok(7));
    assert_eq!(probe.ask(which_life(), long()).await, Ok(2));
}

#[actix_rt::test]
async fn an_operator_ends_a_quarantine() {
    let bench = Bench::new();
    let policy = RestartPolicy { budget: 0, ..QUICK };
    for how in [Halt::Restart, Halt::Stop] {
        let (probe, _) = bench.start(place(32, policy), well);
        assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
        let was = probe.life_after(Life::Up(0)).await;
        assert!(matches!(was, Life::Quarantined(_)));
        let halted = probe.halt(how, long()).await;
        let is = match how {
            Halt::Restart => Life::Up(1),
            Halt::Stop => Life::Stopped,
        };
        let done = true;
        assert_eq!(halted, Halted { was, is, done });
    }
}

#[actix_rt::test]
async fn a_panic_while_it_is_being_ended_is_a_failure_like_any_other() {
    let (probe, _) = Bench::new().start(PLACE, well);
    let in_hand = probe.ask(
        command(|_, _| {
            let work = tokio::time::sleep(Duration::from_millis(20));
            Reply::later(work, |_, (), _| panic!("planted in then"))
        }),
        long(),
    );
    let (answer, halted) = futures_util::join!(in_hand, probe.halt(Halt::Restart, long()));
    assert_eq!(answer, Err(CallError::Gone));
    assert!(halted.done);
    assert_eq!(probe.ask(which_life(), long()).await, Ok(2));
}

#[actix_rt::test]
async fn nothing_is_owed_when_all_is_answered() {
    let bench = Bench::new();
    let (registry, _) = registry(&bench);
    let directory = Directory::default();
    directory.add(registry.clone());
    let it = registry.get_or_start(&1);
    // When it is answered, another ask waits in the mailbox, which is dealt with at once.
    let late = command(move |_, _| {
        Reply::later(async {}, move |_, (), _| {
            let next = it.ask(echo(1), long()).now_or_never();
            assert!(next.is_none());
            7
        })
    });
    assert_eq!(registry.ask(&1, late, long()).await, Ok(7));
    assert_eq!(registry.ask(&1, echo(2), long()).await, Ok(2));
    let actor = directory.kind("probe").unwrap().find("1").unwrap();
    assert_eq!(actor.read(long()).unwrap().owing, None);
}

#[actix_rt::test]
async fn the_directory_finds_every_kind_and_how_each_life_ended() {
    let bench = Bench::new();
    let (registry, _) = registry(&bench);
    let (single, _) = bench.start(PLACE, well);
    let directory = Directory::default();
    directory.add(registry.clone());
    assert_eq!(directory.kinds().len(), 1);
    for key in [1, 2, 3] {
        registry.ask(&key, echo(1), long()).await.unwrap();
    }
    let kind = directory.kind("probe").unwrap();
    let mut keys = Vec::new();
    kind.visit(&mut |key, actor| {
        assert_eq!(actor.life(), Life::Up(0));
        assert_eq!(actor.read(long()).unwrap().handled, 1);
        keys.push(key.to_owned());
    });
    keys.sort();
    assert_eq!(keys, ["1", "2", "3"]);
    assert!(kind.find("4").is_none() && kind.find("x").is_none());
    let it = kind.find("2").unwrap();
    assert_eq!(
        it.view(long()).await,
        Seen::Live(serde_json::json!({"life": 2}))
    );
    assert!(it.failures().is_empty());
    let handle = registry.find(&2).unwrap();
    assert_eq!(handle.ask(fail(), long()).await, Err(CallError::Gone));
    handle.life_after(Life::Up(0)).await;
    let ends = it.failures();
    assert_eq!(
        (ends.len(), ends[0].life, ends[0].reason),
        (1, 0, "planted in serve")
    );

    let single = Singles::one(&single);
    assert!(single.find("node").is_some() && !single.powers().stop);
    // One that does not answer in time holds nobody up.
    let past = System.instant();
    let other = kind.find("1").unwrap();
    assert_eq!(other.view(past).await, Seen::Timeout);
}

#[actix_rt::test]
async fn a_stop_that_meets_an_actor_just_being_made_anew_is_not_lost() {
    let bench = Bench::new();
    let (handle, seen) = (Rc::new(OnceCell::new()), Arc::<Counts>::default());
    let (handle_too, seen_too) = (Rc::clone(&handle), Arc::clone(&seen));
    let probe = bench.kernel.start(PLACE, move || {
        if seen_too.made() == 1 {
            // An operator's word, just now.
            let it: &Handle<Probe> = handle_too.get().unwrap();
            assert!(it.halt(Halt::Stop, long()).now_or_never().is_none());
        }
        Probe::make(&seen_too, well)
    });
    handle.set(probe.clone()).unwrap();
    assert_eq!(probe.ask(fail(), long()).await, Err(CallError::Gone));
    until("it ends", || probe.life() == Life::Stopped).await;
    assert_eq!(seen.made(), 2);
}

#[actix_rt::test]
async fn what_is_told_reaches_the_life_that_leaves() {
    let (probe, seen) = Bench::new().start(PLACE, well);
    let (end, ended) = oneshot::channel();
    let mut in_hand = Box::pin(probe.ask(held(ended), long()));
    assert!(poll!(&mut in_hand).is_pending());
    assert!(probe.is_at_work());
    let mut halt = Box::pin(probe.halt(Halt::Restart, long()));
    assert!(poll!(&mut halt).is_pending());
    assert!(probe.is_at_work(), "it ends what is in hand");
    let (told, hears) = oneshot::channel();
    let tell = hint(move |probe, _| told.send(probe.life).unwrap());
    assert_eq!(probe.tell(tell), Ok(()));
    assert_eq!(hears.await, Ok(1));
    end.send(()).unwrap();
    assert!(halt.await.done);
    assert_eq!((in_hand.await, seen.made()), (Ok(7), 2));
}

#[actix_rt::test]
async fn a_restart_between_a_panic_and_its_quarantine_is_not_lost() {
    let policy = RestartPolicy { budget: 0, ..QUICK };
    let (probe, _) = Bench::new().start(place(32, policy), well);
    let it = probe.clone();
    let fails = probe.ask(
        command(move |_, _| {
            let halt = it.halt(Halt::Restart, long()).now_or_never();
            assert!(halt.is_none());
            panic!("planted in serve");
        }),
        long(),
    );
    assert_eq!(fails.await, Err(CallError::Gone));
    until("the next life", || probe.life() == Life::Up(1)).await;
}
