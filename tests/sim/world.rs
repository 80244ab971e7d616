//! The world of one schedule: two nodes, a database, clients, and what happens next.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use listen_stream::domain::{
    clock::World as Machine,
    ids::{DeviceId, Epoch},
    sync::{Retention, SessionConfig, Window},
};

use crate::{
    client::Client,
    db::{self, Db},
    frames::Down,
    happening::{Happening, Timer, Work},
    invariants::{Limits, Verdict},
    node::{Command, Mail, Node},
    plan::{Fault, Plan, Setup},
    queue::{Ms, Nanos, Queue, SECOND},
    rng::Rng,
    stats::Stats,
    wire::Wire,
};

/// Why a schedule failed.
#[derive(Debug, Clone)]
pub struct Failure {
    pub what: String,
    pub trace: Vec<String>,
}

pub struct World {
    pub now: Ms,
    base: Instant,
    pub queue: Queue<Happening>,
    pub rng: Rng,
    pub plan: Plan,
    pub config: Vec<SessionConfig>,
    pub rule: Retention,
    pub db: Db,
    pub nodes: Vec<Node>,
    pub wires: Vec<Wire>,
    pub clients: Vec<Client>,
    pub works: Vec<Option<Work>>,
    pub store_down_until: Ms,
    pub store_slow_until: Ms,
    pub hints_lost_until: Ms,
    /// Faults have stopped.
    pub calm: bool,
    /// What each attachment of a device acknowledged, by life of the log.
    pub said: BTreeMap<(DeviceId, i64, Epoch), i64>,
    pub stats: Stats,
    trace: Option<VecDeque<String>>,
    /// Steps that the end of a trace has.
    traced: usize,
    wrong: Option<String>,
    done: bool,
}

impl World {
    /// When faults have stopped, everyone is where they should be within so long.
    const SETTLED_WITHIN: Ms = 420 * SECOND;
    /// A schedule that takes more steps goes round in circles.
    const STEPS: u64 = 60_000;

    /// Runs a plan; says how it went, or what was wrong.
    pub fn run(plan: &Plan, traced: usize) -> Result<Stats, Failure> {
        let mut world = Self::new(plan.clone(), traced);
        while let (None, false, Some((at, it))) = (&world.wrong, world.done, world.queue.pop()) {
            world.now = at;
            world.stats.steps += 1;
            if world.stats.steps > Self::STEPS {
                world.wrong("it goes round in circles".into());
                break;
            }
            world.happen(it);
        }
        world.stats.virtual_ms += world.now;
        match world.wrong {
            None => Ok(world.stats),
            Some(what) => Err(Failure {
                what,
                trace: world.trace.unwrap_or_default().into(),
            }),
        }
    }

    fn new(plan: Plan, traced: usize) -> Self {
        let mut rng = Rng::new(plan.seed);
        let setup = &plan.setup;
        let older: Vec<(i64, i64)> = setup
            .users
            .iter()
            .map(|_| {
                let head = i64::try_from(rng.below(12)).unwrap_or(0);
                let gone = i64::try_from(rng.below(6)).unwrap_or(0);
                let trimmed = rng.chance(30) && setup.has(Fault::Trim);
                (head, (head - gone).clamp(0, head) * i64::from(trimmed))
            })
            .collect();
        let mut db = Db::new(&setup.users, &older, setup.real_wire);
        for row in &mut db.devices {
            let (head, floor) = older[row.user];
            let behind = i64::try_from(rng.below(4)).unwrap_or(0);
            row.acked = (head - behind).max(floor);
        }
        let rule = db::retention(
            [4, 12, 40][rng.index(3)],
            [0, 1, 4][rng.index(3)],
            [2, 20, 100][rng.index(3)] * SECOND,
            [0, 1, 10][rng.index(3)] * SECOND,
        );
        let config: Vec<_> = (0..2).map(|node| config(setup, node)).collect();
        let nodes = config
            .iter()
            .map(|config| Node::new(setup.users.len(), config))
            .collect();
        let clients = (0..setup.devices())
            .map(|device| Client::new(db.devices[device].user, &db))
            .collect();
        let mut world = Self {
            now: 0,
            base: Machine::system().instant(),
            queue: Queue::new(),
            rng,
            config,
            rule,
            db,
            nodes,
            wires: Vec::new(),
            clients,
            works: Vec::new(),
            store_down_until: 0,
            store_slow_until: 0,
            hints_lost_until: 0,
            calm: false,
            said: BTreeMap::new(),
            stats: Stats::default(),
            trace: (traced > 0).then(VecDeque::new),
            traced,
            wrong: None,
            done: false,
            plan,
        };
        world.stats.schedules = 1;
        for index in world.plan.kept() {
            let (at, _) = world.plan.ops[index];
            world.push(at, Happening::Op(index));
        }
        for device in 0..world.clients.len() {
            let at = world.rng.below(2 * SECOND);
            world.push(at, Happening::Client(device, Timer::Connect(0)));
        }
        for node in 0..2 {
            world.start_timers(node);
        }
        world.push(world.plan.setup.horizon, Happening::Calm);
        world
    }

