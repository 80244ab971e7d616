//! The soak: three real nodes on one `PostgreSQL` and one Redis, behind a balancer; users with devices on
//! different nodes, who write, while nodes, stores and the network between them fail at random.
//!
//! `SOAK_SECONDS` says for how long (60), `FAULTS_SEED` which faults and commands. What is checked all
//! the time is in `device.rs`, what is checked at the end in `check.rs`. A violation ends the run, and
//! prints the seed, the user, the device and the last steps.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../it/support/mod.rs"]
#[macro_use]
#[expect(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "other tests use the rest of it"
)]
mod support;

mod balancer;
mod call;
mod check;
mod device;
mod faults;
mod ledger;
mod library;
mod service;
mod shared;
mod system;
mod writer;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use balancer::Balancer;
use call::{Caller, Timed};
use device::{Client, Habit};
use faults::Faults;
use ledger::Ledger;
use service::{Notifier, Served};
use shared::Shared;
use support::{Api, Device, Service, dice::Dice, follower::Acks, phone};
use system::System;

/// How many nodes there are.
pub const NODES: usize = 3;
/// How many devices each user has.
const DEVICES: [usize; 4] = [3, 4, 5, 5];
/// How many of them write.
const WRITERS: usize = 3;
/// When the faults are over and nobody writes any more, everybody has everything within this.
const CAUGHT_UP: Duration = Duration::from_secs(30);
/// How long everybody writes after Redis went for good.
const LAST_WRITES: Duration = Duration::from_secs(2);
/// What writers have in hand when they are told to stop is tried for longer than faults last.
const LAST_CALLS: Duration = Duration::from_secs(100);

const HABITS: [Habit; 5] = [
    habit(Acks::Each, true, false),
    habit(Acks::Newest, false, false),
    habit(Acks::Newest, true, true),
    habit(Acks::Rest, false, false),
    habit(Acks::Each, false, true),
];

const fn habit(acks: Acks, since: bool, sleepy: bool) -> Habit {
    Habit {
        acks,
        since,
        sleepy,
    }
}

