//! The database: a user's log with its earlier lives, and the places of the user's devices in it.

use listen_stream::domain::{
    ids::Epoch,
    sync::{Cursor, Load, LogHead, Position, WireEvent},
};
use uuid::Uuid;

use super::config::{Bug, Config};

/// The life `n` of the log, counted from 1.
pub const fn epoch(life: u8) -> Epoch {
    Epoch(Uuid::from_u128(life as u128))
}

/// The number of a life that [`epoch`] made.
pub fn life(epoch: Epoch) -> u8 {
    u8::try_from(epoch.0.as_u128()).expect("an epoch of the model")
}

/// A device's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    pub cursor: i64,
    pub attach_epoch: i64,
    /// How often a connection of the device attached. The database does not know: it does not fall
    /// back.
    pub attached: u8,
}

/// What a device that attaches is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttachState {
    pub cursor: i64,
    pub attach_epoch: i64,
    pub log: LogHead,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Db {
    /// Each life of the log at its longest. An event is known by the life in which it was made, and
    /// its place.
    pub lives: Vec<Vec<u8>>,
    pub floor: i64,
    pub devices: Vec<Row>,
}

impl Db {
    pub fn new(devices: usize) -> Self {
        let row = Row {
            cursor: 0,
            attach_epoch: 0,
            attached: 0,
        };
        Self {
            lives: vec![Vec::new()],
            floor: 0,
            devices: vec![row; devices],
        }
    }

    /// The log's present life.
    pub fn life(&self) -> u8 {
        u8::try_from(self.lives.len()).expect("few restores")
    }

    pub fn head(&self) -> i64 {
        len(self.lives.last().expect("there is always a life"))
    }

    pub fn log(&self) -> LogHead {
        LogHead {
            epoch: epoch(self.life()),
            head_seq: self.head(),
            floor_seq: self.floor,
        }
    }

    /// The end of the log.
    pub fn end(&self) -> Position {
        Position {
            epoch: epoch(self.life()),
            seq: self.head(),
        }
    }

    pub fn append(&mut self) {
        let life = self.life();
        self.lives.last_mut().expect("a life").push(life);
    }

    /// The event `seq` of a life: in which life it was made.
    pub fn made_in(&self, life: u8, seq: i64) -> Option<u8> {
        let values = self.lives.get(usize::from(life) - 1)?;
        values.get(usize::try_from(seq - 1).ok()?).copied()
    }

    /// What a read for `load` brings that saw the log as `log`.
    pub fn page(&self, log: LogHead, load: Load) -> Vec<WireEvent> {
        let after = load.after.max(log.floor_seq);
        let end = log.head_seq.min(load.after + i64::from(load.limit));
        self.events(log, after + 1..=end.max(after))
    }

    /// The events with these `seq`, which `log` has.
    pub fn events(&self, log: LogHead, seqs: std::ops::RangeInclusive<i64>) -> Vec<WireEvent> {
        let life = life(log.epoch);
        seqs.map(|seq| WireEvent {
            seq,
            text: text(life, seq, self.made_in(life, seq).unwrap_or(0)).into(),
        })
        .collect()
    }

    /// A new connection of a device becomes its newest.
    pub fn raise(&mut self, device: usize) -> (AttachState, u8) {
        let row = &mut self.devices[device];
        row.attach_epoch += 1;
        row.attached += 1;
        let attached = row.attached;
        (self.state(device), attached)
    }

    pub fn state(&self, device: usize) -> AttachState {
        let row = self.devices[device];
        AttachState {
            cursor: row.cursor,
            attach_epoch: row.attach_epoch,
            log: self.log(),
        }
    }

    /// Moves a device's cursor as `cursors_advance` does; says whether it moved.
    pub fn advance(&mut self, device: usize, cursor: Cursor, config: &Config) -> bool {
        let log = self.log();
        let row = &mut self.devices[device];
        let newest = row.attach_epoch == cursor.attach_epoch || config.has(Bug::CursorOfAnyAttach);
        let lives = cursor.position.epoch == log.epoch || config.has(Bug::CursorOfAnyLife);
        let forward = cursor.position.seq > row.cursor || config.has(Bug::CursorMovesBack);
        let moves = newest && lives && forward && cursor.position.seq <= log.head_seq;
        if moves {
            row.cursor = cursor.position.seq;
        }
        moves
    }

    /// Deletes events up to `floor`.
    pub fn trim(&mut self, floor: i64) {
        self.floor = floor;
    }

    /// The log gets another life, in which its last event was not part yet.
    pub fn renew(&mut self) {
        let mut values = self.lives.last().expect("a life").clone();
        values.pop();
        let head = len(&values);
        self.lives.push(values);
        self.floor = self.floor.min(head);
        for row in &mut self.devices {
            row.cursor = row.cursor.min(head);
        }
    }

    /// The whole falls back, to when nobody had attached yet.
    pub fn fall_back(&mut self) {
        self.renew();
        for row in &mut self.devices {
            row.attach_epoch = 0;
        }
    }
}

fn text(life: u8, seq: i64, made_in: u8) -> String {
    let width = if seq % 2 == 0 { 6 } else { 1 };
    format!("{life} {seq} {made_in:0width$}")
}

fn len(values: &[u8]) -> i64 {
    i64::try_from(values.len()).expect("few events")
}
