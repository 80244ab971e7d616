//! What the framework really does, where the kernel relies on it.
//!
//! The kernel gives every actor a mailbox without a bound and counts admission itself, answers
//! through one-shot channels that travel in the message, runs `Context::into_future` under
//! `catch_unwind`, and builds a new actor after a panic. None of that is promised by actix's
//! documentation. An upgrade that changes one of these facts fails here, and not in a session.
//!
//! Nothing here waits for time to pass: each test waits for a condition, and what must *not*
//! happen is compared with a twin to which it does happen.

#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "the actors of these tests panic on purpose, and helpers fail the test"
)]

use std::{
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Running,
    Supervised, Supervisor, WrapFuture, dev::SendError,
};
use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// No test needs a hundredth of it: beyond, the awaited thing does not happen.
const DEADLINE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(1);

/// The actor of all tests: what it does comes in the messages.
#[derive(Default)]
struct Probe {
    seen: Vec<u32>,
    life: Life,
    at_start: Option<Work>,
}

/// What happened to an actor, still readable when the actor is gone.
#[derive(Clone, Default)]
struct Life(Arc<Mutex<Vec<&'static str>>>);

impl Life {
    fn note(&self, what: &'static str) {
        self.0.lock().expect("no note panics").push(what);
    }

    fn notes(&self) -> Vec<&'static str> {
        self.0.lock().expect("no note panics").clone()
    }
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.life.note("started");
        if let Some(work) = self.at_start.take() {
            work(self, ctx);
        }
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.life.note("stopping");
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.life.note("stopped");
    }
}

impl Supervised for Probe {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.life.note("restarting");
    }
}

type Work = Box<dyn FnOnce(&mut Probe, &mut Context<Probe>) + Send>;

/// A message that says what to do.
struct Do(Work);

impl Message for Do {
    type Result = ();
}

impl Handler<Do> for Probe {
    type Result = ();

    fn handle(&mut self, Do(work): Do, ctx: &mut Self::Context) {
        work(self, ctx);
    }
}

fn run(work: impl FnOnce(&mut Probe, &mut Context<Probe>) + Send + 'static) -> Do {
    Do(Box::new(work))
}

/// A message that is remembered.
fn remember(n: u32) -> Do {
    run(move |probe, _| probe.seen.push(n))
}

/// A message that answers with what was remembered, through a channel of its own.
fn recall() -> (Do, oneshot::Receiver<Vec<u32>>) {
    let (tx, rx) = oneshot::channel();
    let msg = run(move |probe, _| {
        let _ = tx.send(probe.seen.clone());
    });
    (msg, rx)
}

type End = JoinHandle<Result<(), Box<dyn std::any::Any + Send>>>;

/// Starts an actor as the kernel does: no bound, and a panic ends a future, not a thread.
fn launch(probe: Probe) -> (Addr<Probe>, End) {
    let mut ctx = Context::new();
    ctx.set_mailbox_capacity(0);
    let addr = ctx.address();
    let life = AssertUnwindSafe(ctx.into_future(probe)).catch_unwind();
    (addr, tokio::task::spawn_local(life))
}

async fn soon<F: Future>(what: F) -> F::Output {
    timeout(DEADLINE, what)
        .await
        .expect("happens long before the deadline")
}

async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn ended(end: End) -> Result<(), String> {
    let result = soon(end).await.expect("the panic was caught inside");
    result.map_err(|panic| (*panic.downcast_ref::<&str>().unwrap_or(&"?")).to_owned())
}

fn send(addr: &Addr<Probe>, msg: Do) {
    addr.try_send(msg).expect("the mailbox is open");
}

async fn seen(addr: &Addr<Probe>) -> Vec<u32> {
    let (msg, answer) = recall();
    send(addr, msg);
    soon(answer).await.expect("the actor lives")
}

/// Asserts that a message to `addr` comes back unhandled.
fn assert_closed(addr: &Addr<Probe>) {
    let (msg, mut answer) = recall();
    match addr.try_send(msg) {
        Err(SendError::Closed(msg)) => {
            assert!(matches!(
                answer.try_recv(),
                Err(oneshot::error::TryRecvError::Empty)
            ));
            drop(msg);
            assert!(matches!(
                answer.try_recv(),
                Err(oneshot::error::TryRecvError::Closed)
            ));
        }
        Err(SendError::Full(_)) => panic!("full instead of closed"),
        Ok(()) => panic!("taken instead of closed"),
    }
    assert!(!addr.connected());
}

