//! What a node hears of its clients.

use listen_stream::domain::sync::{ClientFrame, CloseCode, Verdict};

use crate::{
    frames::{Down, Up},
    happening::Happening,
    invariants::{self},
    queue::Ms,
    server::Reach,
    wire::conn_id,
    world::World,
};

impl World {
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
    pub fn flooded(&mut self, wire: usize, came_at: Ms, verdict: Verdict) {
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
    pub fn heard(&mut self, wire: usize, came_at: Ms, up: Up) {
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
}
