//! What a run of the checker may do, and how much of it.

use listen_stream::domain::sync::Window;

/// A fault that is put into the model on purpose: the checker must find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A cursor is stored whichever connection told it.
    CursorOfAnyAttach,
    /// A cursor is stored whichever life of the log it belongs to.
    CursorOfAnyLife,
    /// A cursor is stored also where it is behind the one that is stored.
    CursorMovesBack,
    /// An ack is taken for one of the log's present life.
    AckOfAnyLife,
    /// What another node tells of another life of the log is believed.
    HintOfAnyLife,
    /// The head is never looked at: what no hint told stays unknown.
    NobodyLooks,
    /// A client acks the next event before it has it.
    AckBeforeApply,
    /// A client never comes back when it is told that it was replaced.
    ReplacedStaysAway,
    /// A page of the log lacks its first event.
    PageWithHole,
}

/// How often each thing may happen in one run, beside what has to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Left {
    /// Events that are stored.
    pub commits: u8,
    /// Connections that break.
    pub breaks: u8,
    /// Sessions that crash.
    pub session_crashes: u8,
    /// Nodes that crash, with everything on them.
    pub node_crashes: u8,
    /// Times that the log is cut at its beginning.
    pub trims: u8,
    /// Times that the database is restored, while no node is up.
    pub restores: u8,
    /// Times that the database falls back to an older state under the nodes that use it.
    pub fallbacks: u8,
    /// Times that the log alone does.
    pub renewals: u8,
    /// Times that a client that is not connected loses part of what it had.
    pub losses: u8,
    /// Times that a client that is not connected loses all that it had.
    pub wipes: u8,
    /// Reads that fail.
    pub failures: u8,
    /// Positions that clients tell by REST.
    pub rest_acks: u8,
    /// Hints and looks at the head that are answered long after they were asked for.
    pub late_looks: u8,
}

impl Left {
    pub const NONE: Self = Self {
        commits: 0,
        breaks: 0,
        session_crashes: 0,
        node_crashes: 0,
        trims: 0,
        restores: 0,
        fallbacks: 0,
        renewals: 0,
        losses: 0,
        wipes: 0,
        failures: 0,
        rest_acks: 0,
        late_looks: 0,
    };

    /// Whether the log, or its ends, may still change.
    pub const fn log_changes(&self) -> bool {
        self.commits + self.trims > 0 || self.lives_change()
    }

    /// Whether the log may get another life.
    pub const fn lives_change(&self) -> bool {
        self.restores + self.fallbacks + self.renewals > 0
    }
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub name: &'static str,
    pub devices: usize,
    /// Events that may be in flight.
    pub window: u32,
    /// Bytes that may be in flight. An event has 5, and each second one 10.
    pub bytes: u32,
    /// Events that are there at the beginning, not delivered yet.
    pub events: u8,
    pub left: Left,
    /// Clients take frames as soon as they are sent: fewer states, and no frame is lost on the way.
    pub eager: bool,
    /// From every state it is tried out that things come to rest.
    pub settle: bool,
    pub bug: Option<Bug>,
}

impl Config {
    /// One device, one event in flight, nothing that happens, and no faults.
    pub const fn new(name: &'static str, left: Left) -> Self {
        Self {
            name,
            devices: 1,
            window: 1,
            bytes: 1024,
            events: 0,
            left,
            eager: false,
            settle: false,
            bug: None,
        }
    }

    /// Whether nothing makes a client load its data anew.
    pub const fn is_calm(&self) -> bool {
        self.left.trims == 0 && !self.left.lives_change()
    }

    pub const fn has(&self, bug: Bug) -> bool {
        match self.bug {
            Some(it) => it as u8 == bug as u8,
            None => false,
        }
    }

    pub const fn window(&self) -> Window {
        Window {
            events: self.window,
            bytes: self.bytes,
        }
    }
}