/// A future that is ready when it is polled for the second time.
fn one_turn() -> impl Future<Output = ()> {
    let mut polled = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

// The mailbox.

#[actix::test]
async fn a_mailbox_of_capacity_zero_is_never_full() {
    let (addr, _end) = launch(Probe::default());
    for n in 0..10_000 {
        send(&addr, remember(n));
    }
    assert_eq!(seen(&addr).await, (0..10_000).collect::<Vec<_>>());
}

#[actix::test]
async fn the_default_mailbox_bounds_try_send_of_one_address_but_neither_do_send_nor_clones() {
    let addr = Probe::default().start();
    let accepted = (0..100)
        .take_while(|n| addr.try_send(remember(*n)).is_ok())
        .count();
    assert_eq!(accepted, 16);
    assert!(matches!(
        addr.try_send(remember(16)),
        Err(SendError::Full(_))
    ));
    for n in 16..116 {
        addr.do_send(remember(n));
    }
    for n in 116..216 {
        send(&addr.clone(), remember(n));
    }
    let (msg, answer) = recall();
    addr.do_send(msg);
    let all = soon(answer).await.expect("the actor lives");
    assert_eq!(all, (0..216).collect::<Vec<_>>());
}

#[actix::test]
async fn messages_sent_before_the_actor_runs_are_handled_after_it_started() {
    let mut ctx = Context::new();
    let addr = ctx.address();
    ctx.set_mailbox_capacity(0);
    for n in 0..100 {
        send(&addr, remember(n));
    }
    let probe = Probe {
        at_start: Some(Box::new(|probe, _| probe.seen.push(1_000))),
        ..Probe::default()
    };
    tokio::task::spawn_local(ctx.into_future(probe));
    let expected: Vec<u32> = std::iter::once(1_000).chain(0..100).collect();
    assert_eq!(seen(&addr).await, expected);
}

#[actix::test]
async fn the_address_of_a_context_that_never_ran_is_closed() {
    let ctx = Context::<Probe>::new();
    let addr = ctx.address();
    let (msg, answer) = recall();
    send(&addr, msg);
    drop(ctx);
    assert!(soon(answer).await.is_err());
    assert_closed(&addr);
}

#[actix::test]
async fn messages_of_one_sender_keep_their_order() {
    let (addr, _end) = launch(Probe::default());
    for n in 0..1_000 {
        match n % 2 {
            0 => send(&addr, remember(n)),
            _ => send(&addr.clone(), remember(n)),
        }
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(seen(&addr).await, (0..1_000).collect::<Vec<_>>());
}

#[actix::test]
async fn messages_of_one_sender_keep_their_order_across_arbiters() {
    let arbiter = actix::Arbiter::new();
    let (tx, rx) = oneshot::channel();
    arbiter.spawn_fn(move || {
        let _ = tx.send(launch(Probe::default()).0);
    });
    let addr = soon(rx).await.expect("the arbiter runs");
    for n in 0..1_000 {
        match n % 2 {
            0 => send(&addr, remember(n)),
            _ => send(&addr.clone(), remember(n)),
        }
    }
    assert_eq!(seen(&addr).await, (0..1_000).collect::<Vec<_>>());
    arbiter.stop();
}

// Panics.

/// Where a planted panic goes off.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Handler,
    SpawnedFuture,
    AwaitedFuture,
    Started,
}

const FAULTS: [Fault; 4] = [
    Fault::Handler,
    Fault::SpawnedFuture,
    Fault::AwaitedFuture,
    Fault::Started,
];

async fn explode() {
    one_turn().await;
    panic!("planted");
}

/// Starts an actor that panics, with a message to set it off where it takes one.
fn launch_faulty(fault: Fault) -> (Addr<Probe>, End, Life) {
    let life = Life::default();
    let mut probe = Probe {
        life: life.clone(),
        ..Probe::default()
    };
    if matches!(fault, Fault::Started) {
        probe.at_start = Some(Box::new(|_, _| panic!("planted")));
    }
    let (addr, end) = launch(probe);
    match fault {
        Fault::Handler => send(&addr, run(|_, _| panic!("planted"))),
        Fault::SpawnedFuture => send(
            &addr,
            run(|probe, ctx| {
                ctx.spawn(explode().into_actor(probe));
            }),
        ),
        Fault::AwaitedFuture => {
            send(
                &addr,
                run(|probe, ctx| ctx.wait(explode().into_actor(probe))),
            );
        }
        Fault::Started => {}
    }
    (addr, end, life)
}

#[actix::test]
async fn a_panic_anywhere_in_an_actor_ends_its_future_and_nothing_else() {
    for fault in FAULTS {
        let (neighbour, _end) = launch(Probe::default());
        let (ticks, mut ticked) = mpsc::unbounded_channel();
        send(
            &neighbour,
            run(move |_, ctx| {
                ctx.run_interval(TICK, move |_, _| {
                    let _ = ticks.send(());
                });
            }),
        );

        let (addr, end, _) = launch_faulty(fault);
        assert_eq!(ended(end).await, Err("planted".to_owned()), "{fault:?}");
        assert_closed(&addr);

        send(&neighbour, remember(7));
        assert_eq!(seen(&neighbour).await, [7], "{fault:?}");
        while ticked.try_recv().is_ok() {}
        soon(ticked.recv()).await.expect("the neighbour ticks");
    }
}

#[actix::test]
async fn a_panic_drops_the_message_in_hand_the_queue_and_what_was_spawned() {
    let (addr, end) = launch(Probe::default());
    let (guard, spawned) = oneshot::channel::<()>();
    send(
        &addr,
        run(move |probe, ctx| {
            let forever = async move {
                std::future::pending::<()>().await;
                drop(guard);
            };
            ctx.spawn(forever.into_actor(probe));
        }),
    );
    let (in_hand, answer) = oneshot::channel::<()>();
    send(
        &addr,
        run(move |_, _| {
            let _in_hand = in_hand;
            panic!("planted");
        }),
    );
    let (behind, answers): (Vec<_>, Vec<_>) = (0..5).map(|_| recall()).unzip();
    for msg in behind {
        send(&addr, msg);
    }
    assert!(ended(end).await.is_err());
    assert!(soon(answer).await.is_err());
    assert!(soon(spawned).await.is_err());
    for answer in answers {
        assert!(soon(answer).await.is_err());
    }
    // Closed for tells too, only that nobody hears of it.
    let (msg, answer) = recall();
    addr.do_send(msg);
    assert!(soon(answer).await.is_err());
}

/// So an actor may not write anything in `stopped()`: its state may be half changed.
#[actix::test]
async fn stopped_runs_on_a_panicked_actor_while_anybody_holds_its_address() {
    for fault in FAULTS {
        let (addr, end, life) = launch_faulty(fault);
        assert!(ended(end).await.is_err());
        assert_eq!(
            life.notes(),
            ["started", "stopping", "stopped"],
            "{fault:?}"
        );
        drop(addr);
    }
}

/// So nothing may rely on `stopped()` either.
#[actix::test]
async fn stopped_does_not_run_on_a_panicked_actor_that_nobody_holds_and_that_has_no_future() {
    for (fault, runs) in [
        (Fault::Handler, false),
        (Fault::Started, false),
        (Fault::SpawnedFuture, true),
        (Fault::AwaitedFuture, true),
    ] {
        let (addr, end, life) = launch_faulty(fault);
        drop(addr);
        assert!(ended(end).await.is_err());
        assert_eq!(life.notes().contains(&"stopped"), runs, "{fault:?}");
    }
}

#[actix::test]
async fn the_supervisor_of_actix_does_not_restart_after_a_panic() {
    let life = Life::default();
    let of_actor = life.clone();
    let addr = Supervisor::start(move |_| Probe {
        life: of_actor,
        ..Probe::default()
    });
    send(&addr, run(|_, _| panic!("planted")));
    until(|| !addr.connected()).await;
    assert_closed(&addr);
    assert!(!life.notes().contains(&"restarting"));
}

#[actix::test]
async fn the_supervisor_of_actix_restarts_after_a_stop_with_the_same_state() {
    let life = Life::default();
    let of_actor = life.clone();
    let addr = Supervisor::start(move |_| Probe {
        life: of_actor,
        ..Probe::default()
    });
    send(&addr, remember(1));
    send(&addr, run(|_, ctx| ctx.stop()));
    assert_eq!(seen(&addr).await, [1]);
    assert_eq!(
        life.notes(),
        ["started", "stopping", "stopped", "restarting", "started"]
    );
}

// Ends.

#[actix::test]
async fn stop_cancels_spawned_and_awaited_futures() {
    let life = Life::default();
    let (addr, end) = launch(Probe {
        life: life.clone(),
        ..Probe::default()
    });
    let (gate, opened) = oneshot::channel::<()>();
    let (answer, asker) = oneshot::channel();
    send(
        &addr,
        run(move |probe, ctx| {
            let work = async move { opened.await.is_ok() };
            ctx.spawn(work.into_actor(probe).map(move |done, _, _| {
                let _ = answer.send(done);
            }));
        }),
    );
    let (awaited, waiter) = oneshot::channel::<()>();
    send(
        &addr,
        run(move |probe, ctx| {
            let forever = async move {
                std::future::pending::<()>().await;
                drop(awaited);
            };
            ctx.wait(forever.into_actor(probe));
            ctx.stop();
        }),
    );
    assert_eq!(ended(end).await, Ok(()));
    assert!(gate.is_closed());
    assert!(soon(asker).await.is_err());
    assert!(soon(waiter).await.is_err());
    assert_eq!(life.notes(), ["started", "stopping", "stopped"]);
}

#[actix::test]
async fn messages_behind_a_stop_are_dropped_and_later_ones_refused() {
    let (addr, end) = launch(Probe::default());
    let (before, answer_before) = recall();
    send(&addr, before);
    send(&addr, run(|_, ctx| ctx.stop()));
    let (behind, answers): (Vec<_>, Vec<_>) = (0..5).map(|_| recall()).unzip();
    for msg in behind {
        send(&addr, msg);
    }
    assert_eq!(ended(end).await, Ok(()));
    assert!(soon(answer_before).await.is_ok());
    for answer in answers {
        assert!(soon(answer).await.is_err());
    }
    assert_closed(&addr);
}

#[actix::test]
async fn a_spawned_future_can_stop_its_actor() {
    let (addr, end) = launch(Probe::default());
    send(
        &addr,
        run(|probe, ctx| {
            ctx.spawn(one_turn().into_actor(probe).map(|(), _, ctx| ctx.stop()));
        }),
    );
    assert_eq!(ended(end).await, Ok(()));
    assert_closed(&addr);
}

#[actix::test]
async fn an_idle_actor_ends_with_its_last_address_after_its_last_message() {
    let (addr, end) = launch(Probe::default());
    let (msg, answer) = recall();
    send(&addr, remember(1));
    send(&addr, msg);
    drop(addr);
    assert_eq!(soon(answer).await, Ok(vec![1]));
    assert_eq!(ended(end).await, Ok(()));
}

#[actix::test]
async fn an_actor_with_an_interval_outlives_its_last_address() {
    let (addr, end) = launch(Probe::default());
    let (ticks, mut ticked) = mpsc::unbounded_channel();
    send(
        &addr,
        run(move |_, ctx| {
            ctx.run_interval(TICK, move |_, _| {
                let _ = ticks.send(());
            });
        }),
    );
    let weak = addr.downgrade();
    drop(addr);
    for _ in 0..5 {
        soon(ticked.recv()).await.expect("the actor ticks");
    }
    assert!(!end.is_finished());
    // A weak address still finds it: the way to end it.
    send(
        &weak.upgrade().expect("the actor lives"),
        run(|_, ctx| ctx.stop()),
    );
    assert_eq!(ended(end).await, Ok(()));
    assert!(weak.upgrade().is_none_or(|addr| !addr.connected()));
}

// Futures of one actor.

#[actix::test]
async fn futures_spawned_by_one_actor_interleave_with_each_other_and_with_messages() {
    let (addr, _end) = launch(Probe::default());
    let (open_a, a) = oneshot::channel::<()>();
    let (open_b, b) = oneshot::channel::<()>();
    for (n, gate) in [(1, a), (2, b)] {
        send(
            &addr,
            run(move |probe, ctx| {
                probe.seen.push(n);
                ctx.spawn(gate.into_actor(probe).map(move |_, probe, _| {
                    probe.seen.push(n * 10);
                }));
            }),
        );
    }
    assert_eq!(seen(&addr).await, [1, 2]);
    open_b.send(()).expect("awaited");
    send(&addr, remember(3));
    assert_eq!(seen_after(&addr, 4).await, [1, 2, 3, 20]);
    open_a.send(()).expect("awaited");
    assert_eq!(seen_after(&addr, 5).await, [1, 2, 3, 20, 10]);
}

/// Asks until the actor remembers at least `len` things.
async fn seen_after(addr: &Addr<Probe>, len: usize) -> Vec<u32> {
    soon(async {
        loop {
            let all = seen(addr).await;
            if all.len() >= len {
                return all;
            }
        }
    })
    .await
}

#[actix::test]
async fn wait_holds_back_messages_timers_and_spawned_futures() {
    let (deaf, _end) = launch(Probe::default());
    let (twin, _end) = launch(Probe::default());
    let mut counters = Vec::new();
    let mut gates = Vec::new();
    for addr in [&deaf, &twin] {
        let (ticks, ticked) = mpsc::unbounded_channel();
        let (gate, opened) = oneshot::channel::<()>();
        send(
            addr,
            run(move |probe, ctx| {
                ctx.run_interval(TICK, move |_, _| {
                    let _ = ticks.send(());
                });
                ctx.spawn(opened.into_actor(probe).map(|_, probe, _| {
                    probe.seen.push(1);
                }));
            }),
        );
        counters.push(ticked);
        gates.push(gate);
    }
    for ticked in &mut counters {
        soon(ticked.recv()).await.expect("both tick");
    }

    let (release, released) = oneshot::channel::<()>();
    let (deaf_now, is_deaf) = oneshot::channel();
    send(
        &deaf,
        run(move |probe, ctx| {
            ctx.wait(released.into_actor(probe).map(|_, _, _| ()));
            let _ = deaf_now.send(());
        }),
    );
    soon(is_deaf).await.expect("the actor lives");
    for gate in gates {
        gate.send(()).expect("awaited");
    }
    let (msg, mut answer) = recall();
    send(&deaf, msg);
    assert_eq!(seen_after(&twin, 1).await, [1]);

    // The turn in which it went deaf may still have polled what was spawned.
    while counters[0].try_recv().is_ok() {}
    while counters[1].try_recv().is_ok() {}
    for _ in 0..20 {
        soon(counters[1].recv()).await.expect("the twin ticks");
    }
    assert!(counters[0].try_recv().is_err(), "a timer ran");
    assert!(answer.try_recv().is_err(), "a message was handled");

    release.send(()).expect("awaited");
    soon(&mut answer).await.expect("the actor hears again");
    assert_eq!(seen_after(&deaf, 1).await, [1]);
    while counters[0].try_recv().is_ok() {}
    soon(counters[0].recv()).await.expect("it ticks again");
}

#[actix::test]
async fn a_cancelled_future_is_dropped_before_it_runs_again() {
    let (addr, _end) = launch(Probe::default());
    let (guard, dropped) = oneshot::channel::<()>();
    let (handle_out, handle) = oneshot::channel();
    send(
        &addr,
        run(move |probe, ctx| {
            let forever: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                std::future::pending::<()>().await;
                drop(guard);
            });
            let _ = handle_out.send(ctx.spawn(forever.into_actor(probe)));
        }),
    );
    let handle = soon(handle).await.expect("the actor lives");
    send(
        &addr,
        run(move |_, ctx| {
            ctx.cancel_future(handle);
        }),
    );
    assert!(soon(dropped).await.is_err());
    assert_eq!(seen(&addr).await, Vec::<u32>::new());
}
