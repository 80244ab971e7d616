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
pub mod services;
pub mod session;
pub mod sync;

mod failure;

use std::sync::{Arc, atomic::AtomicBool};

pub use failure::Failure;
use identity::LoginDesks;
use kernel::{Class, Handle};
use services::Services;
use session::Sessions;
use sync::{CursorKeeper, HeadWatcher};

use crate::{
    domain::{
        clock::World,
        identity::{RevocationSet, Secrets},
    },
    store::Hints,
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
    /// Set once when the node is going away.
    pub draining: Arc<AtomicBool>,
    /// Where every actor is found.
    pub directory: kernel::Directory,
    /// Who looks at them.
    pub inspectors: inspector::Inspectors,
    /// What other services are served with.
    pub services: Services,
    /// The way to other nodes, if there may be any.
    pub(crate) hints: Option<Hints>,
    /// Public playlists, for everybody.
    pub public: Handle<library::PublicPlaylists>,
    pub(crate) cursors: Handle<CursorKeeper>,
    pub(crate) heads: Handle<HeadWatcher>,
    pub(crate) revoked: Handle<identity::RevocationKeeper>,
}

impl Graph {
    /// Whether hints of other nodes arrive; none where none are set up.
    #[must_use]
    pub fn hints_arrive(&self) -> Option<bool> {
        self.hints.as_ref().map(Hints::is_up)
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
