//! A client as `docs/protocol.md` asks for, and what passes between it and a node.

use listen_stream::domain::sync::{CloseCode, Position};

use super::{
    config::{Bug, Config},
    db::{Db, epoch},
    rules::{Broken, Rule},
};

/// What goes over a connection to a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Down {
    Welcome { life: u8, acked: i64 },
    Event { life: u8, seq: i64, made_in: u8 },
    Resync { life: u8, head: i64, floor: i64 },
    Error(String),
    Close(CloseCode),
}

/// What goes over a connection to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Up {
    /// `taken`: resyncs that the client had taken by then.
    Ack {
        at: Position,
        taken: u8,
    },
    End,
}

/// The data that a client shows: what the log had up to an event, in a life of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Data {
    pub life: u8,
    pub to: i64,
    /// Events of one life were applied to data of another: only a reload makes it good.
    pub mixed: bool,
}

/// What a newer connection of the same device may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplacedBy {
    Another,
    /// One that it gave up before the welcome came: the node may have attached it late.
    ItsOwn,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    /// The connection, by its slot.
    pub conn: Option<usize>,
    /// Whether it knows where it is. If not, it loads everything and asks without a position.
    pub knows: bool,
    pub life: u8,
    /// The last event that it applied.
    pub applied: i64,
    pub data: Data,
    /// It has not acked yet what it got last.
    pub owes: bool,
    /// The furthest that it ever was in this life.
    pub high: i64,
    pub replaced_by: ReplacedBy,
    /// It was told that another connection took over, and does not come back.
    pub stopped: bool,
}

impl Client {
    pub const fn new() -> Self {
        Self {
            conn: None,
            knows: true,
            life: 1,
            applied: 0,
            data: Data {
                life: 1,
                to: 0,
                mixed: false,
            },
            owes: false,
            high: 0,
            replaced_by: ReplacedBy::Another,
            stopped: false,
        }
    }

    /// Where it says it is when it connects.
    pub fn since(&self) -> Option<Position> {
        self.knows.then_some(self.position())
    }

    /// It gives up its connection.
    pub const fn give_up(&mut self, welcomed: bool) {
        self.conn = None;
        if !welcomed {
            self.replaced_by = ReplacedBy::ItsOwn;
        }
    }

    pub const fn position(&self) -> Position {
        Position {
            epoch: epoch(self.life),
            seq: self.applied,
        }
    }

    /// Fetches everything that the user has by REST.
    pub fn reload(&mut self, db: &Db) {
        self.data = Data {
            life: db.life(),
            to: db.head(),
            mixed: false,
        };
    }

    fn enter(&mut self, life: u8, applied: i64) {
        if self.life != life {
            self.high = 0;
        }
        (self.life, self.applied, self.knows) = (life, applied, true);
        if self.data.to == 0 {
            self.data.life = life;
        }
        self.high = self.high.max(applied);
    }

    /// Takes a frame.
    pub fn take(&mut self, frame: Down, db: &Db, config: &Config, broken: &mut Broken) {
        match frame {
            Down::Welcome { life, acked } if !self.knows => self.enter(life, acked),
            // The beginning is the same in every life, and so no resync comes.
            Down::Welcome { life, .. } if self.applied == 0 && life != self.life => {
                self.enter(life, 0);
            }
            Down::Welcome { .. } => {}
            Down::Event { life, seq, made_in } => self.event(life, seq, made_in, db, broken),
            Down::Resync { life, head, .. } => {
                self.reload(db);
                self.enter(life, head);
                self.owes = true;
            }
            Down::Error(code) => {
                // A position of another life, to which a resync is the answer.
                let expected = code == "epoch_changed" && db.life() > 1
                    || code == "store_unavailable" && config.left.failures > 0;
                if code == "store_unavailable" {
                    self.owes = true;
                }
                broken.unless(expected, Rule::NoErrorForTheHonest);
            }
            Down::Close(CloseCode::TryAgainLater) => self.conn = None,
            Down::Close(CloseCode::Replaced) => {
                self.conn = None;
                let back = self.replaced_by == ReplacedBy::ItsOwn;
                self.stopped = !back || config.has(Bug::ReplacedStaysAway);
            }
            Down::Close(_) => broken.unless(false, Rule::NoErrorForTheHonest),
        }
    }

    fn event(&mut self, life: u8, seq: i64, made_in: u8, db: &Db, broken: &mut Broken) {
        broken.unless(life == self.life, Rule::OneLife);
        broken.unless(seq <= self.applied + 1, Rule::InOrder);
        broken.unless(db.made_in(life, seq) == Some(made_in), Rule::AsTheLog);
        self.owes = true;
        if seq == self.applied + 1 {
            self.applied = seq;
            self.high = self.high.max(seq);
            // What was loaded may have it already.
            if self.data.to == 0 {
                self.data.life = life;
            }
            self.data.mixed |= self.data.life != life;
            self.data.to = self.data.to.max(seq);
        }
    }

    /// The position of an ack.
    pub fn ack(&mut self, config: &Config) -> Position {
        self.owes = false;
        let at = self.position();
        if config.has(Bug::AckBeforeApply) {
            return Position {
                seq: at.seq + 1,
                ..at
            };
        }
        at
    }

    /// Whether it shows what the log has and knows it.
    pub fn has_everything(&self, db: &Db) -> bool {
        let data = Data {
            life: db.life(),
            to: db.head(),
            mixed: false,
        };
        self.knows && self.position() == db.end() && self.data == data
    }
}
