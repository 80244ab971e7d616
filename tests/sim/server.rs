//! What a node's sessions do: the shell around the core, as `src/actors/session` is in production.

use std::time::{Duration, Instant};

use bytestring::ByteString;
use listen_stream::domain::{
    identity::ClientDeviceId,
    ids::ConnId,
    sync::{CloseCode, Cursor, Effect, LogHead, Position, Seen, SessionCore},
};

use crate::{
    db::device_index,
    frames::{self, Down},
    happening::{Ask, Happening},
    invariants::{self, Told},
    node::{News, Node},
    queue::{Ms, Nanos},
    wire::{conn_id, wire_index},
    world::World,
};

/// Whether a session can be reached.
pub enum Reach {
    Yes,
    /// It is not up, or another life is.
    No,
    /// It cannot run until then.
    Later(Ms),
}

impl World {
    pub fn reach(&self, node: usize, user: usize) -> Reach {
        let session = &self.nodes[node].sessions[user];
        if !session.up {
            Reach::No
        } else if session.stalled_until > self.now {
            Reach::Later(session.stalled_until)
        } else {
            Reach::Yes
        }
    }

    /// Tells the core how much each connection has not read yet, before it decides what may wait.
    pub fn note_unread(&mut self, node: usize, user: usize) {
        let session = &mut self.nodes[node].sessions[user];
        for &wire in &session.links {
            let unread = self.wires[wire].unread();
            session.core.unread(conn_id(wire), unread);
        }
    }

    /// Calls the core, and carries out what it decides.
    pub fn with_core(
        &mut self,
        node: usize,
        user: usize,
        call: impl FnOnce(&mut SessionCore, Instant) -> Vec<Effect>,
    ) {
        let now = self.moment(self.nanos());
        let effects = call(&mut self.nodes[node].sessions[user].core, now);
        self.apply(node, user, effects);
    }

    /// The same for what takes no time.
    pub fn with_core_of(
        &mut self,
        node: usize,
        user: usize,
        call: impl FnOnce(&mut SessionCore) -> Vec<Effect>,
    ) {
        self.with_core(node, user, |core, _| call(core));
    }

    pub fn look_seen(&mut self, node: usize, user: usize, seen: Seen) {
        self.with_core(node, user, |core, now| core.head_seen(now, seen));
    }

    pub fn seen(&self, log: LogHead, asked_at: Nanos) -> Seen {
        let asked_at = self.moment(asked_at);
        Seen { log, asked_at }
    }

    pub fn apply(&mut self, node: usize, user: usize, effects: Vec<Effect>) {
        for effect in effects {
            if self.is_wrong() {
                return;
            }
            match effect {
                Effect::Send(conn, texts) => {
                    let wire = wire_index(conn);
                    for text in texts {
                        self.send(node, user, wire, &text);
                    }
                }
                Effect::Ping(conn) => {
                    let wire = wire_index(conn);
                    if self.wires[wire].attached {
                        self.push_down(wire, Down::Ping);
                    }
                }
                Effect::Close(conn, code) => self.close(node, user, conn, code),
                Effect::Load(conn, load) => {
                    let wire = wire_index(conn);
                    let facts = &mut self.wires[wire].facts;
                    facts.reads += 1;
                    let verdict = invariants::one_read(facts.reads);
                    self.must(verdict, || format!("connection {wire}"));
                    let life = self.nodes[node].sessions[user].life;
                    self.ask(node, life, Ask::Load { wire, load });
                }
                Effect::ReadHead => {
                    let life = self.nodes[node].sessions[user].life;
                    self.ask(node, life, Ask::ReadHead { user });
                }
                Effect::Acked(cursor) => self.acked(node, user, cursor),
                Effect::Detached(_) => self.flush(node),
                Effect::Relay(from, signal) => {
                    self.tell_nodes(node, user, News::Signal(from, signal));
                }
                Effect::Present(devices) => {
                    self.tell_nodes(node, user, News::Present(node, devices, false));
                }
                // Their rules are tested for themselves.
                Effect::Player(_) => {}
                Effect::SignalDropped(_) => self.stats.signals_dropped += 1,
            }
        }
        self.arm(node, user);
    }

    pub fn send(&mut self, node: usize, user: usize, wire: usize, text: &ByteString) {
        let down = match frames::read(text) {
            Ok(down) => down,
            Err(what) => return self.wrong(what),
        };
        self.note(|| {
            format!(
                "n{node} sends to connection {wire}: {}",
                frames::brief(&down)
            )
        });
        let it = &self.wires[wire];
        if !it.attached || it.node != node || it.user != user {
            return self.wrong(format!(
                "connection {wire} was closed, and is sent {down:?}"
            ));
        }
        let (window, side) = (self.window(), self.plan.setup.side_frames);
        let mut verdict = invariants::bounded(it.unread(), window, side);
        match &down {
            Down::Event { at, size, .. } => {
                let log = self.nodes[node].sessions[user].core.log();
                let facts = &mut self.wires[wire].facts;
                verdict = verdict
                    .and(invariants::is_quiet(facts.resync.is_some(), at.seq))
                    .and(invariants::not_again(facts.above, at.seq));
                if log.is_none_or(|log| log.epoch != at.epoch) {
                    verdict = Err(format!("{at:?} is sent, and the session knows {log:?}"));
                }
                facts.sent(self.now, *at, *size);
                let (events, bytes) = (facts.flight.len(), facts.flight_bytes);
                verdict = verdict.and(invariants::within_window(events, bytes, window));
            }
            Down::Resync(log, reason) => {
                self.stats.resyncs += 1;
                let facts = &self.wires[wire].facts;
                let told = Told {
                    open: facts.resync.map(|(epoch, _)| epoch),
                    at: facts.at,
                    gone: facts.at.is_some_and(|at| self.db.is_gone(user, at)),
                    stale: facts.stale,
                };
                verdict = verdict.and(invariants::resync_is_due(&told, log, *reason));
                if self.plan.setup.is_calm() && !self.wires[wire].lied {
                    verdict = Err("a resync, and nothing was trimmed or restored".into());
                }
                self.wires[wire].facts.resynced(log);
                let (epoch, seq) = (log.epoch, log.floor_seq);
                self.wires[wire].resync = Some(Position { epoch, seq });
                // Where the client was counts no more, until it says where its reload is.
                self.wires[wire].position = None;
            }
            Down::Error { code, .. } => {
                if matches!(code.as_str(), "ack_beyond_head" | "epoch_changed") {
                    // What it said last is no place to go on from.
                    self.wires[wire].position = None;
                }
                self.wires[wire].facts.judged(self.now);
            }
            _ => {}
        }
        self.must(verdict, || format!("connection {wire}"));
        let events = matches!(down, Down::Event { .. });
        self.wires[wire].flood.sent(usize::from(events));
        self.push_down(wire, down);
    }

