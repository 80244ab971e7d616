//! One actor a user: the user's attached devices and the queue of the user's commands.
//!
//! Owns which devices are attached here, what each was sent, and the order of commands. Handlers ask
//! it; connections tell it what they hear; the head watcher and the revocation keeper nudge it. It
//! never waits inside a handler: commands take turns in a queue of their own, so acks, pings and
//! hints are dealt with while the store is slow. It is no lock: the database decides last.

mod commands;
mod deliver;
mod fifo;
mod history;
mod messages;
mod nodes;
mod player;
mod player_desk;
mod playlist_messages;
mod playlists;
mod reads;
mod services;
mod socket;
mod view;

use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::{Duration, Instant},
};

pub use crate::store::{PlayerActivation, SnapshotOutcome};
use chrono::TimeDelta;
pub use history::{AddPlays, ClearHistory, ListHistory, RemovePlay};
pub use messages::{
    AckChanges, AckReply, Attach, AttachHinted, AttachRefused, AttachedTo, ChangesReply, Detached,
    Done, Drain, FellBack, Frame, GetPlayer, GetSnapshot, HeadHinted, HeadSeen, Heard, IssueTicket,
    ListDevices, ListFavorites, Listening, Presence, Profile, PutFavorite, ReadChanges, Recheck,
    RedeemTicket, RemoveDevice, RemoveFavorite, RestoreFavorite, Resumed, Rotate, RotateReply,
    ToDevice, TransferPlayer,
};
pub use nodes::{FromNode, NodeGone, TellPresent};
pub use playlist_messages::{
    AddSongs, CreatePlaylist, DeletePlaylist, ListPlaylists, MoveSongs, OrderSongs, PlaylistTarget,
    ReadPlaylist, ReadSongs, RemoveSongs, ReplaceSongs, RestorePlaylist, UpdatePlaylist,
};
pub use services::{AppendEvent, Broadcasted, ReadOffline, ShowOffline};

use super::{
    identity::Trust,
    janitor::SyncLogJanitor,
    kernel::{
        Caps, Cx, Deadline, Halt, Handle, Kernel, Outlet, Place, Registry, Reply, RestartPolicy,
        Timer, Unit,
    },
    library::PublicPlaylists,
    nodes::Nodes,
    sync::{Attached, CursorKeeper, Left, Owed},
};
use crate::{
    domain::{
        few::Few,
        identity::{Caller, RevocationSet, Secrets},
        ids::{ConnId, DeviceId, Epoch, UserId},
        sync::{CloseCode, Retention, SessionConfig, SessionCore},
    },
    store::{CurrentSnapshot, Engine, Hints, Store},
    telemetry::metrics::SyncMetrics,
};
use fifo::Fifo;
use player_desk::PlayerDesk;
pub use view::SessionView;
use view::SlowCommands;

/// Every user's session on this node.
pub type Sessions = Registry<UserId, UserSession>;

/// What every session works with.
#[derive(Clone)]
pub struct SessionParts {
    pub(crate) store: Store,
    pub(crate) cursors: Handle<CursorKeeper>,
    pub(crate) janitor: Handle<SyncLogJanitor>,
    pub(crate) public: Handle<PublicPlaylists>,
    pub(crate) attached: Arc<Attached>,
    pub(crate) revocations: Arc<RevocationSet>,
    pub(crate) secrets: Arc<Secrets>,
    /// Whether it is known what was revoked.
    pub(crate) trust: Arc<Trust>,
    /// The nodes, as far as this one knows of them.
    pub(crate) nodes: Arc<Nodes>,
    /// Where hints go to other nodes, if there may be any.
    pub(crate) hints: Option<Hints>,
    pub(crate) metrics: Arc<SyncMetrics>,
    /// Set once when the node is going away.
    pub(crate) draining: Arc<AtomicBool>,
    /// The rules of delivery.
    pub config: SessionConfig,
    /// How much of a log is kept: the janitor is told when one is much longer.
    pub retention: Retention,
    /// Plays that a history has at most.
    pub max_plays: u32,
    /// A session without device and work goes to rest after so long.
    pub idle: Duration,
    /// How long an access token holds.
    pub access_life: TimeDelta,
}

impl std::fmt::Debug for SessionParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionParts")
    }
}

/// An empty registry of sessions. 32 commands and 64 reads of a user may be in progress.
#[must_use]
pub fn sessions(kernel: Kernel, parts: SessionParts) -> Sessions {
    let caps = Caps {
        commands: 32,
        reads: 64,
    };
    let place = Place {
        caps,
        policy: RestartPolicy::ENTITY,
    };
    // Shared: there are as many sessions as users.
    let config = Arc::new(parts.config.clone());
    let parts = Arc::new(parts);
    Registry::new(kernel, place, move |user| {
        UserSession::new(*user, Arc::clone(&parts), Arc::clone(&config))
    })
}

/// A device's connection, as its session knows it.
#[derive(Debug)]
struct Link {
    caller: Caller,
    /// Its place among the connections of its device.
    attach_epoch: i64,
    outlet: Outlet<ToDevice>,
}

/// A connection that is about to be attached.
#[derive(Debug)]
struct Attaching {
    device: DeviceId,
    /// The attach epoch of a connection that attaches again.
    held: Option<i64>,
    /// What happened meanwhile that keeps it from being attached; looked at also by who waits for
    /// its turn.
    refused: Arc<OnceLock<CloseCode>>,
    /// The highest attach epoch of its device that was told meanwhile.
    seen_epoch: i64,
    /// The same as hints told it, by the epoch of the log that each named.
    hinted: Few<Epoch, i64>,
}

