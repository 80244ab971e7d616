//! An actor that does what a message says, and a bench that starts such actors.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests fail by panics, and so do the actors here"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use listen_stream::{
    actors::kernel::{
        Ask, Caps, Class, Cx, Deadline, Handle, Kernel, KernelMetrics, Place, Public, Reply,
        RestartPolicy, Serve, Unit, view,
    },
    domain::clock::{Clock, System, World},
};

/// Long enough to be reached only by a defect.
pub const LONG: Duration = Duration::from_secs(20);

/// Restarted at once, so that tests do not wait; otherwise as an actor of one user.
pub const QUICK: RestartPolicy = RestartPolicy {
    first_delay: Duration::from_millis(1),
    max_delay: Duration::from_millis(1),
    ..RestartPolicy::ENTITY
};

pub const PLACE: Place = place(32, QUICK);

pub const fn place(commands: u32, policy: RestartPolicy) -> Place {
    Place {
        caps: Caps {
            commands,
            reads: 64,
        },
        policy,
    }
}

/// A deadline that only a defect reaches.
pub fn long() -> Deadline {
    System.instant() + LONG
}

/// Waits until `holds`; fails the test when that takes too long.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = long();
    while !holds() {
        assert!(System.instant() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The machine's clock, put ahead by hand.
#[derive(Default)]
pub struct Hand(AtomicU64);

impl Hand {
    pub fn forward(&self, by: Duration) {
        self.0
            .fetch_add(u64::try_from(by.as_millis()).unwrap(), SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> DateTime<Utc> {
        System.now()
    }

    fn instant(&self) -> Instant {
        System.instant() + Duration::from_millis(self.0.load(SeqCst))
    }
}

/// How one life of a [`Probe`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Well,
    FailsInMake,
    FailsInStarted,
    FailsInDrop,
    /// Goes to rest whenever it may.
    Restless,
}

/// What was seen of all lives of one actor; outlives them.
#[derive(Default)]
pub struct Seen {
    pub made: AtomicU32,
    alive: AtomicI64,
    pub most_alive: AtomicI64,
    /// Work that runs now, and the most that ran at once.
    pub running: AtomicI64,
    pub most_running: AtomicI64,
    pub handled: AtomicU64,
}

impl Seen {
    pub fn made(&self) -> u32 {
        self.made.load(SeqCst)
    }

    pub fn handled(&self) -> u64 {
        self.handled.load(SeqCst)
    }

    pub fn enter(&self) {
        let now = self.running.fetch_add(1, SeqCst) + 1;
        self.most_running.fetch_max(now, SeqCst);
    }

    pub fn leave(&self) {
        self.running.fetch_sub(1, SeqCst);
    }
}

/// Does what a message says.
pub struct Probe {
    pub seen: Arc<Seen>,
    /// Which life this is, from 1.
    pub life: u32,
    fate: Fate,
}

impl Probe {
    pub fn make(seen: &Arc<Seen>, fate: impl Fn(u32) -> Fate) -> Self {
        let life = seen.made.fetch_add(1, SeqCst) + 1;
        let fate = fate(life);
        if fate == Fate::FailsInMake {
            // Time for other threads to send to a life that is announced too early.
            std::thread::sleep(Duration::from_millis(2));
            panic!("planted in make");
        }
        let alive = seen.alive.fetch_add(1, SeqCst) + 1;
        seen.most_alive.fetch_max(alive, SeqCst);
        Self {
            seen: Arc::clone(seen),
            life,
            fate,
        }
    }

    fn rest_when_it_may(cx: &mut Cx<'_, Self>) {
        cx.spawn(tokio::task::yield_now(), |_, (), cx| {
            if !cx.rest() {
                Self::rest_when_it_may(cx);
            }
        });
    }
}

view! {
    /// What a probe shows.
    pub struct ProbeView {
        life: Public<u32>,
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.seen.alive.fetch_sub(1, SeqCst);
        assert!(self.fate != Fate::FailsInDrop, "planted in drop");
    }
}

impl Unit for Probe {
    const KIND: &'static str = "probe";
    type View = ProbeView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        match self.fate {
            Fate::FailsInStarted => {
                std::thread::sleep(Duration::from_millis(2));
                panic!("planted in started");
            }
            Fate::Restless => Self::rest_when_it_may(cx),
            _ => {}
        }
    }

    fn view(&self, _now: Instant) -> ProbeView {
        let life = Public(self.life);
        ProbeView { life }
    }
}

type Act<T> = Box<dyn FnOnce(&mut Probe, &mut Cx<'_, Probe>) -> T + Send>;

/// Does something, and answers a number.
pub struct Do<const CLASS: usize>(Act<Reply<Probe, u64>>);

impl<const CLASS: usize> Ask for Do<CLASS> {
    type Reply = u64;
    const CLASS: Class = [Class::Command, Class::Read, Class::Control][CLASS];
}

impl<const CLASS: usize> Serve<Do<CLASS>> for Probe {
    fn serve(&mut self, msg: Do<CLASS>, cx: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        self.seen.handled.fetch_add(1, SeqCst);
        (msg.0)(self, cx)
    }
}

/// Does something.
pub struct Hint(Act<()>);

impl Ask for Hint {
    type Reply = ();
    const CLASS: Class = Class::Control;
}

impl Serve<Hint> for Probe {
    fn serve(&mut self, msg: Hint, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.seen.handled.fetch_add(1, SeqCst);
        (msg.0)(self, cx);
        Reply::Now(())
    }
}

pub fn act<const CLASS: usize>(
    act: impl FnOnce(&mut Probe, &mut Cx<'_, Probe>) -> Reply<Probe, u64> + Send + 'static,
) -> Do<CLASS> {
    Do(Box::new(act))
}

pub fn command(
    run: impl FnOnce(&mut Probe, &mut Cx<'_, Probe>) -> Reply<Probe, u64> + Send + 'static,
) -> Do<0> {
    act(run)
}

pub fn control(
    run: impl FnOnce(&mut Probe, &mut Cx<'_, Probe>) -> Reply<Probe, u64> + Send + 'static,
) -> Do<2> {
    act(run)
}

/// Answers `n` at once.
pub fn echo(n: u64) -> Do<0> {
    command(move |_, _| Reply::Now(n))
}

/// Answers which life answers.
pub fn which_life() -> Do<0> {
    command(|probe, _| Reply::Now(probe.life.into()))
}

pub fn fail() -> Do<0> {
    command(|_, _| panic!("planted in serve"))
}

pub fn hint(run: impl FnOnce(&mut Probe, &mut Cx<'_, Probe>) + Send + 'static) -> Hint {
    Hint(Box::new(run))
}

/// A kernel, its metrics, and its clock.
pub struct Bench {
    pub kernel: Kernel,
    pub clock: Arc<Hand>,
    metrics: prometheus_client::registry::Registry,
}

impl Bench {
    pub fn new() -> Self {
        let mut metrics = prometheus_client::registry::Registry::default();
        let clock = Arc::new(Hand::default());
        let clock_too = Arc::clone(&clock);
        let world = World::new(clock_too, Arc::new(System));
        let kernel = Kernel::new(world, KernelMetrics::register(&mut metrics));
        Self {
            kernel,
            clock,
            metrics,
        }
    }

    /// An actor whose lives go by `fate`.
    pub fn start(
        &self,
        place: Place,
        fate: impl Fn(u32) -> Fate + 'static,
    ) -> (Handle<Probe>, Arc<Seen>) {
        let seen = Arc::<Seen>::default();
        let seen_too = Arc::clone(&seen);
        let handle = self
            .kernel
            .start(place, move || Probe::make(&seen_too, &fate));
        (handle, seen)
    }

    /// What the metrics endpoint shows.
    pub fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        text
    }
}

/// The fate of every life of a good actor.
pub const fn well(_: u32) -> Fate {
    Fate::Well
}
