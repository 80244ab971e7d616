//! What the judge asks of connections: whether they are closed rightly, and whether they stay rightly.

use crate::{
    invariants::{self, Judged, Slack},
    node::Node,
    queue::Ms,
    world::World,
};

impl World {
    /// What the judge knows of a connection.
    pub fn judged(&self, wire: usize) -> Judged {
        let it = &self.wires[wire];
        let client = &self.clients[it.device];
        let since = |at: Ms| self.now.saturating_sub(at);
        let attachments = self.db.attached[it.device];
        let here = it.client && client.wire == Some(wire);
        let behaves = since(client.misbehaved_at().max(it.facts.attached_at));
        Judged {
            silent: since(it.facts.heard_at),
            owing: it.facts.owes.map(|(at, _)| since(at)),
            parked: it.facts.parked,
            token_over: self.now.checked_sub(it.facts.token_until),
            newer: it.held.is_none() || it.count < attachments || it.restores < self.db.restores,
            behaves: if here && self.now >= client.misbehaved_at() {
                behaves
            } else {
                0
            },
        }
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
}
