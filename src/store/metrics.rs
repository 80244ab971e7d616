//! What the store counts.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::error::StoreError;

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
    group_size: Histogram,
}

/// 0.1 ms to 6.5 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 17))
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            commands: Family::default(),
            command_seconds: Family::new_with_constructor(seconds),
            reads: Family::default(),
            read_seconds: Family::new_with_constructor(seconds),
            group_size: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]),
        }
    }
}

impl StoreMetrics {
    /// Makes the metrics and registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "store_commands",
            "Write commands by outcome",
            metrics.commands.clone(),
        );
        registry.register(
            "store_command_seconds",
            "Time from asking for a write to its answer, waiting included",
            metrics.command_seconds.clone(),
        );
        registry.register("store_reads", "Reads by outcome", metrics.reads.clone());
        registry.register(
            "store_read_seconds",
            "Time from asking for a read to its answer",
            metrics.read_seconds.clone(),
        );
        registry.register(
            "store_group_size",
            "Commands that shared one SQLite transaction",
            metrics.group_size.clone(),
        );
        metrics
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
