//! Actors by key: one at a time, rest, and the next generation.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering::SeqCst},
};

use actix::Arbiter;
use futures_util::future::join_all;
use listen_stream::actors::kernel::{CallError, Life, Registry, Reply};
use tokio::sync::oneshot;

use crate::probe::{
    Bench, Fate, PLACE, Probe, Seen, command, echo, hint, long, until, well, which_life,
};

#[actix_rt::test]
async fn a_hundred_asks_at_once_start_one_actor() {
    let bench = Bench::new();
    let seen = Arc::<Seen>::default();
    let seen_too = Arc::clone(&seen);
    let make = move |_: &u8| Probe::make(&seen_too, well);
    let mut place = PLACE;
    place.caps.commands = 100;
    let registry = Registry::new(bench.kernel.clone(), place, make);
    let (done, all) = oneshot::channel();
    let elsewhere = Arbiter::new();
    let there = registry.clone();
    elsewhere.spawn(async move {
        let answers = join_all((0..50).map(|_| there.ask(&1, which_life(), long()))).await;
        let _ = done.send(answers);
    });
    let here = join_all((0..50).map(|_| registry.ask(&1, which_life(), long()))).await;
    let there = all.await.unwrap();
    assert!(here.iter().chain(&there).all(|answer| *answer == Ok(1)));
    assert_eq!((seen.made(), seen.handled(), registry.len()), (1, 100, 1));
    elsewhere.stop();
}

#[actix_rt::test]
async fn an_actor_rests_only_when_nothing_is_in_progress_and_then_leaves_the_registry() {
    let bench = Bench::new();
    let seen = Arc::<Seen>::default();
    let seen_too = Arc::clone(&seen);
    let make = move |_: &u8| Probe::make(&seen_too, well);
    let registry = Registry::new(bench.kernel.clone(), PLACE, make);
    assert!(registry.find(&1).is_none() && registry.is_empty());
    let may_rest = command(|_, cx| Reply::Now(cx.rest().into()));
    assert_eq!(registry.ask(&1, may_rest, long()).await, Ok(0), "it serves");
    let (end, ended) = oneshot::channel::<()>();
    let held = registry.ask(&1, command(|_, _| Reply::later(ended, |_, _, _| 1)), long());
    let first = registry.find(&1).unwrap();
    let tries = async {
        until("it is held", || seen.handled() == 2).await;
        first.tell(hint(|_, cx| assert!(!cx.rest()))).unwrap();
        until("it tried", || seen.handled() == 3).await;
        end.send(()).unwrap();
    };
    assert_eq!(futures_util::join!(held, tries).0, Ok(1));
    first.tell(hint(|_, cx| assert!(cx.rest()))).unwrap();
    assert_eq!(first.life_after(Life::Up(0)).await, Life::Stopped);
    until("it leaves", || registry.is_empty()).await;
    assert!(registry.find(&1).is_none() && registry.all().is_empty());
    assert_eq!(first.tell(hint(|_, _| ())), Err(CallError::Gone));
    assert_eq!(first.ask(echo(1), long()).await, Err(CallError::Gone));

    assert_eq!(registry.ask(&1, which_life(), long()).await, Ok(2));
    assert_eq!(registry.all().len(), 1);
    assert!(bench.text().contains("actor_live{kind=\"probe\"} 1"));
}

/// Two threads ask and tell while the actors of a few keys rest whenever they may.
#[actix_rt::test]
async fn nothing_falls_between_two_generations() {
    const KEYS: usize = 3;
    const EACH: usize = 4_000;
    let bench = Bench::new();
    let seen: Arc<[Arc<Seen>]> = (0..KEYS).map(|_| Arc::default()).collect();
    let seen_too = Arc::clone(&seen);
    let make = move |key: &usize| Probe::make(&seen_too[*key], |_| Fate::Restless);
    let registry = Registry::new(bench.kernel.clone(), PLACE, make);
    let handled: Arc<[AtomicU8]> = (0..2 * EACH).map(|_| AtomicU8::new(0)).collect();
    let (told, heard) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());

    let mut threads = Vec::new();
    for thread in 0..2 {
        let (registry, handled) = (registry.clone(), Arc::clone(&handled));
        let (told, heard) = (Arc::clone(&told), Arc::clone(&heard));
        let (done, all) = oneshot::channel();
        let arbiter = Arbiter::new();
        arbiter.spawn(async move {
            let callers = (0..4).map(|caller| {
                let (registry, handled) = (&registry, &handled);
                let (told, heard) = (&told, &heard);
                async move {
                    let mut wrong = Vec::new();
                    for n in (caller..EACH).step_by(4) {
                        let (id, key) = (thread * EACH + n, n % KEYS);
                        let marks = Arc::clone(handled);
                        let mark = command(move |_, _| {
                            marks[id].fetch_add(1, SeqCst);
                            if id % 2 == 0 {
                                return Reply::Now(id as u64);
                            }
                            Reply::later(tokio::task::yield_now(), move |_, (), _| id as u64)
                        });
                        let answer = registry.ask(&key, mark, long()).await;
                        if answer != Ok(id as u64) {
                            wrong.push(answer);
                        }
                        let heard = Arc::clone(heard);
                        let hears = hint(move |_, _| {
                            heard.fetch_add(1, SeqCst);
                        });
                        if registry.find(&key).is_some_and(|h| h.tell(hears).is_ok()) {
                            told.fetch_add(1, SeqCst);
                        }
                    }
                    wrong
                }
            });
            let _ = done.send(join_all(callers).await.concat());
        });
        threads.push((arbiter, all));
    }
    for (_, all) in &mut threads {
        assert_eq!(all.await.unwrap(), []);
    }
    assert!(handled.iter().all(|times| times.load(SeqCst) == 1));
    until("all rest", || registry.is_empty()).await;
    for seen in seen.iter() {
        assert_eq!(seen.most_alive.load(SeqCst), 1);
        assert!(seen.made() > 1, "it never rested");
    }
    assert_eq!(told.load(SeqCst), heard.load(SeqCst));
    assert!(bench.text().contains("actor_live{kind=\"probe\"} 0"));
    for (arbiter, _) in threads {
        arbiter.stop();
    }
}
