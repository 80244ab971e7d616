//! What the clients do.

use listen_stream::domain::sync::CloseCode;

use crate::{
    frames::{self, Down, Up},
    happening::{Ask, Happening, Timer},
    plan::Leave,
    queue::{Ms, SECOND},
    world::World,
};

/// The time between a client's own pings and looks at the clock.
pub const BEAT: Ms = 30 * SECOND;
/// A client that hears nothing for so long connects again.
pub const SILENCE: Ms = 75 * SECOND;

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
            Timer::Poll(node, left, quick) => self.poll(device, node, left, quick),
            _ => {}
        }
    }

    /// What came while it took nothing and said nothing is dealt with now.
    pub fn resume(&mut self, device: usize) {
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

    pub fn taken(&mut self, device: usize, wire: usize, down: Down) {
        let client = &mut self.clients[device];
        if client.resync.is_some() && matches!(down, Down::Event { .. } | Down::Resync(..)) {
            return client.held.push_back(down);
        }
        self.note(|| format!("client {device} takes {}", frames::brief(&down)));
        let client = &mut self.clients[device];
        match down {
            Down::Welcome { epoch, acked } => {
                client.backoff = 0;
                client.welcomed = true;
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
            // Of a life that it has left behind.
            Down::Event { .. } if client.awaits_resync => {}
            Down::Event { at, value, .. } => {
                if at.seq > client.applied + 1 && self.wires[wire].lied {
                    // What it said it had was refused, and its session was made anew.
                    return self.leave(device, Leave::Cut);
                }
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

    pub fn refused(&mut self, device: usize, wire: usize, code: &str, bogus: bool) {
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

    pub fn ack(&mut self, device: usize) {
        let client = &self.clients[device];
        if client.knows_its_place() {
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

    pub fn say_on(&mut self, wire: usize, up: Up) {
        let delay = self.delay(self.plan.setup.latency);
        let it = &mut self.wires[wire];
        let last = it.up.back().map_or(0, |(at, _)| *at);
        it.up.push_back(((self.now + delay).max(last), up));
        self.hear_later(wire);
    }
}
