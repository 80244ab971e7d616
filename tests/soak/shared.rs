//! What all tasks of the soak know: whether things are broken on purpose, what was counted, what broke.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{NODES, balancer::Balancer};

/// The last steps that are kept, of the run and of each device.
pub const STEPS: usize = 40;

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What was counted.
        #[derive(Default)]
        pub struct Counts { $($(#[doc = $doc])+ pub $name: AtomicU64,)+ }

        impl Counts {
            /// Each with its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::SeqCst)),)+]
            }
        }
    };
}

counts! {
    /// Commands that were answered as done.
    acknowledged,
    /// Commands that were refused by their own rules (404, 409, 412), and changed nothing.
    refused,
    /// Tries that were told that nothing was changed (503).
    unchanged,
    /// Tries of which nobody knows.
    unsure,
    /// Tries of what had been tried before.
    repeated,
    /// Commands that were given up after a try that nobody knows of.
    unknown,
    /// Events that a device applied for the first time.
    delivered,
    /// Events that came again above the durable cursor.
    delivered_again,
    /// Sockets that were opened.
    connects,
    /// Those of them behind one that was lost.
    reconnects,
    /// Attempts to open a socket that failed.
    unopened,
    /// Sockets on which nothing was heard any more.
    fell_silent,
    /// `resync` with a reload.
    resyncs,
    /// Snapshots that devices loaded.
    snapshots,
    /// Playlists that devices fetched.
    fetches,
    /// Devices that lost all they had.
    forgot,
    /// Times in which a device was away.
    naps,
    /// Events of a service that it was told of.
    service_events,
}

/// See the module.
pub struct Shared {
    pub counts: Counts,
    started: Instant,
    steps: Mutex<VecDeque<String>>,
    broken: Mutex<Option<String>>,
    /// Nothing is broken on purpose, and all has recovered.
    quiet: AtomicBool,
    /// Writers begin nothing more.
    pub settling: AtomicBool,
    /// Heads of all logs after the last write: devices that have everything up to there are done.
    heads: Mutex<Option<HashMap<String, u64>>>,
    names: Mutex<HashMap<String, usize>>,
    /// For each device: the last event applied, and whether it wants to be connected.
    pub progress: Mutex<BTreeMap<(String, String), (u64, bool)>>,
    /// The last steps of each device.
    device_steps: Mutex<BTreeMap<(String, String), VecDeque<String>>>,
    pub public: Balancer,
    pub internal: Balancer,
}

impl Shared {
    pub fn new(public: Balancer, internal: Balancer) -> Self {
        Self {
            counts: Counts::default(),
            started: Instant::now(),
            steps: Mutex::default(),
            broken: Mutex::default(),
            quiet: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            heads: Mutex::default(),
            names: Mutex::default(),
            progress: Mutex::default(),
            device_steps: Mutex::default(),
            public,
            internal,
        }
    }

    /// Time since the start, as it is printed.
    pub fn at(&self) -> String {
        format!("{:7.2}", self.started.elapsed().as_secs_f64())
    }

    pub fn step(&self, what: &str) {
        let line = format!("{} {what}", self.at());
        println!("{line}");
        let mut steps = self.steps.lock().unwrap();
        steps.push_back(line);
        if steps.len() > STEPS {
            steps.pop_front();
        }
    }

    /// A step of a user's device.
    pub fn device_step(&self, user: &str, device: &str, what: &str) {
        let key = (user.to_owned(), device.to_owned());
        let mut all = self.device_steps.lock().unwrap();
        let steps = all.entry(key).or_default();
        steps.push_back(format!("{} {what}", self.at()));
        if steps.len() > STEPS {
            steps.pop_front();
        }
    }

    pub fn steps_of(&self, user: &str, device: &str) -> VecDeque<String> {
        let key = (user.to_owned(), device.to_owned());
        let all = self.device_steps.lock().unwrap();
        all.get(&key).cloned().unwrap_or_default()
    }

    /// Something that may never be. The first one counts.
    pub fn violated(&self, what: &str, own_steps: &VecDeque<String>) {
        let steps = self.steps.lock().unwrap().clone();
        let lines = |steps: &VecDeque<String>| {
            let steps = steps.iter().flat_map(|it| ["\n  ", it]);
            steps.collect::<String>()
        };
        let text = format!(
            "{} {what}\nthe last steps of the run:{}\nits own last steps:{}",
            self.at(),
            lines(&steps),
            lines(own_steps)
        );
        self.broken.lock().unwrap().get_or_insert(text);
    }

    pub fn broken(&self) -> Option<String> {
        self.broken.lock().unwrap().clone()
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst)
    }

    pub fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::SeqCst);
    }

    pub fn is_settling(&self) -> bool {
        self.settling.load(Ordering::SeqCst)
    }

    pub fn finish(&self, heads: HashMap<String, u64>) {
        *self.heads.lock().unwrap() = Some(heads);
    }

    /// The last event that there will be of this user, once that is known.
    pub fn last_of(&self, user: &str) -> Option<u64> {
        self.heads.lock().unwrap().as_ref().map(|it| it[user])
    }

    pub fn name(&self, name: String, node: usize) {
        assert!(node < NODES);
        self.names.lock().unwrap().insert(name, node);
    }

    /// Which node has this name.
    pub fn node(&self, name: &str) -> Option<usize> {
        self.names.lock().unwrap().get(name).copied()
    }
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// Waits a moment, and longer with each turn.
#[derive(Default)]
pub struct Backoff(u32);

impl Backoff {
    pub async fn wait(&mut self) {
        let millis = 50_u64 << self.0.min(5);
        self.0 += 1;
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    pub const fn reset(&mut self) {
        self.0 = 0;
    }
}
