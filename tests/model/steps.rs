//! What each action does: the shell around the sessions, as the server's actors are one.

use std::collections::VecDeque;

use listen_stream::domain::sync::{Attachment, ClientFrame, CloseCode, LogHead, Seen, SessionCore};

use super::{
    client::{Down, Up},
    config::{Bug, Config},
    db::{epoch, life},
    model::Action,
    rules::Rule,
    shared::Shared,
    state::{Answer, Attaching, Node, Read, Resumed, Server, State, Wire, at, conn, device, owner},
};

impl State {
    /// The state after `action`, which must be one of those that are possible.
    pub fn then(mut self, config: &Config, action: Action) -> Self {
        match action {
            Action::Commit { .. }
            | Action::Break { .. }
            | Action::CrashSession { .. }
            | Action::CrashNode { .. }
            | Action::Trim { .. }
            | Action::Restore
            | Action::FallBack
            | Action::Renew
            | Action::Lose { .. }
            | Action::Wipe { .. }
            | Action::FailLoad { .. }
            | Action::FailHead { .. }
            | Action::AckByRest { .. }
            | Action::Hint { .. }
            | Action::HintOfOld { .. }
            | Action::BeginLook { .. }
            | Action::EndLook { .. } => self.befalls(config, action),
            Action::Connect { device, node } => self.connect(device, node),
            Action::Raise { slot } => self.raise(slot),
            Action::EndAttach { slot } => self.end_attach(config, slot),
            Action::AttachAgain { slot } => self.attach_again(slot),
            Action::Hear { slot } => self.hear(config, slot),
            Action::Take { device } => self.take(config, device),
            Action::Ack { device } => self.ack(config, device),
            Action::ReadLog { slot } => {
                let log = self.db.log();
                let node = self.node_of(slot);
                if let Some((_, read)) = self.nodes[node].loads.get_mut(&slot) {
                    read.log = Some(log);
                }
            }
            Action::AnswerLoad { slot } => self.answer_load(config, slot),
            Action::Retry { node } => {
                self.nodes[node].retrying = false;
                self.call(config, node, None, |core, _| core.retry());
            }
            Action::ReadHead { node } => {
                let log = self.db.log();
                if let Some(read) = &mut self.nodes[node].head_read {
                    read.log = Some(log);
                }
            }
            Action::AnswerHead { node } => {
                if let Some(seen) = self.nodes[node].head_read.take().and_then(Read::seen) {
                    self.call(config, node, Some(seen), |core, now| {
                        core.head_read(now, seen)
                    });
                }
            }
            Action::Announce { node } => self.announce(config, node),
            Action::Flush { node } => self.flush(config, node),
            Action::Look { node } => {
                let log = self.db.log();
                self.told(config, node, log);
            }
            Action::Supersede { node, device } => self.supersede(config, node, device),
            Action::Unknown { slot } => self.unknown(config, slot),
        }
        if !self.left.log_changes() {
            self.read_now();
        }
        if config.eager {
            self.take_all(config);
        }
        self.judge_cursors();
        self
    }

    /// The log does not change any more: when it is read makes no difference.
    fn read_now(&mut self) {
        let log = Some(self.db.log());
        let waits = |node: &&mut Shared<Node>| {
            let mut loads = node
                .loads
                .values()
                .map(|(_, read)| read)
                .chain(&node.head_read);
            loads.any(|read| read.log.is_none())
        };
        for node in self.nodes.iter_mut().filter(waits) {
            let node = &mut **node;
            let loads = node.loads.values_mut().map(|(_, read)| read);
            for read in loads.chain(&mut node.head_read) {
                read.log = read.log.or(log);
            }
        }
    }

    /// Undoes [`Self::read_now`].
    pub fn forget_early_reads(&mut self) {
        if self.left.log_changes() {
            for node in &mut self.nodes {
                for (_, read) in node.loads.values_mut() {
                    read.log = None;
                }
            }
        }
    }

    fn take_all(&mut self, config: &Config) {
        for device in 0..config.devices {
            while let Some(slot) = self.clients[device].conn
                && self.wire(slot).is_some_and(|wire| !wire.down.is_empty())
            {
                self.take(config, device);
            }
        }
    }

    pub fn node_of(&self, slot: usize) -> usize {
        self.wire(slot).map_or(0, |wire| wire.node)
    }

