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
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use balancer::Balancer;
use call::Caller;
use device::{Client, Habit};
use faults::Faults;
use ledger::Ledger;
use shared::Shared;
use support::{Api, Device, Service, dice::Dice, phone};
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
    habit(true, false, true, false),
    habit(false, false, false, false),
    habit(false, false, true, true),
    habit(false, true, false, false),
    habit(true, false, false, true),
];

#[expect(
    clippy::fn_params_excessive_bools,
    reason = "habits are independent of each other"
)]
const fn habit(each: bool, rest: bool, since: bool, sleepy: bool) -> Habit {
    Habit {
        each,
        rest,
        since,
        sleepy,
    }
}

fn seconds() -> u64 {
    std::env::var("SOAK_SECONDS").map_or(60, |text| text.parse().expect("SOAK_SECONDS is a number"))
}

#[expect(
    clippy::too_many_lines,
    reason = "one run, told from its beginning to its end"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_everybody_agrees() {
    let seed = Dice::seed("soak");
    let seconds = seconds();
    let mut dice = Dice::new(seed);
    let shared = Arc::new(Shared::new(
        Balancer::start().await,
        Balancer::start().await,
    ));
    let mut system = System::start(shared.clone()).await;
    let users = users(&system).await;
    let scopes = ["events:append", "events:broadcast"];
    let service = Service::with(&system.nodes[0], &scopes).await;
    shared.step(&format!(
        "soak of {seconds} s: {NODES} nodes, {} users, {} devices",
        users.len(),
        users.iter().map(Vec::len).sum::<usize>()
    ));
    let health = tokio::spawn(system::watch_health(shared.clone()));

    let mut clients = Vec::new();
    let (mut writers, timed) = (Vec::new(), Arc::new(Mutex::new(Vec::new())));
    for devices in &users {
        let names: Vec<_> = devices.iter().map(|it| it.device_id.clone()).collect();
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
                let writer = writer::Writer::new(device.clone(), names.clone(), caller);
                writers.push(tokio::spawn(writer.write()));
            }
        }
    }
    // So many that the quotas are just enough.
    let pace = Duration::from_secs((seconds / 18).max(3));
    let ids: Vec<_> = users.iter().map(|it| it[0].user_id.clone()).collect();
    let notifier = service::notifier(service, &shared, ids, dice.roll(), pace);
    let serving = tokio::spawn(notifier.serve());

    let until = Instant::now() + Duration::from_secs(seconds);
    let mut faults = Faults::new(dice.roll());
    let run = faults.run(&mut system, until).await;
    shared.set_quiet(false);
    system.without_redis();
    tokio::time::sleep(LAST_WRITES).await;
    shared.settling.store(true, Ordering::SeqCst);
    shared.step("the last calls");
    let end = async {
        run?;
        let all = timeout(LAST_CALLS, futures_util::future::join_all(writers)).await;
        let all = all.map_err(|_| "the writers do not come to an end")?;
        let ledgers: Vec<Ledger> = all.into_iter().map(Result::unwrap).collect();
        let served = timeout(LAST_CALLS, serving).await;
        let served = served.map_err(|_| "the service does not come to an end")?;
        let (notifier, served) = served.unwrap();
        let reached = match &served.broadcast {
            Some(id) => Some(notifier.finished(id).await?),
            None => None,
        };
        let heads = system.last_heads().await;
        shared.finish(heads.clone());
        shared.step("nothing more is written");
        let begun = Instant::now();
        let all = timeout(CAUGHT_UP, futures_util::future::join_all(clients)).await;
        let Ok(all) = all else {
            let behind = device::behind(&shared, &heads).concat();
            return Err(format!("not caught up within {CAUGHT_UP:?}: {behind}"));
        };
        let clients: Vec<Client> = all.into_iter().map(Result::unwrap).collect();
        if let Some(broken) = shared.broken() {
            return Err(broken);
        }
        let caught_up = begun.elapsed();
        shared.step(&format!("everybody has everything after {caught_up:.2?}"));

        system.mend().await;
        let took = system.recovered().await?;
        shared.step(&format!("recovered in {took:.2?}"));
        let logs = check::logs(&system).await;
        check::whole(&logs, &heads)?;
        for client in &clients {
            check::applied(client, &logs)?;
        }
        let found = check::asked(&ledgers, &logs)?;
        let noted = check::services(&served.notes, &logs)?;
        check::broadcast(reached, &logs)?;
        check::equal(&clients, &system).await?;
        Ok((
            clients,
            found,
            noted,
            heads.values().sum::<u64>(),
            caught_up,
        ))
    };
    let end = end.await;
    health.abort();
    let (clients, found, noted, events, caught_up) = match end {
        Ok(end) => end,
        Err(what) => {
            let broken = shared.broken().unwrap_or_else(|| {
                shared.violated(&what, &std::collections::VecDeque::new());
                shared.broken().unwrap_or_default()
            });
            panic!("the soak is broken, with FAULTS_SEED={seed} SOAK_SECONDS={seconds}:\n{broken}");
        }
    };
    let timed = timed.lock().unwrap();
    let took = check::crossings(&clients, &timed);
    println!("\nsoak of {seconds} s, FAULTS_SEED={seed}");
    println!(
        "{events:>9} events in the logs, {found} changes and {noted} events of services looked for and found"
    );
    for (name, value) in shared.counts.all() {
        println!("{value:>9} {}", name.replace('_', " "));
    }
    println!("{:>9} lost\n{:>9} wrong order", 0, 0);
    for (fault, (count, longest)) in &faults.figures.of {
        println!("{count:>9} {fault:?}, recovered after {longest:.2?} at most");
    }
    println!(
        "longest recovery {:.2?}, everybody had everything {caught_up:.2?} after the last write",
        faults.figures.longest
    );
    let at =
        |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)));
    println!(
        "from a call to its event on another node, in quiet times: P50 {:?} ms, P99 {:?} ms, of {}",
        at(50).copied().unwrap_or_default(),
        at(99).copied().unwrap_or_default(),
        took.len()
    );
    let counts = &shared.counts;
    for (what, count) in [
        ("command was acknowledged", &counts.acknowledged),
        ("event was delivered", &counts.delivered),
        ("device came back", &counts.reconnects),
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
    futures_util::future::join_all(users).await
}
