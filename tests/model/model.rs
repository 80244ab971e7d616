//! The model as the checker sees it: from each state, everything that may happen next.

use stateright::{Model, Property};

use super::{
    client::{Down, Up},
    config::{Bug, Config, Left},
    rules,
    state::{NODES, Server, State, Wire, owner},
};

/// Something that happens. What may happen but need not is counted by `Left`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    // What may happen.
    Commit {
        node: usize,
    },
    /// `heard`: what the client said last still arrives.
    Break {
        device: usize,
        heard: bool,
    },
    CrashSession {
        node: usize,
    },
    CrashNode {
        node: usize,
    },
    Trim {
        floor: i64,
    },
    Restore,
    FallBack,
    Renew,
    /// A client that is not connected loses the last event that it had.
    Lose {
        device: usize,
    },
    /// It loses everything, and where it was.
    Wipe {
        device: usize,
    },
    FailLoad {
        slot: usize,
    },
    FailHead {
        node: usize,
    },
    /// A client tells where it is by REST, at a node.
    AckByRest {
        device: usize,
        node: usize,
    },
    /// A hint of another node, which knew less than the database does now.
    Hint {
        node: usize,
        head: i64,
    },
    /// A hint of a life of the log that is over.
    HintOfOld {
        node: usize,
    },
    /// A look at the head begins that ends late.
    BeginLook {
        node: usize,
    },
    EndLook {
        node: usize,
    },

    // What has to happen sooner or later.
    Connect {
        device: usize,
        node: usize,
    },
    /// A new connection becomes its device's newest, in the database.
    Raise {
        slot: usize,
    },
    EndAttach {
        slot: usize,
    },
    /// A connection whose session crashed asks the next one.
    AttachAgain {
        slot: usize,
    },
    /// The node's end takes what the client said.
    Hear {
        slot: usize,
    },
    Take {
        device: usize,
    },
    Ack {
        device: usize,
    },
    ReadLog {
        slot: usize,
    },
    AnswerLoad {
        slot: usize,
    },
    Retry {
        node: usize,
    },
    ReadHead {
        node: usize,
    },
    AnswerHead {
        node: usize,
    },
    Announce {
        node: usize,
    },
    Flush {
        node: usize,
    },
    /// The watcher finds the head as it is.
    Look {
        node: usize,
    },
    /// The watcher finds that the database does not know of an attachment any more.
    Unknown {
        slot: usize,
    },
    /// A node hears that a device attached elsewhere.
    Supersede {
        node: usize,
        device: usize,
    },
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Session {
    pub config: Config,
}

impl Session {
    /// What has to happen: until nothing of it is left, the state is not at rest.
    fn due(&self, state: &State, actions: &mut Vec<Action>) {
        for device in 0..self.config.devices {
            self.due_of_client(state, device, actions);
        }
        for (slot, wire) in state.all_wires() {
            due_of_wire(state, slot, wire, actions);
        }
        for node in 0..NODES {
            self.due_of_node(state, node, actions);
        }
    }

    fn due_of_client(&self, state: &State, device: usize, actions: &mut Vec<Action>) {
        let client = &state.clients[device];
        let Some(slot) = client.conn else {
            if !client.stopped && state.free_slot(device).is_some() {
                actions.extend((0..NODES).map(|node| Action::Connect { device, node }));
            }
            return;
        };
        let Some(wire) = state.wire(slot) else { return };
        if !wire.down.is_empty() {
            actions.push(Action::Take { device });
        }
        let open = wire.welcomed && wire.server != Server::Gone;
        let early = self.config.has(Bug::AckBeforeApply)
            && wire.up.is_empty()
            && matches!(wire.down.front(), Some(Down::Event { .. }));
        if open && (client.owes || early) {
            actions.push(Action::Ack { device });
        }
    }

    fn due_of_node(&self, state: &State, node: usize, actions: &mut Vec<Action>) {
        let it = &state.nodes[node];
        if let Some(read) = &it.head_read {
            actions.push(match read.log {
                None => Action::ReadHead { node },
                Some(_) => Action::AnswerHead { node },
            });
        }
        if it.announcing.is_some() {
            actions.push(Action::Announce { node });
        }
        if it.retrying {
            actions.push(Action::Retry { node });
        }
        if !it.keeper.is_empty() {
            actions.push(Action::Flush { node });
        }
        let anybody = it.core.attached() > 0;
        let knows = it.core.log() == Some(state.db.log());
        if anybody && !knows && !self.config.has(Bug::NobodyLooks) {
            actions.push(Action::Look { node });
        }
        for device in 0..self.config.devices {
            let newest = state.db.devices[device].attach_epoch;
            let older = |(_, wire): (usize, &Wire)| match &wire.server {
                Server::Attached => wire.resumed.is_some_and(|it| it.attach_epoch < newest),
                Server::Attaching(it) => {
                    let told = it.state.map(|state| state.attach_epoch.max(it.seen_epoch));
                    told.is_some_and(|told| told < newest)
                }
                Server::Alone | Server::Gone => false,
            };
            if state.at(node, device).any(older) {
                actions.push(Action::Supersede { node, device });
            }
        }
    }