    /// Calls a session, carries out what it decides, and looks at what it is afterwards. `seen`: what
    /// it may learn by that.
    pub fn call(
        &mut self,
        config: &Config,
        node: usize,
        seen: Option<Seen>,
        step: impl FnOnce(
            &mut SessionCore,
            std::time::Instant,
        ) -> Vec<listen_stream::domain::sync::Effect>,
    ) {
        let it = &mut self.nodes[node];
        let known = it.core.log().map(|log| log.epoch);
        let news = seen.is_some_and(|seen| known != Some(seen.log.epoch));
        // Only another life makes time matter.
        let ticks = config.left.lives_change();
        let now = at(it.clock + u8::from(news && ticks));
        let effects = step(&mut it.core, now);
        if ticks && it.core.log().map(|log| log.epoch) != known {
            it.clock += 1;
        }
        self.apply(config, node, effects);
        self.judge(config, node);
    }

    /// The session hears of the log's ends, if it has a device.
    pub fn told(&mut self, config: &Config, node: usize, log: LogHead) {
        let asked = self.nodes[node].clock;
        let seen = Answer { asked, log }.seen();
        self.call(config, node, Some(seen), |core, now| {
            core.head_seen(now, seen)
        });
    }

    fn connect(&mut self, device: usize, node: usize) {
        let Some(slot) = self.free_slot(device) else {
            return;
        };
        let client = &mut self.clients[device];
        if !client.knows {
            client.reload(&self.db);
        }
        let since = client.since();
        (client.conn, client.owes) = (Some(slot), false);
        // The connection that came last is the one that stays.
        self.refuse_attaching(node, device, CloseCode::Replaced);
        self.wires[slot] = Some(Wire {
            node,
            server: Server::Attaching(Attaching {
                since,
                resumed: None,
                asked: 0,
                state: None,
                refused: None,
                seen_epoch: 0,
            }),
            client: true,
            welcomed: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            position: since,
            resumed: None,
            resync: None,
            attached: 0,
            above: 0,
            unanswered: Vec::new(),
            taken: 0,
            judged: 0,
        });
        self.nodes[node].attaching.push_back(slot);
    }

    fn refuse_attaching(&mut self, node: usize, device: usize, code: CloseCode) {
        for (slot, wire) in self.wires.iter_mut().enumerate() {
            let Some(wire) = wire else { continue };
            if let (true, Server::Attaching(it)) =
                (wire.node == node && owner(slot) == device, &mut wire.server)
            {
                it.refused.get_or_insert(code);
            }
        }
    }

    fn raise(&mut self, slot: usize) {
        // One that was refused while it waited writes nothing.
        if let Some(Server::Attaching(it)) = self.wire(slot).map(|wire| &wire.server)
            && let Some(code) = it.refused
        {
            let node = self.node_of(slot);
            self.nodes[node].attaching.retain(|other| *other != slot);
            return self.end(slot, code);
        }
        let (state, attached) = self.db.raise(owner(slot));
        let asked = self.nodes[self.node_of(slot)].clock;
        if let Some(wire) = &mut self.wires[slot] {
            wire.attached = attached;
            if let Server::Attaching(it) = &mut wire.server {
                (it.state, it.asked) = (Some(state), asked);
            }
        }
    }

    fn attach_again(&mut self, slot: usize) {
        let (node, device) = (self.node_of(slot), owner(slot));
        let held = self.wire(slot).and_then(|wire| wire.resumed);
        let held = held.map(|it| it.attach_epoch);
        let newer = |(other, wire): (usize, &Wire)| match &wire.server {
            _ if other == slot => false,
            Server::Attached => true,
            Server::Attaching(it) => it.resumed.is_none_or(|it| Some(it.attach_epoch) > held),
            Server::Alone | Server::Gone => false,
        };
        if self.at(node, device).any(newer) {
            // The device came with a newer connection while the session was being made anew.
            return self.end(slot, CloseCode::Replaced);
        }
        self.refuse_attaching(node, device, CloseCode::Replaced);
        let (state, asked) = (self.db.state(device), self.nodes[node].clock);
        if let Some(wire) = &mut self.wires[slot] {
            wire.server = Server::Attaching(Attaching {
                since: wire.position,
                resumed: wire.resumed.map(|it| match wire.resync {
                    Some(told) => Resumed {
                        life: life(told.epoch),
                        resyncing: Some(told),
                        ..it
                    },
                    None => it,
                }),
                asked,
                state: Some(state),
                refused: None,
                seen_epoch: 0,
            });
        }
    }

