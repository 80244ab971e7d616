//! What the clients do.

use listen_stream::domain::sync::{CloseCode, Flood, Position};

use crate::{
    frames::{self, Down, Up},
    plan::Leave,
    queue::{Ms, SECOND},
    wire::{Facts, Wire},
    world::{Ask, Happening, Timer, World},
};

/// The time between a client's own pings and looks at the clock.
const BEAT: Ms = 30 * SECOND;
/// A client that hears nothing for so long connects again.
const SILENCE: Ms = 75 * SECOND;

impl World {
    pub fn client_timer(&mut self, device: usize, timer: Timer) {
        let client = &self.clients[device];
        match timer {
            Timer::Connect(serial) if serial == client.serial && client.wire.is_none() => {
                self.connect(device);
            }
            Timer::Ack(wire) if client.wire == Some(wire) => {
                self.clients[device].ack_due = false;
                if self.now >= self.clients[device].muted_until {
                    self.ack(device);
                }
            }
            Timer::Beat(wire) if client.wire == Some(wire) => {
                let (paused, silent) = (client.paused_until, client.heard_at + SILENCE);
                self.after(BEAT, Happening::Client(device, timer));
                if paused > self.now {
                    return;
                }
                if self.now >= silent {
                    self.leave(device, Leave::Cut);
                } else if device.is_multiple_of(2) {
                    let ping = listen_stream::domain::sync::ClientFrame::Ping(None);
                    self.say(device, Up::Frame(ping));
                }
            }
            Timer::Renew(wire) if client.wire == Some(wire) && !client.expires => {
                let node = self.rng.index(2);
                if self.nodes[node].up {
                    self.ask(node, 0, Ask::Token { device, wire });
                } else {
                    self.after(SECOND, Happening::Client(device, timer));
                }
            }
            Timer::Reload(serial) if serial == client.serial && client.resync.is_some() => {
                self.reload(device);
            }
            Timer::Resume => self.resume(device),
            Timer::Poll(node, times, quick) => self.poll(device, node, times, quick),
            _ => {}
        }
    }

    /// What came while it took nothing and said nothing is dealt with now.
    fn resume(&mut self, device: usize) {
        let client = &mut self.clients[device];
        if client.misbehaved_at() > self.now {
            return;
        }
        if let Some(wire) = client.wire {
            client.heard_at = self.now;
            self.after(0, Happening::Take(wire));
            if self.clients[device].owes {
                self.ack_later(device);
            }
            // It answers the pings that it did not.
            self.say(device, Up::Pong);
        }
    }

    pub fn connect_after(&mut self, device: usize, delay: Ms) {
        let client = &mut self.clients[device];
        client.serial += 1;
        let serial = client.serial;
        self.after(delay, Happening::Client(device, Timer::Connect(serial)));
    }

    /// 1, 2, 4 … 30 seconds, a fifth more or less.
    fn back_off(&mut self, device: usize) {
        let client = &mut self.clients[device];
        let base = (SECOND << client.backoff.min(5)).min(30 * SECOND);
        client.backoff += 1;
        let delay = self.rng.between(base * 4 / 5, base * 6 / 5);
        self.connect_after(device, delay);
    }