    pub fn start_timers(&mut self, node: usize) {
        let first = self.rng.below(SECOND);
        self.push(self.now + first, Happening::Flush(node));
        self.push(self.now + first, Happening::Watch(node, true));
    }

    pub fn push(&mut self, at: Ms, it: Happening) {
        self.queue.push(at, it, &mut self.rng);
    }

    pub fn after(&mut self, delay: Ms, it: Happening) {
        self.push(self.now + delay, it);
    }

    /// The present moment: later than that of the step before, also within a millisecond.
    pub const fn nanos(&self) -> Nanos {
        self.now * 1_000_000 + self.stats.steps
    }

    pub fn moment(&self, at: Nanos) -> Instant {
        self.base + Duration::from_nanos(at)
    }

    pub fn instant(&self, at: Ms) -> Instant {
        self.base + Duration::from_millis(at)
    }

    /// The virtual time of an instant; the next one, where it is in between.
    pub fn time(&self, at: Instant) -> Ms {
        let nanos = at.saturating_duration_since(self.base).as_nanos();
        Ms::try_from(nanos.div_ceil(1_000_000)).unwrap_or(Ms::MAX)
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.plan.setup.has(fault)
    }

    pub const fn window(&self) -> Window {
        self.plan.setup.window
    }

    pub const fn limits(&self) -> Limits {
        Limits {
            silence: self.plan.setup.heartbeat_timeout,
            progress: self.plan.setup.progress_timeout,
        }
    }

    /// Something is not as it must be: the schedule ends here.
    pub fn wrong(&mut self, what: String) {
        self.note(|| format!("WRONG {what}"));
        self.wrong.get_or_insert(what);
    }

    pub const fn is_wrong(&self) -> bool {
        self.wrong.is_some()
    }

    /// Takes a verdict; where it is asked of whom is added.
    pub fn must(&mut self, verdict: Verdict, who: impl FnOnce() -> String) {
        if let Err(what) = verdict {
            let who = who();
            self.wrong(format!("{who}: {what}"));
        }
    }

