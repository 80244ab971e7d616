//! Looks at the heads of all attached users' logs, so that a hint may be lost without harm.
//!
//! Owns a timer. Reads the heads in one batched query and tells each user's session; a change made
//! through another node is noticed at most one period late.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::attached::Attached;
use crate::{
    actors::{
        kernel::{Cx, Unit},
        session::{HeadSeen, Sessions},
    },
    store::Store,
};

/// See the module.
#[derive(Debug)]
pub struct HeadWatcher {
    store: Store,
    sessions: Sessions,
    attached: Arc<Attached>,
    period: Duration,
    reading: bool,
    checks: u64,
    failed: u64,
}

/// What the watcher shows of itself.
#[derive(Debug, Serialize)]
pub struct HeadWatcherView {
    reading: bool,
    checks: u64,
    failed: u64,
}

impl HeadWatcher {
    /// How long a look may take.
    const BUDGET: Duration = Duration::from_secs(5);

    /// Looks each `period`.
    #[must_use]
    pub const fn new(
        store: Store,
        sessions: Sessions,
        attached: Arc<Attached>,
        period: Duration,
    ) -> Self {
        Self {
            store,
            sessions,
            attached,
            period,
            reading: false,
            checks: 0,
            failed: 0,
        }
    }

    fn look(&mut self, cx: &mut Cx<'_, Self>) {
        let users = self.attached.users();
        if self.reading || users.is_empty() {
            return;
        }
        self.reading = true;
        let (store, deadline) = (self.store.clone(), cx.world.instant() + Self::BUDGET);
        cx.spawn(
            async move { store.log_heads(deadline, &users).await },
            |watcher, heads, _| {
                watcher.reading = false;
                watcher.checks += 1;
                match heads {
                    Ok(heads) => {
                        for (user, log) in heads {
                            if let Some(session) = watcher.sessions.find(&user) {
                                // A session that is not up reads the head when its devices attach again.
                                let _ = session.tell(HeadSeen(log));
                            }
                        }
                    }
                    Err(_) => watcher.failed += 1,
                }
            },
        );
    }
}

impl Unit for HeadWatcher {
    const KIND: &'static str = "head_watcher";
    type View = HeadWatcherView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        cx.every(self.period, Self::look);
    }

    fn view(&self) -> HeadWatcherView {
        HeadWatcherView {
            reading: self.reading,
            checks: self.checks,
            failed: self.failed,
        }
    }
}
