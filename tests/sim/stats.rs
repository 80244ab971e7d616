//! What all schedules together did.

use std::collections::BTreeMap;

use crate::queue::Ms;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub schedules: u64,
    pub steps: u64,
    pub commits: u64,
    pub applied: u64,
    pub repeated: u64,
    pub acks: u64,
    pub connections: u64,
    pub session_crashes: u64,
    pub keeper_crashes: u64,
    pub node_crashes: u64,
    pub restores: u64,
    pub trims: u64,
    pub resyncs: u64,
    pub signals: u64,
    pub signals_dropped: u64,
    pub lost_hints: u64,
    pub failed_asks: u64,
    pub closes: BTreeMap<u16, u64>,
    pub virtual_ms: Ms,
    pub longest_settling: Ms,
}

impl Stats {
    pub fn add(&mut self, other: &Self) {
        for (all, one) in [
            (&mut self.schedules, other.schedules),
            (&mut self.steps, other.steps),
            (&mut self.commits, other.commits),
            (&mut self.applied, other.applied),
            (&mut self.repeated, other.repeated),
            (&mut self.acks, other.acks),
            (&mut self.connections, other.connections),
            (&mut self.session_crashes, other.session_crashes),
            (&mut self.keeper_crashes, other.keeper_crashes),
            (&mut self.node_crashes, other.node_crashes),
            (&mut self.restores, other.restores),
            (&mut self.trims, other.trims),
            (&mut self.resyncs, other.resyncs),
            (&mut self.signals, other.signals),
            (&mut self.signals_dropped, other.signals_dropped),
            (&mut self.lost_hints, other.lost_hints),
            (&mut self.failed_asks, other.failed_asks),
            (&mut self.virtual_ms, other.virtual_ms),
        ] {
            *all += one;
        }
        for (code, count) in &other.closes {
            *self.closes.entry(*code).or_default() += count;
        }
        self.longest_settling = self.longest_settling.max(other.longest_settling);
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let closes: Vec<String> = self
            .closes
            .iter()
            .map(|(code, count)| format!("{code}: {count}"))
            .collect();
        write!(
            f,
            "{} schedules, {} steps, {} virtual hours; {} events committed, {} applied, {} repeated, \
             {} acks; {} connections; crashes: {} of a session, {} of a keeper, {} of a node; \
             {} restores, {} trims, {} resyncs; {} hints lost, {} asks failed; {} signals, {} dropped; \
             closed by code: {}; settled at most {} s after the last fault",
            self.schedules,
            self.steps,
            self.virtual_ms / 3_600_000,
            self.commits,
            self.applied,
            self.repeated,
            self.acks,
            self.connections,
            self.session_crashes,
            self.keeper_crashes,
            self.node_crashes,
            self.restores,
            self.trims,
            self.resyncs,
            self.lost_hints,
            self.failed_asks,
            self.signals,
            self.signals_dropped,
            closes.join(", "),
            self.longest_settling / 1000,
        )
    }
}
