//! Numbers that are looked up when the metrics are read: of the whole node, from snapshots that are
//! at hand. Nothing here waits, asks an actor or reads from the database.

use std::sync::Arc;

use crate::{
    actors::{identity::Trust, nodes::Nodes, sync::Attached},
    domain::clock::World,
    http::health::{CheckState, Readiness},
    store::{Redis, Store},
    telemetry::metrics::{Metrics, Named, Sample, sampled, sampled_gauge, sampled_gauges},
};

const USERS: Named = ("sync_users_attached", "Users with a device attached here");
const DEVICES: Named = ("sync_devices_attached", "Devices attached here");
const OWING: Named = ("sync_users_unacked", "Users with a device that owes an ack");
const LONGEST: Named = (
    "sync_oldest_unacked_seconds",
    "For how long the device that has owed an ack for longest has given none",
);

/// How it stands with the devices of all users.
pub(super) fn of_devices(metrics: &Metrics, attached: Arc<Attached>, world: World) {
    metrics.register(|registry| {
        sampled(registry, move || {
            let all = attached.standing(world.instant());
            vec![
                (USERS, Sample::Gauge(number(all.users))),
                (DEVICES, Sample::Gauge(number(all.devices))),
                (OWING, Sample::Gauge(number(all.owing))),
                (LONGEST, Sample::Gauge(all.longest.as_secs_f64())),
            ]
        });
    });
}

/// The store's connections, and what its threads have in hand.
pub(super) fn of_store(metrics: &Metrics, store: Store, runtime: tokio::runtime::Handle) {
    metrics.register(|registry| {
        sampled_gauges(
            registry,
            "store_connections",
            "Connections to the database that read, and with PostgreSQL also write",
            "state",
            move || {
                let (all, idle) = store.connections();
                let used = all.saturating_sub(idle);
                vec![("used", f64::from(used)), ("idle", f64::from(idle))]
            },
        );
        sampled_gauge(
            registry,
            "store_runtime_tasks",
            "Tasks on the store's threads",
            move || number(runtime.metrics().num_alive_tasks()),
        );
    });
}

/// Whether Redis answers, and what it does.
pub(super) fn of_redis(metrics: &Metrics, redis: Redis) {
    let Redis { hints, limits } = redis;
    metrics.register(|registry| {
        let help = "Whether Redis answered when it was last asked";
        let up = move || f64::from(u8::from(hints.is_up()));
        sampled_gauge(registry, "redis_up", help, up);
        let help = "Whether rate limits count over all nodes";
        let shared = move || f64::from(u8::from(limits.are_shared()));
        sampled_gauge(registry, "limits_shared", help, shared);
    });
}

const ALIVE: Named = ("nodes_alive", "Nodes that beat, this one among them");
const CONNECTIONS: Named = (
    "nodes_connections",
    "Sockets open at all nodes that beat, as of their last beats",
);
const REVOCATIONS: Named = (
    "revocations_age_seconds",
    "How long ago it was read what was revoked",
);

/// What this node knows of the others.
pub(super) fn of_nodes(metrics: &Metrics, nodes: Arc<Nodes>, trust: Arc<Trust>, world: World) {
    metrics.register(|registry| {
        sampled(registry, move || {
            let all = nodes.totals();
            let age = trust.age(world.instant());
            vec![
                (ALIVE, Sample::Gauge(number(all.alive))),
                (CONNECTIONS, Sample::Gauge(number(all.sockets))),
                (REVOCATIONS, Sample::Gauge(age.as_secs_f64())),
            ]
        });
    });
}

/// Whether the node can serve, and how many sockets it may hold.
pub(super) fn of_node(metrics: &Metrics, readiness: Arc<dyn Readiness>, sockets: usize) {
    let checks = Arc::clone(&readiness);
    metrics.register(|registry| {
        sampled_gauge(registry, "ready", "Whether the node can serve", move || {
            let failed = |(_, state): &(_, CheckState)| *state == CheckState::Failed;
            f64::from(u8::from(!readiness.checks().iter().any(failed)))
        });
        sampled_gauges(
            registry,
            "check_ok",
            "Whether a part that others need serves in full",
            "check",
            move || {
                let ok = |state| f64::from(u8::from(state == CheckState::Ok));
                let checks = checks.checks().into_iter();
                checks.map(|(name, state)| (name, ok(state))).collect()
            },
        );
        let help = "Sockets that the node may hold";
        sampled_gauge(registry, "sockets_limit", help, move || number(sockets));
    });
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is few")]
fn number(n: usize) -> f64 {
    n as f64
}