    fn end_attach(&mut self, config: &Config, slot: usize) {
        let Some(wire) = &mut self.wires[slot] else {
            return;
        };
        let node = wire.node;
        let Server::Attaching(it) = wire.server.clone() else {
            return;
        };
        let Some(state) = it.state else { return };
        self.nodes[node].attaching.retain(|other| *other != slot);
        let attach_epoch = it.resumed.map_or(state.attach_epoch, |it| it.attach_epoch);
        if let Some(code) = it.refused {
            return self.end(slot, code);
        }
        let newest = it.seen_epoch.max(state.attach_epoch);
        if newest > attach_epoch {
            return self.end(slot, CloseCode::Replaced);
        }
        if newest < attach_epoch {
            return self.end(slot, CloseCode::TryAgainLater);
        }
        wire.server = Server::Attached;
        wire.resumed = Some(Resumed {
            life: life(state.log.epoch),
            attach_epoch,
            resyncing: None,
        });
        wire.above = it.since.map_or(state.cursor, |since| since.seq);
        let attachment = Attachment {
            conn: conn(slot),
            device: device(owner(slot)),
            device_id: super::state::client_id(owner(slot)),
            acked_seq: state.cursor,
            attach_epoch,
            since: it.since,
            resumed: it.resumed.map(|it| epoch(it.life)),
            resyncing: it.resumed.and_then(|it| it.resyncing),
            token_until: at(u8::MAX),
        };
        let (asked, log) = (it.asked, state.log);
        let seen = Answer { asked, log }.seen();
        self.call(config, node, Some(seen), |core, now| {
            core.attach(now, attachment, seen)
        });
        // What its client was told, which what was read for it may contradict.
        if let (Some(log), Some(wire)) = (self.nodes[node].core.log(), &mut self.wires[slot])
            && let Some(resumed) = &mut wire.resumed
        {
            resumed.life = life(log.epoch);
        }
    }

    /// The node closes a connection that is not attached.
    pub fn end(&mut self, slot: usize, code: CloseCode) {
        if let Some(wire) = &mut self.wires[slot] {
            wire.server = Server::Gone;
            wire.down.push_back(Down::Close(code));
            self.nodes[wire.node].loads.remove(&slot);
        }
        self.bury(slot);
    }

    /// A connection of which neither end is there is no more.
    pub fn bury(&mut self, slot: usize) {
        let gone = |wire: &Wire| wire.server == Server::Gone && !wire.client;
        if self.wire(slot).is_some_and(gone) {
            self.wires[slot] = None;
        }
    }

    fn hear(&mut self, config: &Config, slot: usize) {
        let Some(wire) = &mut self.wires[slot] else {
            return;
        };
        let (node, attached) = (wire.node, wire.server == Server::Attached);
        match wire.up.pop_front() {
            None => {}
            Some(Up::Ack { mut at, taken }) => {
                wire.moved(at);
                wire.answered(at, taken);
                if !attached {
                    return;
                }
                if let (true, Some(log)) =
                    (config.has(Bug::AckOfAnyLife), self.nodes[node].core.log())
                {
                    at.epoch = log.epoch;
                }
                let frame = ClientFrame::Ack(at, None);
                self.call(config, node, None, |core, now| {
                    core.frame(now, conn(slot), frame)
                });
            }
            Some(Up::End) => {
                if let Server::Attaching(it) = &mut wire.server {
                    it.refused = Some(CloseCode::Normal);
                    return;
                }
                wire.server = Server::Gone;
                self.nodes[node].loads.remove(&slot);
                self.bury(slot);
                if attached {
                    self.call(config, node, None, |core, _| core.detached(conn(slot)));
                }
            }
        }
    }

    fn take(&mut self, config: &Config, device: usize) {
        let Some(slot) = self.clients[device].conn else {
            return;
        };
        let Some(wire) = &mut self.wires[slot] else {
            return;
        };
        let Some(frame) = wire.down.pop_front() else {
            return;
        };
        match frame {
            Down::Welcome { .. } => wire.welcomed = true,
            Down::Resync { .. } => wire.taken += 1,
            Down::Close(_) => {
                wire.client = false;
                self.bury(slot);
            }
            Down::Event { .. } | Down::Error(_) => {}
        }
        self.clients[device].take(frame, &self.db, config, &mut self.broken);
    }