    pub fn close(&mut self, node: usize, user: usize, conn: ConnId, code: CloseCode) {
        let wire = wire_index(conn);
        if !self.wires[wire].attached {
            return self.wrong(format!("connection {wire} is closed, and was before"));
        }
        let judged = self.judged(wire);
        let verdict = invariants::close_is_due(code, &judged, self.limits());
        self.must(verdict, || format!("connection {wire}"));
        self.nodes[node].sessions[user].links.retain(|w| *w != wire);
        self.wires[wire].attached = false;
        self.end_wire(wire, code);
    }

    /// The node's end of a connection closes it.
    pub fn end_wire(&mut self, wire: usize, code: CloseCode) {
        if std::mem::take(&mut self.wires[wire].server) {
            self.note(|| format!("connection {wire} closes {}", code.number()));
            *self.stats.closes.entry(code.number()).or_default() += 1;
            self.push_down(wire, Down::Close(code));
        }
    }

    /// A cursor moved.
    pub fn acked(&mut self, node: usize, user: usize, cursor: Cursor) {
        let device = device_index(cursor.device);
        let links = &self.nodes[node].sessions[user].links;
        let Some(&wire) = links.iter().find(|w| self.wires[**w].device == device) else {
            return self.wrong(format!("{cursor:?} of a device that is not attached"));
        };
        let mine = self.wires[wire].held.map_or(0, |(_, mine)| mine);
        let at = cursor.position;
        let verdict = invariants::cursor_is_true(device, at, self.clients[device].high(at.epoch))
            .and(invariants::cursor_is_current(cursor.attach_epoch, mine));
        self.must(verdict, || format!("connection {wire}"));
        self.wires[wire].facts.acked(self.now, at);
        self.stats.acks += 1;
        let key = (cursor.device, mine, at.epoch);
        let said = self.said.entry(key).or_insert(at.seq);
        *said = at.seq.max(*said);
        self.nodes[node].keeper.advance(cursor);
        self.look_at_keeper(node);
    }

    /// Sets the timer for the core's next tick, if it is due earlier than the one that is set.
    pub fn arm(&mut self, node: usize, user: usize) {
        let Some(due) = self.nodes[node].sessions[user].core.next_tick() else {
            self.nodes[node].sessions[user].tick = None;
            return;
        };
        let due = self.time(due).max(self.now);
        let session = &mut self.nodes[node].sessions[user];
        if session.tick.is_none_or(|set_for| due < set_for) {
            session.tick = Some(due);
            session.timer += 1;
            let timer = session.timer;
            self.push(
                due,
                Happening::Tick {
                    node,
                    user,
                    timer,
                    due,
                },
            );
        }
    }

    pub fn tick(&mut self, node: usize, user: usize, timer: u32, due: Ms) {
        let session = &self.nodes[node].sessions[user];
        if session.timer != timer || session.tick.is_none() {
            return;
        }
        if let Reach::Later(at) = self.reach(node, user) {
            return self.queue.defer(
                at,
                Happening::Tick {
                    node,
                    user,
                    timer,
                    due,
                },
            );
        }
        self.nodes[node].sessions[user].tick = None;
        let late = self.now - due;
        let late = Duration::from_millis(if late >= Node::LATE { late } else { 0 });
        self.note_unread(node, user);
        self.with_core(node, user, |core, now| core.tick(now, late));
        self.look_at_links(node, user);
    }

    pub fn retry(&mut self, node: usize, user: usize, life: u32) {
        if self.nodes[node].sessions[user].life != life {
            return;
        }
        match self.reach(node, user) {
            Reach::No => {}
            Reach::Later(at) => self.queue.defer(at, Happening::Retry { node, user, life }),
            Reach::Yes => {
                self.nodes[node].sessions[user].retrying = false;
                self.with_core(node, user, |core, _| core.retry());
            }
        }
    }

    /// Whether a life of a session can be told something now; if only later, `it` comes again then.
    pub fn session_hears(&mut self, node: usize, user: usize, life: u32, it: Happening) -> bool {
        if self.nodes[node].sessions[user].life != life {
            return false;
        }
        match self.reach(node, user) {
            Reach::Yes => true,
            Reach::No => false,
            Reach::Later(at) => {
                self.queue.defer(at, it);
                false
            }
        }
    }
}

/// A device by the id that its client made.
pub fn client_device_id(device: usize) -> ClientDeviceId {
    match ClientDeviceId::parse(format!("d{device:02}")) {
        Ok(id) => id,
        Err(what) => unreachable!("{what}"),
    }
}
