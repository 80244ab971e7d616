//! Looks at the heads of all attached users' logs, so that a hint may be lost without harm.
//!
//! Owns a timer and what other nodes hint. Reads the heads in one batched query and tells each
//! user's session; a change made through another node is noticed at most one period late, or five
//! where hints arrive or there is no other node.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::sync::{Mutex, mpsc};

use super::attached::Attached;
use crate::{
    actors::{
        kernel::{Cx, Unit},
        session::{HeadSeen, LookAtHead, Sessions},
    },
    domain::{ids::UserId, sync::Seen},
    store::{Engine, Hint, Hints, Store},
};

/// What the watcher works with.
#[derive(Debug, Clone)]
pub struct WatcherParts {
    pub(crate) store: Store,
    pub(crate) sessions: Sessions,
    pub(crate) attached: Arc<Attached>,
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
}

/// What the watcher shows of itself.
#[derive(Debug, Serialize)]
pub struct HeadWatcherView {
    hints_arrive: bool,
    reading: bool,
    looks: u64,
    failed: u64,
    hinted: u64,
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
        let (store, asked_at) = (self.parts.store.clone(), cx.world.instant());
        cx.spawn(
            async move { store.log_heads(asked_at + Self::BUDGET, &users).await },
            move |watcher, heads, _| {
                watcher.reading = false;
                watcher.looks += 1;
                match heads {
                    Ok(heads) => heads
                        .into_iter()
                        .for_each(|(user, log)| watcher.tell(user, Seen { log, asked_at })),
                    Err(_) => watcher.failed += 1,
                }
            },
        );
    }

    fn tell(&self, user: UserId, seen: Seen) {
        if let Some(session) = self.parts.sessions.find(&user) {
            // A session that is not up reads the head when its devices attach again.
            let _ = session.tell(HeadSeen(seen));
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
                match hint {
                    Some(Hint::Head(user, log)) => {
                        let asked_at = cx.world.instant();
                        watcher.tell(user, Seen { log, asked_at });
                    }
                    Some(Hint::Listening(user)) => {
                        if let Some(session) = watcher.parts.sessions.find(&user) {
                            let _ = session.tell(LookAtHead);
                        }
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

    fn view(&self) -> HeadWatcherView {
        let Self {
            reading,
            looks,
            failed,
            hinted,
            ..
        } = *self;
        HeadWatcherView {
            hints_arrive: self.is_told(),
            reading,
            looks,
            failed,
            hinted,
        }
    }
}
