//! What the store counts.

use std::time::{Duration, Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::error::StoreError;
use crate::{domain::clock::World, telemetry::metrics::Counters};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameResult {
    name: &'static str,
    result: &'static str,
}

/// Counters and histograms of the store; clones count into the same ones.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    commands: Family<NameResult, Counter>,
    command_seconds: Family<Name, Histogram>,
    reads: Family<NameResult, Counter>,
    read_seconds: Family<Name, Histogram>,
    transactions: Counters,
    transaction_seconds: Histogram,
    commit_seconds: Histogram,
    /// Transactions that PostgreSQL asked to repeat.
    pub(super) repeats: Counter,
    /// Groups that ran member by member, because one of them failed.
    pub(super) splits: Counter,
    group_size: Histogram,
    /// Writes that wait.
    pub(super) queue: Queue,
}

/// Where writes are counted while they wait for their transaction; clones share the numbers.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) length: Gauge,
    wait: Histogram,
}

impl Queue {
    /// A write waits since `since`.
    pub(super) fn waiting(&self, since: Instant) -> Waiting {
        self.length.inc();
        let queue = self.clone();
        Waiting { since, queue }
    }
}

/// A write that waits for its transaction; counted as waiting until it is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    queue: Queue,
}

impl Waiting {
    /// Its transaction begins.
    pub(super) fn entered(self, now: Instant) {
        let waited = now.saturating_duration_since(self.since);
        self.queue.wait.observe(waited.as_secs_f64());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.queue.length.dec();
    }
}

/// 0.1 ms to 6.5 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 17))
}

impl Default for StoreMetrics {
    /// Metrics that nobody reads.
    fn default() -> Self {
        Self::register(&mut Registry::default())
    }
}

impl StoreMetrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            commands: Family::default(),
            command_seconds: Family::new_with_constructor(seconds),
            reads: Family::default(),
            read_seconds: Family::new_with_constructor(seconds),
            transactions: Counters::register(
                registry,
                "store_transactions",
                "Transactions that write, by result",
                "result",
                ["committed", "rolled_back", "unclear"],
            ),
            transaction_seconds: seconds(),
            commit_seconds: seconds(),
            repeats: Counter::default(),
            splits: Counter::default(),
            group_size: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]),
            queue: Queue {
                length: Gauge::default(),
                wait: seconds(),
            },
        };
        metrics.register_commands(registry);
        metrics.register_transactions(registry);
        metrics
    }

    fn register_commands(&self, registry: &mut Registry) {
        registry.register(
            "store_commands",
            "Write commands by outcome",
            self.commands.clone(),
        );
        registry.register(
            "store_command_seconds",
            "Time from asking for a write to its answer, waiting included",
            self.command_seconds.clone(),
        );
        registry.register("store_reads", "Reads by outcome", self.reads.clone());
        registry.register(
            "store_read_seconds",
            "Time from asking for a read to its answer",
            self.read_seconds.clone(),
        );
        registry.register(
            "store_queue_length",
            "Writes that wait for their transaction",
            self.queue.length.clone(),
        );
        registry.register(
            "store_queue_wait_seconds",
            "Time that a write waited for its transaction",
            self.queue.wait.clone(),
        );
    }

    fn register_transactions(&self, registry: &mut Registry) {
        registry.register(
            "store_transaction_seconds",
            "Time from the begin of a transaction that writes to its end",
            self.transaction_seconds.clone(),
        );
        registry.register(
            "store_commit_seconds",
            "Time that the commit alone took",
            self.commit_seconds.clone(),
        );
        registry.register(
            "store_transaction_repeats",
            "Transactions that PostgreSQL asked to repeat",
            self.repeats.clone(),
        );
        registry.register(
            "store_group_splits",
            "Groups that ran member by member because one failed",
            self.splits.clone(),
        );
        registry.register(
            "store_group_size",
            "Commands that shared one SQLite transaction",
            self.group_size.clone(),
        );
    }

    /// A transaction was given up before its commit.
    pub(super) fn rolled_back(&self, took: Duration) {
        self.transactions.inc("rolled_back");
        self.transaction_seconds.observe(took.as_secs_f64());
    }

    /// A transaction of which the database said nothing more once it was to commit.
    pub(super) fn unclear(&self, took: Duration) {
        self.transactions.inc("unclear");
        self.transaction_seconds.observe(took.as_secs_f64());
    }

    /// A transaction that began at `begun`, and its commit at `commit`, ends.
    pub(super) fn commit(
        &self,
        world: &World,
        begun: Instant,
        commit: Instant,
        error: Option<&StoreError>,
    ) {
        self.transactions.inc(match error {
            None => "committed",
            Some(StoreError::OutcomeUnknown) => "unclear",
            Some(_) => "rolled_back",
        });
        let now = world.instant();
        let since = |at| now.saturating_duration_since(at).as_secs_f64();
        self.transaction_seconds.observe(since(begun));
        self.commit_seconds.observe(since(commit));
    }

    pub(super) fn command(&self, name: &'static str, took: Duration, error: Option<&StoreError>) {
        record(&self.commands, &self.command_seconds, name, took, error);
    }

    pub(super) fn read(&self, name: &'static str, took: Duration, error: Option<&StoreError>) {
        record(&self.reads, &self.read_seconds, name, took, error);
    }

    #[expect(clippy::cast_precision_loss, reason = "a group has at most 64 members")]
    pub(super) fn group(&self, size: usize) {
        self.group_size.observe(size as f64);
    }
}

