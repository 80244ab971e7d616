//! Hints between nodes by Redis: "this user's log has grown to here", "this device attached here",
//! "something was revoked".
//!
//! Owns what waits to be said, and for whom this node listens, one channel a user. Each hint about a user
//! names the epoch of the user's log: another deployment that shares the Redis, such as the drill of a
//! restore, has another. A hint may be lost, and often is when Redis is away: the head watcher and the
//! revocation keeper find by themselves what no hint told.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use dashmap::DashMap;
use redis::{PushInfo, PushKind, Value};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
};

use super::{
    Superseded,
    link::{Link, State},
    words,
    worker::Worker,
};
use crate::{
    domain::{
        ids::{DeviceId, Epoch, UserId},
        sync::{LogHead, Told},
    },
    store::metrics::{HintMetrics, Lost},
};

/// What a node hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A user's log has these ends.
    Head(UserId, LogHead),
    /// A device of a user, whose log has this epoch, attached, here or elsewhere, and its newest
    /// connection is this one.
    Attached(UserId, Epoch, Superseded),
    /// What a node told about a user's devices, this one's own words too.
    Told(UserId, Box<Told>),
    /// From now on hints for this user arrive; what came before has to be looked up.
    Listening(UserId),
    /// A node revoked something, this one too.
    Revoked,
}

/// What is to be published: its channel, its kind and itself.
pub(super) type Text = (String, &'static str, String);

/// For whom hints are wanted. It is changed at once and needs no room in a queue, so that nothing of
/// it is ever lost; the worker brings Redis after it.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Each with the number of its last wish, so that a new one is seen also where the one before was
    /// never withdrawn at Redis. Numbers begin at 1.
    pub(super) users: DashMap<UserId, u64>,
    wishes: AtomicU64,
    pub(super) changed: Notify,
}

/// Sends hints, and says for whom this node listens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hints {
    pub(super) texts: mpsc::Sender<Text>,
    pub(super) link: Arc<State>,
    wanted: Arc<Wanted>,
    metrics: HintMetrics,
}

/// Hints that may wait, each way; more are dropped, as any hint may be.
pub(super) const ROOM: usize = 8192;

impl Hints {
    pub(super) fn start(
        link: Link,
        rt: &Handle,
        heard: mpsc::Sender<Hint>,
        metrics: HintMetrics,
    ) -> Self {
        let (texts, todo) = mpsc::channel(ROOM);
        let wanted = Arc::<Wanted>::default();
        let it = Self {
            texts,
            link: Arc::clone(&link.state),
            wanted: Arc::clone(&wanted),
            metrics: metrics.clone(),
        };
        rt.spawn(Worker::new(link, heard, wanted, metrics).run(todo));
        it
    }

    /// Tells the other nodes where a user's log ends.
    pub fn publish(&self, user: UserId, log: LogHead) {
        self.send(words::channel(user), "head", words::write_head(log));
    }

    /// Tells the other nodes that a device's newest connection is on this one.
    pub fn attached(&self, user: UserId, epoch: Epoch, device: DeviceId, attach_epoch: i64) {
        let text = words::write_attached(epoch, device, attach_epoch);
        self.send(words::channel(user), "attached", text);
    }

    /// Tells the other nodes something about a user's devices that is not kept.
    pub fn tell(&self, user: UserId, told: &Told) {
        self.send(words::channel(user), "told", words::write_told(told));
    }

    /// Tells the other nodes that something was revoked: they look what.
    pub fn revoked(&self) {
        let channel = words::REVOKED_CHANNEL.to_owned();
        self.send(channel, "revoked", words::REVOKED.to_owned());
    }

    /// Hints for this user are wanted. [`Hint::Listening`] follows each such wish, sooner or later.
    pub fn listen(&self, user: UserId) {
        let wish = self.wanted.wishes.fetch_add(1, Relaxed) + 1;
        self.wanted.users.insert(user, wish);
        self.wanted.changed.notify_one();
    }

    /// Hints for this user are not wanted any more.
    pub fn unlisten(&self, user: UserId) {
        self.wanted.users.remove(&user);
        self.wanted.changed.notify_one();
    }

    /// Whether Redis answered when it was last asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    fn send(&self, channel: String, kind: &'static str, text: String) {
        // When there is no room the hint is lost, which whoever looks by himself makes good.
        if self.texts.try_send((channel, kind, text)).is_err() {
            self.metrics.lost(kind, Lost::SendQueueFull, 1);
        }
    }
}

/// Takes what Redis pushes. Runs on the connection's own task: it must not wait.
pub(super) fn hear(
    info: &PushInfo,
    heard: &mpsc::Sender<Hint>,
    link: &State,
    metrics: &HintMetrics,
) {
    match info.kind {
        PushKind::Disconnection => link.lost(),
        PushKind::Message => {
            if let [Value::BulkString(channel), Value::BulkString(text)] = info.data.as_slice() {
                let Some(hint) = words::read(channel, text) else {
                    return metrics.lost("unknown", Lost::Unreadable, 1);
                };
                let kind = hint.kind();
                metrics.received.inc(kind);
                if heard.try_send(hint).is_err() {
                    metrics.lost(kind, Lost::ReceiveQueueFull, 1);
                }
            }
        }
        _ => {}
    }
}

impl Hint {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Head(..) => "head",
            Self::Attached(..) => "attached",
            Self::Told(..) => "told",
            Self::Listening(_) => "listening",
            Self::Revoked => "revoked",
        }
    }
}