    fn ack(&mut self, config: &Config, device: usize) {
        let client = &mut self.clients[device];
        let at = client.ack(config);
        if let Some(wire) = client.conn.and_then(|slot| self.wires[slot].as_mut()) {
            let taken = wire.taken;
            wire.up.push_back(Up::Ack { at, taken });
        }
    }

    fn answer_load(&mut self, config: &Config, slot: usize) {
        let node = self.node_of(slot);
        let Some((load, read)) = self.nodes[node].loads.remove(&slot) else {
            return;
        };
        let Some(seen) = read.seen() else { return };
        let mut events = self.db.page(seen.log, load);
        if config.has(Bug::PageWithHole) && events.len() > 1 {
            events.remove(0);
        }
        self.call(config, node, Some(seen), |core, now| {
            core.loaded(now, conn(slot), load, seen, &events)
        });
        let it = &self.nodes[node];
        let current = it.core.log().map(|log| log.epoch) == Some(seen.log.epoch);
        let again = it.loads.get(&slot).is_some_and(|(next, _)| *next == load);
        let in_vain = current && again && !events.is_empty();
        self.broken.unless(!in_vain, Rule::NotInVain);
    }

    fn announce(&mut self, config: &Config, node: usize) {
        let Some(answer) = self.nodes[node].announcing.take() else {
            return;
        };
        let (seen, head) = (answer.seen(), answer.log.head_seq);
        let events = self.db.events(answer.log, head..=head);
        self.call(config, node, Some(seen), |core, now| {
            core.committed(now, seen, &events)
        });
    }

    fn flush(&mut self, config: &Config, node: usize) {
        for (device, pending) in std::mem::take(&mut self.nodes[node].keeper) {
            let before = self.db.devices[device].cursor;
            if self.db.advance(device, pending.cursor, config) {
                let row = self.db.devices[device];
                self.broken.unless(row.cursor > before, Rule::CursorForward);
                // Numbers that fell back may be given again.
                let again = config.left.fallbacks > self.left.fallbacks;
                let newest = pending.attached == row.attached || again;
                self.broken.unless(newest, Rule::OnlyTheNewest);
            }
        }
    }

    fn supersede(&mut self, config: &Config, node: usize, number: usize) {
        let newest = self.db.devices[number].attach_epoch;
        for (slot, wire) in self.wires.iter_mut().enumerate() {
            let Some(wire) = wire else { continue };
            if let (true, Server::Attaching(it)) =
                (wire.node == node && owner(slot) == number, &mut wire.server)
            {
                it.seen_epoch = newest.max(it.seen_epoch);
            }
        }
        self.call(config, node, None, |core, _| {
            core.superseded(device(number), newest)
        });
    }

    fn unknown(&mut self, config: &Config, slot: usize) {
        let held = self.wire(slot).and_then(|wire| wire.resumed);
        if let Some(held) = held.map(|it| it.attach_epoch) {
            let node = self.node_of(slot);
            self.call(config, node, None, |core, _| {
                core.unknown(device(owner(slot)), held)
            });
        }
    }

    /// A session is made anew: connections stay, those that were attaching do not.
    pub fn crash_session(&mut self, config: &Config, node: usize) {
        self.nodes[node].crash(config);
        for slot in 0..self.wires.len() {
            let Some(wire) = self.wires[slot].as_mut().filter(|it| it.node == node) else {
                continue;
            };
            match wire.server {
                Server::Attaching(_) => self.end(slot, CloseCode::TryAgainLater),
                Server::Attached => wire.server = Server::Alone,
                Server::Alone | Server::Gone => {}
            }
        }
    }

    /// A node is made anew, and nothing that it had is left.
    pub fn crash_node(&mut self, config: &Config, node: usize) {
        let clock = self.nodes[node].clock;
        *self.nodes[node] = Node {
            clock,
            ..Node::new(config)
        };
        for slot in 0..self.wires.len() {
            if let Some(wire) = self.wires[slot].take_if(|wire| wire.node == node) {
                let client = &mut self.clients[owner(slot)];
                if client.conn == Some(slot) {
                    client.give_up(wire.welcomed);
                }
            }
        }
    }
}