    /// What may happen, as often as the configuration says.
    fn may(&self, state: &State, actions: &mut Vec<Action>) {
        let left = state.left;
        for node in 0..NODES {
            let it = &state.nodes[node];
            if left.commits > 0 && it.announcing.is_none() {
                actions.push(Action::Commit { node });
            }
            let used = it.core.log().is_some() || !it.attaching.is_empty();
            if left.session_crashes > 0 && used {
                actions.push(Action::CrashSession { node });
            }
            if left.node_crashes > 0 && (used || !it.keeper.is_empty()) {
                actions.push(Action::CrashNode { node });
            }
            if left.failures > 0 && it.head_read.is_some() {
                actions.push(Action::FailHead { node });
            }
            if left.failures > 0 {
                let loads = it.loads.keys();
                actions.extend(loads.map(|slot| Action::FailLoad { slot: *slot }));
            }
            self.may_hear(state, node, actions);
        }
        for device in 0..self.config.devices {
            may_of_client(state, device, actions);
        }
        if left.trims > 0 {
            let floors = state.db.floor + 1..=state.db.head();
            actions.extend(floors.map(|floor| Action::Trim { floor }));
        }
        if left.restores > 0 && state.db.head() > 0 {
            actions.push(Action::Restore);
        }
        if left.fallbacks > 0 && state.db.head() > 0 {
            actions.push(Action::FallBack);
        }
        if left.renewals > 0 && state.db.head() > 0 {
            actions.push(Action::Renew);
        }
    }

    fn may_hear(&self, state: &State, node: usize, actions: &mut Vec<Action>) {
        let it = &state.nodes[node];
        let Some(known) = it.core.log().filter(|_| it.core.attached() > 0) else {
            return;
        };
        if known.epoch == state.db.log().epoch {
            let heads = known.head_seq + 1..state.db.head();
            actions.extend(heads.map(|head| Action::Hint { node, head }));
        }
        if state.left.late_looks > 0 {
            if it.look.is_none() {
                actions.push(Action::BeginLook { node });
            }
            if state.db.life() > 1 && self.config.has(Bug::HintOfAnyLife) {
                actions.push(Action::HintOfOld { node });
            }
        }
        if it.look.is_some() {
            actions.push(Action::EndLook { node });
        }
    }

    /// Whether nothing is under way.
    pub fn is_at_rest(&self, state: &State) -> bool {
        let mut due = Vec::new();
        self.due(state, &mut due);
        due.is_empty()
    }

    /// Whether all is delivered in the end if from now on only that happens which has to, each thing
    /// in its turn.
    pub fn comes_to_rest(&self, state: &State) -> bool {
        const ENOUGH: usize = 500;
        let mut state = state.clone();
        let mut due = Vec::new();
        for turn in 0..ENOUGH {
            due.clear();
            self.due(&state, &mut due);
            if due.is_empty() || state.broken.any() {
                return true;
            }
            state = state.then(&self.config, due[turn % due.len()]).canonical();
        }
        false
    }
}

fn due_of_wire(state: &State, slot: usize, wire: &Wire, actions: &mut Vec<Action>) {
    let node = &state.nodes[wire.node];
    match &wire.server {
        Server::Attaching(it) => {
            if it.state.is_some() {
                actions.push(Action::EndAttach { slot });
            } else if node.attaching.front() == Some(&slot) {
                actions.push(Action::Raise { slot });
            }
        }
        Server::Alone => actions.push(Action::AttachAgain { slot }),
        Server::Attached => {
            let stored = state.db.devices[owner(slot)].attach_epoch;
            if wire.resumed.is_some_and(|it| it.attach_epoch > stored) {
                actions.push(Action::Unknown { slot });
            }
        }
        Server::Gone => {}
    }
    // Until a connection is attached, nothing is read from it but that it ended.
    let heard = match (&wire.server, wire.up.front()) {
        (Server::Gone, _) | (_, None) => false,
        (Server::Attaching(_), Some(first)) => *first == Up::End,
        (Server::Attached | Server::Alone, Some(_)) => true,
    };
    if heard {
        actions.push(Action::Hear { slot });
    }
    if let Some((_, read)) = node.loads.get(&slot) {
        actions.push(match read.log {
            None => Action::ReadLog { slot },
            Some(_) => Action::AnswerLoad { slot },
        });
    }
}

fn may_of_client(state: &State, device: usize, actions: &mut Vec<Action>) {
    let (left, client) = (state.left, &state.clients[device]);
    let Some(slot) = client.conn else {
        let whole = client.knows && client.data.life == client.life && client.applied > 0;
        if left.losses > 0 && whole {
            actions.push(Action::Lose { device });
        }
        if left.wipes > 0 && client.knows {
            actions.push(Action::Wipe { device });
        }
        return;
    };
    if left.breaks > 0 {
        actions.push(Action::Break {
            device,
            heard: true,
        });
        if state.wire(slot).is_some_and(|wire| !wire.up.is_empty()) {
            actions.push(Action::Break {
                device,
                heard: false,
            });
        }
    }
    let here = client.life == state.db.life() && client.knows;
    if left.rest_acks > 0 && here {
        actions.extend((0..NODES).map(|node| Action::AckByRest { device, node }));
    }
}

impl Model for Session {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        // All devices at one node, and the last one at the other.
        let all = self.config.devices;
        let places = if all == 1 {
            vec![all]
        } else {
            vec![all, all - 1]
        };
        let start = |first: usize| {
            let mut state = State::new(&self.config);
            state.left = Left::NONE;
            for device in 0..all {
                let node = usize::from(device >= first);
                state = state.then(&self.config, Action::Connect { device, node });
                let slot = state.clients[device].conn.expect("it connects");
                state = state.then(&self.config, Action::Raise { slot });
                state = state.then(&self.config, Action::EndAttach { slot });
                while !state.wire(slot).expect("it is there").down.is_empty() {
                    state = state.then(&self.config, Action::Take { device });
                }
            }
            state.left = self.config.left;
            state.forget_early_reads();
            assert!(!state.broken.any(), "{state:?}");
            state.canonical()
        };
        places.into_iter().map(start).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // What follows a broken rule means nothing.
        if !state.broken.any() {
            self.due(state, actions);
            self.may(state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        Some(state.clone().then(&self.config, action).canonical())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::properties(&self.config)
    }
}
