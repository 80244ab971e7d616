//! What a session decides, carried out; what must hold of it, judged.

use listen_stream::domain::sync::{CloseCode, Cursor, Effect, Position};

use super::{
    client::Down,
    config::Config,
    db::{epoch, life},
    rules::Rule,
    state::{Pending, Read, Resync, Server, State, Wire, number, owner, slot},
};

/// What a frame says that a session sends; nothing if it is not about the log.
fn read_frame(text: &str) -> Option<Down> {
    if !text.starts_with('{') {
        let mut numbers = text
            .split(' ')
            .map(|it| it.parse::<i64>().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        let (life, seq, made_in) = (next(), next(), next());
        return Some(Down::Event {
            life: u8::try_from(life).expect("few lives"),
            seq,
            made_in: u8::try_from(made_in).expect("few lives"),
        });
    }
    let frame: serde_json::Value = serde_json::from_str(text).expect("frames are JSON");
    let of_life = || {
        life(
            frame["epoch"]
                .as_str()
                .expect("an epoch")
                .parse()
                .expect("an epoch"),
        )
    };
    let seq = |name: &str| frame[name].as_i64().expect("a seq");
    match frame["type"].as_str().expect("a type") {
        "welcome" => Some(Down::Welcome {
            life: of_life(),
            acked: seq("acked_seq"),
        }),
        "resync" => Some(Down::Resync {
            life: of_life(),
            head: seq("head_seq"),
            floor: seq("floor_seq"),
        }),
        "error" => Some(Down::Error(
            frame["code"].as_str().expect("a code").to_owned(),
        )),
        _ => None,
    }
}

impl State {
    pub fn apply(&mut self, config: &Config, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(conn, texts) => {
                    for frame in texts.iter().filter_map(|text| read_frame(text)) {
                        self.send(config, slot(conn), frame);
                    }
                }
                Effect::Close(conn, code) => self.close(slot(conn), code),
                Effect::Load(conn, load) => {
                    let asked = self.nodes[node].clock;
                    let read = Read { asked, log: None };
                    let before = self.nodes[node].loads.insert(slot(conn), (load, read));
                    self.broken.unless(before.is_none(), Rule::OneRead);
                }
                Effect::ReadHead => {
                    let asked = self.nodes[node].clock;
                    let read = Read { asked, log: None };
                    let before = self.nodes[node].head_read.replace(read);
                    self.broken.unless(before.is_none(), Rule::OneRead);
                }
                Effect::Acked(cursor) => self.acked(node, cursor),
                Effect::Detached(_)
                | Effect::Ping(_)
                | Effect::Relay(..)
                | Effect::Present(_)
                | Effect::Player(_)
                | Effect::SignalDropped(_) => {}
            }
        }
    }

    fn send(&mut self, config: &Config, slot: usize, frame: Down) {
        let Some(wire) = &mut self.wires[slot] else {
            return;
        };
        match frame {
            Down::Event { seq, .. } => {
                let quiet = !wire.unanswered.is_empty();
                self.broken.unless(!quiet, Rule::QuietAfterResync);
                self.broken.unless(seq > wire.above, Rule::NotAgain);
                wire.above = seq;
            }
            Down::Resync { life, floor, .. } => {
                let known = wire.unanswered.iter().any(|it| it.life == life);
                self.broken.unless(!known, Rule::OneResync);
                self.broken.unless(!config.is_calm(), Rule::NoReloadInCalm);
                wire.unanswered.push(Resync { life, floor });
                let epoch = epoch(life);
                wire.resync = Some(Position { epoch, seq: floor });
                wire.position = None;
            }
            Down::Error(ref code) if code == "ack_beyond_head" || code == "epoch_changed" => {
                wire.position = None;
            }
            Down::Welcome { .. } | Down::Error(_) | Down::Close(_) => {}
        }
        if wire.client {
            wire.down.push_back(frame);
        }
    }

    fn close(&mut self, slot: usize, code: CloseCode) {
        if self
            .wire(slot)
            .is_some_and(|it| it.server == Server::Attached)
        {
            self.end(slot, code);
        }
    }

    /// A cursor goes to the keeper, which merges it with what it has.
    fn acked(&mut self, node: usize, cursor: Cursor) {
        let device = number(cursor.device);
        let told_by = |wire: &Wire| {
            wire.resumed
                .is_some_and(|it| it.attach_epoch == cursor.attach_epoch)
        };
        let attached = self.at(node, device).find(|(_, wire)| told_by(wire));
        let attached = attached.map_or(0, |(_, wire)| wire.attached);
        let keeper = &mut self.nodes[node].keeper;
        let known = keeper.entry(device).or_insert(Pending { cursor, attached });
        let merged = known.cursor.merged(cursor);
        if merged == cursor {
            *known = Pending { cursor, attached };
        }
    }

    /// What must hold of a session after each call.
    pub fn judge(&mut self, config: &Config, node: usize) {
        let mut seen = vec![false; config.devices];
        for (device, delivery) in self.nodes[node].core.devices() {
            let device = number(device);
            let again = std::mem::replace(&mut seen[device], true);
            self.broken.unless(!again, Rule::OneConnection);
            let in_flight = delivery.sent() - delivery.acked();
            let within = in_flight <= i64::from(config.window);
            self.broken.unless(within, Rule::WithinWindow);
            if !delivery.is_quiet() {
                let wires = self.wires.iter_mut().enumerate();
                let mine = wires.filter_map(|(slot, wire)| {
                    let wire = wire.as_mut()?;
                    let here = wire.node == node && wire.server == Server::Attached;
                    (here && owner(slot) == device).then_some(wire)
                });
                mine.for_each(|wire| wire.above = wire.above.max(delivery.acked()));
            }
        }
    }

    pub fn judge_cursors(&mut self) {
        for (client, row) in self.clients.iter().zip(&self.db.devices) {
            let same = client.life == self.db.life();
            let holds = !same || row.cursor <= client.high;
            self.broken.unless(holds, Rule::CursorBehindClient);
        }
    }
}

impl Wire {
    /// An ack came that the client sent when it had taken so many resyncs. It answers the last one if
    /// it was sent after the client took that (a later session may have sent it again meanwhile), or
    /// if the log reaches back to it.
    pub fn answered(&mut self, at: Position, taken: u8) {
        let Some(last) = self.unanswered.last() else {
            return;
        };
        let reaches = at.seq >= last.floor;
        if life(at.epoch) == last.life && (taken > self.judged || reaches) {
            self.judged = taken;
            self.unanswered.clear();
            self.above = at.seq;
        }
    }

    /// The client said where it is. An older position of the same life says nothing new.
    pub fn moved(&mut self, to: Position) {
        // What lies below the floor was said before the resync came.
        let answers = |told: &Position| to.epoch == told.epoch && to.seq >= told.seq;
        self.resync = self.resync.filter(|told| !answers(told));
        let older = |known: Position| known.epoch == to.epoch && known.seq >= to.seq;
        if !self.position.is_some_and(older) {
            self.position = Some(to);
            if let Some(resumed) = &mut self.resumed {
                resumed.life = life(to.epoch);
            }
        }
    }
}

impl Read {
    /// What it found, if the database was asked.
    pub fn seen(self) -> Option<listen_stream::domain::sync::Seen> {
        let (asked, log) = (self.asked, self.log?);
        Some(super::state::Answer { asked, log }.seen())
    }
}
