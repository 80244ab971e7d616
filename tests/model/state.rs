//! A state of the whole: the database, two nodes with a session each, connections, clients.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::OnceLock,
    time::{Duration, Instant},
};

use listen_stream::domain::{
    clock::World,
    identity::ClientDeviceId,
    ids::{ConnId, DeviceId, UserId},
    sync::{CloseCode, Cursor, Load, LogHead, Position, Seen, SessionConfig, SessionCore},
};
use uuid::Uuid;

use super::{
    client::{Client, Down, Up},
    config::{Config, Left},
    db::{AttachState, Db},
    rules::Broken,
    shared::Shared,
};

pub const NODES: usize = 2;
/// Connections of a device that may be there at a time: one that its client has, and older ones of
/// which the node does not know yet that they are dead.
pub const SLOTS: usize = 3;

pub const fn conn(slot: usize) -> ConnId {
    ConnId(Uuid::from_u128(slot as u128))
}

pub fn slot(conn: ConnId) -> usize {
    usize::try_from(conn.0.as_u128()).expect("a connection of the model")
}

pub const fn device(n: usize) -> DeviceId {
    DeviceId(Uuid::from_u128(n as u128))
}

pub fn client_id(n: usize) -> ClientDeviceId {
    ClientDeviceId::parse(format!("d{n}")).expect("an id")
}

pub fn number(device: DeviceId) -> usize {
    usize::try_from(device.0.as_u128()).expect("a device of the model")
}

/// Time stands still, but for what tells an answer of an earlier life of the log from one of now:
/// how often the session has learned of a new life.
pub fn at(clock: u8) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(|| World::system().instant()) + Duration::from_secs(u64::from(clock))
}

/// A read of the log or of its ends that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Read {
    pub asked: u8,
    /// What it found, once the database was asked.
    pub log: Option<LogHead>,
}

/// A read that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Answer {
    pub asked: u8,
    pub log: LogHead,
}

impl Answer {
    pub fn seen(self) -> Seen {
        Seen {
            log: self.log,
            asked_at: at(self.asked),
        }
    }
}

/// A cursor that is not stored yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pending {
    pub cursor: Cursor,
    /// Of which of the device's connections, counted as they attached.
    pub attached: u8,
}

/// A node: the user's session and the keeper of cursors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    pub core: SessionCore,
    pub clock: u8,
    /// A command that is stored, and of which the session has not heard yet.
    pub announcing: Option<Answer>,
    pub loads: BTreeMap<usize, (Load, Read)>,
    pub head_read: Option<Read>,
    /// A read failed, and is to be tried again.
    pub retrying: bool,
    /// New connections attach one after another.
    pub attaching: VecDeque<usize>,
    pub keeper: BTreeMap<usize, Pending>,
    /// A look at the head by the node's watcher, which outlives the session.
    pub look: Option<Answer>,
}

impl Node {
    pub fn new(config: &Config) -> Self {
        Self {
            core: core(config),
            clock: 0,
            announcing: None,
            loads: BTreeMap::new(),
            head_read: None,
            retrying: false,
            attaching: VecDeque::new(),
            keeper: BTreeMap::new(),
            look: None,
        }
    }

    /// The session is made anew.
    pub fn crash(&mut self, config: &Config) {
        *self = Self {
            clock: self.clock,
            keeper: std::mem::take(&mut self.keeper),
            look: self.look,
            ..Self::new(config)
        };
    }
}

fn core(config: &Config) -> SessionCore {
    let config = SessionConfig {
        // Both have one name: which of them is the first does not matter.
        node: String::new(),
        window: config.window(),
        heartbeat: Duration::from_secs(30),
        heartbeat_timeout: Duration::from_secs(75),
        progress_timeout: Duration::from_mins(1),
        signals_per_second: 20,
        side_frames: 64,
    };
    SessionCore::new(UserId(Uuid::nil()), config)
}

/// What a connection that attaches again was attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resumed {
    pub life: u8,
    pub attach_epoch: i64,
    /// The life and the floor of a resync that its client has not acked.
    pub resyncing: Option<Position>,
}

/// An attachment that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attaching {
    pub since: Option<Position>,
    pub resumed: Option<Resumed>,
    pub asked: u8,
    /// What the database said.
    pub state: Option<AttachState>,
    /// What happened meanwhile that keeps it from being attached.
    pub refused: Option<CloseCode>,
    /// The highest attach epoch of its device that was told meanwhile.
    pub seen_epoch: i64,
}

/// A resync that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resync {
    pub life: u8,
    pub floor: i64,
}