/// See the module.
#[derive(Debug)]
pub struct UserSession {
    user: UserId,
    parts: Arc<SessionParts>,
    core: SessionCore,
    links: Few<ConnId, Link>,
    /// Connections whose attachment is being read from the store.
    attaching: Few<ConnId, Attaching>,
    turns: Fifo,
    /// New connections attach one after another: of one device the last to come is the newest.
    attach_turns: Fifo,
    slow: SlowCommands,
    /// When the core wants to be called next.
    tick: Option<(Instant, Timer)>,
    /// A failed read of the log is to be tried again.
    retrying: bool,
    /// The next look whether it may rest.
    rest: Option<Timer>,
    /// Hints of other nodes were asked for.
    listening: bool,
    /// An operator ends it: nobody attaches any more.
    leaving: bool,
    /// Since when a device owes an ack, as whoever reads the metrics sees it.
    owed: Arc<Owed>,
    /// Boxed: most sessions have nothing to do with it.
    player: Option<Box<PlayerDesk>>,
    /// It ends with the session: a later life could not end it.
    snapshot: CurrentSnapshot,
    last_used: Option<Instant>,
}

impl UserSession {
    fn new(user: UserId, parts: Arc<SessionParts>, config: Arc<SessionConfig>) -> Self {
        let core = SessionCore::new(user, config);
        Self {
            user,
            parts,
            core,
            links: Few::new(),
            attaching: Few::new(),
            turns: Fifo::default(),
            attach_turns: Fifo::default(),
            slow: SlowCommands::default(),
            tick: None,
            retrying: false,
            rest: None,
            listening: false,
            leaving: false,
            owed: Arc::default(),
            player: None,
            snapshot: CurrentSnapshot::default(),
            last_used: None,
        }
    }

    /// Sets the next look whether it may rest: while a device is attached there is none.
    fn look_for_rest(&mut self, cx: &mut Cx<'_, Self>) {
        match (self.links.is_empty(), self.rest.take()) {
            (true, None) => self.rest = Some(cx.after(self.parts.idle, Self::rest_if_idle)),
            (false, Some(timer)) => cx.cancel(timer),
            (_, unchanged) => self.rest = unchanged,
        }
    }

    fn rest_if_idle(&mut self, cx: &mut Cx<'_, Self>) {
        self.rest = None;
        let now = cx.world.instant();
        let used = self
            .last_used
            .is_some_and(|at| now.duration_since(at) < self.parts.idle);
        let idle = !used
            && self.links.is_empty()
            && self.attaching.is_empty()
            && self.turns.is_empty()
            && !self.snapshot.is_going();
        // If a message is in progress, the next look may find none.
        if !idle || !cx.rest() {
            self.look_for_rest(cx);
        }
    }

    /// When the asker no longer waits.
    fn deadline(&mut self, cx: &Cx<'_, Self>) -> Deadline {
        let now = cx.world.instant();
        self.last_used = Some(now);
        cx.deadline.unwrap_or(now)
    }

    /// When it was last used: by now, where nobody used it.
    fn last_used(&self, cx: &Cx<'_, Self>) -> Instant {
        self.last_used.unwrap_or_else(|| cx.world.instant())
    }

    /// A connection of a device is no more, or never came to be. Who looks from another node has only what
    /// is stored to go by; with SQLite there is none.
    fn note_left(&self, device: DeviceId, attach_epoch: i64) {
        if self.parts.store.engine() == Engine::Postgres {
            // One that gets lost is found by the node keeper.
            let _ = self.parts.cursors.tell(Left(device, attach_epoch));
        }
    }

    fn publish_attached(&mut self) {
        let mut devices: Few<DeviceId, i64> = Few::new();
        for link in self.links.values() {
            let device = link.caller.device;
            let newest = devices.get(&device).copied().unwrap_or_default();
            devices.insert(device, link.attach_epoch.max(newest));
        }
        let listening = !devices.is_empty();
        if let Some(hints) = &self.parts.hints
            && std::mem::replace(&mut self.listening, listening) != listening
        {
            // Only while a device is attached is there anybody to tell.
            if listening {
                hints.listen(self.user);
            } else {
                hints.unlisten(self.user);
            }
        }
        let devices = devices.into();
        self.parts.attached.set(self.user, devices, &self.owed);
    }
}

impl Unit for UserSession {
    const KIND: &'static str = "user_session";
    type View = SessionView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        self.last_used = Some(cx.world.instant());
        self.look_for_rest(cx);
    }

    fn leaving(&mut self, how: Halt, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if how == Halt::Stop {
            // After a restart they attach again by themselves.
            self.leaving = true;
            self.say_goodbye(cx);
        }
        Reply::Now(())
    }

    fn view(&self, now: Instant) -> SessionView {
        self.show(now)
    }
}

impl Drop for UserSession {
    /// However a life ends, and where no other follows too: none of its devices is attached any more.
    fn drop(&mut self) {
        self.parts.attached.forget(self.user, &self.owed);
        if let Some(hints) = self.parts.hints.as_ref().filter(|_| self.listening) {
            hints.unlisten(self.user);
        }
    }
}
