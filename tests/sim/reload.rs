//! What clients ask for by REST: their data anew, and pieces of the log.

use listen_stream::domain::sync::Position;

use crate::{
    happening::{Ask, Happening, Timer},
    queue::SECOND,
    world::World,
};

impl World {
    pub fn reload(&mut self, device: usize) {
        let node = self.rng.index(2);
        let serial = self.clients[device].serial;
        if self.nodes[node].up {
            self.ask(node, 0, Ask::Reload { device, serial });
        } else {
            self.after(SECOND, Happening::Client(device, Timer::Reload(serial)));
        }
    }

    /// Loads anew without a connection, then connects.
    pub fn reload_alone(&mut self, device: usize) {
        let client = &mut self.clients[device];
        client.serial += 1;
        client.resync = Some(self.db.log(client.user));
        self.reload(device);
    }

    /// A client's data came; none: it did not.
    pub fn reloaded(&mut self, device: usize, serial: u32, data: Option<(Position, u64)>) {
        let client = &mut self.clients[device];
        if client.serial != serial || client.resync.is_none() {
            return;
        }
        let Some((end, state)) = data else {
            let delay = self.rng.between(SECOND, 5 * SECOND);
            return self.after(delay, Happening::Client(device, Timer::Reload(serial)));
        };
        let announced = self.rng.chance(50);
        client.loaded(end, state, announced && client.wire.is_some());
        client.owes = true;
        self.note(|| format!("client {device} loaded {end:?}"));
        let verdict = self.clients[device].check(&self.db);
        self.must(verdict, || format!("client {device}"));
        if self.clients[device].wire.is_none() {
            self.back_off(device);
        } else if self.now >= self.clients[device].muted_until {
            self.ack(device);
        }
        while self.clients[device].resync.is_none()
            && let Some(wire) = self.clients[device].wire
            && let Some(down) = self.clients[device].held.pop_front()
        {
            self.taken(device, wire, down);
        }
    }

    /// A client reads the log by REST, and again a few times.
    pub fn poll(&mut self, device: usize, node: usize, left: u8, quick: bool) {
        if self.nodes[node].up {
            let after = self.clients[device].position();
            self.clients[device].waits_for += 1;
            let ask = Ask::Changes {
                device,
                after,
                quick,
            };
            self.ask(node, 0, ask);
        }
        if left > 1 && !self.calm {
            let delay = self.rng.between(5, if quick { 40 } else { 600 });
            let timer = Timer::Poll(node, left - 1, quick);
            self.after(delay, Happening::Client(device, timer));
        }
    }

    /// A client read the log by REST.
    pub fn changes_read(
        &mut self,
        device: usize,
        after: Position,
        values: Option<Vec<u64>>,
        quick: bool,
    ) {
        let client = &mut self.clients[device];
        client.waits_for -= 1;
        let (Some(values), None) = (values, client.resync) else {
            return;
        };
        // What it applied meanwhile it has.
        let mut verdict = Ok(());
        let mut at = after;
        for value in values {
            at.seq += 1;
            if at.epoch == client.epoch && at.seq <= client.applied + 1 {
                verdict = verdict.and(client.apply(at, value));
            }
        }
        let verdict = verdict.and(client.check(&self.db));
        self.must(verdict, || format!("client {device}"));
        if quick && self.now >= self.clients[device].muted_until {
            self.ack(device);
        } else {
            self.ack_later(device);
        }
    }
}
