//! What sessions do with what the database answers.

use listen_stream::domain::sync::{LogHead, Position, WireEvent};

use crate::{
    db::{CursorAck, device_id},
    frames::{self},
    happening::{Ask, Happening},
    node::{Command, Mail, Node},
    queue::Nanos,
    wire::conn_id,
    world::World,
};

impl World {
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
        asked_at: Nanos,
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
        asked_at: Nanos,
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
    pub fn head_read(&mut self, node: usize, user: usize, asked_at: Nanos, log: Option<LogHead>) {
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
}