fn record(
    count: &Family<NameResult, Counter>,
    seconds: &Family<Name, Histogram>,
    name: &'static str,
    took: Duration,
    error: Option<&StoreError>,
) {
    let result = error.map_or("ok", StoreError::as_str);
    count.get_or_create(&NameResult { name, result }).inc();
    seconds
        .get_or_create(&Name { name })
        .observe(took.as_secs_f64());
}

/// What happened to hints, by what they say: `head`, `attached`, `told`.
#[derive(Debug, Clone)]
pub struct HintMetrics {
    pub(super) sent: Counters,
    pub(super) received: Counters,
    lost: Family<KindReason, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindReason {
    kind: &'static str,
    reason: &'static str,
}

/// Why a hint was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Too many wait to be sent.
    SendQueueFull,
    /// Redis is known to be away.
    Away,
    /// Redis did not take it.
    Failed,
    /// Too many that arrived wait to be dealt with.
    ReceiveQueueFull,
    /// It cannot be read: another release may have sent it.
    Unreadable,
}

impl Lost {
    const fn as_str(self) -> &'static str {
        match self {
            Self::SendQueueFull => "send_queue_full",
            Self::Away => "away",
            Self::Failed => "failed",
            Self::ReceiveQueueFull => "receive_queue_full",
            Self::Unreadable => "unreadable",
        }
    }
}

impl HintMetrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let known = ["head", "attached", "told", "revoked"];
        let it = Self {
            sent: Counters::register(
                registry,
                "redis_hints_sent",
                "Hints that Redis took",
                "kind",
                known,
            ),
            received: Counters::register(
                registry,
                "redis_hints_received",
                "Hints that Redis delivered, those of this node among them",
                "kind",
                known,
            ),
            lost: Family::default(),
        };
        for kind in known {
            for reason in [
                Lost::SendQueueFull,
                Lost::Away,
                Lost::Failed,
                Lost::ReceiveQueueFull,
            ] {
                it.lost(kind, reason, 0);
            }
        }
        it.lost("unknown", Lost::Unreadable, 0);
        registry.register("redis_hints_lost", "Hints that were lost", it.lost.clone());
        it
    }

    pub(super) fn lost(&self, kind: &'static str, reason: Lost, count: u64) {
        let reason = reason.as_str();
        self.lost
            .get_or_create(&KindReason { kind, reason })
            .inc_by(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_apart() {
        let mut registry = Registry::default();
        let metrics = StoreMetrics::register(&mut registry);
        let took = Duration::from_millis(3);
        metrics.command("login", took, None);
        metrics.command("login", took, Some(&StoreError::Deadline));
        metrics.read("user_fetch", took, None);
        metrics.group(3);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"store_commands_total{name="login",result="ok"} 1"#,
            r#"store_commands_total{name="login",result="deadline"} 1"#,
            r#"store_reads_total{name="user_fetch",result="ok"} 1"#,
            r#"store_command_seconds_count{name="login"} 2"#,
            r#"store_group_size_bucket{le="4.0"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
