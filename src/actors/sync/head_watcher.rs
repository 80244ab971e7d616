//! Looks at the heads of all attached users' logs, and at whether their devices have attached anew
//! elsewhere, so that a hint may be lost without harm.
//!
//! Owns a timer and what other nodes hint. Reads in batched queries and tells each user's session; a
//! change made through another node is noticed at most one period late, or five where hints arrive
//! or there is no other node.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, mpsc};

use super::attached::{Attached, AttachedDevice};
use crate::{
    actors::{
        identity::{LookNow, RevocationKeeper},
        kernel::{Ask, Cx, Handle, Public, Serve, Unit, view},
        session::{
            AttachHinted, FellBack, FromNode, HeadHinted, HeadSeen, Listening, Sessions,
            UserSession,
        },
    },
    domain::{
        ids::{DeviceId, UserId},
        sync::Seen,
    },
    store::{Engine, Hint, Hints, Store, Superseded},
};

/// What the watcher works with.
#[derive(Debug, Clone)]
pub struct WatcherParts {
    pub(crate) store: Store,
    pub(crate) sessions: Sessions,
    pub(crate) attached: Arc<Attached>,
    /// Who looks when another node revoked something.
    pub(crate) revoked: Handle<RevocationKeeper>,
    /// Hints of other nodes, if there may be any; shared by all lives of the watcher.
    pub(crate) hints: Option<(Hints, Arc<Mutex<mpsc::Receiver<Hint>>>)>,
    /// The time between looks where nothing else would tell.
    pub period: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct HeadWatcher {
    parts: WatcherParts,
    reading: bool,
    /// Periods since the last look.
    waited: u32,
    looks: u64,
    failed: u64,
    hinted: u64,
    superseded: u64,
}

view! {
    /// What the watcher shows of itself.
    pub struct HeadWatcherView {
        hints_arrive: Public<bool>,
        reading: Public<bool>,
        looks: Public<u64>,
        failed: Public<u64>,
        hinted: Public<u64>,
        superseded: Public<u64>,
    }
}

impl HeadWatcher {
    /// How long a look may take.
    const BUDGET: Duration = Duration::from_secs(5);
    /// Periods between looks where a look finds only what got lost.
    const SELDOM: u32 = 5;

    /// Waits for its first period.
    #[must_use]
    pub const fn new(parts: WatcherParts) -> Self {
        Self {
            parts,
            reading: false,
            waited: 0,
            looks: 0,
            failed: 0,
            hinted: 0,
            superseded: 0,
        }
    }

    /// Whether changes of other nodes are told, or there is no other node.
    fn is_told(&self) -> bool {
        match &self.parts.hints {
            Some((hints, _)) => hints.is_up(),
            None => self.parts.store.engine() == Engine::Sqlite,
        }
    }

    fn period_over(&mut self, cx: &mut Cx<'_, Self>) {
        self.waited += 1;
        if self.waited >= if self.is_told() { Self::SELDOM } else { 1 } {
            self.look(cx);
        }
    }

    fn look(&mut self, cx: &mut Cx<'_, Self>) {
        let users = self.parts.attached.users();
        if self.reading || users.is_empty() {
            return;
        }
        (self.reading, self.waited) = (true, 0);
        let here = self.parts.attached.devices();
        let (store, asked_at) = (self.parts.store.clone(), cx.world.instant());
        let deadline = asked_at + Self::BUDGET;
        cx.spawn(
            async move {
                let heads = store.log_heads(deadline, &users).await;
                let devices: Vec<DeviceId> = here.iter().map(|it| it.device).collect();
                let epochs = store.attach_epochs(deadline, &devices).await;
                (heads, here, epochs)
            },
            move |watcher, (heads, here, epochs), _| {
                watcher.reading = false;
                watcher.looks += 1;
                watcher.failed += u64::from(heads.is_err() || epochs.is_err());
                for (user, log) in heads.unwrap_or_default() {
                    watcher.tell(user, HeadSeen(Seen { log, asked_at }));
                }
                watcher.compare(&here, epochs.unwrap_or_default());
            },
        );
    }

    /// Tells of devices whose newest connection is not the one that was here when it was looked up.
    fn compare(&mut self, here: &[AttachedDevice], stored: Vec<(DeviceId, i64)>) {
        let stored: HashMap<DeviceId, i64> = stored.into_iter().collect();
        for it in here {
            let newest = stored.get(&it.device).copied();
            // What is held was stored before this look began.
            if newest.is_some_and(|newest| newest < it.attach_epoch) {
                let (device, held) = (it.device, it.attach_epoch);
                self.tell(it.user, FellBack { device, held });
            }
            if let Some(attach_epoch) = newest.filter(|newest| *newest > it.attach_epoch) {
                self.superseded += 1;
                let device = it.device;
                let superseded = Superseded {
                    device,
                    attach_epoch,
                };
                self.tell(it.user, superseded);
            }
        }
    }

    fn tell<M: Ask<Reply = ()>>(&self, user: UserId, what: M)
    where
        UserSession: Serve<M>,
    {
        if let Some(session) = self.parts.sessions.find(&user) {
            // A session that is not up reads all of it when its devices attach again.
            let _ = session.tell(what);
        }
    }

    /// Takes the next hint, and then the next.
    fn listen(&mut self, cx: &mut Cx<'_, Self>) {
        let Some((_, hints)) = &self.parts.hints else {
            return;
        };
        let hints = Arc::clone(hints);
        cx.spawn(
            async move { hints.lock().await.recv().await },
            |watcher, hint, cx| {
                let arrived_at = cx.world.instant();
                match hint {
                    Some(Hint::Head(user, log)) => {
                        let asked_at = arrived_at;
                        watcher.tell(user, HeadHinted(Seen { log, asked_at }));
                    }
                    Some(Hint::Attached(user, epoch, superseded)) => {
                        watcher.tell(user, AttachHinted(epoch, superseded));
                    }
                    Some(Hint::Told(user, told)) => watcher.tell(user, FromNode(*told)),
                    Some(Hint::Listening(user)) => watcher.tell(user, Listening),
                    Some(Hint::Revoked) => {
                        // The keeper's own poll makes good what is lost.
                        let _ = watcher.parts.revoked.tell(LookNow);
                    }
                    None => return,
                }
                watcher.hinted += 1;
                watcher.listen(cx);
            },
        );
    }
}

impl Unit for HeadWatcher {
    const KIND: &'static str = "head_watcher";
    type View = HeadWatcherView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        cx.every(self.parts.period, Self::period_over);
        self.listen(cx);
    }

    fn view(&self, _now: Instant) -> HeadWatcherView {
        let Self {
            reading,
            looks,
            failed,
            hinted,
            superseded,
            ..
        } = *self;
        HeadWatcherView {
            hints_arrive: Public(self.is_told()),
            reading: Public(reading),
            looks: Public(looks),
            failed: Public(failed),
            hinted: Public(hinted),
            superseded: Public(superseded),
        }
    }
}
