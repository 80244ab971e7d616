//! A client as `docs/protocol.md` asks for: it applies what is next, drops what it has, loads anew when
//! told to, and remembers how far it got. What it does when is in `clients.rs`.

use std::collections::VecDeque;

use listen_stream::domain::{
    ids::Epoch,
    sync::{LogHead, Position},
};

use crate::{
    db::Db,
    frames::Down,
    invariants::{self, Verdict},
    queue::Ms,
};

#[expect(
    clippy::struct_excessive_bools,
    reason = "they vary independently of one another"
)]
#[derive(Debug)]
pub struct Client {
    pub user: usize,
    pub epoch: Epoch,
    /// The last event that it applied.
    pub applied: i64,
    /// What it loaded holds everything up to here: events up to here change nothing.
    base: i64,
    /// What it has, as one number.
    state: u64,
    /// How far it ever was, by epoch.
    highs: Vec<(Epoch, i64)>,

    pub wire: Option<usize>,
    /// The connection was opened with its position.
    pub named: bool,
    /// Which of its timers to connect, and loads, counts.
    pub serial: u32,
    pub backoff: u32,
    /// It took the welcome of its connection: before that it says nothing of where it is.
    pub welcomed: bool,
    pub ack_due: bool,
    /// It was sent something that it has not acked since.
    pub owes: bool,
    pub heard_at: Ms,
    /// It loads its data anew, as this resync told it to.
    pub resync: Option<LogHead>,
    /// What it loaded is of a later life than the resync: another one follows, and until then it says
    /// nothing of where it is.
    pub awaits_resync: bool,
    /// What came meanwhile: it takes one thing after the other.
    pub held: VecDeque<Down>,
    /// It takes nothing and says nothing until then.
    pub paused_until: Ms,
    /// It acks nothing until then.
    pub muted_until: Ms,
    /// It says nothing at all until then.
    pub silent_until: Ms,
    /// It does not renew its token on this connection.
    pub expires: bool,
    pub token_until: Ms,
    /// When it last said more than it may.
    pub flooded_at: Option<Ms>,
    /// Answers by REST that it waits for.
    pub waits_for: u32,
    /// Who is there, as it was told last.
    pub present: Vec<usize>,
}

impl Client {
    pub fn new(user: usize, db: &Db) -> Self {
        let end = db.end(user);
        let mut client = Self {
            user,
            epoch: end.epoch,
            applied: end.seq,
            base: end.seq,
            state: 0,
            highs: vec![(end.epoch, end.seq)],
            wire: None,
            named: false,
            serial: 0,
            backoff: 0,
            welcomed: false,
            ack_due: false,
            owes: false,
            heard_at: 0,
            resync: None,
            awaits_resync: false,
            held: VecDeque::new(),
            paused_until: 0,
            muted_until: 0,
            silent_until: 0,
            expires: false,
            token_until: 0,
            flooded_at: None,
            waits_for: 0,
            present: Vec::new(),
        };
        client.state = db.state_at(user, end).unwrap_or(0);
        client
    }

    pub const fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            seq: self.applied,
        }
    }

    /// How far it ever was in `epoch`.
    pub fn high(&self, epoch: Epoch) -> i64 {
        let high = self.highs.iter().find(|(e, _)| *e == epoch);
        high.map_or(0, |(_, seq)| *seq)
    }

    /// It knows where it is, and may say so.
    pub const fn knows_its_place(&self) -> bool {
        self.welcomed && self.resync.is_none() && !self.awaits_resync
    }

    pub fn raise_high(&mut self, at: Position) {
        match self.highs.iter_mut().find(|(e, _)| *e == at.epoch) {
            Some((_, seq)) => *seq = (*seq).max(at.seq),
            None => self.highs.push((at.epoch, at.seq)),
        }
    }

    /// When it last did what a client should not do, or does it still.
    pub fn misbehaved_at(&self) -> Ms {
        self.paused_until
            .max(self.muted_until)
            .max(self.silent_until)
            .max(self.flooded_at.unwrap_or(0))
    }

    pub fn check(&self, db: &Db) -> Verdict {
        let at = Position {
            epoch: self.epoch,
            seq: self.applied.max(self.base),
        };
        invariants::same_state(self.state, db.state_at(self.user, at), at)
    }

    /// Applies an event that it was sent or read.
    pub fn apply(&mut self, at: Position, value: u64) -> Verdict {
        if at.epoch != self.epoch {
            return Err(format!("event {at:?} for a client in {:?}", self.epoch));
        }
        invariants::in_order(self.applied, at.seq)?;
        if at.seq == self.applied + 1 {
            self.applied = at.seq;
            if at.seq > self.base {
                self.state = Db::chain(self.state, value);
            }
            self.raise_high(at);
        }
        Ok(())
    }

    /// Takes what it loaded, which holds everything up to `end`. `announced`: it goes on from where the
    /// resync said the head was, not from where the load was.
    pub fn loaded(&mut self, end: Position, state: u64, announced: bool) {
        self.epoch = end.epoch;
        self.state = state;
        self.base = end.seq;
        self.applied = end.seq;
        self.raise_high(end);
        if let Some(told) = self.resync.take() {
            self.awaits_resync = told.epoch != end.epoch;
            if announced && !self.awaits_resync {
                self.applied = told.head_seq;
            }
        }
    }

    /// Takes up another epoch where it has nothing yet.
    pub fn enter(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// It lost what it had last.
    pub fn forget(&mut self, back: i64, db: &Db) {
        self.applied = (self.applied - back).max(0);
        self.base = self.applied;
        self.resync = None;
        self.state = db.state_at(self.user, self.position()).unwrap_or(0);
    }

    /// It has everything that its cursor may cover, so that it need not name its position.
    pub fn has_everything(&self) -> bool {
        self.applied >= self.high(self.epoch)
    }
}
