//! The nodes as this one knows them: a published snapshot that nobody waits for.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{
    ids::NodeId,
    nodes::{Change, Node, Roster, Standing},
};

/// The nodes, as this one knows them.
#[derive(Debug)]
pub struct Nodes {
    own: NodeId,
    name: String,
    started_at: DateTime<Utc>,
    roster: Mutex<Roster>,
    /// Read with every request for presence.
    alone: AtomicBool,
}

/// Numbers over all nodes that are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Nodes.
    pub alive: usize,
    /// Their open sockets.
    pub sockets: usize,
}

/// A node.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NodeView {
    /// Its process: new at every start.
    id: NodeId,
    /// The name that `welcome` tells.
    name: String,
    /// Whether it is the one that answers.
    this: bool,
    /// When it started, by its own clock.
    started_at: DateTime<Utc>,
    /// When it last beat, by its own clock.
    seen_at: DateTime<Utc>,
    /// For how long it has not, as the answering node has watched it. Five seconds, and it is gone.
    silent_ms: u64,
    /// Whether it beats.
    alive: bool,
    /// Its open sockets, as of its last beat.
    connections: i64,
    /// Users with a device attached to it.
    users: i64,
    /// Devices attached to it.
    devices: i64,
}

/// All nodes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NodesView {
    /// By start, the oldest first. One that is gone is listed for a minute.
    items: Vec<NodeView>,
    /// How many are alive.
    alive: usize,
    /// Open sockets of those.
    connections: usize,
}

impl Nodes {
    /// Of a node that knows of no other yet.
    #[must_use]
    pub const fn new(own: NodeId, name: String, started_at: DateTime<Utc>) -> Self {
        Self {
            own,
            name,
            started_at,
            roster: Mutex::new(Roster::new(own)),
            alone: AtomicBool::new(true),
        }
    }

    /// This node.
    #[must_use]
    pub const fn own(&self) -> NodeId {
        self.own
    }

    /// This node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What this node tells of itself.
    #[must_use]
    pub fn own_row(&self, now: DateTime<Utc>, beats: i64, counts: [i64; 3]) -> Node {
        let [sockets, users, devices] = counts;
        Node {
            id: self.own,
            name: self.name.clone(),
            started_at: self.started_at,
            seen_at: now,
            beats,
            sockets,
            users,
            devices,
        }
    }

    /// Whether no other node is alive, as far as is known.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone.load(Relaxed)
    }

    /// Whether a node is known to be gone.
    #[must_use]
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.roster().is_gone(node)
    }

    /// All rows were read at `now`.
    pub fn seen(&self, now: Instant, rows: Vec<Node>) -> Vec<Change> {
        let mut roster = self.roster();
        let changes = roster.seen(now, rows);
        self.alone.store(roster.is_alone(), Relaxed);
        changes
    }

    /// Numbers over all nodes that are alive.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for node in self.roster().alive() {
            totals.alive += 1;
            totals.sockets += usize::try_from(node.sockets).unwrap_or(0);
        }
        totals
    }

    pub(super) fn forgotten(&self) -> HashMap<NodeId, i64> {
        self.roster().forgotten()
    }

    pub(super) fn view(&self) -> NodesView {
        let roster = self.roster();
        let mut items: Vec<NodeView> = roster.all().map(|it| self.shown(it)).collect();
        drop(roster);
        items.sort_by_key(|it| (it.started_at, it.id));
        let Totals { alive, sockets } = self.totals();
        NodesView {
            items,
            alive,
            connections: sockets,
        }
    }

    fn shown(&self, it: &Standing) -> NodeView {
        let node = &it.node;
        NodeView {
            id: node.id,
            name: node.name.clone(),
            this: node.id == self.own,
            started_at: node.started_at,
            seen_at: node.seen_at,
            silent_ms: u64::try_from(it.silent.as_millis()).unwrap_or(u64::MAX),
            alive: it.alive,
            connections: node.sockets,
            users: node.users,
            devices: node.devices,
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
