//! How sessions and nodes end, and come back.

use listen_stream::domain::sync::CloseCode;

use crate::{
    happening::Happening,
    node::Node,
    queue::{Ms, SECOND},
    world::World,
};

impl World {
    /// A session crashes; it is back after `down`.
    pub fn crash_session(&mut self, node: usize, user: usize, down: Ms) {
        let session = &mut self.nodes[node].sessions[user];
        if !session.up {
            return;
        }
        self.stats.session_crashes += 1;
        let links = std::mem::take(&mut session.links);
        let attaching = std::mem::take(&mut session.attaching);
        for command in std::mem::take(&mut session.commands) {
            if let crate::node::Command::Ack { device, .. } = command {
                self.clients[device].waits_for -= 1;
            }
        }
        let config = &self.config[node];
        let session = &mut self.nodes[node].sessions[user];
        session.end_life(user, config);
        let life = session.life;
        for it in attaching {
            self.end_wire(it.wire, CloseCode::TryAgainLater);
        }
        for wire in links {
            let notices = self.rng.below(30);
            let it = &mut self.wires[wire];
            it.attached = false;
            it.notices_at = self.now + notices;
            self.after(Node::REATTACH, Happening::Orphan(wire, life));
        }
        self.after(down, Happening::SessionUp { node, user, life });
    }

    pub fn orphan(&mut self, wire: usize, life: u32) {
        let it = &self.wires[wire];
        let session = &self.nodes[it.node].sessions[it.user];
        if !it.attached && session.life == life && !session.up {
            self.end_wire(wire, CloseCode::TryAgainLater);
        }
    }

    /// A new life of a session: its connections attach again.
    pub fn session_up(&mut self, node: usize, user: usize, life: u32) {
        let session = &mut self.nodes[node].sessions[user];
        if session.life != life || session.up || !self.nodes[node].up {
            return;
        }
        self.nodes[node].sessions[user].up = true;
        self.note(|| format!("n{node} has a new session of {user}"));
        let mine = |it: &crate::wire::Wire| it.node == node && it.user == user && it.server;
        let mut wires: Vec<usize> = (0..self.wires.len())
            .filter(|w| mine(&self.wires[*w]) && self.wires[*w].held.is_some())
            .collect();
        if self.rng.chance(50) {
            wires.reverse();
        }
        for wire in wires {
            self.attach(wire);
        }
    }

    /// A node ends, with everything on it. `heard`: its clients notice.
    pub fn end_node(&mut self, node: usize, heard: bool) {
        let it = &mut self.nodes[node];
        it.life += 1;
        it.up = false;
        it.watching = false;
        it.keeper.crash();
        for user in 0..self.clients.iter().map(|c| c.user + 1).max().unwrap_or(0) {
            let config = &self.config[node];
            let session = &mut self.nodes[node].sessions[user];
            let commands = std::mem::take(&mut session.commands);
            session.end_life(user, config);
            for command in commands {
                if let crate::node::Command::Ack { device, .. } = command {
                    self.clients[device].waits_for -= 1;
                }
            }
        }
        for wire in 0..self.wires.len() {
            let it = &mut self.wires[wire];
            if it.node == node && it.server {
                (it.server, it.attached) = (false, false);
                it.up.clear();
                if heard {
                    self.push_down(wire, crate::frames::Down::Lost);
                }
            }
        }
    }

    pub fn node_up(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if it.up && !it.draining {
            return;
        }
        if it.draining {
            self.end_node(node, true);
        }
        let it = &mut self.nodes[node];
        (it.up, it.draining) = (true, false);
        for session in &mut it.sessions {
            session.up = true;
        }
        self.note(|| format!("n{node} is up"));
    }

    /// All nodes end at once, and come back.
    pub fn end_all(&mut self) {
        for node in 0..2 {
            if self.nodes[node].up {
                self.end_node(node, true);
                self.after(SECOND, Happening::NodeUp(node));
            }
        }
    }
}
