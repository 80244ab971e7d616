//! What may happen and need not, each as often as the configuration says.

use listen_stream::domain::sync::{LogHead, SessionCore};

use super::{
    client::Up,
    config::Config,
    db::epoch,
    model::Action,
    state::{Answer, NODES, Server, State, conn, device, owner},
};

impl State {
    pub fn befalls(&mut self, config: &Config, action: Action) {
        match action {
            Action::Commit { node } => {
                self.left.commits -= 1;
                let asked = self.nodes[node].clock;
                self.db.append();
                let log = self.db.log();
                self.nodes[node].announcing = Some(Answer { asked, log });
            }
            Action::Break { device, heard } => {
                self.left.breaks -= 1;
                self.break_off(device, heard);
            }
            Action::CrashSession { node } => {
                self.left.session_crashes -= 1;
                self.crash_session(config, node);
            }
            Action::CrashNode { node } => {
                self.left.node_crashes -= 1;
                self.crash_node(config, node);
            }
            Action::Trim { floor } => {
                self.left.trims -= 1;
                self.db.trim(floor);
            }
            Action::Restore => {
                self.left.restores -= 1;
                (0..NODES).for_each(|node| self.crash_node(config, node));
                self.db.fall_back();
            }
            Action::FallBack => {
                self.left.fallbacks -= 1;
                self.db.fall_back();
            }
            Action::Renew => {
                self.left.renewals -= 1;
                self.db.renew();
            }
            Action::Lose { device } => {
                self.left.losses -= 1;
                let client = &mut self.clients[device];
                client.applied -= 1;
                client.data.to = client.applied;
            }
            Action::Wipe { device } => {
                self.left.wipes -= 1;
                self.clients[device].knows = false;
            }
            Action::FailLoad { slot } => {
                self.left.failures -= 1;
                let node = self.node_of(slot);
                self.nodes[node].loads.remove(&slot);
                self.nodes[node].core.load_failed(conn(slot));
                self.nodes[node].retrying = true;
            }
            Action::FailHead { node } => {
                self.left.failures -= 1;
                self.nodes[node].head_read = None;
                self.call(config, node, None, SessionCore::head_failed);
            }
            Action::AckByRest { device, node } => {
                self.left.rest_acks -= 1;
                self.ack_by_rest(config, device, node);
            }
            _ => self.hears(config, action),
        }
    }

    fn hears(&mut self, config: &Config, action: Action) {
        match action {
            Action::Hint { node, head } => {
                if let Some(known) = self.nodes[node].core.log() {
                    let head_seq = head;
                    self.told(config, node, LogHead { head_seq, ..known });
                }
            }
            Action::HintOfOld { node } => {
                self.left.late_looks -= 1;
                let life = self.db.life() - 1;
                let values = &self.db.lives[usize::from(life) - 1];
                let old = LogHead {
                    epoch: epoch(life),
                    head_seq: i64::try_from(values.len()).expect("few events"),
                    floor_seq: 0,
                };
                self.told(config, node, old);
            }
            Action::BeginLook { node } => {
                self.left.late_looks -= 1;
                let asked = self.nodes[node].clock;
                let log = self.db.log();
                self.nodes[node].look = Some(Answer { asked, log });
            }
            Action::EndLook { node } => {
                if let Some(answer) = self.nodes[node].look.take() {
                    let seen = answer.seen();
                    self.call(config, node, Some(seen), |core, now| {
                        core.head_seen(now, seen)
                    });
                }
            }
            _ => {}
        }
    }

    fn break_off(&mut self, device: usize, heard: bool) {
        let client = &mut self.clients[device];
        let Some(slot) = client.conn else {
            return;
        };
        if let Some(wire) = &mut self.wires[slot] {
            client.give_up(wire.welcomed);
            wire.client = false;
            wire.down.clear();
            if !heard {
                wire.up.clear();
            }
            if wire.server != Server::Gone {
                wire.up.push_back(Up::End);
            }
        }
        self.bury(slot);
    }

    fn ack_by_rest(&mut self, config: &Config, number: usize, node: usize) {
        let client = &self.clients[number];
        let (at, row) = (client.position(), &mut self.db.devices[number]);
        row.cursor = row.cursor.max(at.seq);
        for (slot, wire) in self.wires.iter_mut().enumerate() {
            let Some(wire) = wire else { continue };
            let attached = wire.node == node && wire.server == Server::Attached;
            if owner(slot) == number && attached {
                wire.answered(at, wire.taken);
            }
        }
        self.call(config, node, None, |core, now| {
            core.acked_elsewhere(now, device(number), at)
        });
    }
}
