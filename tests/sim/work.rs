//! What is asked of the database: run at one moment, answered at another, or not at all. And those on a
//! node who ask by the clock: the keeper of cursors, the watcher of heads.

use listen_stream::domain::sync::Seen;

use crate::{
    db::device_index,
    happening::{Answer, Ask, Happening, Work},
    invariants,
    node::Mail,
    plan::Fault,
    queue::{Ms, Nanos, SECOND},
    world::World,
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
            asked_at: self.nanos(),
            ask,
            answer: None,
        }));
        let delay = self.store_delay();
        self.push(at + delay, Happening::Run(work));
    }

    pub fn store_delay(&mut self) -> Ms {
        let slow = self.store_slow_until > self.now;
        self.delay(if slow { 2500 } else { self.plan.setup.store })
    }

    /// Whether the database fails what is asked of it now.
    pub fn store_fails(&mut self) -> bool {
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

    pub fn execute(&mut self, work: &Work) -> Answer {
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
                let devices = devices.iter().map(|&(device, held)| {
                    let newest = self.db.devices[device].attach_epoch;
                    (device, held, newest)
                });
                Answer::Heads(heads.collect(), devices.collect())
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
        match (work.ask, work.answer) {
            (_, None) => {}
            (ask, Some(answer)) if whom.is_some() => {
                self.session_answered(node, asked_at, ask, answer);
            }
            (ask @ (Ask::Heads { .. } | Ask::Cursors { .. }), Some(answer)) => {
                self.node_answered(node, life, asked_at, ask, answer);
            }
            (ask, Some(answer)) => self.client_answered(ask, answer),
        }
    }

    /// A session hears what it asked for.
    pub fn session_answered(&mut self, node: usize, asked_at: Nanos, ask: Ask, answer: Answer) {
        match (ask, answer) {
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
                let asked_at = self.moment(asked_at);
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
            _ => {}
        }
    }

    /// The watcher of heads or the keeper of cursors hears what it asked for.
    pub fn node_answered(
        &mut self,
        node: usize,
        life: u32,
        asked_at: Nanos,
        ask: Ask,
        answer: Answer,
    ) {
        match (ask, answer) {
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
                let Answer::Stored(superseded) = answer else {
                    self.nodes[node].keeper.put_back(batch);
                    return self.look_at_keeper(node);
                };
                for (device, attach_epoch) in superseded {
                    let user = self.db.devices[device_index(device)].user;
                    let mail = Mail::Attached(device, attach_epoch);
                    self.post(0, node, user, mail);
                }
            }
            _ => {}
        }
    }

    /// A client hears what it asked for.
    pub fn client_answered(&mut self, ask: Ask, answer: Answer) {
        match (ask, answer) {
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
    pub fn unanswered(&mut self, ask: &Ask) {
        match ask {
            Ask::Ack { device, .. } => self.clients[*device].waits_for -= 1,
            Ask::Changes { device, after, .. } => self.changes_read(*device, *after, None, false),
            Ask::Reload { device, serial } => self.reloaded(*device, *serial, None),
            Ask::Token { device, wire } => self.token_renewed(*device, *wire, None),
            _ => {}
        }
    }
}
