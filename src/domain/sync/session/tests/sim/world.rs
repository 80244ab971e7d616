//! The server around the session core, and the network.

mod clients;
mod db;

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::{
    super::*,
    Op,
    client::{Client, Down, Up},
};
pub use db::Db;

/// Work of the session that is under way: what was read, once it was.
#[derive(Debug)]
enum Work {
    Attach {
        wire: usize,
        /// Where the client had said it is when the connection asked.
        since: Option<Position>,
        read: Option<(i64, LogHead)>,
    },
    Load(ConnId, Load, Option<(LogHead, Vec<WireEvent>)>),
    ReadHead(Option<LogHead>),
}

/// A connection, as the server has it.
#[derive(Debug)]
struct Wire {
    device: usize,
    down: VecDeque<Down>,
    up: VecDeque<Up>,
    /// Where the client last said it is.
    position: Option<Position>,
    /// The client is there.
    client: bool,
    /// The server has not closed it.
    server: bool,
    attached: bool,
    /// The epoch that its client knows, once it was attached.
    told: Option<Epoch>,
    /// Nothing up to here may be sent.
    above: i64,
}

pub struct World {
    core: SessionCore,
    window: u32,
    calm: bool,
    db: Db,
    clients: Vec<Client>,
    wires: Vec<Wire>,
    work: Vec<Work>,
    /// What was stored by this session's commands, which it does not know yet.
    announces: VecDeque<(LogHead, Vec<WireEvent>)>,
    /// Heads on their way from other nodes and from batch checks.
    hints: Vec<LogHead>,
    retry: bool,
    /// Cursors that the keeper has not flushed, with the epoch they belong to.
    pending: BTreeMap<DeviceId, (Epoch, i64)>,
}

fn id(index: usize) -> u128 {
    u128::try_from(index).unwrap() + 1
}

fn index(id: Uuid) -> usize {
    usize::try_from(id.as_u128()).unwrap() - 1
}

impl World {
    pub fn new(devices: u8, window: u32, calamities: bool) -> Self {
        Self {
            core: core(window),
            window,
            calm: !calamities,
            db: Db::new((0..devices).map(|d| device(id(d.into())))),
            clients: (0..devices).map(|_| Client::new(epoch(1))).collect(),
            wires: Vec::new(),
            work: Vec::new(),
            announces: VecDeque::new(),
            hints: Vec::new(),
            retry: false,
            pending: BTreeMap::new(),
        }
    }

    pub fn step(&mut self, op: &Op) {
        let pick = |n: u8, len: usize| usize::from(n) % len.max(1);
        let who = |n: u8| pick(n, self.clients.len());
        match *op {
            Op::Commit(n) => {
                let events = self.db.append(n);
                self.announces.push_back((self.db.log(), events));
            }
            Op::Announce => self.announce(),
            Op::CommitElsewhere(n, lost) => {
                self.db.append(n);
                if !lost {
                    self.hints.push(self.db.log());
                }
            }
            Op::Check => self.hints.push(self.db.log()),
            Op::Work(n) => {
                let all = self.work.len() + self.hints.len();
                let at = pick(n, all);
                if at < self.work.len() {
                    self.work(at);
                } else if at < all {
                    let hint = self.hints.swap_remove(at - self.work.len());
                    self.hint(hint);
                }
            }
            Op::Fail(n) if !self.work.is_empty() => self.fail(pick(n, self.work.len())),
            Op::Take(n, count) => {
                let who = who(n);
                (0..count).for_each(|_| self.take(who));
            }
            Op::Hear(n, count) if !self.wires.is_empty() => {
                // Mostly the newest connections have something to say.
                let wire = self.wires.len() - 1 - pick(n, self.wires.len().min(4));
                (0..count).for_each(|_| self.hear(wire));
            }
            Op::Fail(_) | Op::Hear(..) => {}
            Op::Ack(n) => self.ack(who(n), |it| it.applied),
            Op::AckOlder(n, back) => {
                self.ack(who(n), |it| (it.applied - i64::from(back % 8)).max(0));
            }
            Op::AckBeyond(n, by) => self.ack_beyond(who(n), i64::from(by) + 1_000_000),
            Op::ReadRest(n) => self.read_rest(who(n)),
            Op::AckRest(n) => self.ack_rest(who(n)),
            Op::Disconnect(n, heard) => self.disconnect(who(n), heard),
            Op::Connect(n, named) => self.connect(who(n), named),
            Op::Forget(n, back) => self.forget(who(n), back),
            Op::Flush => self.flush(),
            Op::Crash(both) => {
                if both {
                    self.pending.clear();
                }
                self.crash();
            }
            Op::Retry => self.retry(),
            Op::Trim(n) => {
                let to = i64::from(n) % (self.db.head() + 1);
                self.db.floor = self.db.floor.max(to);
            }
            Op::Restore(back) => self.db.restore(back),
        }
    }

