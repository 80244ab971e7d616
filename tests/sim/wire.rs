//! A connection: what is on its way in it, what the server's end knows, and what the judge has seen.

use std::collections::VecDeque;

use listen_stream::domain::{
    ids::{ConnId, Epoch},
    sync::{Flood, LogHead, Position},
};
use uuid::Uuid;

use crate::{
    frames::{Down, Up},
    queue::Ms,
};

/// What was seen of a connection, independent of the core.
#[derive(Debug, Default)]
pub struct Facts {
    /// Nothing up to here may be sent.
    pub above: i64,
    /// What is in flight: places and sizes.
    pub flight: VecDeque<(i64, u32)>,
    pub flight_bytes: u64,
    /// Where it is, as far as the session may know: what it was told, sent, or said.
    pub at: Option<Position>,
    /// The resync that it has not acknowledged: its epoch, and the floor that it named.
    pub resync: Option<(Epoch, i64)>,
    /// It attached by what was read in an earlier life of the log.
    pub stale: bool,
    pub attached_at: Ms,
    pub heard_at: Ms,
    /// Since when events are in flight without progress; and the same, less what is excused.
    pub owes: Option<(Ms, Ms)>,
    /// An ack of it waits to be judged.
    pub parked: bool,
    pub token_until: Ms,
    /// Reads of the log under way.
    pub reads: usize,
    /// For how long its session had been stalled in all when it attached; when it was heard last.
    pub stalls: Ms,
    pub stalls_heard: Ms,
}

impl Facts {
    /// An event is sent.
    pub fn sent(&mut self, now: Ms, at: Position, size: u32) {
        self.above = self.above.max(at.seq);
        self.at = Some(at);
        self.flight.push_back((at.seq, size));
        self.flight_bytes += u64::from(size);
        self.owes.get_or_insert((now, now));
    }

    /// A resync is sent: what was in flight counts no more.
    pub fn resynced(&mut self, log: &LogHead) {
        self.resync = Some((log.epoch, log.floor_seq));
        self.flight.clear();
        self.flight_bytes = 0;
        self.owes = None;
        self.parked = false;
    }

    /// The client says where it is: it may wait to be judged.
    pub fn acking(&mut self, at: Position) {
        let newest = self.flight.back().map_or(self.above, |(seq, _)| *seq);
        self.parked |= at.seq > newest;
    }

    /// What waited to be judged is: until now it was excused.
    pub fn judged(&mut self, now: Ms) {
        if std::mem::take(&mut self.parked)
            && let Some((_, lenient)) = &mut self.owes
        {
            *lenient = now;
        }
    }

    /// Whether an ack by REST speaks of the time before the resync that was sent.
    pub fn is_stale(&self, at: Position) -> bool {
        self.resync.is_some_and(|(_, floor)| at.seq < floor)
    }

    /// An ack was taken.
    pub fn acked(&mut self, now: Ms, at: Position) {
        let resynced = self.resync.take().is_some();
        let before = self.flight.len();
        while let Some((_, size)) = self.flight.pop_front_if(|(seq, _)| *seq <= at.seq) {
            self.flight_bytes -= u64::from(size);
        }
        if self.flight.len() < before {
            self.owes = (!self.flight.is_empty()).then_some((now, now));
        }
        let further = |sent: &Position| !resynced && sent.epoch == at.epoch && sent.seq > at.seq;
        if !self.at.as_ref().is_some_and(further) {
            self.at = Some(at);
        }
        self.above = if resynced {
            at.seq
        } else {
            self.above.max(at.seq)
        };
        self.parked = false;
    }
}

/// A connection.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they vary independently of one another"
)]
#[derive(Debug)]
pub struct Wire {
    pub device: usize,
    pub user: usize,
    pub node: usize,
    pub node_life: u32,
    /// The client is at its end.
    pub client: bool,
    /// The node is at its end.
    pub server: bool,
    /// Its session has it among its links.
    pub attached: bool,
    /// Where the client last said it is, as the node's end of the connection keeps it.
    pub position: Option<Position>,
    /// Its client said that it is where it never was: it is taken by its word.
    pub lied: bool,
    /// The epoch and the floor of a resync that its client has not acknowledged, as the node's end
    /// knows.
    pub resync: Option<Position>,
    /// What it was attached to: the epoch that its client was told, and its own attachment.
    pub held: Option<(Epoch, i64)>,
    /// Which of its device's attachments it is.
    pub count: u64,
    /// How often the database had fallen back when it attached: numbers from before mean little.
    pub restores: u64,
    /// The node's end notices only then that its session ended; what it hears before is lost.
    pub notices_at: Ms,
    pub down: VecDeque<(Ms, Down)>,
    pub up: VecDeque<(Ms, Up)>,
    pub takes: bool,
    pub hears: bool,
    pub flood: Flood,
    pub facts: Facts,
}

/// Frames that the kernel takes without being read.
const KERNEL: usize = 4;

impl Wire {
    /// The client said where it is. An older position of the same epoch says nothing new.
    pub fn moved(&mut self, to: Position) {
        let answers = |told: &Position| to.epoch == told.epoch && to.seq >= told.seq;
        self.resync = self.resync.filter(|told| !answers(told));
        let older = |known: &Position| known.epoch == to.epoch && known.seq >= to.seq;
        if !self.position.as_ref().is_some_and(older) {
            self.position = Some(to);
            self.held = self.held.map(|(_, mine)| (to.epoch, mine));
        }
    }

    /// Frames that wait at the server for the client to read.
    pub fn unread(&self) -> usize {
        self.down.len().saturating_sub(KERNEL)
    }
}

pub fn conn_id(wire: usize) -> ConnId {
    ConnId(Uuid::from_u128(1 + wire as u128))
}

pub fn wire_index(id: ConnId) -> usize {
    usize::try_from(id.0.as_u128()).unwrap_or(usize::MAX) - 1
}
