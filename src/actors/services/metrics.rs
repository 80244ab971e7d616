//! What is counted of other services' calls and of broadcasts.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::telemetry::metrics::Counters;

/// What is counted of other services' calls and of broadcasts. Clones count together.
#[derive(Debug, Clone)]
pub struct ServiceMetrics {
    refused: Counters,
    events: Counters,
    broadcasts: Counters,
    users: Counters,
    steps: Histogram,
    failures: Counter,
}

impl ServiceMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self {
            refused: Counters::register(
                registry,
                "service_refused",
                "Calls of other services that were refused because of their key",
                "reason",
                ["missing", "invalid", "scope", "stale"],
            ),
            events: Counters::register(
                registry,
                "service_events",
                "Events for one user that services may append, by what became of them",
                "result",
                [
                    "stored",
                    "over_key_quota",
                    "over_user_quota",
                    "over_log_share",
                ],
            ),
            broadcasts: Counters::register(
                registry,
                "broadcasts",
                "Broadcasts accepted and finished through this node",
                "what",
                ["accepted", "finished", "cancelled"],
            ),
            users: Counters::register(
                registry,
                "broadcast_users",
                "Users that broadcasts dealt with through this node",
                "result",
                ["reached", "skipped", "missing"],
            ),
            // 1 ms to 16 s
            steps: Histogram::new(exponential_buckets(1e-3, 2.0, 15)),
            failures: Counter::default(),
        };
        registry.register(
            "broadcast_step_seconds",
            "One transaction of a broadcast, waiting among it",
            it.steps.clone(),
        );
        registry.register(
            "broadcast_failures",
            "Steps of broadcasts that failed and are tried again",
            it.failures.clone(),
        );
        it
    }

    /// A call was refused because of its key.
    pub fn refused(&self, reason: &'static str) {
        self.refused.inc(reason);
    }

    /// An event was asked to be appended.
    pub fn event(&self, result: &'static str) {
        self.events.inc(result);
    }

    /// A broadcast was accepted, finished or cancelled.
    pub(super) fn broadcast(&self, what: &'static str) {
        self.broadcasts.inc(what);
    }

    /// A step of a broadcast was taken.
    pub(super) fn stepped(&self, took: Duration, reached: u64, skipped: u64, missing: u64) {
        self.steps.observe(took.as_secs_f64());
        for (result, n) in [
            ("reached", reached),
            ("skipped", skipped),
            ("missing", missing),
        ] {
            self.users.of(result).inc_by(n);
        }
    }

    /// A step failed.
    pub(super) fn failed(&self) {
        self.failures.inc();
    }
}
