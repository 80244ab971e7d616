//! What a seed stands for: how the world is made, and what is done to it when.
//!
//! The steps of a plan choose among what there is by number, so that any of them can be left out and the
//! rest still mean something: that is how a failing plan is made smaller.

use listen_stream::domain::sync::{FloodLimit, Window};

use crate::{
    queue::{Ms, SECOND},
    rng::Rng,
};

/// Kinds of trouble; a plan has some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// Hints of other nodes get lost, come twice, late, in another order.
    Hints = 1,
    /// Answers of the store fail, or come late.
    Store = 1 << 1,
    /// Sessions crash.
    Sessions = 1 << 2,
    /// The keeper of cursors crashes, with those that are not stored.
    Keepers = 1 << 3,
    /// Nodes crash, or go away politely.
    Nodes = 1 << 4,
    /// Sessions are kept from running for a while.
    Stalls = 1 << 5,
    /// Connections break, noticed or not; clients come back while the old one still stands.
    Network = 1 << 6,
    /// Clients take nothing for a while.
    Slow = 1 << 7,
    /// Clients do not ack, do not answer, or say what is not so.
    Manners = 1 << 8,
    /// Access tokens end.
    Tokens = 1 << 9,
    /// Clients come back with less than they had.
    Forget = 1 << 10,
    /// Clients read and ack by REST beside the socket.
    Rest = 1 << 11,
    /// The log is trimmed.
    Trim = 1 << 12,
    /// The database comes back in an older state.
    Restore = 1 << 13,
    /// Signals.
    Side = 1 << 14,
}

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It closes, and what it said before still arrives.
    Heard,
    /// The server notices that it is gone, and hears nothing of what it said last.
    Cut,
    /// Nobody notices: the server's end stays.
    HalfOpen,
}

/// Acks that a client should not send, or need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OddAck {
    /// Of something older.
    Older(u8),
    /// Twice the same.
    Twice,
    /// Of something that nobody has seen.
    Beyond(u8),
    /// Of an epoch that never was.
    Foreign,
}

/// Something that is done to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Commit {
        user: usize,
        node: usize,
        count: u8,
        size: u16,
    },
    RestRead {
        device: usize,
        node: usize,
        times: u8,
    },
    RestAck {
        device: usize,
        node: usize,
        back: u8,
    },
    Race {
        device: usize,
    },
    Ack {
        device: usize,
        how: OddAck,
    },
    Leave {
        device: usize,
        how: Leave,
    },
    Switch {
        device: usize,
    },
    Forget {
        device: usize,
        back: u8,
    },
    Pause {
        device: usize,
        ms: Ms,
    },
    Mute {
        device: usize,
        ms: Ms,
    },
    Silent {
        device: usize,
        ms: Ms,
    },
    Expire {
        device: usize,
    },
    Signal {
        device: usize,
        count: u8,
    },
    CrashSession {
        node: usize,
        user: usize,
        ms: Ms,
    },
    Stall {
        node: usize,
        user: usize,
        ms: Ms,
    },
    CrashKeeper {
        node: usize,
    },
    CrashNode {
        node: usize,
        ms: Ms,
        heard: bool,
    },
    Drain {
        node: usize,
        ms: Ms,
    },
    StoreDown {
        ms: Ms,
    },
    StoreSlow {
        ms: Ms,
    },
    HintsLost {
        ms: Ms,
    },
    Trim,
    Backup,
    Restore {
        offline: bool,
    },
}

/// How the world is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// How many devices each user has.
    pub users: Vec<usize>,
    pub window: Window,
    /// Event and client frames are the real texts, written and read as in production.
    pub real_wire: bool,
    /// Milliseconds that a frame, and half of a store's answer, may take.
    pub latency: Ms,
    pub store: Ms,
    pub heartbeat: Ms,
    pub heartbeat_timeout: Ms,
    pub progress_timeout: Ms,
    pub token_life: Ms,
    pub side_frames: usize,
    pub flood: FloodLimit,
    /// The time between looks at the heads.
    pub watch: Ms,
    /// A client may take so long to load its data anew.
    pub reload: Ms,
    pub horizon: Ms,
    faults: u32,
}

impl Setup {
    pub const fn has(&self, fault: Fault) -> bool {
        self.faults & fault as u32 != 0
    }

    /// Nothing is trimmed and nothing restored: nobody ever has to load anew.
    pub const fn is_calm(&self) -> bool {
        !self.has(Fault::Trim) && !self.has(Fault::Restore)
    }

    pub fn devices(&self) -> usize {
        self.users.iter().sum()
    }
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub setup: Setup,
    pub ops: Vec<(Ms, Op)>,
    /// The ops that are done, by number; all when there are none named.
    pub keep: Option<Vec<usize>>,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5EED);
        let setup = setup(&mut rng);
        let count = rng.between(12, 70);
        let mut times: Vec<Ms> = (0..count).map(|_| rng.below(setup.horizon)).collect();
        times.sort_unstable();
        let ops = times
            .into_iter()
            .map(|at| (at, op(&setup, &mut rng)))
            .collect();
        Self {
            seed,
            setup,
            ops,
            keep: None,
        }
    }

    /// The ops that are done, with their numbers.
    pub fn kept(&self) -> Vec<usize> {
        self.keep
            .clone()
            .unwrap_or_else(|| (0..self.ops.len()).collect())
    }
}