    /// What holds at any moment.
    pub fn check(&self) {
        for (device, delivery) in self.core.devices() {
            let flight = delivery.sent() - delivery.acked();
            assert!(
                flight <= i64::from(self.window),
                "{flight} in flight to {device}"
            );
        }
        for wire in self.wires.iter().enumerate().map(|(i, _)| conn(id(i))) {
            let reads = |w: &&Work| matches!(w, Work::Load(c, ..) if *c == wire);
            assert!(
                self.work.iter().filter(reads).count() <= 1,
                "two reads for {wire}"
            );
        }
        let heads = |w: &&Work| matches!(w, Work::ReadHead(_));
        assert!(
            self.work.iter().filter(heads).count() <= 1,
            "two reads of the head"
        );
        for (at, client) in self.clients.iter().enumerate() {
            assert_eq!(
                client.state,
                self.db.state_at(client.epoch, client.applied),
                "client {at} differs from the log at {}",
                client.applied
            );
            if client.epoch == self.db.epoch {
                let cursor = self.db.cursors[&device(id(at))];
                assert!(
                    cursor <= client.high,
                    "cursor {cursor}, applied {}",
                    client.high
                );
            }
        }
    }

    /// Nothing new happens; what is under way ends well.
    pub fn settle(&mut self) {
        for _ in 0..2000 {
            self.check();
            if !self.progress() {
                break;
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            assert_eq!(client.position(), self.db.end(), "client {at} is behind");
            assert_eq!(
                self.db.cursors[&device(id(at))],
                self.db.head(),
                "cursor of {at}"
            );
        }
        for (device, delivery) in self.core.devices() {
            assert_eq!(delivery.acked(), self.db.head(), "{device}");
            assert!(!delivery.is_quiet());
        }
    }

    fn progress(&mut self) -> bool {
        for who in 0..self.clients.len() {
            self.connect(who, true);
        }
        while !self.announces.is_empty() {
            self.announce();
        }
        self.hints.push(self.db.log());
        for hint in std::mem::take(&mut self.hints) {
            self.hint(hint);
        }
        self.retry();
        while !self.work.is_empty() {
            (0..self.work.len()).rev().for_each(|at| self.work(at));
        }
        for who in 0..self.clients.len() {
            while self.clients[who]
                .conn
                .is_some_and(|c| !self.wires[c].down.is_empty())
            {
                self.take(who);
            }
            self.ack(who, |it| it.applied);
        }
        for wire in 0..self.wires.len() {
            while !self.wires[wire].up.is_empty() {
                self.hear(wire);
            }
        }
        self.flush();
        let behind = |(at, c): (usize, &Client)| {
            c.conn.is_none()
                || c.position() != self.db.end()
                || self.db.cursors[&device(id(at))] != c.applied
        };
        !self.work.is_empty()
            || self.wires.iter().any(|w| w.client && !w.down.is_empty())
            || self.clients.iter().enumerate().any(behind)
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(conn, texts) => {
                    for text in texts {
                        self.send(index(conn.0), &text);
                    }
                }
                Effect::Close(conn, code) => {
                    let wire = &mut self.wires[index(conn.0)];
                    (wire.server, wire.attached) = (false, false);
                    wire.down.push_back(Down::Close(code));
                }
                Effect::Load(conn, load) => self.work.push(Work::Load(conn, load, None)),
                Effect::ReadHead => self.work.push(Work::ReadHead(None)),
                Effect::Acked(device, seq) => {
                    let epoch = self.core.log().unwrap().epoch;
                    let kept = self.pending.entry(device).or_insert((epoch, seq));
                    *kept = if kept.0 == epoch {
                        (epoch, kept.1.max(seq))
                    } else {
                        (epoch, seq)
                    };
                }
                Effect::Ping(_) | Effect::Detached(_) => {}
            }
        }
    }

    fn send(&mut self, at: usize, text: &str) {
        let wire = &mut self.wires[at];
        assert!(wire.server, "a frame for a connection that was closed");
        let frame = match serde_json::from_str::<Value>(text) {
            Ok(frame) if frame.is_object() => {
                let epoch = || frame["epoch"].as_str().unwrap().parse().unwrap();
                match frame["type"].as_str().unwrap() {
                    "welcome" => Down::Welcome {
                        epoch: epoch(),
                        acked: frame["acked_seq"].as_i64().unwrap(),
                    },
                    "resync" => {
                        // From here on the client's next ack says what it has.
                        wire.above = 0;
                        Down::Resync(epoch())
                    }
                    "error" => Down::Error {
                        code: frame["code"].as_str().unwrap().to_owned(),
                        bogus: frame["ref"] == "bogus",
                    },
                    other => panic!("{other}"),
                }
            }
            _ => {
                let mut parts = text.split(' ');
                let mut next = || parts.next().unwrap();
                let epoch = epoch(next().parse().unwrap());
                let seq = next().parse().unwrap();
                let value = next().parse().unwrap();
                assert!(
                    seq > wire.above,
                    "{seq} is sent again, after {}",
                    wire.above
                );
                wire.above = seq;
                Down::Event { epoch, seq, value }
            }
        };
        if wire.client {
            wire.down.push_back(frame);
        }
    }

    fn announce(&mut self) {
        if let Some((log, events)) = self.announces.pop_front()
            && self.core.attached() > 0
        {
            let effects = self.core.committed(log, &events);
            self.apply(effects);
        }
    }

    fn hint(&mut self, log: LogHead) {
        if self.core.attached() > 0 {
            let effects = self.core.head_seen(log);
            self.apply(effects);
        }
    }

    fn retry(&mut self) {
        if std::mem::take(&mut self.retry) {
            let effects = self.core.retry();
            self.apply(effects);
        }
    }

    /// Reads what the work at `at` asks for, or answers it if that was done.
    fn work(&mut self, at: usize) {
        if at >= self.work.len() {
            return;
        }
        if let Work::Attach {
            wire,
            read: Some(_),
            ..
        } = self.work[at]
            && self.older_attach(at, wire)
        {
            return;
        }
        match &mut self.work[at] {
            Work::Attach {
                wire,
                read: read @ None,
                ..
            } => {
                let device = device(id(self.wires[*wire].device));
                *read = Some((self.db.cursors[&device], self.db.log()));
            }
            Work::Load(_, load, read @ None) => {
                *read = Some((self.db.log(), self.db.events(load.after, load.limit)));
            }
            Work::ReadHead(read @ None) => *read = Some(self.db.log()),
            _ => match self.work.swap_remove(at) {
                Work::Attach {
                    wire,
                    since,
                    read: Some((cursor, log)),
                } => self.attached(wire, since, cursor, log),
                Work::Load(conn, load, Some((log, events))) => {
                    let mut effects = self.core.head_seen(log);
                    effects.extend(self.core.loaded(conn, load.after, &events));
                    self.apply(effects);
                }
                Work::ReadHead(Some(log)) => {
                    let effects = self.core.head_read(log);
                    self.apply(effects);
                }
                other => unreachable!("{other:?}"),
            },
        }
    }

    /// Connections of a device attach in the order in which they came.
    fn older_attach(&self, at: usize, wire: usize) -> bool {
        let device = self.wires[wire].device;
        self.work.iter().enumerate().any(|(i, w)| {
            matches!(w, Work::Attach { wire: other, .. }
                if i != at && *other < wire && self.wires[*other].device == device)
        })
    }

    fn fail(&mut self, at: usize) {
        match self.work.swap_remove(at) {
            Work::Attach { wire, .. } => {
                self.wires[wire].server = false;
                self.wires[wire]
                    .down
                    .push_back(Down::Close(CloseCode::TryAgainLater));
            }
            Work::Load(conn, ..) => {
                self.core.load_failed(conn);
                self.retry = true;
            }
            Work::ReadHead(_) => {
                let effects = self.core.head_failed();
                self.apply(effects);
            }
        }
    }

    fn attached(&mut self, at: usize, since: Option<Position>, cursor: i64, log: LogHead) {
        let wire = &mut self.wires[at];
        if !wire.server {
            return;
        }
        wire.attached = true;
        wire.above = since.map_or(cursor, |p| p.seq);
        let now = start();
        let it = Attachment {
            conn: conn(id(at)),
            since,
            resumed: wire.told,
            ..attachment(id(wire.device), cursor, None, now)
        };
        let effects = self.core.attach(now, it, log);
        self.wires[at].told = self.core.log().map(|log| log.epoch);
        self.apply(effects);
    }

    /// A new life of the session: the connections attach again.
    fn crash(&mut self) {
        self.core = core(self.window);
        self.work.clear();
        self.announces.clear();
        self.retry = false;
        for (at, wire) in self.wires.iter_mut().enumerate() {
            wire.attached = false;
            if wire.server {
                self.work.push(Work::Attach {
                    wire: at,
                    since: wire.position,
                    read: None,
                });
            }
        }
    }

    fn flush(&mut self) {
        for (device, (epoch, seq)) in std::mem::take(&mut self.pending) {
            if epoch == self.db.epoch {
                let cursor = self.db.cursors.get_mut(&device).unwrap();
                *cursor = (*cursor).max(seq);
            }
        }
    }

    /// The server takes a frame.
    fn hear(&mut self, at: usize) {
        let wire = &mut self.wires[at];
        let Some(frame) = wire.up.pop_front() else {
            return;
        };
        let conn = conn(id(at));
        let effects = match frame {
            Up::End => {
                (wire.server, wire.attached) = (false, false);
                self.work
                    .retain(|w| !matches!(w, Work::Attach { wire, .. } if *wire == at));
                self.core.detached(conn)
            }
            Up::Ack { at, bogus } => {
                if !bogus && wire.server {
                    wire.position = Some(at);
                    wire.told = wire.told.and(Some(at.epoch));
                }
                let reference = bogus.then(|| Ref::Text("bogus".into()));
                self.core
                    .frame(start(), conn, ClientFrame::Ack(at, reference))
            }
        };
        self.apply(effects);
    }
}
