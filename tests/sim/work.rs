//! What is asked of the database: run at one moment, answered at another, or not at all. And those on a
//! node who ask by the clock: the keeper of cursors, the watcher of heads.

use listen_stream::domain::sync::{CloseCode, Cursor, Position, Seen};

use crate::{
    db::{device_id, device_index},
    invariants,
    node::{Mail, Node},
    plan::Fault,
    queue::{Ms, SECOND},
    world::{Answer, Ask, Happening, Work, World},
};

impl World {
    /// Asks the database: it runs what is asked a little later.
    pub fn ask(&mut self, node: usize, life: u32, ask: Ask) {
        let at = self.now;
        self.ask_at(at, node, life, ask);
    }

    pub fn ask_at(&mut self, at: Ms, node: usize, life: u32, ask: Ask) {
        let work = self.works.len();
        let node_life = self.nodes[node].life;
        self.works.push(Some(Work {
            node,
            node_life,
            life,
            asked_at: self.now,
            ask,
            answer: None,
        }));
        let delay = self.store_delay();
        self.push(at + delay, Happening::Run(work));
    }

    fn store_delay(&mut self) -> Ms {
        let slow = self.store_slow_until > self.now;
        self.delay(if slow { 2500 } else { self.plan.setup.store })
    }

    /// Whether the database fails what is asked of it now.
    fn store_fails(&mut self) -> bool {
        let flaky = !self.calm && self.has(Fault::Store);
        self.store_down_until > self.now || flaky && self.rng.chance(4)
    }

    /// The database runs what was asked.
    pub fn run_work(&mut self, index: usize) {
        let Some(mut work) = self.works[index].take() else {
            return;
        };
        let gone = self.nodes[work.node].life != work.node_life;
        // What a node asked before it crashed may have been on its way, or not.
        if gone && self.rng.chance(50) {
            return self.unanswered(&work.ask);
        }
        let fails = self.store_fails();
        let answer = if fails {
            Answer::Failed
        } else {
            self.execute(&work)
        };
        if matches!(answer, Answer::Failed) {
            self.stats.failed_asks += 1;
        }
        // A commit may have been made, and nobody told.
        let unknown = !self.calm && self.has(Fault::Store) && self.rng.chance(2);
        work.answer = Some(if unknown { Answer::Failed } else { answer });
        if gone || self.is_wrong() {
            return self.unanswered(&work.ask);
        }
        self.works[index] = Some(work);
        // Some answers take as long as the asker waits.
        let hangs = !self.calm && self.has(Fault::Store) && self.rng.chance(8);
        let delay = if hangs {
            self.rng.below(5 * SECOND)
        } else {
            self.store_delay()
        };
        self.after(delay, Happening::Answer(index));
    }

    fn execute(&mut self, work: &Work) -> Answer {
        match &work.ask {
            Ask::Attach { wire, .. } => {
                let it = &self.wires[*wire];
                let held = it.held.map(|(_, mine)| mine);
                Answer::Attached(self.db.attach(it.device, held))
            }
            Ask::Load { wire, load } => {
                let user = self.wires[*wire].user;
                let events = self.db.events(user, load.after, load.limit);
                Answer::Page(self.db.log(user), events)
            }
            Ask::ReadHead { user } | Ask::Look { user } => Answer::Head(self.db.log(*user)),
            Ask::Heads { users, devices } => {
                let heads = users.iter().map(|user| (*user, self.db.log(*user)));
                let newest = |device: &usize| (*device, self.db.devices[*device].attach_epoch);
                Answer::Heads(heads.collect(), devices.iter().map(newest).collect())
            }
            Ask::Commit { user, count, size } => {
                let events = self.db.append(self.now, *user, *count, *size);
                self.stats.commits += u64::from(*count);
                let log = self.db.log(*user);
                self.note(|| format!("the log of {user} is {}", crate::frames::ends(&log)));
                Answer::Committed(log, events)
            }
            Ask::Ack { device, at } => Answer::Acked(self.db.cursor_ack(*device, *at)),
            Ask::Cursors { batch } => {
                let (superseded, moved) = self.db.cursors_advance(batch);
                for cursor in moved {
                    let (device, at) = (device_index(cursor.device), cursor.position);
                    let key = (cursor.device, cursor.attach_epoch, at.epoch);
                    // What this very attachment said, and nothing that another did.
                    let said = self.said.get(&key).copied().unwrap_or(0);
                    let newest = self.db.devices[device].attach_epoch;
                    let high = self.clients[device].high(at.epoch);
                    let verdict = invariants::cursor_is_true(device, at, said)
                        .and(invariants::cursor_is_true(device, at, high))
                        .and(invariants::cursor_is_current(cursor.attach_epoch, newest));
                    self.must(verdict, || format!("stored {cursor:?}"));
                }
                Answer::Stored(superseded)
            }
            Ask::Changes { device, after, .. } => {
                let user = self.clients[*device].user;
                Answer::Values(self.db.values(user, *after))
            }
            Ask::Reload { device, .. } => {
                let user = self.clients[*device].user;
                let end = self.db.end(user);
                Answer::Data(end, self.db.state_at(user, end).unwrap_or(0))
            }
            Ask::Token { .. } => Answer::Token(self.now + self.plan.setup.token_life),
        }
    }

