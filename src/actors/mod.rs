//! The living graph: one actor a user, a device, a slice of phones.
//!
//! HTTP handlers send each actor one message; actors call the store and never see a request.
//! Rules are in `domain`; an actor here is the shell that turns messages into steps of a core and
//! its effects into sends. Asks go down the graph only (`LoginDesk → UserSession → CursorKeeper`);
//! what goes up is told.

pub mod identity;
pub mod inspector;
pub mod janitor;
pub mod kernel;
pub mod library;
pub mod nodes;
pub mod services;
pub mod session;
pub mod sync;

mod failure;

use std::sync::{Arc, atomic::AtomicBool};

pub use failure::Failure;
use identity::LoginDesks;
use kernel::{Class, Handle};
use nodes::NodeKeeper;
use services::Services;
use session::Sessions;
use sync::{CursorKeeper, HeadWatcher};

use crate::{
    domain::{
        clock::World,
        identity::{RevocationSet, Secrets},
    },
    store::Redis,
};

/// What the HTTP layer is given of the graph: whom to ask, and the published snapshots.
#[derive(Clone)]
pub struct Graph {
    /// Every user's session.
    pub sessions: Sessions,
    /// What happens before a user exists.
    pub login: LoginDesks,
    /// What is no longer trusted: a snapshot that token checks read.
    pub revocations: Arc<RevocationSet>,
    /// The server's keys: a snapshot that token checks read.
    pub secrets: Arc<Secrets>,
    /// Clock and randomness.
    pub world: World,
    /// When the store last answered: a snapshot that readiness reads.
    pub pulse: Arc<identity::Pulse>,
    /// Whether it is known what was revoked: a snapshot that readiness and token checks read.
    pub trust: Arc<identity::Trust>,
    /// Set once when the node is going away.
    pub draining: Arc<AtomicBool>,
    /// Where every actor is found.
    pub directory: kernel::Directory,
    /// Who looks at them.
    pub inspectors: inspector::Inspectors,
    /// What other services are served with.
    pub services: Services,
    /// Public playlists, for everybody.
    pub public: Handle<library::PublicPlaylists>,
    /// Who knows the other nodes.
    pub nodes: Handle<NodeKeeper>,
    /// The way to other nodes, if there may be any.
    pub(crate) redis: Option<Redis>,
    pub(crate) cursors: Handle<CursorKeeper>,
    pub(crate) heads: Handle<HeadWatcher>,
    pub(crate) revoked: Handle<identity::RevocationKeeper>,
}

impl Graph {
    /// Whether hints of other nodes arrive; none where none are set up.
    #[must_use]
    pub fn hints_arrive(&self) -> Option<bool> {
        self.redis.as_ref().map(|it| it.hints.is_up())
    }

    /// Whether rate limits count over all nodes; none where they never do.
    #[must_use]
    pub fn limits_are_shared(&self) -> Option<bool> {
        self.redis.as_ref().map(|it| it.limits.are_shared())
    }

    /// Whether no session has a request in hand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.sessions.all().iter().all(|(_, session)| {
            [Class::Command, Class::Read]
                .iter()
                .all(|class| session.in_progress(*class) == 0)
        })
    }

    /// Whether the actors that the whole node needs do their work: what readiness is made of. One
    /// that an operator restarts does until its life is over. Actors of single users do not count, so
    /// that one poisoned user never takes a node out, nor does the janitor of the logs, without which
    /// a node serves as well.
    #[must_use]
    pub fn roots_are_at_work(&self) -> bool {
        self.cursors.is_at_work()
            && self.heads.is_at_work()
            && self.revoked.is_at_work()
            && self.login.is_at_work()
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graph")
    }
}
