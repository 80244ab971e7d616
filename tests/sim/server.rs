//! What a node's sessions do: the shell around the core, as `src/actors/session` is in production.

use std::time::{Duration, Instant};

use bytestring::ByteString;
use listen_stream::domain::{
    identity::ClientDeviceId,
    ids::{ConnId, Epoch},
    sync::{
        Attachment, ClientFrame, CloseCode, Cursor, Effect, LogHead, Position, Seen, SessionCore,
        Verdict, WireEvent,
    },
};

use crate::{
    db::{AttachState, CursorAck, device_id, device_index},
    frames::{self, Down, Up},
    invariants::{self, Judged, Slack, Told},
    node::{Attaching, Command, Mail, Node},
    plan::Fault,
    queue::Ms,
    wire::{Facts, conn_id, wire_index},
    world::{Ask, Happening, World, node_name},
};

/// Whether a session can be reached.
enum Reach {
    Yes,
    /// It is not up, or another life is.
    No,
    /// It cannot run until then.
    Later(Ms),
}

impl World {
    fn reach(&self, node: usize, user: usize) -> Reach {
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
    fn note_unread(&mut self, node: usize, user: usize) {
        let session = &mut self.nodes[node].sessions[user];
        for &wire in &session.links {
            let unread = self.wires[wire].unread();
            session.core.unread(conn_id(wire), unread);
        }
    }

    /// Calls the core, and carries out what it decides.
    fn with_core(
        &mut self,
        node: usize,
        user: usize,
        call: impl FnOnce(&mut SessionCore, Instant) -> Vec<Effect>,
    ) {
        let now = self.instant(self.now);
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

    fn seen(&self, log: LogHead, asked_at: Ms) -> Seen {
        let asked_at = self.instant(asked_at);
        Seen { log, asked_at }
    }

    fn apply(&mut self, node: usize, user: usize, effects: Vec<Effect>) {
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
                    self.hint(node, user, &Mail::Relay(from, signal));
                }
                Effect::Present(devices) => {
                    self.hint(node, user, &Mail::Present(node, devices, false));
                }
                Effect::SignalDropped(_) => self.stats.signals_dropped += 1,
            }
        }
        self.arm(node, user);
    }

    fn send(&mut self, node: usize, user: usize, wire: usize, text: &ByteString) {
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
        let mut verdict = invariants::bounded(it.unread(), &window, side);
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
                verdict = verdict.and(invariants::within_window(events, bytes, &window));
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
            }
            Down::Error { .. } => self.wires[wire].facts.judged(self.now),
            _ => {}
        }
        self.must(verdict, || format!("connection {wire}"));
        let events = matches!(down, Down::Event { .. });
        self.wires[wire].flood.sent(usize::from(events));
        self.push_down(wire, down);
    }

    /// What the judge knows of a connection.
    pub fn judged(&self, wire: usize) -> Judged {
        let it = &self.wires[wire];
        let client = &self.clients[it.device];
        let since = |at: Ms| self.now.saturating_sub(at);
        let newest = self.db.devices[it.device].attach_epoch;
        let here = it.client && client.wire == Some(wire);
        let behaves = since(client.misbehaved_at().max(it.facts.attached_at));
        Judged {
            silent: since(it.facts.heard_at),
            owing: it.facts.owes.map(|(at, _)| since(at)),
            parked: it.facts.parked,
            token_over: self.now.checked_sub(it.facts.token_until),
            newer: it.held.is_none_or(|(_, mine)| mine < newest),
            behaves: if here && self.now >= client.misbehaved_at() {
                behaves
            } else {
                0
            },
        }
    }

    fn close(&mut self, node: usize, user: usize, conn: ConnId, code: CloseCode) {
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
    fn acked(&mut self, node: usize, user: usize, cursor: Cursor) {
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
    fn arm(&mut self, node: usize, user: usize) {
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

    /// Whether somebody is still attached who should not be.
    pub fn look_at_links(&mut self, node: usize, user: usize) {
        let session = &self.nodes[node].sessions[user];
        let stalls = session.stalls;
        for wire in session.links.clone() {
            let facts = &self.wires[wire].facts;
            let slack = Slack {
                heard: Node::LATE + (stalls - facts.stalls_heard),
                attached: Node::LATE + (stalls - facts.stalls),
            };
            let mut judged = self.judged(wire);
            judged.owing = facts.owes.map(|(_, at)| self.now - at);
            let verdict = invariants::stays_rightly(&judged, self.limits(), slack);
            self.must(verdict, || format!("connection {wire}"));
        }
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

    /// Tells the user's session at the other node, if the hint arrives.
    pub fn hint(&mut self, node: usize, user: usize, mail: &Mail) {
        let other = 1 - node;
        let lost = self.hints_lost_until > self.now && self.rng.chance(80);
        // Nobody keeps what is told to a node that is not there.
        if lost || !self.nodes[other].up {
            self.stats.lost_hints += 1;
            return;
        }
        let twice = !self.calm && self.has(Fault::Hints) && self.rng.chance(15);
        for _ in 0..1 + usize::from(twice) {
            let late = !self.calm && self.has(Fault::Hints) && self.rng.chance(25);
            let delay = self.delay(if late { 4000 } else { 30 });
            self.post(delay, other, user, mail.clone());
        }
    }

    fn tell_present(&mut self, node: usize, user: usize, answer: bool) {
        let devices = self.nodes[node].sessions[user].core.present_here();
        self.hint(node, user, &Mail::Present(node, devices, answer));
    }

    /// A message comes to a session.
    pub fn mail(&mut self, node: usize, user: usize, mail: Mail) {
        match self.reach(node, user) {
            Reach::No => return,
            Reach::Later(at) => {
                let node_life = self.nodes[node].life;
                let it = Happening::Mail {
                    node,
                    node_life,
                    user,
                    mail,
                };
                return self.queue.defer(at, it);
            }
            Reach::Yes => {}
        }
        let session = &mut self.nodes[node].sessions[user];
        match mail {
            Mail::Attached(device, attach_epoch) => {
                let index = device_index(device);
                for it in session.attaching.iter_mut().filter(|a| a.device == index) {
                    it.seen_epoch = it.seen_epoch.max(attach_epoch);
                }
                self.note(|| format!("n{node} hears that {index} attached as {attach_epoch}"));
                self.with_core(node, user, |core, _| core.superseded(device, attach_epoch));
                let links = &self.nodes[node].sessions[user].links;
                let mine = links.iter().map(|w| &self.wires[*w]);
                let mine = mine.filter(|it| it.device == index);
                let left = mine.filter_map(|it| it.held.map(|(_, mine)| mine)).min();
                self.must(invariants::older_is_gone(left, attach_epoch), || {
                    format!("device {index}")
                });
            }
            _ if session.links.is_empty() => {}
            Mail::Head(log, asked_at) => {
                if session.core.log() != Some(log) {
                    self.note(|| format!("n{node} sees {}", frames::ends(&log)));
                }
                let seen = self.seen(log, asked_at);
                self.with_core(node, user, |core, now| core.head_seen(now, seen));
            }
            Mail::Hinted(log) => {
                let known = session
                    .core
                    .log()
                    .is_some_and(|known| known.epoch == log.epoch);
                if known {
                    let seen = self.seen(log, self.now);
                    self.note(|| format!("n{node} is hinted {}", frames::ends(&log)));
                    self.with_core(node, user, |core, now| core.head_seen(now, seen));
                } else {
                    let life = session.life;
                    self.ask(node, life, Ask::Look { user });
                }
            }
            Mail::Listening => {
                self.tell_present(node, user, true);
                let session = &self.nodes[node].sessions[user];
                let life = session.life;
                self.ask(node, life, Ask::Look { user });
            }
            Mail::Relay(from, signal) => {
                self.note_unread(node, user);
                self.with_core(node, user, |core, _| core.signal_arrived(&from, &signal));
            }
            Mail::Present(of, devices, answer) => {
                self.note_unread(node, user);
                if answer {
                    self.tell_present(node, user, false);
                }
                let name = node_name(of);
                self.with_core(node, user, |core, now| {
                    core.presence_arrived(now, &name, devices)
                });
            }
        }
    }

    /// A connection asks its session to attach it.
    pub fn attach(&mut self, wire: usize) {
        let it = &self.wires[wire];
        let (node, user, device, held) = (it.node, it.user, it.device, it.held);
        let since = it.position;
        let session = &mut self.nodes[node].sessions[user];
        let here = session
            .links
            .iter()
            .any(|w| self.wires[*w].device == device)
            || session.attaching.iter().any(|a| a.device == device);
        if held.is_some() && here {
            return self.end_wire(wire, CloseCode::Replaced);
        }
        for older in session.attaching.iter_mut().filter(|a| a.device == device) {
            older.refused.get_or_insert(CloseCode::Replaced);
        }
        session.attaching.push(Attaching {
            wire,
            device,
            refused: None,
            seen_epoch: 0,
        });
        let life = session.life;
        if held.is_some() {
            return self.ask(node, life, Ask::Attach { wire, since });
        }
        session.attach_turns.push_back(wire);
        if session.attach_turns.len() == 1 {
            self.ask(node, life, Ask::Attach { wire, since });
        }
    }

    /// The attachment of a connection was written; none: it could not be.
    pub fn attach_written(
        &mut self,
        wire: usize,
        since: Option<Position>,
        asked_at: Ms,
        state: Option<AttachState>,
    ) {
        let it = &self.wires[wire];
        let (node, user, device, held) = (it.node, it.user, it.device, it.held);
        let session = &mut self.nodes[node].sessions[user];
        if held.is_none() {
            session.attach_turns.pop_front();
            if let Some(&wire) = session.attach_turns.front() {
                let (life, since) = (session.life, self.wires[wire].position);
                self.ask(node, life, Ask::Attach { wire, since });
            }
        }
        let attaching = &mut self.nodes[node].sessions[user].attaching;
        let Some(at) = attaching.iter().position(|a| a.wire == wire) else {
            return;
        };
        let meanwhile = attaching.remove(at);
        let Some(state) = state else {
            return self.end_wire(wire, CloseCode::TryAgainLater);
        };
        if held.is_none() {
            let mail = Mail::Attached(device_id(device), state.attach_epoch);
            self.hint(node, user, &mail);
        }
        let mine = held.map_or(state.attach_epoch, |(_, mine)| mine);
        let newest = meanwhile.seen_epoch.max(state.attach_epoch);
        if let Some(code) = meanwhile.refused {
            return self.end_wire(wire, code);
        }
        if newest != mine {
            // Lower: the database fell back to an older state, and nothing that is held counts.
            let code = if newest > mine {
                CloseCode::Replaced
            } else {
                CloseCode::TryAgainLater
            };
            return self.end_wire(wire, code);
        }
        let resync = held.and(self.wires[wire].resync);
        let resumed = held.map(|(epoch, _)| resync.map_or(epoch, |told| told.epoch));
        let stale = {
            let known = self.nodes[node].sessions[user].core.log();
            known.is_some_and(|known| known.epoch != state.log.epoch)
        };
        let stalls = self.nodes[node].sessions[user].stalls;
        let token_until = self.wires[wire].facts.token_until;
        let named = since.filter(|p| p.seq > 0);
        let unnamed = |epoch: Epoch| Position {
            epoch,
            seq: since.map_or(state.acked, |p| p.seq),
        };
        self.wires[wire].facts = Facts {
            above: since.map_or(state.acked, |p| p.seq),
            // One that was told of another epoch is there, whatever it named.
            at: resumed
                .filter(|epoch| *epoch != state.log.epoch)
                .map(unnamed)
                .or(named)
                .or_else(|| Some(unnamed(state.log.epoch))),
            stale,
            heard_at: self.now,
            attached_at: self.now,
            token_until,
            stalls,
            stalls_heard: stalls,
            // It was told in the session's life before, and is not told again.
            resync: resync
                .filter(|told| told.epoch == state.log.epoch && !stale)
                .map(|told| (told.epoch, told.seq)),
            ..Facts::default()
        };
        self.wires[wire].attached = true;
        self.wires[wire].held = Some((state.log.epoch, mine));
        let links = &mut self.nodes[node].sessions[user].links;
        links.push(wire);
        let first = links.len() == 1;
        self.note(|| {
            format!(
                "n{node} attaches {device} as {mine} by connection {wire}, since {since:?}, cursor {}",
                state.acked
            )
        });
        let it = Attachment {
            conn: conn_id(wire),
            device: device_id(device),
            device_id: client_device_id(device),
            acked_seq: state.acked,
            attach_epoch: mine,
            since,
            resumed,
            resyncing: resync,
            token_until: self.instant(token_until),
        };
        let seen = self.seen(state.log, asked_at);
        self.with_core(node, user, |core, now| core.attach(now, it, seen));
        if first {
            // Hints arrive from now on.
            self.post(5, node, user, Mail::Listening);
        }
        self.hear_later(wire);
    }

    /// The end of a connection came to its session.
    fn detached(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        (it.server, it.attached) = (false, false);
        let (node, user) = (it.node, it.user);
        let session = &mut self.nodes[node].sessions[user];
        for it in session.attaching.iter_mut().filter(|a| a.wire == wire) {
            it.refused = Some(CloseCode::Normal);
        }
        session.links.retain(|w| *w != wire);
        self.with_core(node, user, |core, _| core.detached(conn_id(wire)));
    }

    /// A node hears what has come from a client.
    pub fn hear(&mut self, wire: usize) {
        self.wires[wire].hears = false;
        let it = &self.wires[wire];
        let (node, user) = (it.node, it.user);
        if !it.server || self.nodes[node].life != it.node_life {
            self.wires[wire].up.clear();
            return;
        }
        if let Reach::Later(at) = self.reach(node, user) {
            self.wires[wire].hears = true;
            return self.queue.defer(at, Happening::Hear(wire));
        }
        while let Some(&(at, _)) = self.wires[wire].up.front()
            && at <= self.now
            && !self.is_wrong()
        {
            let it = &mut self.wires[wire];
            // While it attaches it reads nothing; but that its client is gone it notices.
            let ended = matches!(it.up.front(), Some((_, Up::End)));
            let waits = !it.attached && self.now >= it.notices_at;
            if waits && !ended {
                return;
            }
            let Some((at, up)) = it.up.pop_front() else {
                return;
            };
            self.heard(wire, at, up);
        }
        self.hear_later(wire);
    }

    /// A client says more than it may.
    fn flooded(&mut self, wire: usize, came_at: Ms, verdict: Verdict) {
        let it = &self.wires[wire];
        let (node, user) = (it.node, it.user);
        let flooded_at = self.clients[it.device].flooded_at;
        self.must(invariants::is_flood(flooded_at, came_at), || {
            format!("connection {wire}")
        });
        self.note(|| format!("n{node} drops a frame of connection {wire}: {verdict:?}"));
        if verdict == Verdict::Warn {
            let (code, bogus) = ("rate_limited".into(), false);
            self.push_down(wire, Down::Error { code, bogus });
        }
        if verdict == Verdict::Close {
            let attached = std::mem::take(&mut self.wires[wire].attached);
            self.nodes[node].sessions[user].links.retain(|w| *w != wire);
            self.end_wire(wire, CloseCode::BadFrame);
            if attached {
                self.with_core(node, user, |core, _| core.detached(conn_id(wire)));
            }
        }
    }

    /// `came_at`: a connection counts frames when they come, whenever its session hears of them.
    fn heard(&mut self, wire: usize, came_at: Ms, up: Up) {
        let now = self.instant(came_at);
        let it = &mut self.wires[wire];
        let (node, user, conn) = (it.node, it.user, conn_id(wire));
        if up != Up::End {
            match it.flood.frame(now) {
                Verdict::Take => {}
                verdict => return self.flooded(wire, came_at, verdict),
            }
        }
        if let Up::Frame(ClientFrame::Ack(at, mark)) = &up {
            it.moved(*at);
            it.lied |= mark.is_some();
        }
        if up == Up::End {
            return self.detached(wire);
        }
        if !it.attached {
            // Its session is gone, and it has not noticed: what it tells is lost.
            return;
        }
        it.facts.heard_at = self.now;
        it.facts.stalls_heard = self.nodes[node].sessions[user].stalls;
        match up {
            Up::Pong => self.with_core(node, user, |core, now| {
                core.heard(now, conn);
                Vec::new()
            }),
            Up::Auth(until) => {
                self.wires[wire].facts.token_until = until;
                let until = self.instant(until);
                self.with_core(node, user, |core, now| {
                    core.renewed(now, conn, until);
                    Vec::new()
                });
            }
            Up::Frame(frame) => {
                self.note(|| format!("n{node} hears {frame:?} on connection {wire}"));
                if let ClientFrame::Ack(at, _) = &frame {
                    self.wires[wire].facts.acking(*at);
                }
                self.note_unread(node, user);
                self.with_core(node, user, |core, now| core.frame(now, conn, frame));
            }
            Up::End => {}
        }
    }

    /// The next command of a user begins, if none is under way.
    pub fn next_command(&mut self, node: usize, user: usize) {
        let session = &mut self.nodes[node].sessions[user];
        if session.busy {
            return;
        }
        let Some(command) = session.commands.pop_front() else {
            return;
        };
        session.busy = true;
        let life = session.life;
        let ask = match command {
            Command::Commit { count, size } => Ask::Commit { user, count, size },
            Command::Ack { device, at } => Ask::Ack { device, at },
        };
        self.ask(node, life, ask);
    }

    /// A command was stored, and its session hears of it.
    pub fn committed(
        &mut self,
        node: usize,
        user: usize,
        asked_at: Ms,
        log: LogHead,
        events: &[WireEvent],
    ) {
        self.hint(node, user, &Mail::Hinted(log));
        let session = &self.nodes[node].sessions[user];
        if !session.links.is_empty() || !session.attaching.is_empty() {
            let seen = self.seen(log, asked_at);
            self.note(|| format!("n{node} announces {}", frames::ends(&log)));
            self.with_core(node, user, |core, now| core.committed(now, seen, events));
        }
    }

    /// An ack by REST was judged.
    pub fn acked_by_rest(&mut self, node: usize, device: usize, at: Position, ack: CursorAck) {
        let user = self.clients[device].user;
        match ack {
            CursorAck::Acked(_) => {
                let core = &self.nodes[node].sessions[user].core;
                let known = core.log().is_some_and(|log| log.epoch == at.epoch);
                let links = self.nodes[node].sessions[user].links.clone();
                for wire in links.into_iter().filter(|_| known) {
                    let it = &mut self.wires[wire];
                    if it.device == device && !it.facts.is_stale(at) {
                        it.facts.acked(self.now, at);
                    }
                }
                let device = device_id(device);
                self.with_core(node, user, |core, now| {
                    core.acked_elsewhere(now, device, at)
                });
            }
            CursorAck::BeyondHead => {
                self.wrong(format!("the ack of {device} at {at:?} is beyond the head"));
            }
            CursorAck::EpochChanged => {}
        }
    }

    /// A page of the log was read for a connection; none: it could not be.
    pub fn page_read(
        &mut self,
        wire: usize,
        load: listen_stream::domain::sync::Load,
        asked_at: Ms,
        page: Option<(LogHead, Vec<WireEvent>)>,
    ) {
        let (node, user, conn) = (self.wires[wire].node, self.wires[wire].user, conn_id(wire));
        let reads = &mut self.wires[wire].facts.reads;
        *reads = reads.saturating_sub(1);
        if let Some((log, events)) = page {
            let seen = self.seen(log, asked_at);
            self.with_core(node, user, |core, now| {
                core.loaded(now, conn, load, seen, &events)
            });
            return;
        }
        let session = &mut self.nodes[node].sessions[user];
        session.core.load_failed(conn);
        if !std::mem::replace(&mut session.retrying, true) {
            let life = session.life;
            self.after(Node::RETRY, Happening::Retry { node, user, life });
        }
    }

    /// The head was read as the core asked; none: it could not be.
    pub fn head_read(&mut self, node: usize, user: usize, asked_at: Ms, log: Option<LogHead>) {
        let seen = log.map(|log| self.seen(log, asked_at));
        self.with_core(node, user, |core, now| match seen {
            Some(seen) => core.head_read(now, seen),
            None => core.head_failed(now),
        });
        let links = self.nodes[node].sessions[user].links.clone();
        for wire in links {
            self.wires[wire].facts.judged(self.now);
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
