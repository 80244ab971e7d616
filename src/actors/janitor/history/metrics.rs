//! What the clean-up of histories counts on this node.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

use crate::telemetry::metrics::Counters;

/// What the janitor counts.
#[derive(Debug, Clone)]
pub struct HistoryJanitorMetrics {
    pub(super) runs: Counter,
    pub(super) failures: Counter,
    pub(super) plays: Counter,
    pub(super) removed_plays: Counter,
    pub(super) idempotency_keys: Counter,
}

impl HistoryJanitorMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let removed = Counters::register(
            registry,
            "history_cleanup_removed",
            "What the daily clean-up removed on this node",
            "what",
            ["plays", "removed_plays", "idempotency_keys"],
        );
        let it = Self {
            runs: Counter::default(),
            failures: Counter::default(),
            plays: removed.of("plays"),
            removed_plays: removed.of("removed_plays"),
            idempotency_keys: removed.of("idempotency_keys"),
        };
        registry.register(
            "history_cleanup_runs",
            "Daily clean-ups that this node ended",
            it.runs.clone(),
        );
        registry.register(
            "history_cleanup_failures",
            "Steps of the daily clean-up that failed",
            it.failures.clone(),
        );
        it
    }
}
