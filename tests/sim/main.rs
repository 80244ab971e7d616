//! A simulation of many users, their devices, two nodes and the database that they share, in virtual
//! time: the real cores of `domain/sync`, everything around them modelled, and anything that can go
//! wrong going wrong. One seed is one schedule, always the same.
//!
//! | file | what it has |
//! |---|---|
//! | `plan.rs` | what a seed stands for: the setup, and what is done when |
//! | `world.rs`, `happening.rs`, `queue.rs`, `rng.rs` | the world, what happens in it, its clock, its chances |
//! | `ops.rs`, `lives.rs` | what the plan does to it; how sessions and nodes end |
//! | `node.rs`, `server.rs`, `attach.rs`, `hear.rs`, `talk.rs`, `answers.rs`, `keepers.rs` | nodes: the shell around the core, as `src/actors` is |
//! | `db.rs`, `work.rs` | the database, as `src/store` uses it; what is asked of it, run and answered |
//! | `client.rs`, `clients.rs`, `connect.rs`, `reload.rs` | clients, as `docs/protocol.md` asks for |
//! | `wire.rs`, `frames.rs` | connections, and what the judge saw on them |
//! | `invariants.rs`, `judge.rs` | what must hold, asked at every step |
//! | `search.rs` | many seeds; a failing plan made smaller |
//!
//! `make sim SEED=… RUNS=… KEEP=…` chooses schedules, and the steps of one.

mod answers;
mod attach;
mod client;
mod clients;
mod connect;
mod db;
mod frames;
mod happening;
mod hear;
mod invariants;
mod judge;
mod keepers;
mod lives;
mod node;
mod ops;
mod plan;
mod queue;
mod reload;
mod rng;
mod search;
mod server;
mod stats;
mod talk;
mod wire;
mod work;
mod world;

use plan::Plan;
use world::World;

/// A number that was passed on by `make sim`.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost() {
    let first = number("SIM_SEED").unwrap_or(1);
    let runs = number("SIM_RUNS").unwrap_or(10_000);
    let keep = std::env::var("SIM_KEEP").ok();
    if let Some(keep) = keep.filter(|text| !text.is_empty()) {
        let mut plan = Plan::new(first);
        plan.keep = Some(search::steps(&keep));
        match World::run(&plan, 0) {
            Ok(stats) => println!("sim: {stats}"),
            Err(failure) => panic!("{}", search::report(&plan, &failure)),
        }
        return;
    }
    let found = search::all(first, runs, || {});
    println!("sim: {}", found.stats);
    if let Some((seed, failure)) = found.failed.first() {
        let seeds: Vec<u64> = found
            .failed
            .iter()
            .map(|(seed, _)| *seed)
            .take(20)
            .collect();
        let smallest = search::shrink(Plan::new(*seed), failure);
        let failure = World::run(&smallest, 0)
            .err()
            .unwrap_or_else(|| failure.clone());
        panic!(
            "{} of {runs} schedules failed, seeds {seeds:?}\n{}\n\n{}",
            found.failed.len(),
            search::kinds(&found.failed),
            search::report(&smallest, &failure)
        );
    }
}

#[test]
fn a_seed_is_one_schedule() {
    for seed in 1..50 {
        let plan = Plan::new(seed);
        assert_eq!(plan, Plan::new(seed));
        let once = World::run(&plan, 0).map_err(|failure| failure.what);
        let again = World::run(&plan, 20).map_err(|failure| failure.what);
        assert_eq!(once, again, "seed {seed}");
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_is_found() {
    use listen_stream::domain::sync::planted::{Bug, plant};

    const BATCH: u64 = 500;
    const BATCHES: u64 = 16;
    const ENOUGH: usize = 3;
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let (mut runs, mut failed) = (0, Vec::new());
        while runs < BATCH * BATCHES && failed.len() < ENOUGH {
            failed.extend(search::all(1 + runs, BATCH, || plant(Some(bug))).failed);
            runs += BATCH;
        }
        let count = failed.len();
        let first = failed.first().map_or_else(String::new, |(seed, failure)| {
            format!("; seed {seed}: {}", failure.what)
        });
        println!("sim: {bug:?} is found in {count} of {runs} schedules{first}");
        if count < ENOUGH {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "not found, or hardly: {missed:?}");
}
