//! Runs many schedules, on all processors but each in one thread; makes a failing one smaller.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    plan::Plan,
    stats::Stats,
    world::{Failure, World},
};

/// What came of many schedules.
#[derive(Debug, Default)]
pub struct Found {
    pub stats: Stats,
    /// By seed.
    pub failed: Vec<(u64, Failure)>,
}

/// Runs the schedules of `runs` seeds from `first` on. `prepare` is called in each thread.
pub fn all(first: u64, runs: u64, prepare: impl Fn() + Sync) -> Found {
    let next = AtomicU64::new(first);
    let found = Mutex::new(Found::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                prepare();
                let mut mine = Found::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        break;
                    }
                    match run(&Plan::new(seed)) {
                        Ok(stats) => mine.stats.add(&stats),
                        Err(failure) => mine.failed.push((seed, failure)),
                    }
                }
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.stats.add(&mine.stats);
                found.failed.extend(mine.failed);
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.failed.sort_by_key(|(seed, _)| *seed);
    found
}

/// Runs a plan; a panic of a core is a failure too.
fn run(plan: &Plan) -> Result<Stats, Failure> {
    catch_unwind(AssertUnwindSafe(|| World::run(plan, 0))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Failure {
            what: format!("a panic: {}", text.unwrap_or_default()),
            trace: Vec::new(),
        })
    })
}

/// Leaves out what a plan can do without and still fails in the same way: halves, quarters, and so
/// on to single steps.
pub fn shrink(mut plan: Plan, failure: &Failure) -> Plan {
    const TRIES: u32 = 2000;
    let kind = kind_of(failure);
    let mut kept = plan.kept();
    let mut size = kept.len().div_ceil(2);
    let mut tries = 0;
    while size > 0 && tries < TRIES {
        let mut at = 0;
        while at < kept.len() && tries < TRIES {
            let end = (at + size).min(kept.len());
            let fewer: Vec<usize> = [&kept[..at], &kept[end..]].concat();
            plan.keep = Some(fewer.clone());
            tries += 1;
            if run(&plan).is_err_and(|it| kind_of(&it) == kind) {
                kept = fewer;
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    plan.keep = Some(kept);
    plan
}

/// What failed, whoever it was.
fn kind_of(failure: &Failure) -> String {
    let letters = failure.what.chars().filter(char::is_ascii_alphabetic);
    letters.take(40).collect()
}

/// In how many ways schedules failed, each with one that did.
pub fn kinds(failed: &[(u64, Failure)]) -> String {
    let mut kinds: BTreeMap<String, (u64, u64, &str)> = BTreeMap::new();
    for (seed, failure) in failed {
        let kind = kinds
            .entry(kind_of(failure))
            .or_insert((0, *seed, &failure.what));
        kind.0 += 1;
    }
    let lines = kinds
        .values()
        .map(|(count, seed, what)| format!("{count} x, seed {seed}: {what}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// How to have a failure again, and what happened last.
pub fn report(plan: &Plan, failure: &Failure) -> String {
    const LINES: u64 = 60;
    let lines = crate::number("SIM_TRACE").unwrap_or(LINES);
    let lines = usize::try_from(lines).unwrap_or(1);
    let keep: Vec<String> = plan.kept().iter().map(ToString::to_string).collect();
    let trace = World::run(plan, lines).err().map(|it| it.trace.join("\n"));
    let ops: Vec<String> = plan
        .kept()
        .iter()
        .map(|index| {
            let (at, op) = plan.ops[*index];
            format!("  {index:3}: at {at} ms {op:?}")
        })
        .collect();
    format!(
        "{}\n\nagain: make sim SEED={} KEEP={}\n\n{:?}\n\nsteps:\n{}\n\ntrace:\n{}\n\n{}",
        failure.what,
        plan.seed,
        keep.join(","),
        plan.setup,
        ops.join("\n"),
        trace.unwrap_or_default(),
        failure.what,
    )
}

/// Reads steps as [`report`] writes them.
pub fn steps(text: &str) -> Vec<usize> {
    text.split(',')
        .filter_map(|step| step.trim().parse().ok())
        .collect()
}