    /// Adds a line to the trace, if there is one.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == self.traced {
                trace.pop_front();
            }
            let (secs, ms) = (self.now / SECOND, self.now % SECOND);
            trace.push_back(format!("{secs:4}.{ms:03}  {}", line()));
        }
    }

    fn happen(&mut self, it: Happening) {
        match it {
            Happening::Op(index) => self.op(index),
            Happening::Run(work) => self.run_work(work),
            Happening::Answer(work) => self.answer(work),
            Happening::Arrive(wire) => self.arrive(wire),
            Happening::Take(wire) => self.take(wire),
            Happening::Hear(wire) => self.hear(wire),
            Happening::Orphan(wire, life) => self.orphan(wire, life),
            Happening::Tick {
                node,
                user,
                timer,
                due,
            } => self.tick(node, user, timer, due),
            Happening::Retry { node, user, life } => self.retry(node, user, life),
            Happening::SessionUp { node, user, life } => self.session_up(node, user, life),
            Happening::NodeUp(node) => self.node_up(node),
            Happening::Restore if self.calm => {}
            Happening::Restore => self.restore(false),
            Happening::Flush(node) => self.flush_period(node),
            Happening::Watch(node, again) => self.watch(node, again),
            Happening::Command { node, user } => {
                let (count, size) = (1, 0);
                self.command(node, user, Command::Commit { count, size });
            }
            Happening::Mail {
                node,
                node_life,
                user,
                mail,
            } if self.nodes[node].life == node_life => self.mail(node, user, mail),
            Happening::Mail { .. } => {}
            Happening::Client(device, timer) => self.client_timer(device, timer),
            Happening::Calm => self.calm_down(),
            Happening::Settled => self.look_whether_settled(),
        }
    }

    /// Faults stop: what is down comes up, clients behave.
    fn calm_down(&mut self) {
        self.note(|| "faults stop".into());
        self.calm = true;
        for until in [
            &mut self.store_down_until,
            &mut self.store_slow_until,
            &mut self.hints_lost_until,
        ] {
            *until = (*until).min(self.now);
        }
        for device in 0..self.clients.len() {
            let (now, client) = (self.now, &mut self.clients[device]);
            let paused = client.misbehaved_at() > now;
            client.paused_until = client.paused_until.min(now);
            client.muted_until = client.muted_until.min(now);
            client.silent_until = client.silent_until.min(now);
            client.expires = false;
            if paused {
                self.push(now, Happening::Client(device, Timer::Resume));
            }
        }
        for node in 0..2 {
            if !self.nodes[node].up || self.nodes[node].draining {
                self.after(SECOND, Happening::NodeUp(node));
            }
        }
        self.after(SECOND, Happening::Settled);
    }

    fn look_whether_settled(&mut self) {
        match self.unsettled() {
            None => {
                let taken = self.now - self.plan.setup.horizon;
                self.stats.longest_settling = self.stats.longest_settling.max(taken);
                self.done = true;
            }
            Some(who) if self.now > self.plan.setup.horizon + Self::SETTLED_WITHIN => {
                self.wrong(format!("faults stopped long ago, and {who}"));
            }
            Some(_) => self.after(SECOND, Happening::Settled),
        }
    }

    /// Somebody who is not yet where they should be when nothing bad happens any more.
    fn unsettled(&self) -> Option<String> {
        for (device, client) in self.clients.iter().enumerate() {
            let end = self.db.end(client.user);
            if client.position() != end || client.resync.is_some() {
                let at = client.position();
                return Some(format!(
                    "client {device} is at {at:?}, and the log at {end:?}"
                ));
            }
            let acked = self.db.devices[device].acked;
            // What a keeper loses is told again with the next event only.
            if acked != end.seq && self.stats.keeper_crashes == 0 {
                return Some(format!(
                    "the cursor of {device} is {acked}, the head {}",
                    end.seq
                ));
            }
            let attached = client.wire.is_some_and(|w| self.wires[w].attached);
            if !attached {
                return Some(format!("client {device} is not attached"));
            }
            if self.has(Fault::Side) {
                let all = self.clients.iter().enumerate();
                let all = all.filter(|(_, c)| c.user == client.user).map(|(d, _)| d);
                let all: Vec<usize> = all.collect();
                if client.present != all {
                    let told = &client.present;
                    return Some(format!(
                        "{device} was told that {told:?} are there, not {all:?}"
                    ));
                }
            }
        }
        let kept = self.nodes.iter().any(|n| !n.keeper.is_empty());
        kept.then(|| "cursors are not stored".into())
    }

    /// A delay of at most `most`, mostly short.
    pub fn delay(&mut self, most: Ms) -> Ms {
        if self.rng.chance(70) {
            self.rng.below(most / 8 + 2)
        } else {
            self.rng.below(most + 1)
        }
    }

    /// Sends a message to a session.
    pub fn post(&mut self, delay: Ms, node: usize, user: usize, mail: Mail) {
        let node_life = self.nodes[node].life;
        self.after(
            delay,
            Happening::Mail {
                node,
                node_life,
                user,
                mail,
            },
        );
    }

    /// Sends something down a connection.
    pub fn push_down(&mut self, wire: usize, down: Down) {
        let delay = self.delay(self.plan.setup.latency);
        let it = &mut self.wires[wire];
        let last = it.down.back().map_or(0, |(at, _)| *at);
        it.down.push_back(((self.now + delay).max(last), down));
        self.take_later(wire);
    }
}

fn config(setup: &Setup, node: usize) -> SessionConfig {
    SessionConfig {
        node: node_name(node),
        window: setup.window,
        heartbeat: Duration::from_millis(setup.heartbeat),
        heartbeat_timeout: Duration::from_millis(setup.heartbeat_timeout),
        progress_timeout: Duration::from_millis(setup.progress_timeout),
        signals_per_second: 20,
        side_frames: setup.side_frames,
    }
}

pub fn node_name(node: usize) -> String {
    format!("n{node}")
}
