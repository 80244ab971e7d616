//! How clients connect, and how they go.

use listen_stream::domain::sync::{CloseCode, Flood};

use crate::{
    clients::BEAT,
    frames::{Down, Up},
    happening::{Happening, Timer},
    plan::Leave,
    queue::{Ms, SECOND},
    wire::{Facts, Wire},
    world::World,
};

impl World {
    pub fn connect_after(&mut self, device: usize, delay: Ms) {
        let client = &mut self.clients[device];
        client.serial += 1;
        let serial = client.serial;
        self.after(delay, Happening::Client(device, Timer::Connect(serial)));
    }

    /// 1, 2, 4 … 30 seconds, a fifth more or less.
    pub fn back_off(&mut self, device: usize) {
        let client = &mut self.clients[device];
        let base = (SECOND << client.backoff.min(5)).min(30 * SECOND);
        client.backoff += 1;
        let delay = self.rng.between(base * 4 / 5, base * 6 / 5);
        self.connect_after(device, delay);
    }

    pub fn connect(&mut self, device: usize) {
        if self.clients[device].paused_until > self.now {
            let delay = self.clients[device].paused_until - self.now;
            return self.connect_after(device, delay);
        }
        let node = self.rng.index(2);
        if !self.nodes[node].up || self.nodes[node].draining {
            return self.back_off(device);
        }
        self.stats.connections += 1;
        let wire = self.wires.len();
        // One that lost what it had must say so; one that loaded anew, where it is.
        let named = self.rng.chance(70) || !self.clients[device].has_everything();
        let token_until = self.now + self.plan.setup.token_life;
        let now = self.now;
        let client = &mut self.clients[device];
        client.wire = Some(wire);
        client.named = named;
        client.heard_at = now;
        client.welcomed = false;
        // What it names, or is sent again, says where it is.
        client.owes = false;
        client.ack_due = false;
        client.expires = false;
        client.resync = None;
        client.awaits_resync = false;
        client.held.clear();
        client.token_until = token_until;
        let facts = Facts {
            token_until,
            ..Facts::default()
        };
        let it = Wire {
            device,
            user: client.user,
            node,
            node_life: self.nodes[node].life,
            client: true,
            server: true,
            attached: false,
            position: named.then(|| client.position()),
            lied: false,
            resync: None,
            held: None,
            count: 0,
            restores: 0,
            notices_at: 0,
            down: std::collections::VecDeque::new(),
            up: std::collections::VecDeque::new(),
            takes: false,
            hears: false,
            flood: Flood::new(self.plan.setup.flood, self.instant(now)),
            facts,
        };
        self.note(|| {
            format!(
                "client {device} connects to n{node} by {wire} at {:?}",
                it.position
            )
        });
        self.wires.push(it);
        let delay = self.delay(self.plan.setup.latency);
        self.after(delay, Happening::Arrive(wire));
        self.after(BEAT, Happening::Client(device, Timer::Beat(wire)));
        self.renew_later(device, wire, self.plan.setup.token_life);
    }

    pub fn renew_later(&mut self, device: usize, wire: usize, left: Ms) {
        let margin = (60 * SECOND).min(left / 2);
        self.after(left - margin, Happening::Client(device, Timer::Renew(wire)));
    }

    /// The connection comes to its node.
    pub fn arrive(&mut self, wire: usize) {
        let it = &self.wires[wire];
        let node = &self.nodes[it.node];
        if node.life != it.node_life || !node.up || !it.server {
            self.wires[wire].server = false;
            return self.push_down(wire, Down::Lost);
        }
        let session = &node.sessions[it.user];
        if !session.up || session.stalled_until > self.now {
            // The ask waits for the next life, or for the session to run, if that is soon.
            let soon = self.now + 10 * SECOND;
            if session.up && session.stalled_until < soon {
                let at = session.stalled_until;
                return self.queue.defer(at, Happening::Arrive(wire));
            }
            return self.end_wire(wire, CloseCode::TryAgainLater);
        }
        self.attach(wire);
    }

    /// The client goes away, and comes back.
    pub fn leave(&mut self, device: usize, how: Leave) {
        let Some(wire) = self.clients[device].wire.take() else {
            return;
        };
        self.clients[device].resync = None;
        let it = &mut self.wires[wire];
        it.client = false;
        match how {
            Leave::Heard => self.say_on(wire, Up::End),
            Leave::Cut => {
                it.up.clear();
                self.say_on(wire, Up::End);
            }
            Leave::HalfOpen => it.up.clear(),
        }
        self.back_off(device);
    }

    /// The client comes back with less than it had.
    pub fn forget(&mut self, device: usize, back: u8) {
        // An answer that is under way would speak of what it had.
        if self.clients[device].waits_for > 0 {
            return;
        }
        let how = [Leave::Cut, Leave::HalfOpen][self.rng.index(2)];
        self.leave(device, how);
        let client = &mut self.clients[device];
        client.forget(i64::from(back % 16), &self.db);
        let soon = self.rng.below(200);
        self.connect_after(device, soon);
    }

    /// A new token came, or did not.
    pub fn token_renewed(&mut self, device: usize, wire: usize, until: Option<Ms>) {
        let client = &mut self.clients[device];
        if client.wire != Some(wire) {
            return;
        }
        match until {
            Some(until) => {
                client.token_until = until;
                self.say(device, Up::Auth(until));
                self.renew_later(device, wire, until - self.now);
            }
            None => self.after(5 * SECOND, Happening::Client(device, Timer::Renew(wire))),
        }
    }
}
