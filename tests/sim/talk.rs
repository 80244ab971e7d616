//! What sessions of one user at two nodes tell each other, and what others on a node tell them.

use listen_stream::domain::{ids::DeviceId, sync::LogHead};

use crate::{
    db::device_index,
    frames,
    happening::{Ask, Happening},
    invariants,
    node::{Mail, News},
    plan::Fault,
    server::Reach,
    world::{World, node_name},
};

impl World {
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
        for _ in 0..=usize::from(twice) {
            let late = !self.calm && self.has(Fault::Hints) && self.rng.chance(25);
            let delay = self.delay(if late { 4000 } else { 30 });
            self.post(delay, other, user, mail.clone());
        }
    }

    pub fn tell_present(&mut self, node: usize, user: usize, answer: bool) {
        let devices = self.nodes[node].sessions[user].core.present_here();
        self.tell_nodes(node, user, News::Present(node, devices, answer));
    }

    pub fn tell_nodes(&mut self, node: usize, user: usize, news: News) {
        if let Some(log) = self.nodes[node].sessions[user].core.log() {
            self.hint(node, user, &Mail::Told(log.epoch, news));
        }
    }

    /// A session heard that a device has a newer attachment.
    fn superseded(&mut self, node: usize, user: usize, device: DeviceId, newest: i64) {
        let index = device_index(device);
        self.note(|| format!("n{node} hears that {index} attached as {newest}"));
        self.with_core(node, user, |core, _| core.superseded(device, newest));
        let links = &self.nodes[node].sessions[user].links;
        let mine = links.iter().map(|w| &self.wires[*w]);
        let mine = mine.filter(|it| it.device == index);
        let left = mine.filter_map(|it| it.held.map(|(_, mine)| mine)).min();
        self.must(invariants::older_is_gone(left, newest), || {
            format!("device {index}")
        });
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
            Mail::Attached(device, newest) => {
                let index = device_index(device);
                for it in session.attaching.iter_mut().filter(|a| a.device == index) {
                    it.seen_epoch = it.seen_epoch.max(newest);
                }
                self.superseded(node, user, device, newest);
            }
            Mail::AttachHinted(epoch, device, newest) => {
                let index = device_index(device);
                for it in session.attaching.iter_mut().filter(|a| a.device == index) {
                    it.hinted.push((epoch, newest));
                }
                if session.core.log().is_some_and(|log| log.epoch == epoch) {
                    self.superseded(node, user, device, newest);
                }
            }
            Mail::FellBack(device, held) => {
                self.note(|| format!("n{node} hears that {held} of {device} is not known"));
                self.with_core(node, user, |core, _| core.unknown(device, held));
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
                let known = session.core.log();
                if let Some(known) = known.filter(|known| known.epoch == log.epoch) {
                    let floor_seq = known.floor_seq;
                    let seen = self.seen(LogHead { floor_seq, ..log }, self.nanos());
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
            Mail::Told(epoch, _) if session.core.log().is_none_or(|log| log.epoch != epoch) => {}
            Mail::Told(_, News::Signal(from, signal)) => {
                self.note_unread(node, user);
                self.with_core(node, user, |core, _| core.signal_arrived(&from, &signal));
            }
            Mail::Told(_, News::Present(of, devices, answer)) => {
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
}
