//! What the plan does to the world.

use listen_stream::domain::{
    identity::ClientDeviceId,
    ids::Epoch,
    sync::{ClientFrame, Position, Signal, SignalName, SignalTo},
};
use uuid::Uuid;

use crate::{
    frames::{self, Up},
    node::Command,
    plan::{Leave, OddAck, Op},
    queue::{Ms, SECOND},
    server::client_device_id,
    world::{Ask, Happening, Timer, World},
};

impl World {
    pub fn op(&mut self, index: usize) {
        let (_, op) = self.plan.ops[index];
        self.note(|| format!("op {index}: {op:?}"));
        match op {
            Op::Commit {
                user,
                node,
                count,
                size,
            } => {
                let session = &mut self.nodes[node].sessions[user];
                if session.up && session.commands.len() < 32 {
                    session.commands.push_back(Command::Commit { count, size });
                    self.next_command(node, user);
                }
            }
            Op::RestRead { device, node } => {
                if self.nodes[node].up {
                    let after = self.clients[device].position();
                    self.clients[device].waits_for += 1;
                    self.ask(node, 0, Ask::Changes { device, after });
                }
            }
            Op::RestAck { device, node, back } => {
                let mut at = self.clients[device].position();
                at.seq = (at.seq - i64::from(back % 4)).max(0);
                let client = &self.clients[device];
                if client.resync.is_none() && !client.awaits_resync {
                    self.rest_ack(device, node, at);
                }
            }
            Op::Ack { device, how } => self.odd_ack(device, how),
            Op::Leave { device, how } => self.leave(device, how),
            Op::Switch { device } => {
                self.leave(device, Leave::HalfOpen);
                self.connect_after(device, 0);
            }
            Op::Forget { device, back } => self.forget(device, back),
            Op::Pause { device, ms } => {
                self.clients[device].paused_until = self.now + ms;
                self.after(ms, Happening::Client(device, Timer::Resume));
            }
            Op::Mute { device, ms } => {
                self.clients[device].muted_until = self.now + ms;
                self.after(ms, Happening::Client(device, Timer::Resume));
            }
            Op::Silent { device, ms } => {
                self.clients[device].silent_until = self.now + ms;
                self.after(ms, Happening::Client(device, Timer::Resume));
            }
            Op::Expire { device } => self.clients[device].expires = true,
            Op::Signal { device, count } => self.signal(device, count),
            Op::CrashSession { node, user, ms } => self.crash_session(node, user, ms),
            Op::Stall { node, user, ms } => self.stall(node, user, ms),
            Op::CrashKeeper { node } => {
                self.stats.keeper_crashes += 1;
                self.nodes[node].keeper.crash();
            }
            Op::CrashNode { node, ms, heard } => {
                if self.nodes[node].up {
                    self.stats.node_crashes += 1;
                    self.end_node(node, heard);
                    self.after(ms, Happening::NodeUp(node));
                }
            }
            Op::Drain { node, ms } => self.drain(node, ms),
            Op::StoreDown { ms } => self.store_down_until = self.now + ms,
            Op::StoreSlow { ms } => self.store_slow_until = self.now + ms,
            Op::HintsLost { ms } => self.hints_lost_until = self.now + ms,
            Op::Trim => self.trim(),
            Op::Backup => self.db.backup(),
            Op::Restore { offline } => self.restore(offline),
        }
    }

    fn trim(&mut self) {
        for user in 0..self.plan.setup.users.len() {
            let rule = self.rule;
            match self.db.trim(self.now, user, &rule) {
                Ok(trimmed) => self.stats.trims += u64::from(trimmed),
                Err(what) => self.wrong(what),
            }
            let log = self.db.log(user);
            self.note(|| format!("the log of {user} is {}", frames::ends(&log)));
        }
    }

    fn restore(&mut self, offline: bool) {
        self.stats.restores += 1;
        if offline {
            self.end_all();
        }
        let choice = self.rng.index(3);
        self.db.restore(choice, !offline);
        for (device, client) in self.clients.iter_mut().enumerate() {
            // What the cursor of the older state covers was acknowledged, in the life before.
            let epoch = self.db.end(client.user).epoch;
            let seq = self.db.devices[device].acked;
            client.raise_high(Position { epoch, seq });
        }
        if self.plan.setup.users.is_empty() {
            return;
        }
        let log = self.db.log(0);
        self.note(|| format!("restored: the log of 0 is {}", frames::ends(&log)));
    }

    fn stall(&mut self, node: usize, user: usize, ms: Ms) {
        let now = self.now;
        let session = &mut self.nodes[node].sessions[user];
        let until = session.stalled_until.max(now);
        let later = (now + ms).max(until);
        session.stalls += later - until;
        session.stalled_until = later;
    }

    fn drain(&mut self, node: usize, ms: Ms) {
        if !self.nodes[node].up || self.nodes[node].draining {
            return;
        }
        self.nodes[node].draining = true;
        for user in 0..self.plan.setup.users.len() {
            let retry_after = std::time::Duration::from_millis(self.rng.below(5 * SECOND));
            if self.nodes[node].sessions[user].up {
                self.with_core_of(node, user, |core| core.evict_all(|| retry_after));
            }
        }
        self.flush(node);
        self.after(ms + SECOND, Happening::NodeUp(node));
    }

    fn odd_ack(&mut self, device: usize, how: OddAck) {
        let client = &self.clients[device];
        let at = client.position();
        if client.resync.is_some() || client.awaits_resync || client.wire.is_none() {
            return;
        }
        let (at, bogus, times) = match how {
            OddAck::Older(back) => {
                let seq = (at.seq - i64::from(back % 16)).max(0);
                (Position { seq, ..at }, false, 1)
            }
            OddAck::Twice => (at, false, 2),
            OddAck::Beyond(by) => {
                let seq = self.db.head(client.user).max(at.seq) + 1_000 + i64::from(by);
                (Position { seq, ..at }, true, 1)
            }
            OddAck::Foreign => {
                let epoch = Epoch(Uuid::from_u128(u128::MAX));
                (Position { epoch, ..at }, true, 1)
            }
        };
        for _ in 0..times {
            let by_token = self.rng.chance(50);
            let ack = frames::ack(at, bogus, by_token, self.plan.setup.real_wire);
            self.say(device, ack);
        }
    }

    fn signal(&mut self, device: usize, count: u8) {
        let to = if self.rng.chance(50) {
            SignalTo::All
        } else {
            SignalTo::Device(self.any_device(device))
        };
        let (Ok(name), Ok(data)) = (
            SignalName::parse("player.pause"),
            serde_json::from_str(r#"{"at_ms":1}"#),
        ) else {
            return self.wrong("a signal cannot be written".into());
        };
        let signal = Signal { to, name, data };
        for _ in 0..count {
            self.stats.signals += 1;
            let frame = ClientFrame::Signal(signal.clone(), None);
            self.say(device, Up::Frame(frame));
        }
    }

    fn any_device(&mut self, device: usize) -> ClientDeviceId {
        let user = self.clients[device].user;
        let all = self.clients.iter().enumerate();
        let all: Vec<usize> = all
            .filter(|(_, c)| c.user == user)
            .map(|(d, _)| d)
            .collect();
        let other = all[self.rng.index(all.len())];
        client_device_id(other)
    }
}
