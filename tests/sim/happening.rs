//! What happens, and what is asked of the database and answered.

use listen_stream::domain::{
    ids::DeviceId,
    sync::{Cursor, Load, LogHead, Position, WireEvent},
};

use crate::{
    db,
    node::Mail,
    queue::{Ms, Nanos},
};

/// Something that happens at its time.
#[derive(Debug)]
pub enum Happening {
    /// The plan does something.
    Op(usize),
    /// The database runs what was asked of it; it answers.
    Run(usize),
    Answer(usize),
    /// A connection comes to its node.
    Arrive(usize),
    /// A client takes what has come; a node hears what has come.
    Take(usize),
    Hear(usize),
    /// A connection waited long enough for its session.
    Orphan(usize, u32),
    Tick {
        node: usize,
        user: usize,
        timer: u32,
        due: Ms,
    },
    Retry {
        node: usize,
        user: usize,
        life: u32,
    },
    SessionUp {
        node: usize,
        user: usize,
        life: u32,
    },
    NodeUp(usize),
    /// The database falls back to an older state while nodes serve.
    Restore,
    Flush(usize),
    /// A node looks at the heads, and again by the clock.
    Watch(usize, bool),
    /// A command of one event comes to a session.
    Command {
        node: usize,
        user: usize,
    },
    /// A message for a session of a node, if that is still in the life in which it was sent.
    Mail {
        node: usize,
        node_life: u32,
        user: usize,
        mail: Mail,
    },
    Client(usize, Timer),
    /// Nothing bad happens any more.
    Calm,
    /// Is everyone where they should be?
    Settled,
}

/// What a client set a timer for. Numbers tell which connection or attempt it was for.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    Connect(u32),
    Ack(usize),
    Beat(usize),
    Renew(usize),
    Reload(u32),
    Resume,
    /// Read the log by REST at a node, so many times more.
    Poll(usize, u8, bool),
}

/// Something asked of the database.
#[derive(Debug)]
pub struct Work {
    pub node: usize,
    pub node_life: u32,
    /// The life of the session or keeper that asked.
    pub life: u32,
    pub asked_at: Nanos,
    pub ask: Ask,
    pub answer: Option<Answer>,
}

#[derive(Debug)]
pub enum Ask {
    Attach {
        wire: usize,
        since: Option<Position>,
    },
    Load {
        wire: usize,
        load: Load,
    },
    ReadHead {
        user: usize,
    },
    Look {
        user: usize,
    },
    Heads {
        users: Vec<usize>,
        /// With the attachments that are held.
        devices: Vec<(usize, i64)>,
    },
    Commit {
        user: usize,
        count: u8,
        size: u16,
    },
    Ack {
        device: usize,
        at: Position,
    },
    Cursors {
        batch: Vec<Cursor>,
    },
    /// A client reads the log, and may ack at once; loads anew; renews its token.
    Changes {
        device: usize,
        after: Position,
        quick: bool,
    },
    Reload {
        device: usize,
        serial: u32,
    },
    Token {
        device: usize,
        wire: usize,
    },
}

#[derive(Debug)]
pub enum Answer {
    Failed,
    Attached(db::AttachState),
    Page(LogHead, Vec<WireEvent>),
    Head(LogHead),
    /// Of each device what is held, and its newest attachment.
    Heads(Vec<(usize, LogHead)>, Vec<(usize, i64, i64)>),
    Committed(LogHead, Vec<WireEvent>),
    Acked(db::CursorAck),
    Stored(Vec<(DeviceId, i64)>),
    Values(Option<Vec<u64>>),
    Data(Position, u64),
    Token(Ms),
}
