//! Those on a node who ask by the clock: the keeper of cursors, the watcher of heads.

use std::cmp::Ordering;

use listen_stream::domain::sync::Cursor;

use crate::{
    db::{device_id, device_index},
    happening::{Ask, Happening},
    invariants,
    node::{Mail, Node},
    queue::Nanos,
    world::World,
};

impl World {
    /// Stores what is pending, unless a batch is under way.
    pub fn flush(&mut self, node: usize) {
        let keeper = &mut self.nodes[node].keeper;
        if keeper.flushing {
            return;
        }
        let batch = keeper.take();
        if !batch.is_empty() {
            keeper.flushing = true;
            let life = keeper.life;
            self.ask(node, life, Ask::Cursors { batch });
        }
    }

    /// What waits to be stored is what the attachment that it names said.
    pub fn look_at_keeper(&mut self, node: usize) {
        let pending: Vec<Cursor> = self.nodes[node].keeper.pending().collect();
        for cursor in pending {
            let at = cursor.position;
            let key = (cursor.device, cursor.attach_epoch, at.epoch);
            let said = self.said.get(&key).copied().unwrap_or(0);
            let verdict = invariants::cursor_is_true(device_index(cursor.device), at, said);
            self.must(verdict, || format!("n{node} keeps {cursor:?}"));
        }
    }

    pub fn flush_period(&mut self, node: usize) {
        if self.nodes[node].up {
            self.flush(node);
        }
        self.after(Node::FLUSH, Happening::Flush(node));
    }

    /// Reads the heads of all users with a device here, and whether their devices attached elsewhere.
    pub fn watch(&mut self, node: usize, again: bool) {
        if again {
            let late = self.rng.below(50);
            self.after(self.plan.setup.watch + late, Happening::Watch(node, true));
        }
        let it = &self.nodes[node];
        if !it.up || it.watching {
            return;
        }
        let attached: Vec<usize> = it.sessions.iter().flat_map(|s| s.links.clone()).collect();
        if attached.is_empty() {
            return;
        }
        let users = it.sessions.iter().enumerate();
        let users = users.filter(|(_, s)| !s.links.is_empty()).map(|(u, _)| u);
        let users = users.collect();
        let held = |w: &usize| {
            let it = &self.wires[*w];
            (it.device, it.held.map_or(0, |(_, mine)| mine))
        };
        let devices = attached.iter().map(held).collect();
        self.nodes[node].watching = true;
        self.ask(node, 0, Ask::Heads { users, devices });
    }

    pub fn heads_read(
        &mut self,
        node: usize,
        asked_at: Nanos,
        heads: Vec<(usize, listen_stream::domain::sync::LogHead)>,
        devices: Vec<(usize, i64, i64)>,
    ) {
        for (user, log) in heads {
            let mail = Mail::Head(log, asked_at);
            self.post(0, node, user, mail);
        }
        for (device, held, newest) in devices {
            let (user, id) = (self.clients[device].user, device_id(device));
            let mail = match newest.cmp(&held) {
                Ordering::Greater => Mail::Attached(id, newest),
                // What is held was stored before the look began.
                Ordering::Less => Mail::FellBack(id, held),
                Ordering::Equal => continue,
            };
            self.post(0, node, user, mail);
        }
    }
}
