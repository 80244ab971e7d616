//! A client as `docs/protocol.md` asks for: it applies what is next, drops what it has, loads anew
//! when told to, and remembers how far it got.

use super::world::Db;
use crate::domain::{
    ids::Epoch,
    sync::{CloseCode, Position},
};

/// What goes over a connection to a client.
#[derive(Debug, Clone)]
pub enum Down {
    Welcome { epoch: Epoch, acked: i64 },
    Event { epoch: Epoch, seq: i64, value: u64 },
    Resync(Epoch),
    Error { code: String, bogus: bool },
    Close(CloseCode),
}

/// What goes over a connection to the server.
#[derive(Debug, Clone)]
pub enum Up {
    Ack { at: Position, bogus: bool },
    End,
}

/// What a client does about a frame.
#[derive(Debug)]
pub enum Answer {
    Nothing,
    Ack,
    /// It goes away and comes back.
    Leave,
}

#[derive(Debug)]
pub struct Client {
    pub epoch: Epoch,
    pub applied: i64,
    /// Everything that was applied, in order, as one number.
    pub state: u64,
    /// The furthest it ever was in this epoch.
    pub high: i64,
    pub conn: Option<usize>,
}

impl Client {
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            applied: 0,
            state: 0,
            high: 0,
            conn: None,
        }
    }

    pub fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            seq: self.applied,
        }
    }

    /// Takes up another epoch, in which its cursor is `acked`.
    fn enter(&mut self, epoch: Epoch, acked: i64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.high = acked;
        }
    }

    /// Loads everything that the user has, and acks where that was.
    fn reload(&mut self, announced: Epoch, db: &Db) -> Answer {
        self.enter(db.epoch, 0);
        self.applied = db.head();
        self.state = db.state_at(db.epoch, self.applied);
        self.high = self.high.max(self.applied);
        if announced == db.epoch {
            Answer::Ack
        } else {
            // The connection lives in another epoch than what was loaded.
            Answer::Leave
        }
    }

    pub fn apply(&mut self, seq: i64, value: u64) {
        assert!(seq <= self.applied + 1, "{seq} after {}", self.applied);
        if seq == self.applied + 1 {
            self.applied = seq;
            self.state = Db::chain(self.state, value);
            self.high = self.high.max(seq);
        }
    }

    /// Takes a frame. `calm`: nothing was trimmed or restored, so nothing has to be loaded anew.
    pub fn take(&mut self, frame: Down, db: &Db, calm: bool) -> Answer {
        match frame {
            Down::Welcome { epoch, .. } if epoch != self.epoch && self.applied > 0 => {
                assert!(!calm);
                self.reload(epoch, db)
            }
            Down::Welcome { epoch, acked } => {
                self.enter(epoch, acked);
                Answer::Nothing
            }
            Down::Event { epoch, seq, value } => {
                assert_eq!(
                    epoch, self.epoch,
                    "an event of another epoch, without a resync"
                );
                self.apply(seq, value);
                Answer::Nothing
            }
            Down::Resync(epoch) => {
                assert!(!calm, "a resync, and nothing was trimmed or restored");
                self.reload(epoch, db)
            }
            Down::Error { code, bogus } => match code.as_str() {
                "store_unavailable" => Answer::Ack,
                "ack_beyond_head" if bogus => Answer::Nothing,
                // A resync follows.
                "epoch_changed" if !calm => Answer::Nothing,
                code => panic!("error {code}, and the client was right"),
            },
            Down::Close(code) => {
                assert_eq!(code, CloseCode::TryAgainLater, "closed for no reason");
                Answer::Leave
            }
        }
    }
}