    fn connect(&mut self, device: usize) {
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

    fn renew_later(&mut self, device: usize, wire: usize, left: Ms) {
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

    /// Sees to it that the client takes what is there, when it comes.
    pub fn take_later(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        if !it.client {
            return;
        }
        if let Some(&(at, _)) = it.down.front()
            && !std::mem::replace(&mut it.takes, true)
        {
            let at = at.max(self.now).max(self.clients[it.device].paused_until);
            self.push(at, Happening::Take(wire));
        }
    }

    pub fn hear_later(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        if let Some(&(at, _)) = it.up.front()
            && !std::mem::replace(&mut it.hears, true)
        {
            let at = at.max(self.now);
            self.push(at, Happening::Hear(wire));
        }
    }

    /// The client takes what has come.
    pub fn take(&mut self, wire: usize) {
        self.wires[wire].takes = false;
        let device = self.wires[wire].device;
        if self.clients[device].paused_until > self.now {
            return self.take_later(wire);
        }
        while self.wires[wire].client
            && !self.is_wrong()
            && let Some(&(at, _)) = self.wires[wire].down.front()
            && at <= self.now
        {
            if let Some((_, down)) = self.wires[wire].down.pop_front() {
                self.clients[device].heard_at = self.now;
                self.taken(device, wire, down);
            }
        }
        self.take_later(wire);
        let verdict = self.clients[device].check(&self.db);
        self.must(verdict, || format!("client {device}"));
    }

    fn taken(&mut self, device: usize, wire: usize, down: Down) {
        let client = &mut self.clients[device];
        if client.resync.is_some() && matches!(down, Down::Event { .. } | Down::Resync(..)) {
            return client.held.push_back(down);
        }
        self.note(|| format!("client {device} takes {}", frames::brief(&down)));
        let client = &mut self.clients[device];
        match down {
            Down::Welcome { epoch, acked } => {
                client.backoff = 0;
                let own = client.epoch;
                if epoch == own {
                    let verdict = if acked > client.high(epoch) && !client.named {
                        Err(format!("welcomed at {acked}, and it never was there"))
                    } else {
                        Ok(())
                    };
                    return self.must(verdict, || format!("client {device}"));
                }
                if client.applied == 0 && client.named {
                    // The beginning is the same in every epoch.
                    client.forget(0, &self.db);
                    client.enter(epoch);
                } else if !client.named {
                    // It cannot tell what it lacks, so it loads anew, and says where it is.
                    self.leave(device, Leave::Cut);
                    self.reload_alone(device);
                }
            }
            Down::Event { at, value, .. } => {
                let before = client.applied;
                let verdict = client.apply(at, value);
                let applied = client.applied > before;
                self.stats.applied += u64::from(applied);
                self.stats.repeated += u64::from(!applied);
                self.must(verdict, || format!("client {device}"));
                self.ack_later(device);
            }
            Down::Resync(log, _) => {
                client.resync = Some(log);
                client.awaits_resync = false;
                client.serial += 1;
                let serial = client.serial;
                let takes = if self.calm {
                    100
                } else {
                    self.plan.setup.reload
                };
                let delay = self.rng.below(takes);
                self.after(delay, Happening::Client(device, Timer::Reload(serial)));
            }
            Down::Presence(devices) => client.present = devices,
            Down::Error { code, bogus } => self.refused(device, wire, &code, bogus),
            Down::Ping => {
                self.say(device, Up::Pong);
            }
            Down::Signal | Down::Pong | Down::Goodbye => {}
            Down::Close(code) => {
                self.clients[device].wire = None;
                self.wires[wire].client = false;
                match code {
                    CloseCode::TokenOver => self.connect_after(device, 10),
                    // Another connection of it came after it, though it was made before: its user
                    // opens it again.
                    CloseCode::Replaced => self.connect_after(device, 5 * SECOND),
                    _ => self.back_off(device),
                }
            }
            Down::Lost => {
                self.clients[device].wire = None;
                self.wires[wire].client = false;
                self.back_off(device);
            }
        }
    }

    fn refused(&mut self, device: usize, wire: usize, code: &str, bogus: bool) {
        let restored = self.db.restores > 0;
        match code {
            "store_unavailable" => {
                self.after(SECOND, Happening::Client(device, Timer::Ack(wire)));
            }
            "ack_beyond_head" if bogus => {}
            "epoch_changed" if bogus || restored => {}
            // An ack may have been among what was dropped.
            "rate_limited" => {
                self.after(6 * SECOND, Happening::Client(device, Timer::Ack(wire)));
            }
            "device_not_attached" => {}
            code => self.wrong(format!("client {device} was right, and is told {code}")),
        }
    }

    pub fn ack_later(&mut self, device: usize) {
        let client = &mut self.clients[device];
        client.owes = true;
        if let Some(wire) = client.wire
            && !std::mem::replace(&mut client.ack_due, true)
        {
            let delay = self.delay(SECOND);
            self.after(delay, Happening::Client(device, Timer::Ack(wire)));
        }
    }

    fn ack(&mut self, device: usize) {
        let client = &self.clients[device];
        if client.resync.is_none() && !client.awaits_resync {
            let at = client.position();
            let by_token = self.rng.chance(50);
            let ack = frames::ack(at, false, by_token, self.plan.setup.real_wire);
            if self.say(device, ack) {
                self.clients[device].owes = false;
            }
        }
    }

    /// The client says something, if it says anything now.
    pub fn say(&mut self, device: usize, up: Up) -> bool {
        let client = &self.clients[device];
        let speaks = client.paused_until.max(client.silent_until) <= self.now;
        match client.wire {
            Some(wire) if speaks => {
                self.say_on(wire, up);
                true
            }
            _ => false,
        }
    }

    fn say_on(&mut self, wire: usize, up: Up) {
        let delay = self.delay(self.plan.setup.latency);
        let it = &mut self.wires[wire];
        let last = it.up.back().map_or(0, |(at, _)| *at);
        it.up.push_back(((self.now + delay).max(last), up));
        self.hear_later(wire);
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

    fn reload(&mut self, device: usize) {
        let node = self.rng.index(2);
        let serial = self.clients[device].serial;
        if self.nodes[node].up {
            self.ask(node, 0, Ask::Reload { device, serial });
        } else {
            self.after(SECOND, Happening::Client(device, Timer::Reload(serial)));
        }
    }

    /// Loads anew without a connection, then connects.
    fn reload_alone(&mut self, device: usize) {
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
    pub fn poll(&mut self, device: usize, node: usize, times: u8, quick: bool) {
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
        if times > 1 && !self.calm {
            let delay = self.rng.between(5, if quick { 40 } else { 600 });
            let timer = Timer::Poll(node, times - 1, quick);
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