/// The node's end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Server {
    Attaching(Attaching),
    Attached,
    /// Its session crashed, and it has not asked the next one yet.
    Alone,
    Gone,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wire {
    pub node: usize,
    pub server: Server,
    /// Whether the client's end is there.
    pub client: bool,
    pub welcomed: bool,
    pub up: VecDeque<Up>,
    pub down: VecDeque<Down>,
    /// What the node's end remembers for the case that the session is made anew.
    pub position: Option<Position>,
    pub resumed: Option<Resumed>,
    /// The life and the floor of a resync that the client has not acked.
    pub resync: Option<Position>,

    // What follows is known to nobody: the rules are judged by it.
    /// Which of the device's connections it is, counted as they attached.
    pub attached: u8,
    /// Nothing up to here may be sent.
    pub above: i64,
    /// Resyncs that are not answered.
    pub unanswered: Vec<Resync>,
    /// Resyncs that the client took, and those that it had taken when it answered last.
    pub taken: u8,
    pub judged: u8,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub db: Db,
    pub nodes: Vec<Shared<Node>>,
    /// By device and slot.
    pub wires: Vec<Option<Wire>>,
    pub clients: Vec<Client>,
    pub left: Left,
    pub broken: Broken,
}

impl State {
    pub fn new(config: &Config) -> Self {
        let mut db = Db::new(config.devices);
        for _ in 0..config.events {
            db.append();
        }
        Self {
            db,
            nodes: vec![Shared::new(Node::new(config)); NODES],
            wires: vec![None; config.devices * SLOTS],
            clients: vec![Client::new(); config.devices],
            left: config.left,
            broken: Broken::default(),
        }
    }

    pub fn wire(&self, slot: usize) -> Option<&Wire> {
        self.wires[slot].as_ref()
    }

    /// Connections with their slots.
    pub fn all_wires(&self) -> impl Iterator<Item = (usize, &Wire)> {
        let wires = self.wires.iter().enumerate();
        wires.filter_map(|(slot, wire)| Some((slot, wire.as_ref()?)))
    }

    /// Connections of a device that `node` has in hand, with their slots.
    pub fn at(&self, node: usize, device: usize) -> impl Iterator<Item = (usize, &Wire)> {
        let mine = move |(slot, wire): &(usize, &Wire)| {
            owner(*slot) == device && wire.node == node && !matches!(wire.server, Server::Gone)
        };
        self.all_wires().filter(mine)
    }

    pub fn free_slot(&self, device: usize) -> Option<usize> {
        (device * SLOTS..(device + 1) * SLOTS).find(|slot| self.wires[*slot].is_none())
    }

    /// The same state, whichever of two nodes that are alike is called the first.
    pub fn canonical(mut self) -> Self {
        self.nodes.iter_mut().for_each(Shared::seal);
        // No connection is at both.
        let key = |node: usize| {
            let mut wires = self.all_wires();
            (
                self.nodes[node].known_hash(),
                wires
                    .find(|(_, wire)| wire.node == node)
                    .map(|(slot, _)| slot),
            )
        };
        if key(0) > key(1) {
            self.nodes.swap(0, 1);
            for wire in self.wires.iter_mut().flatten() {
                wire.node = 1 - wire.node;
            }
        }
        self
    }

    /// Every client is connected and has what the log has, and its cursor says so.
    pub fn is_settled(&self) -> bool {
        let head = self.db.head();
        let clients = self.clients.iter().zip(&self.db.devices);
        let mut settled = clients.map(|(client, row)| {
            let wire = client.conn.and_then(|slot| self.wire(slot));
            let attached = wire.is_some_and(|wire| wire.server == Server::Attached);
            attached && client.has_everything(&self.db) && row.cursor == head
        });
        settled.all(|it| it)
    }

    pub fn replaced(&self) -> bool {
        let code = Down::Close(CloseCode::Replaced);
        let told = |wire: &Wire| wire.down.contains(&code);
        let sent = self.all_wires().any(|(_, wire)| told(wire));
        let newest = |(slot, wire): (usize, &Wire)| {
            wire.server == Server::Attached && wire.attached < self.db.devices[owner(slot)].attached
        };
        // The client is gone mostly, so that nobody is told.
        sent || self.all_wires().any(newest)
    }

    pub fn attaches_again(&self) -> bool {
        self.all_wires().any(|(_, wire)| {
            wire.server == Server::Attached && wire.resumed.is_some() && wire.welcomed
        })
    }

    pub fn resyncs(&self) -> bool {
        self.all_wires()
            .any(|(_, wire)| !wire.unanswered.is_empty())
    }
}

/// Whose connection a slot is for.
pub const fn owner(slot: usize) -> usize {
    slot / SLOTS
}
