//! Says that this node lives, and finds out which others do.
//!
//! Owns the beat: once a second it raises this node's number in the database and reads all others'. It
//! publishes [`Nodes`] for sessions, metrics and operators, and tells the sessions with a device here when
//! a node is gone, so that its devices are present no more. Shutdown asks it to [`Leave`]. With SQLite
//! there can be one node only, which the lock of the data folder sees to, and nothing is written. It
//! never decides what a node may do: one that is taken for gone and is not loses nothing, and is
//! taken in again at its next beat.

mod reconcile;
mod snapshot;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

pub use snapshot::{NodeView, Nodes, NodesView};

use self::reconcile::Missing;
use super::{
    kernel::{Ask, Cx, Public, Reply, Serve, Unit, asks, view},
    session::{NodeGone, Sessions, TellPresent, UserSession},
    sync::Attached,
};
use crate::{
    domain::nodes::{Change, Node, Roster},
    store::{Engine, Store},
    telemetry::metrics::{Counters, SocketMetrics},
};

/// All nodes with what they tell.
#[derive(Debug)]
pub struct ListNodes;

asks! {
    Read ListNodes -> NodesView;
    Control Leave -> ();
}

/// The node stops: its row goes, and it beats no more.
#[derive(Debug)]
pub struct Leave;

/// What the keeper counts.
#[derive(Debug, Clone)]
pub struct NodeMetrics {
    failed: Counter,
    gone: Counters,
}

impl NodeMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let failed = Counter::default();
        registry.register(
            "node_beat_failures",
            "Beats of this node that the database did not take",
            failed.clone(),
        );
        let gone = Counters::register(
            registry,
            "nodes_gone",
            "Nodes that this one saw go",
            "how",
            ["left", "lost"],
        );
        Self { failed, gone }
    }
}

/// What the keeper works with.
#[derive(Debug, Clone)]
pub struct NodeParts {
    pub(crate) store: Store,
    pub(crate) sessions: Sessions,
    pub(crate) attached: Arc<Attached>,
    /// Shared by all lives of the keeper: what one knew the next does not have to learn.
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) metrics: NodeMetrics,
    /// Sockets open now.
    pub(crate) sockets: Gauge,
}

impl NodeParts {
    /// Counts this node's sockets.
    #[must_use]
    pub fn sockets(metrics: &SocketMetrics) -> Gauge {
        metrics.open.clone()
    }
}

/// See the module.
#[derive(Debug)]
pub struct NodeKeeper {
    parts: NodeParts,
    beating: bool,
    left: bool,
    /// When the last beat was taken.
    beaten_at: Option<Instant>,
    missing: Missing,
    beats: i64,
    failed: u64,
}

view! {
    /// What the keeper shows of itself.
    pub struct NodeKeeperView {
        name: Public<String>,
        alive: Public<usize>,
        beats: Public<i64>,
        failed: Public<u64>,
    }
}

impl NodeKeeper {
    const PERIOD: Duration = Duration::from_secs(1);
    const BUDGET: Duration = Duration::from_secs(2);
    /// The time between two looks whether the store's account of who is attached here is right.
    const RECONCILE: Duration = Duration::from_secs(30);

    /// Has not beaten yet.
    #[must_use]
    pub fn new(parts: NodeParts) -> Self {
        Self {
            parts,
            beating: false,
            left: false,
            beaten_at: None,
            missing: Missing::default(),
            beats: 0,
            failed: 0,
        }
    }

