//! What is broken on purpose: one or two things at a time, in an order that the seed says, all of them
//! before any of them again.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    NODES,
    support::{
        dice::Dice,
        postgres_server::Stop,
        proxy::{Cut, Way},
    },
    system::System,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of a node.
    Kill,
    /// SIGTERM: a node stops in order.
    Term,
    RedisStopped,
    PostgresFast,
    PostgresImmediate,
    /// Connections are cut, and no new ones can be made: for one node, some or all.
    Cut,
    /// Nothing passes, and nobody is told.
    Silent,
    /// Everything takes longer.
    Slow,
    /// Little passes a second.
    Narrow,
    /// Connections are forgotten on the way; new ones pass.
    Forgotten,
    /// Some commits of a node are cut off from their answers, one after the other.
    CommitCut,
}

use Fault::{
    CommitCut, Cut as WayCut, Forgotten, Kill, Narrow, PostgresFast, PostgresImmediate,
    RedisStopped, Silent, Slow, Term,
};

const ALL: [Fault; 11] = [
    Kill,
    Term,
    RedisStopped,
    PostgresFast,
    PostgresImmediate,
    WayCut,
    Silent,
    Slow,
    Narrow,
    Forgotten,
    CommitCut,
];

/// Commits that are cut at a time: some are of commands, others of cursors and beats.
const COMMITS: u32 = 12;

/// How often each happened, and the longest that the system took to recover after it, alone or with
/// another.
#[derive(Debug, Default)]
pub struct Figures {
    pub of: BTreeMap<Fault, (u32, Duration)>,
    pub longest: Duration,
}

pub struct Faults {
    dice: Dice,
    bag: Vec<Fault>,
    pub figures: Figures,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            bag: Vec::new(),
            figures: Figures::default(),
        }
    }

    fn draw(&mut self) -> Fault {
        if self.bag.is_empty() {
            self.bag = ALL.to_vec();
        }
        let index = self.dice.index(self.bag.len());
        self.bag.swap_remove(index)
    }

    fn millis(&mut self, least: u64, more: u64) -> Duration {
        Duration::from_millis(least + self.dice.below(more))
    }

    /// Breaks things until the time is over, and mends each.
    pub async fn run(&mut self, system: &mut System, until: Instant) -> Result<(), String> {
        while Instant::now() < until {
            let shared = system.shared.clone();
            shared.set_quiet(true);
            let calm = self.millis(1500, 3000);
            shared.step("quiet");
            self.pause(system, calm).await?;
            shared.set_quiet(false);
            let mut faults = vec![self.draw()];
            if self.dice.below(3) > 0 {
                faults.push(self.draw());
            }
            for fault in &faults {
                self.begin(*fault, system).await;
                let gap = self.millis(0, 800);
                self.pause(system, gap).await?;
            }
            let hold = self.millis(300, 4000);
            self.pause(system, hold).await?;
            system.mend().await;
            let took = system.recovered().await?;
            shared.step(&format!("recovered in {took:.2?}"));
            self.figures.longest = self.figures.longest.max(took);
            for fault in faults {
                let (count, longest) = self.figures.of.entry(fault).or_default();
                *count += 1;
                *longest = took.max(*longest);
            }
            // What devices and connections do to settle is not what quiet times are measured by.
            self.pause(system, Duration::from_millis(500)).await?;
        }
        Ok(())
    }

    async fn pause(&self, system: &System, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if let Some(broken) = system.shared.broken() {
                return Err(broken);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Some of the ways between nodes and stores.
    fn some_ways(&mut self) -> Vec<(usize, usize)> {
        let stores: &[usize] = match self.dice.below(3) {
            0 => &[0],
            1 => &[1],
            _ => &[0, 1],
        };
        let count = 1 + self.dice.index(NODES);
        let first = self.dice.index(NODES);
        let nodes = (0..count).map(|n| (first + n) % NODES);
        nodes
            .flat_map(|node| stores.iter().map(move |store| (node, *store)))
            .collect()
    }

    async fn begin(&mut self, fault: Fault, system: &mut System) {
        let shared = system.shared.clone();
        // One at least is: a round has two faults at most.
        let first = self.dice.index(NODES);
        let in_turn = (0..NODES).map(|n| (first + n) % NODES);
        let node = in_turn.into_iter().find(|it| system.alive[*it]);
        let node = node.unwrap_or(first);
        match fault {
            Kill => {
                shared.step(&format!("kill -9 of node {node}"));
                system.dismiss(node);
                system.nodes[node].kill9();
            }
            Term => {
                shared.step(&format!("SIGTERM to node {node}"));
                system.dismiss(node);
                system.nodes[node].stop().await;
                shared.step(&format!("node {node} has stopped"));
            }
            RedisStopped => {
                shared.step("Redis is killed");
                system.redis.stop();
                system.redis_runs = false;
            }
            PostgresFast | PostgresImmediate => {
                shared.step(&format!("{fault:?}"));
                let how = if fault == PostgresFast {
                    Stop::Fast
                } else {
                    Stop::Immediate
                };
                system.postgres.stop(how).await;
            }
            CommitCut => {
                shared.step(&format!(
                    "commits of node {node} are cut from their answers"
                ));
                for _ in 0..COMMITS {
                    let cut = [Cut::Before, Cut::After][self.dice.index(2)];
                    let way = &system.ways[node][0];
                    way.cut_next_commit(cut);
                    let until = Instant::now() + Duration::from_millis(400);
                    while !way.has_cut() && Instant::now() < until {
                        sleep(Duration::from_millis(5)).await;
                    }
                }
            }
            WayCut | Silent | Slow | Narrow | Forgotten => {
                let ways = self.some_ways();
                let way = match fault {
                    WayCut => Way::Gone,
                    Silent => Way::Silent,
                    Slow => Way::Slow(self.millis(5, 40)),
                    _ => Way::Narrow(20_000 + u32::try_from(self.dice.below(100_000)).unwrap()),
                };
                let name = |(node, store): &(usize, usize)| {
                    format!(" {node}-{}", ["PostgreSQL", "Redis"][*store])
                };
                let all: String = ways.iter().map(name).collect();
                if fault == Forgotten {
                    shared.step(&format!("connections are forgotten:{all}"));
                } else {
                    shared.step(&format!("{way:?}:{all}"));
                }
                for (node, store) in ways {
                    match fault {
                        Forgotten => system.ways[node][store].lose_connections(),
                        _ => system.ways[node][store].set(way),
                    }
                }
            }
        }
    }
}
