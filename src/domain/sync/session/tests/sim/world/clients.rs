//! What the clients do.

use std::collections::VecDeque;

use super::{
    super::{
        super::*,
        client::{Answer, Client, Up},
    },
    Wire, Work, World, id,
};

impl World {
    pub(super) fn take(&mut self, who: usize) {
        let Some(at) = self.clients[who].conn else {
            return;
        };
        let Some(frame) = self.wires[at].down.pop_front() else {
            return;
        };
        match self.clients[who].take(frame, &self.db, self.calm) {
            Answer::Nothing => {}
            Answer::Ack => self.ack(who, |it| it.applied),
            Answer::Leave => self.disconnect(who, true),
        }
    }

    pub(super) fn ack(&mut self, who: usize, seq: impl Fn(&Client) -> i64) {
        let client = &self.clients[who];
        let at = Position {
            epoch: client.epoch,
            seq: seq(client),
        };
        self.say(who, Up::Ack { at, bogus: false });
    }

    pub(super) fn ack_beyond(&mut self, who: usize, by: i64) {
        let at = Position {
            epoch: self.clients[who].epoch,
            seq: self.db.head() + by,
        };
        self.say(who, Up::Ack { at, bogus: true });
    }

    pub(super) fn say(&mut self, who: usize, frame: Up) {
        if let Some(at) = self.clients[who].conn {
            self.wires[at].up.push_back(frame);
        }
    }

    pub(super) fn read_rest(&mut self, who: usize) {
        let client = &mut self.clients[who];
        if client.epoch == self.db.epoch && client.applied >= self.db.floor {
            let after = usize::try_from(client.applied).unwrap();
            for (seq, value) in (client.applied + 1..).zip(&self.db.values[after..]) {
                client.apply(seq, *value);
            }
        }
    }

    pub(super) fn ack_rest(&mut self, who: usize) {
        let (client, device) = (&self.clients[who], device(id(who)));
        if client.epoch != self.db.epoch {
            return;
        }
        let cursor = self.db.cursors.get_mut(&device).unwrap();
        *cursor = (*cursor).max(client.applied);
        for wire in self
            .wires
            .iter_mut()
            .filter(|w| w.attached && w.device == who)
        {
            wire.above = wire.above.max(client.applied);
        }
        let effects = self.core.acked_elsewhere(device, client.position());
        self.apply(effects);
    }

    /// The client goes; `heard`: what it said last still arrives.
    pub(super) fn disconnect(&mut self, who: usize, heard: bool) {
        if let Some(at) = self.clients[who].conn.take() {
            let wire = &mut self.wires[at];
            wire.client = false;
            wire.down.clear();
            if !heard {
                wire.up.clear();
            }
            wire.up.push_back(Up::End);
        }
    }

    pub(super) fn connect(&mut self, who: usize, named: bool) {
        let client = &mut self.clients[who];
        if client.conn.is_some() {
            return;
        }
        // One that lost what it had must say so.
        let named = named || client.applied < client.high;
        client.conn = Some(self.wires.len());
        let position = named.then(|| client.position());
        self.work.push(Work::Attach {
            wire: self.wires.len(),
            since: position,
            read: None,
        });
        self.wires.push(Wire {
            device: who,
            down: VecDeque::new(),
            up: VecDeque::new(),
            position,
            client: true,
            server: true,
            attached: false,
            told: None,
            above: 0,
        });
    }

    pub(super) fn forget(&mut self, who: usize, back: u8) {
        let client = &mut self.clients[who];
        if client.conn.is_none() {
            client.applied = (client.applied - i64::from(back % 16)).max(0);
            client.state = self.db.state_at(client.epoch, client.applied);
        }
    }
}
