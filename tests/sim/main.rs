//! A simulation of many users, their devices, two nodes and the database that they share, in virtual
//! time: the real cores of `domain/sync`, everything around them modelled, and anything that can go
//! wrong going wrong. One seed is one schedule, always the same.
//!
//! `SIM_SEED` and `SIM_RUNS` choose the schedules (`make sim`), `SIM_KEEP` the steps of one.

mod client;
mod clients;
mod db;
mod frames;
mod invariants;
mod node;
mod ops;
mod plan;
mod queue;
mod rng;
mod server;
mod stats;
mod wire;
mod work;
mod world;

use plan::Plan;
use stats::Stats;
use world::World;

#[test]
fn nothing_is_lost() {
    let first: u64 = std::env::var("SIM_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let runs: u64 = std::env::var("SIM_RUNS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(200);
    let lines = std::env::var("SIM_TRACE")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(80);
    let mut all = Stats::default();
    let mut failed = 0;
    let mut kinds = std::collections::BTreeMap::new();
    for seed in first..first + runs {
        let plan = Plan::new(seed);
        match World::run(&plan, 0) {
            Ok(stats) => all.add(&stats),
            Err(failure) => {
                failed += 1;
                let kind: String = failure
                    .what
                    .chars()
                    .filter(|c| !c.is_ascii_digit())
                    .take(90)
                    .collect();
                let entry: &mut (u64, u64, String) =
                    kinds.entry(kind).or_insert((0, seed, failure.what.clone()));
                entry.0 += 1;
                if runs == 1 {
                    println!("{:?}", plan.setup);
                    let failure = World::run(&plan, lines).unwrap_err();
                    println!("{}", failure.trace.join("\n"));
                }
            }
        }
    }
    for (count, seed, what) in kinds.values() {
        println!("{count} x, seed {seed}: {what}");
    }
    println!("{all}");
    assert_eq!(failed, 0);
}