    /// The database answers.
    pub fn answer(&mut self, index: usize) {
        let Some(work) = self.works[index].take() else {
            return;
        };
        let (node, life, asked_at) = (work.node, work.life, work.asked_at);
        let whom = match &work.ask {
            Ask::Attach { wire, .. } | Ask::Load { wire, .. } => Some(self.wires[*wire].user),
            Ask::ReadHead { user } | Ask::Look { user } | Ask::Commit { user, .. } => Some(*user),
            Ask::Ack { device, .. } => Some(self.clients[*device].user),
            _ => None,
        };
        // A node that crashed meanwhile answers nobody.
        if self.nodes[node].life != work.node_life {
            return self.unanswered(&work.ask);
        }
        if let Some(user) = whom
            && !self.session_hears(node, user, life, Happening::Answer(index))
        {
            let session = &self.nodes[node].sessions[user];
            if session.life == life && session.up {
                self.works[index] = Some(work);
            } else {
                self.unanswered(&work.ask);
            }
            return;
        }
        let Some(answer) = work.answer else { return };
        match (work.ask, answer) {
            (Ask::Attach { wire, since }, Answer::Attached(state)) => {
                self.attach_written(wire, since, asked_at, Some(state));
            }
            (Ask::Attach { wire, since }, _) => self.attach_written(wire, since, asked_at, None),
            (Ask::Load { wire, load }, Answer::Page(log, events)) => {
                self.page_read(wire, load, asked_at, Some((log, events)));
            }
            (Ask::Load { wire, load }, _) => self.page_read(wire, load, asked_at, None),
            (Ask::ReadHead { user }, Answer::Head(log)) => {
                self.head_read(node, user, asked_at, Some(log));
            }
            (Ask::ReadHead { user }, _) => self.head_read(node, user, asked_at, None),
            (Ask::Look { user }, Answer::Head(log)) => {
                let asked_at = self.instant(asked_at);
                let seen = Seen { log, asked_at };
                self.look_seen(node, user, seen);
            }
            (Ask::Commit { user, .. }, answer) => {
                if let Answer::Committed(log, events) = answer {
                    self.committed(node, user, asked_at, log, &events);
                }
                self.nodes[node].sessions[user].busy = false;
                self.next_command(node, user);
            }
            (Ask::Ack { device, at }, answer) => {
                self.clients[device].waits_for -= 1;
                if let Answer::Acked(ack) = answer {
                    self.acked_by_rest(node, device, at, ack);
                }
                let user = self.clients[device].user;
                self.nodes[node].sessions[user].busy = false;
                self.next_command(node, user);
            }
            (Ask::Heads { .. }, answer) => {
                self.nodes[node].watching = false;
                if let Answer::Heads(heads, devices) = answer {
                    self.heads_read(node, asked_at, heads, devices);
                }
            }
            (Ask::Cursors { batch }, answer) => {
                if self.nodes[node].keeper.life != life {
                    return;
                }
                self.nodes[node].keeper.flushing = false;
                match answer {
                    Answer::Stored(superseded) => {
                        for (device, attach_epoch) in superseded {
                            let user = self.db.devices[device_index(device)].user;
                            let mail = Mail::Attached(device, attach_epoch);
                            self.post(0, node, user, mail);
                        }
                    }
                    _ => {
                        self.nodes[node].keeper.put_back(batch);
                        self.look_at_keeper(node);
                    }
                }
            }
            (
                Ask::Changes {
                    device,
                    after,
                    quick,
                },
                answer,
            ) => {
                let values = match answer {
                    Answer::Values(values) => values,
                    _ => None,
                };
                self.changes_read(device, after, values, quick);
            }
            (Ask::Reload { device, serial }, Answer::Data(end, state)) => {
                self.reloaded(device, serial, Some((end, state)));
            }
            (Ask::Reload { device, serial }, _) => self.reloaded(device, serial, None),
            (Ask::Token { device, wire }, answer) => {
                let until = match answer {
                    Answer::Token(until) => Some(until),
                    _ => None,
                };
                self.token_renewed(device, wire, until);
            }
            _ => {}
        }
    }

