//! What a node has: its sessions, and its keeper of cursors. What it does is in `server.rs`.

use std::collections::{BTreeMap, VecDeque};

use listen_stream::domain::{
    identity::ClientDeviceId,
    ids::{DeviceId, Epoch},
    sync::{CloseCode, Cursor, LogHead, Position, SessionConfig, SessionCore, Signal},
};

use crate::{
    db::user_id,
    queue::{Ms, Nanos, SECOND},
};

/// A command that waits for its turn.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    Commit { count: u8, size: u16 },
    Ack { device: usize, at: Position },
}

/// A connection whose attachment is being written.
#[derive(Debug, Clone)]
pub struct Attaching {
    pub wire: usize,
    pub device: usize,
    /// What happened meanwhile that keeps it from being attached.
    pub refused: Option<CloseCode>,
    /// The highest attach epoch of its device that was told meanwhile.
    pub seen_epoch: i64,
    /// The same as hints told it, by the epoch of the log that each named.
    pub hinted: Vec<(Epoch, i64)>,
}

/// What nodes tell each other beside the log.
#[derive(Debug, Clone)]
pub enum News {
    Signal(ClientDeviceId, Signal),
    /// Who is attached at a node; it may ask for the same of this one.
    Present(usize, Vec<ClientDeviceId>, bool),
}

/// What other parts of the system tell a session.
#[derive(Debug, Clone)]
pub enum Mail {
    /// The ends of the log, with when they were asked for.
    Head(LogHead, Nanos),
    /// The same as another node hints, of unknown age.
    Hinted(LogHead),
    /// A device attached anew somewhere, as was read.
    Attached(DeviceId, i64),
    /// The same as another node hints, for which the log has that epoch.
    AttachHinted(Epoch, DeviceId, i64),
    /// The store no longer knows of a device's attachment.
    FellBack(DeviceId, i64),
    /// Hints arrive from now on: look, and ask who is elsewhere.
    Listening,
    /// What another node tells, for which the log has that epoch.
    Told(Epoch, News),
}

/// A user's session.
#[derive(Debug)]
pub struct Session {
    pub life: u32,
    pub up: bool,
    pub core: SessionCore,
    pub attaching: Vec<Attaching>,
    /// New connections, of which the first one's attachment is being written.
    pub attach_turns: VecDeque<usize>,
    /// Attached connections.
    pub links: Vec<usize>,
    pub commands: VecDeque<Command>,
    pub busy: bool,
    /// When the core wants to be called next, and which of the timers that is.
    pub tick: Option<Ms>,
    pub timer: u32,
    pub retrying: bool,
    /// It cannot run until then.
    pub stalled_until: Ms,
    /// For how long it could not run, in all.
    pub stalls: Ms,
}

impl Session {
    pub fn new(user: usize, config: &SessionConfig) -> Self {
        Self {
            life: 0,
            up: true,
            core: SessionCore::new(user_id(user), config.clone()),
            attaching: Vec::new(),
            attach_turns: VecDeque::new(),
            links: Vec::new(),
            commands: VecDeque::new(),
            busy: false,
            tick: None,
            timer: 0,
            retrying: false,
            stalled_until: 0,
            stalls: 0,
        }
    }

    /// The next life, which knows nothing; it is not up yet.
    pub fn end_life(&mut self, user: usize, config: &SessionConfig) {
        let (life, timer) = (self.life + 1, self.timer + 1);
        *self = Self {
            life,
            timer,
            up: false,
            ..Self::new(user, config)
        };
    }
}

/// Cursors that moved and are not stored.
#[derive(Debug, Default)]
pub struct Keeper {
    pub life: u32,
    pending: BTreeMap<DeviceId, Cursor>,
    pub flushing: bool,
}

impl Keeper {
    /// Takes a cursor that was told now.
    pub fn advance(&mut self, cursor: Cursor) {
        let known = self.pending.entry(cursor.device).or_insert(cursor);
        *known = known.merged(cursor);
    }

    /// Takes back a batch that could not be stored.
    pub fn put_back(&mut self, batch: Vec<Cursor>) {
        for older in batch {
            let known = self.pending.entry(older.device).or_insert(older);
            *known = older.merged(*known);
        }
    }

    pub fn take(&mut self) -> Vec<Cursor> {
        std::mem::take(&mut self.pending).into_values().collect()
    }

    pub fn pending(&self) -> impl Iterator<Item = Cursor> {
        self.pending.values().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && !self.flushing
    }

    pub fn crash(&mut self) {
        *self = Self {
            life: self.life + 1,
            ..Self::default()
        };
    }
}

/// A node.
#[derive(Debug)]
pub struct Node {
    pub life: u32,
    pub up: bool,
    /// It takes no new connections.
    pub draining: bool,
    pub sessions: Vec<Session>,
    pub keeper: Keeper,
    pub watching: bool,
}

impl Node {
    /// The time between flushes of cursors.
    pub const FLUSH: Ms = SECOND;
    /// How long a connection waits for its session to come back.
    pub const REATTACH: Ms = SECOND;
    /// When a failed read of the log is tried again.
    pub const RETRY: Ms = SECOND;
    /// A tick so late means that the session could not run.
    pub const LATE: Ms = SECOND;

    pub fn new(users: usize, config: &SessionConfig) -> Self {
        Self {
            life: 0,
            up: true,
            draining: false,
            sessions: (0..users).map(|u| Session::new(u, config)).collect(),
            keeper: Keeper::default(),
            watching: false,
        }
    }
}
