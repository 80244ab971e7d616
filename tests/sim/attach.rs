//! How connections attach to their sessions, and how they end.

use listen_stream::domain::{
    ids::Epoch,
    sync::{Attachment, CloseCode, Position},
};

use crate::{
    db::{AttachState, device_id},
    happening::Ask,
    node::{Attaching, Mail},
    queue::Nanos,
    server::client_device_id,
    wire::{Facts, conn_id},
    world::World,
};

impl World {
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
            hinted: Vec::new(),
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

    /// The next new connection has its turn. One that was refused while it waited writes nothing.
    fn next_attach(&mut self, node: usize, user: usize) {
        self.nodes[node].sessions[user].attach_turns.pop_front();
        while let Some(&wire) = self.nodes[node].sessions[user].attach_turns.front() {
            let session = &mut self.nodes[node].sessions[user];
            let mut waiting = session.attaching.iter();
            let refused = waiting.position(|a| a.wire == wire && a.refused.is_some());
            let Some(at) = refused else {
                let (life, since) = (session.life, self.wires[wire].position);
                return self.ask(node, life, Ask::Attach { wire, since });
            };
            session.attach_turns.pop_front();
            let it = session.attaching.remove(at);
            self.end_wire(wire, it.refused.unwrap_or(CloseCode::TryAgainLater));
        }
    }

    /// The attachment of a connection was written; none: it could not be.
    pub fn attach_written(
        &mut self,
        wire: usize,
        since: Option<Position>,
        asked_at: Nanos,
        state: Option<AttachState>,
    ) {
        let it = &self.wires[wire];
        let (node, user, device, held) = (it.node, it.user, it.device, it.held);
        if held.is_none() {
            self.next_attach(node, user);
        }
        let attaching = &mut self.nodes[node].sessions[user].attaching;
        let Some(at) = attaching.iter().position(|a| a.wire == wire) else {
            return;
        };
        let meanwhile = attaching.remove(at);
        let Some(state) = state else {
            let code = meanwhile.refused.unwrap_or(CloseCode::TryAgainLater);
            return self.end_wire(wire, code);
        };
        if held.is_none() {
            let (id, newest) = (device_id(device), state.attach_epoch);
            let mail = Mail::AttachHinted(state.log.epoch, id, newest);
            self.hint(node, user, &mail);
        }
        let mine = held.map_or(state.attach_epoch, |(_, mine)| mine);
        let hinted = newest_hint(&meanwhile.hinted, state.log.epoch);
        let newest = meanwhile.seen_epoch.max(hinted).max(state.attach_epoch);
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
        let is_stale = {
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
            stale: is_stale,
            heard_at: self.now,
            attached_at: self.now,
            token_until,
            stalls,
            stalls_heard: stalls,
            // It was told in the session's life before, and is not told again.
            resync: resync
                .filter(|told| told.epoch == state.log.epoch && !is_stale)
                .map(|told| (told.epoch, told.seq)),
            ..Facts::default()
        };
        if held.is_none() {
            self.wires[wire].count = state.count;
        }
        self.wires[wire].restores = state.restores;
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
        // What its client was told, which what was read for it may contradict.
        if let Some(told) = self.nodes[node].sessions[user].core.log() {
            self.wires[wire].held = Some((told.epoch, mine));
        }
        if first {
            // Hints arrive from now on.
            self.post(5, node, user, Mail::Listening);
        }
        self.hear_later(wire);
    }

    /// The end of a connection came to its session.
    pub fn detached(&mut self, wire: usize) {
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
}

/// The newest attachment that hints of this life of the log told of.
fn newest_hint(hints: &[(Epoch, i64)], epoch: Epoch) -> i64 {
    let of_this = hints.iter().filter(|(of, _)| *of == epoch);
    of_this.map(|(_, newest)| *newest).max().unwrap_or(0)
}
