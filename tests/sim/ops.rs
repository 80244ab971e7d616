//! What the plan does to the world.

use listen_stream::domain::{
    identity::ClientDeviceId,
    ids::Epoch,
    sync::{ClientFrame, Position, Signal, SignalName, SignalTo},
};
use uuid::Uuid;

use crate::{
    frames::{self, Up},
    happening::{Happening, Timer},
    node::Command,
    plan::{Leave, OddAck, Op},
    queue::{Ms, SECOND},
    server::client_device_id,
    world::World,
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
                self.command(node, user, Command::Commit { count, size });
            }
            Op::RestRead {
                device,
                node,
                times,
            } => self.poll(device, node, times, false),
            Op::RestAck { device, node, back } => {
                let mut at = self.clients[device].position();
                at.seq = (at.seq - i64::from(back % 4)).max(0);
                let client = &self.clients[device];
                if client.resync.is_none() && !client.awaits_resync {
                    self.rest_ack(device, node, at);
                }
            }
            Op::Race { device } => self.race(device),
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
            Op::Restore { offline: true } => self.restore(true),
            Op::Restore { offline: false } => {
                // What is under way meanwhile began before and ends after it.
                for user in 0..self.plan.setup.users.len() {
                    let node = self.rng.index(2);
                    self.after(0, Happening::Command { node, user });
                }
                let delay = self.rng.below(2 * self.plan.setup.store + 10);
                self.after(delay, Happening::Restore);
            }
        }
    }

    /// A command comes to a session.
    pub fn command(&mut self, node: usize, user: usize, command: Command) {
        let session = &mut self.nodes[node].sessions[user];
        if session.up && session.commands.len() < 32 {
            session.commands.push_back(command);
            self.next_command(node, user);
        }
    }

    /// A client acks by REST.
    pub fn rest_ack(&mut self, device: usize, node: usize, at: Position) {
        let user = self.clients[device].user;
        let session = &mut self.nodes[node].sessions[user];
        if session.up && session.commands.len() < 32 {
            self.clients[device].waits_for += 1;
            let command = Command::Ack { device, at };
            session.commands.push_back(command);
            self.next_command(node, user);
        }
    }

    /// Commits at one node, while a client that is attached at the other reads them by REST, and acks
    /// there before the other node knows of them.
    fn race(&mut self, device: usize) {
        let client = &self.clients[device];
        let (user, node) = (
            client.user,
            client.wire.map_or(0, |w| 1 - self.wires[w].node),
        );
        for at in 0..4 {
            let delay = at * 40 + self.rng.below(40);
            self.after(delay, Happening::Command { node, user });
        }
        self.poll(device, node, 10, true);
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

    pub fn restore(&mut self, offline: bool) {
        self.stats.restores += 1;
        if offline {
            self.end_all();
        }
        let choice = self.rng.index(9);
        // Where some device of each user is, or a little off.
        let heads: Vec<i64> = (0..self.plan.setup.users.len())
            .map(|user| {
                let device = self.any_of(user);
                let sent = self.clients[device]
                    .wire
                    .map_or(0, |w| self.wires[w].facts.above);
                let off = i64::try_from(self.rng.below(3)).unwrap_or(0);
                sent.max(self.clients[device].applied) - off * i64::from(self.rng.chance(50))
            })
            .collect();
        let keeps_attachments = !offline && self.rng.chance(50);
        self.db.restore(choice, &heads, keeps_attachments);
        if !offline && self.rng.chance(70) {
            // Soon somebody looks.
            for node in 0..2 {
                let delay = self.delay(400);
                self.after(delay, Happening::Watch(node, false));
            }
        }
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
        if !client.knows_its_place() || client.wire.is_none() {
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
            SignalName::parse("volume.set"),
            serde_json::from_str(r#"{"at_ms":1}"#),
        ) else {
            return self.wrong("a signal cannot be written".into());
        };
        let signal = Signal { to, name, data };
        if count > 10 {
            self.clients[device].flooded_at = Some(self.now);
        }
        for _ in 0..count {
            self.stats.signals += 1;
            let frame = ClientFrame::Signal(signal.clone(), None);
            self.say(device, Up::Frame(frame));
        }
    }

    fn any_device(&mut self, device: usize) -> ClientDeviceId {
        let user = self.clients[device].user;
        client_device_id(self.any_of(user))
    }

    /// Some device of a user.
    fn any_of(&mut self, user: usize) -> usize {
        let all = self.clients.iter().enumerate();
        let all: Vec<usize> = all
            .filter(|(_, c)| c.user == user)
            .map(|(d, _)| d)
            .collect();
        all[self.rng.index(all.len())]
    }
}