    fn beat(&mut self, cx: &mut Cx<'_, Self>) {
        if self.beating || self.left {
            return;
        }
        let standing = self.parts.attached.standing(cx.world.instant());
        self.beats += 1;
        let own = self.parts.nodes.own_row(
            cx.world.now(),
            self.beats,
            [
                self.parts.sockets.get(),
                number(standing.users),
                number(standing.devices),
            ],
        );
        if self.parts.store.engine() == Engine::Sqlite {
            return self.seen(cx.world.instant(), vec![own]);
        }
        self.beating = true;
        let store = self.parts.store.clone();
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move { store.node_beat(deadline, own).await },
            |keeper, rows, cx| {
                keeper.beating = false;
                match rows {
                    _ if keeper.left => keeper.remove(cx),
                    Ok(rows) => keeper.beaten(rows, cx),
                    Err(_) => {
                        keeper.failed += 1;
                        keeper.parts.metrics.failed.inc();
                    }
                }
            },
        );
    }

    fn beaten(&mut self, rows: Vec<Node>, cx: &mut Cx<'_, Self>) {
        let now = cx.world.instant();
        let before = self.beaten_at.replace(now);
        if before.is_some_and(|at| now.saturating_duration_since(at) >= Roster::LEASE) {
            // The others may have taken this node for gone, and have forgotten who is here.
            self.tell_all(|| TellPresent);
        }
        self.seen(now, rows);
        let forgotten = self.parts.nodes.forgotten();
        if !forgotten.is_empty() {
            let store = self.parts.store.clone();
            let deadline = now + Self::BUDGET;
            // What fails is tried again with the next beat.
            cx.spawn(
                async move { store.nodes_forget(deadline, forgotten).await },
                |_, _, _| {},
            );
        }
    }

    fn seen(&mut self, now: Instant, rows: Vec<Node>) {
        for change in self.parts.nodes.seen(now, rows) {
            let (how, node) = match change {
                Change::Came(node) => {
                    tracing::info!(node = node.name, "a node is there");
                    continue;
                }
                Change::Lost(node) => {
                    tracing::warn!(node = node.name, "a node does not beat any more");
                    ("lost", node)
                }
                Change::Left(node) => {
                    tracing::info!(node = node.name, "a node has stopped");
                    ("left", node)
                }
            };
            self.parts.metrics.gone.inc(how);
            let name: Arc<str> = node.name.into();
            self.tell_all(|| NodeGone(Arc::clone(&name)));
        }
    }

    /// Tells the sessions of all users with a device here.
    fn tell_all<M: Ask<Reply = ()>>(&self, what: impl Fn() -> M)
    where
        UserSession: Serve<M>,
    {
        for user in self.parts.attached.users() {
            if let Some(session) = self.parts.sessions.find(&user) {
                // One that is not up asks anew who is there.
                let _ = session.tell(what());
            }
        }
    }

    fn reconcile(&mut self, cx: &mut Cx<'_, Self>) {
        if self.parts.store.engine() == Engine::Sqlite {
            return;
        }
        let (store, own) = (self.parts.store.clone(), self.parts.nodes.own());
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move { store.devices_of_node(deadline, own).await },
            move |keeper, stored, cx| {
                // A failed look is made good by the next.
                let Ok(stored) = stored else { return };
                let left = keeper
                    .missing
                    .compare(stored, keeper.parts.attached.devices());
                if left.is_empty() {
                    return;
                }
                tracing::info!(devices = left.len(), "devices were noted here that are not");
                let (store, deadline) = (
                    keeper.parts.store.clone(),
                    cx.world.instant() + Self::BUDGET,
                );
                cx.spawn(
                    async move { store.devices_left(deadline, &left).await },
                    |_, _, _| {},
                );
            },
        );
    }

    fn remove(&self, cx: &mut Cx<'_, Self>) {
        let (store, own) = (self.parts.store.clone(), self.parts.nodes.own());
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move { store.node_remove(deadline, own).await },
            |_, _, _| {},
        );
    }
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Unit for NodeKeeper {
    const KIND: &'static str = "node_keeper";
    type View = NodeKeeperView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        self.beat(cx);
        cx.every(Self::PERIOD, Self::beat);
        cx.every(Self::RECONCILE, Self::reconcile);
    }

    fn view(&self, _now: Instant) -> NodeKeeperView {
        NodeKeeperView {
            name: Public(self.parts.nodes.name().to_owned()),
            alive: Public(self.parts.nodes.totals().alive),
            beats: Public(self.beats),
            failed: Public(self.failed),
        }
    }
}

impl Serve<ListNodes> for NodeKeeper {
    fn serve(&mut self, _: ListNodes, _: &mut Cx<'_, Self>) -> Reply<Self, NodesView> {
        Reply::Now(self.parts.nodes.view())
    }
}

impl Serve<Leave> for NodeKeeper {
    fn serve(&mut self, _: Leave, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.left = true;
        if self.parts.store.engine() == Engine::Sqlite {
            return Reply::Now(());
        }
        let (store, own) = (self.parts.store.clone(), self.parts.nodes.own());
        let deadline = cx.world.instant() + Self::BUDGET;
        Reply::later(
            async move { store.node_remove(deadline, own).await },
            // A row that stays is thrown away by the others.
            |_, _, _| (),
        )
    }
}