fn setup(rng: &mut Rng) -> Setup {
    let users = match rng.below(10) {
        0..6 => 2,
        6..9 => 3,
        _ => 4,
    };
    let users: Vec<usize> = (0..users)
        .map(|_| match rng.below(10) {
            0..4 => 1,
            4..7 => 2,
            7..9 => 3,
            _ => 4 + rng.index(2),
        })
        .collect();
    let heartbeat = [10, 30, 30, 60][rng.index(4)] * SECOND;
    // Each kind of trouble by itself, any mixture, and sometimes everything.
    let faults = match rng.below(10) {
        0 => 0,
        1 => u32::MAX,
        2..5 => u32::try_from(rng.below(1 << 15) & rng.next()).unwrap_or(0),
        _ => u32::try_from(rng.below(1 << 15)).unwrap_or(0),
    };
    Setup {
        users,
        window: Window {
            events: u32::try_from(rng.between(1, 8)).unwrap_or(1),
            bytes: [60, 120, 250, 1 << 20][rng.index(4)],
        },
        real_wire: rng.below(16) == 0,
        latency: [2, 20, 200, 900][rng.index(4)],
        store: [2, 20, 200, 1500][rng.index(4)],
        heartbeat,
        heartbeat_timeout: heartbeat * 5 / 2,
        progress_timeout: [20, 60][rng.index(2)] * SECOND,
        token_life: [40, 90, 900][rng.index(3)] * SECOND,
        side_frames: 1 + rng.index(4),
        flood: FloodLimit {
            per_second: 10,
            burst: 30,
            free: 8,
        },
        watch: [1, 5][rng.index(2)] * SECOND,
        reload: [20, 500, 100_000][rng.index(3)],
        horizon: [15, 30, 60, 150][rng.index(4)] * SECOND,
        faults,
    }
}

/// What an op chooses from.
struct Draw {
    device: usize,
    node: usize,
    user: usize,
    byte: u8,
    /// Times, up to that of the whole schedule and much shorter.
    long: Ms,
    short: Ms,
}

/// The ops of a plan, each kind as often as it says; those of trouble that the plan does not have
/// are commits.
fn op(setup: &Setup, rng: &mut Rng) -> Op {
    let it = Draw {
        device: rng.index(setup.devices()),
        node: rng.index(2),
        user: rng.index(setup.users.len()),
        byte: u8::try_from(rng.below(256)).unwrap_or(0),
        long: rng.between(100, 1 + setup.horizon),
        short: [3, 30, 300, 3000][rng.index(4)],
    };
    let commit = Op::Commit {
        user: it.user,
        node: it.node,
        count: it.byte % 4 + 1,
        size: [0, 0, 30, 120][rng.index(4)],
    };
    let (fault, op) = match rng.below(100) {
        0..24 => return commit,
        roll @ 24..67 => of_clients(roll, &it, rng),
        roll => of_nodes(roll, &it),
    };
    if setup.has(fault) { op } else { commit }
}

fn of_clients(roll: u64, it: &Draw, rng: &mut Rng) -> (Fault, Op) {
    let (device, node, byte, ms) = (it.device, it.node, it.byte, it.long);
    match roll {
        24..27 => (Fault::Rest, Op::Race { device }),
        27..32 => {
            let times = byte % 12 + 1;
            let read = Op::RestRead {
                device,
                node,
                times,
            };
            (Fault::Rest, read)
        }
        32..36 => {
            let back = byte;
            (Fault::Rest, Op::RestAck { device, node, back })
        }
        36..40 => {
            let how = match byte % 8 {
                0..2 => OddAck::Beyond(byte),
                2 => OddAck::Foreign,
                3 => OddAck::Twice,
                _ => OddAck::Older(byte),
            };
            (Fault::Manners, Op::Ack { device, how })
        }
        40..47 => {
            let how = [Leave::Heard, Leave::Cut, Leave::HalfOpen][rng.index(3)];
            (Fault::Network, Op::Leave { device, how })
        }
        47..50 => (Fault::Network, Op::Switch { device }),
        50..54 => (Fault::Forget, Op::Forget { device, back: byte }),
        54..58 => (Fault::Slow, Op::Pause { device, ms }),
        58..60 => (Fault::Manners, Op::Mute { device, ms }),
        60..62 => (Fault::Manners, Op::Silent { device, ms }),
        62..64 => (Fault::Tokens, Op::Expire { device }),
        _ => {
            let count = byte % 40 + 1;
            (Fault::Side, Op::Signal { device, count })
        }
    }
}

fn of_nodes(roll: u64, it: &Draw) -> (Fault, Op) {
    let (node, user, long, short) = (it.node, it.user, it.long, it.short);
    match roll {
        67..71 => {
            let ms = short;
            (Fault::Sessions, Op::CrashSession { node, user, ms })
        }
        71..74 => {
            let ms = long / 2;
            (Fault::Stalls, Op::Stall { node, user, ms })
        }
        74..76 => (Fault::Keepers, Op::CrashKeeper { node }),
        76..79 => {
            let (ms, heard) = (short * 10, it.byte < 128);
            (Fault::Nodes, Op::CrashNode { node, ms, heard })
        }
        79..80 => {
            let ms = short * 10;
            (Fault::Nodes, Op::Drain { node, ms })
        }
        80..82 => (Fault::Store, Op::StoreDown { ms: long / 2 }),
        82..84 => (Fault::Store, Op::StoreSlow { ms: long }),
        84..87 => (Fault::Hints, Op::HintsLost { ms: long }),
        87..93 => (Fault::Trim, Op::Trim),
        93..96 => (Fault::Restore, Op::Backup),
        _ => {
            let offline = it.byte < 160;
            (Fault::Restore, Op::Restore { offline })
        }
    }
}