    /// A client gets no answer, and asks again if it must.
    fn unanswered(&mut self, ask: &Ask) {
        match ask {
            Ask::Ack { device, .. } => self.clients[*device].waits_for -= 1,
            Ask::Changes { device, after, .. } => self.changes_read(*device, *after, None, false),
            Ask::Reload { device, serial } => self.reloaded(*device, *serial, None),
            Ask::Token { device, wire } => self.token_renewed(*device, *wire, None),
            _ => {}
        }
    }

    /// Stores what is pending, unless a batch is under way.
    pub fn flush(&mut self, node: usize) {
        let keeper = &mut self.nodes[node].keeper;
        if keeper.flushing {
            return;
        }
        let batch = keeper.take();
        if !batch.is_empty() {
            keeper.flushing = true;
            let life = keeper.life;
            self.ask(node, life, Ask::Cursors { batch });
        }
    }

    /// What waits to be stored is what the attachment that it names said.
    pub fn look_at_keeper(&mut self, node: usize) {
        let pending: Vec<Cursor> = self.nodes[node].keeper.pending().collect();
        for cursor in pending {
            let at = cursor.position;
            let key = (cursor.device, cursor.attach_epoch, at.epoch);
            let said = self.said.get(&key).copied().unwrap_or(0);
            let verdict = invariants::cursor_is_true(device_index(cursor.device), at, said);
            self.must(verdict, || format!("n{node} keeps {cursor:?}"));
        }
    }

    pub fn flush_period(&mut self, node: usize) {
        if self.nodes[node].up {
            self.flush(node);
        }
        self.after(Node::FLUSH, Happening::Flush(node));
    }

    /// Reads the heads of all users with a device here, and whether their devices attached elsewhere.
    pub fn watch(&mut self, node: usize, again: bool) {
        if again {
            let late = self.rng.below(50);
            self.after(self.plan.setup.watch + late, Happening::Watch(node, true));
        }
        let it = &self.nodes[node];
        if !it.up || it.watching {
            return;
        }
        let attached: Vec<usize> = it.sessions.iter().flat_map(|s| s.links.clone()).collect();
        if attached.is_empty() {
            return;
        }
        let users = it.sessions.iter().enumerate();
        let users = users.filter(|(_, s)| !s.links.is_empty()).map(|(u, _)| u);
        let users = users.collect();
        let devices = attached.iter().map(|w| self.wires[*w].device).collect();
        self.nodes[node].watching = true;
        self.ask(node, 0, Ask::Heads { users, devices });
    }

    fn heads_read(
        &mut self,
        node: usize,
        asked_at: Ms,
        heads: Vec<(usize, listen_stream::domain::sync::LogHead)>,
        devices: Vec<(usize, i64)>,
    ) {
        for (user, log) in heads {
            let mail = Mail::Head(log, asked_at);
            self.post(0, node, user, mail);
        }
        for (device, newest) in devices {
            let user = self.clients[device].user;
            let links = &self.nodes[node].sessions[user].links;
            let older = links.iter().any(|w| {
                let it = &self.wires[*w];
                it.device == device && it.held.is_some_and(|(_, mine)| mine < newest)
            });
            if older {
                let mail = Mail::Attached(device_id(device), newest);
                self.post(0, node, user, mail);
            }
        }
    }

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

    /// Looks for an ack by REST of a client whose position is given.
    pub fn rest_ack(&mut self, device: usize, node: usize, at: Position) {
        let user = self.clients[device].user;
        let session = &mut self.nodes[node].sessions[user];
        if session.up && session.commands.len() < 32 {
            self.clients[device].waits_for += 1;
            let command = crate::node::Command::Ack { device, at };
            session.commands.push_back(command);
            self.next_command(node, user);
        }
    }
}