fn seconds() -> u64 {
    std::env::var("SOAK_SECONDS").map_or(60, |text| text.parse().expect("SOAK_SECONDS is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_everybody_agrees() {
    let seed = Dice::seed("soak");
    let seconds = seconds();
    let mut dice = Dice::new(seed);
    let mut run = Run::start(&mut dice, seconds).await;
    let shared = run.system.shared.clone();
    let timed = run.timed.clone();
    let health = tokio::spawn(system::watch_health(shared.clone()));

    let until = Instant::now() + Duration::from_secs(seconds);
    let mut faults = Faults::new(dice.roll());
    let end = match faults.run(&mut run.system, until).await {
        Ok(()) => run.end().await,
        Err(what) => Err(what),
    };
    health.abort();
    let ended = end.unwrap_or_else(|what| {
        let broken = shared.broken().unwrap_or_else(|| {
            shared.violated(&what, &VecDeque::new());
            shared.broken().unwrap_or_default()
        });
        panic!("the soak is broken, with FAULTS_SEED={seed} SOAK_SECONDS={seconds}:\n{broken}");
    });
    println!("\nsoak of {seconds} s, FAULTS_SEED={seed}");
    report(&shared, &ended, &faults, &timed.lock().unwrap());
}

/// Everything that is under way.
struct Run {
    system: System,
    clients: Vec<JoinHandle<Client>>,
    writers: Vec<JoinHandle<Ledger>>,
    serving: JoinHandle<(Notifier, Served)>,
    timed: Arc<Mutex<Vec<Timed>>>,
}

/// What there is to tell at the end.
struct Ended {
    clients: Vec<Client>,
    /// Events in all logs, acknowledged changes that were looked for and found there, and events of services.
    events: u64,
    changes: u64,
    notes: u64,
    /// How long after the last write everybody had everything.
    caught_up: Duration,
}

impl Run {
    async fn start(dice: &mut Dice, seconds: u64) -> Self {
        let shared = Arc::new(Shared::new(
            Balancer::start().await,
            Balancer::start().await,
        ));
        let system = System::start(shared.clone()).await;
        let users = users(&system).await;
        let scopes = ["events:append", "events:broadcast"];
        let service = Service::with(&system.nodes[0], &scopes).await;
        shared.step(&format!(
            "soak of {seconds} s: {NODES} nodes, {} users, {} devices",
            users.len(),
            users.iter().map(Vec::len).sum::<usize>()
        ));
        let (mut clients, mut writers) = (Vec::new(), Vec::new());
        let timed = Arc::new(Mutex::new(Vec::new()));
        for devices in &users {
            let names: Vec<_> = devices.iter().map(|it| it.device_id.clone()).collect();
            let (_, epoch) = devices[0].head().await;
            for (n, (device, habit)) in devices.iter().zip(HABITS).enumerate() {
                let client = Client::new(device.clone(), habit, shared.clone(), dice.roll());
                clients.push(tokio::spawn(client.live()));
                if n < WRITERS {
                    let caller = Caller::new(
                        &device.device_id,
                        &device.user_id,
                        shared.public.clone(),
                        shared.clone(),
                        dice.roll(),
                        timed.clone(),
                    );
                    let writer = writer::Writer::new(device.clone(), names.clone(), &epoch, caller);
                    writers.push(tokio::spawn(writer.write()));
                }
            }
        }
        // So many that the quotas are just enough, and in a long run not quite.
        let pace = Duration::from_secs((seconds / 18).max(3));
        let ids: Vec<_> = users.iter().map(|it| it[0].user_id.clone()).collect();
        let notifier = service::notifier(service, &shared, ids, dice.roll(), pace);
        Self {
            system,
            clients,
            writers,
            serving: tokio::spawn(notifier.serve()),
            timed,
        }
    }

    /// The last writes, without Redis; then everything is compared.
    async fn end(mut self) -> Result<Ended, String> {
        let shared = self.system.shared.clone();
        shared.set_quiet(false);
        self.system.without_redis();
        tokio::time::sleep(LAST_WRITES).await;
        shared.settling.store(true, Ordering::SeqCst);
        shared.step("the last calls");
        let all = timeout(LAST_CALLS, join_all(self.writers)).await;
        let all = all.map_err(|_| "the writers do not come to an end")?;
        let ledgers: Vec<Ledger> = all.into_iter().map(Result::unwrap).collect();
        let served = timeout(LAST_CALLS, self.serving).await;
        let served = served.map_err(|_| "the service does not come to an end")?;
        let (notifier, served) = served.unwrap();
        let reached = match &served.broadcast {
            Some(id) => Some(notifier.finished(id).await?),
            None => None,
        };
        let heads = self.system.last_heads().await;
        shared.finish(heads.clone());
        shared.step("nothing more is written");
        let begun = Instant::now();
        let Ok(all) = timeout(CAUGHT_UP, join_all(self.clients)).await else {
            let behind = device::behind(&shared, &heads).concat();
            return Err(format!("not caught up within {CAUGHT_UP:?}: {behind}"));
        };
        let clients: Vec<Client> = all.into_iter().map(Result::unwrap).collect();
        if let Some(broken) = shared.broken() {
            return Err(broken);
        }
        let caught_up = begun.elapsed();
        shared.step(&format!("everybody has everything after {caught_up:.2?}"));

        self.system.mend().await;
        let took = self.system.recovered().await?;
        shared.step(&format!("recovered in {took:.2?}"));
        let logs = check::logs(&self.system).await;
        check::whole(&logs, &heads)?;
        check::of_every_type(&logs)?;
        for client in &clients {
            check::applied(client, &logs)?;
        }
        let changes = check::asked(&ledgers, &logs)?;
        let notes = check::services(&served.notes, &logs)?;
        check::broadcast(reached, &logs)?;
        check::equal(&clients, &self.system).await?;
        Ok(Ended {
            clients,
            events: heads.values().sum(),
            changes,
            notes,
            caught_up,
        })
    }
}

fn report(shared: &Shared, ended: &Ended, faults: &Faults, timed: &[Timed]) {
    let Ended {
        clients,
        events,
        changes,
        notes,
        caught_up,
    } = ended;
    println!("{events:>9} events in the logs");
    println!("{changes:>9} acknowledged changes looked for in the logs, each there once");
    println!("{notes:>9} events of a service, each there once");
    for (name, value) in shared.counts.all() {
        println!("{value:>9} {}", name.replace('_', " "));
    }
    // Anything else has ended the run.
    println!("{:>9} lost\n{:>9} wrong order", 0, 0);
    for (fault, (count, longest)) in &faults.figures.of {
        println!("{count:>9} {fault:?}, recovered after {longest:.2?} at most");
    }
    let longest = faults.figures.longest;
    println!("longest recovery {longest:.2?}");
    println!("everybody had everything {caught_up:.2?} after the last write, without Redis");
    let took = check::crossings(clients, timed);
    let at = |percent: usize| took.get(took.len() * percent / 100).copied();
    println!(
        "from a call to its event on another node, in quiet times: P50 {} ms, P99 {} ms, of {}",
        at(50).unwrap_or_default(),
        at(99).unwrap_or_default(),
        took.len()
    );
    for (what, count) in [
        ("command was acknowledged", &shared.counts.acknowledged),
        ("event was delivered", &shared.counts.delivered),
        ("device came back", &shared.counts.reconnects),
    ] {
        assert!(count.load(Ordering::SeqCst) > 0, "no {what}");
    }
}

/// The users, each with its devices, all of them new; they call by the balancer.
async fn users(system: &System) -> Vec<Vec<Device>> {
    let api = system.nodes[0].api();
    let balanced = Api::new(&system.shared.public.address, std::path::PathBuf::new());
    let users = DEVICES.iter().map(|count| async {
        let (mut devices, phone) = (Vec::new(), phone());
        for n in 0..*count {
            let device = api.login(&phone, &format!("d{n}")).await;
            devices.push(device.with(&balanced));
        }
        devices
    });
    join_all(users).await
}
