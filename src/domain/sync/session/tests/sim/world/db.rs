//! The log, its earlier lives, and the durable cursors.

use std::collections::BTreeMap;

use super::super::super::*;

#[derive(Debug)]
pub struct Db {
    pub epoch: Epoch,
    pub floor: i64,
    /// Per epoch, the state after each event; the first is the empty one.
    pub states: BTreeMap<Epoch, Vec<u64>>,
    pub values: Vec<u64>,
    pub cursors: BTreeMap<DeviceId, i64>,
    pub made: u64,
}

impl Db {
    /// Nothing yet; every device's cursor is at the beginning.
    pub fn new(devices: impl Iterator<Item = DeviceId>) -> Self {
        let first = epoch(1);
        Self {
            epoch: first,
            floor: 0,
            states: BTreeMap::from([(first, vec![0])]),
            values: Vec::new(),
            cursors: devices.map(|d| (d, 0)).collect(),
            made: 0,
        }
    }

    /// The end of the log.
    pub fn end(&self) -> Position {
        Position {
            epoch: self.epoch,
            seq: self.head(),
        }
    }

    pub fn chain(state: u64, value: u64) -> u64 {
        state.wrapping_mul(31).wrapping_add(value)
    }

    pub fn head(&self) -> i64 {
        i64::try_from(self.values.len()).unwrap()
    }

    pub fn state_at(&self, epoch: Epoch, seq: i64) -> u64 {
        self.states[&epoch][usize::try_from(seq).unwrap()]
    }

    pub fn log(&self) -> LogHead {
        LogHead {
            epoch: self.epoch,
            head_seq: self.head(),
            floor_seq: self.floor,
        }
    }

    pub fn append(&mut self, count: u8) -> Vec<WireEvent> {
        let before = self.head();
        for _ in 0..count {
            self.made += 1;
            self.values.push(self.made);
            let states = self.states.get_mut(&self.epoch).unwrap();
            states.push(Self::chain(states[states.len() - 1], self.made));
        }
        self.events(before, u32::MAX)
    }

    pub fn events(&self, after: i64, limit: u32) -> Vec<WireEvent> {
        let epoch = self.epoch.0.as_u128();
        (1..)
            .zip(&self.values)
            .filter(|(seq, _)| *seq > after && *seq > self.floor)
            .take(usize::try_from(limit).unwrap())
            .map(|(seq, value)| WireEvent {
                seq,
                text: format!("{epoch} {seq} {value}").into(),
            })
            .collect()
    }

    /// Falls back to an older state, which is another life.
    pub fn restore(&mut self, back: u8) {
        let head = (self.head() - i64::from(back)).max(self.floor);
        self.values.truncate(usize::try_from(head).unwrap());
        let kept = self.states[&self.epoch][..=self.values.len()].to_vec();
        self.epoch = epoch(self.epoch.0.as_u128() + 1);
        self.states.insert(self.epoch, kept);
        for cursor in self.cursors.values_mut() {
            *cursor = (*cursor).min(head);
        }
    }
}
