//! Keeps the published snapshot of revocations in step with the database.
//!
//! Owns the poll. Everything that is revoked on this node is in the snapshot before its command is
//! answered; what other nodes revoke comes by the poll, with an overlap so that a slow commit is not
//! missed, and whole once a minute in case a node's clock is further behind than that. It tells the sessions of attached devices, and sweeps out what is over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use crate::{
    actors::{
        kernel::{Cx, Public, Unit, view},
        session::{Recheck, Sessions},
        sync::Attached,
    },
    domain::identity::{Revocation, RevocationSet},
    store::Store,
};

/// See the module.
#[derive(Debug)]
pub struct RevocationKeeper {
    store: Store,
    sessions: Sessions,
    attached: Arc<Attached>,
    published: Arc<RevocationSet>,
    /// Read everything since then at the next poll.
    since: DateTime<Utc>,
    /// Read everything at the next poll.
    whole: bool,
    pulse: Arc<Pulse>,
    reading: bool,
    polls: u64,
    failed: u64,
}

/// When the store last answered: a snapshot that readiness reads.
#[derive(Debug)]
pub struct Pulse(Mutex<Instant>);

impl Pulse {
    /// It answered at `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self(Mutex::new(now))
    }

    fn beat(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// How long ago it answered.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(last)
    }
}

view! {
    /// What the keeper shows of itself.
    pub struct RevocationKeeperView {
        in_force: Public<usize>,
        polls: Public<u64>,
        failed: Public<u64>,
    }
}

impl RevocationKeeper {
    const PERIOD: Duration = Duration::from_millis(500);
    const SWEEP: Duration = Duration::from_mins(1);
    const BUDGET: Duration = Duration::from_secs(5);
    /// Longer than a write may take and clocks of nodes may differ.
    const OVERLAP: chrono::Duration = chrono::Duration::seconds(30);

    /// Polls from `since` on.
    #[must_use]
    pub const fn new(
        store: Store,
        sessions: Sessions,
        attached: Arc<Attached>,
        published: Arc<RevocationSet>,
        pulse: Arc<Pulse>,
        since: DateTime<Utc>,
    ) -> Self {
        Self {
            store,
            sessions,
            attached,
            published,
            since,
            whole: false,
            pulse,
            reading: false,
            polls: 0,
            failed: 0,
        }
    }

    fn poll(&mut self, cx: &mut Cx<'_, Self>) {
        if self.reading {
            return;
        }
        self.reading = true;
        let (store, now) = (self.store.clone(), cx.world.now());
        let whole = std::mem::take(&mut self.whole);
        let since = if whole {
            DateTime::UNIX_EPOCH
        } else {
            self.since
        };
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move {
                // Also where reads go on, nothing can be changed without the writer.
                store.ping(deadline).await?;
                store.revocations_since(deadline, since).await
            },
            move |keeper, result, cx| {
                keeper.reading = false;
                keeper.polls += 1;
                if let Ok(revocations) = result {
                    keeper.pulse.beat(cx.world.instant());
                    keeper.since = now - Self::OVERLAP;
                    keeper.publish(&revocations);
                } else {
                    keeper.failed += 1;
                    keeper.whole |= whole;
                }
            },
        );
    }

    fn publish(&self, revocations: &[Revocation]) {
        for it in revocations.iter().filter(|it| self.published.add(it)) {
            for user in self.attached.matching(it.subject) {
                if let Some(session) = self.sessions.find(&user) {
                    // A session that is not up checks the snapshot when its devices attach again.
                    let _ = session.tell(Recheck);
                }
            }
        }
    }

    fn sweep(&mut self, cx: &mut Cx<'_, Self>) {
        self.whole = true;
        // Tokens are over by the clock of the node that checks them, revocations by that of the
        // node that wrote them.
        let now = cx.world.now() - Self::OVERLAP;
        let store = self.store.clone();
        let deadline = cx.world.instant() + Self::BUDGET;
        cx.spawn(
            async move { store.expired_sweep(deadline, now).await },
            move |keeper, result, _| match result {
                Ok(rows) => {
                    // Not before what is stored: a poll would bring it back.
                    keeper.published.sweep(now);
                    tracing::debug!(rows, "swept codes, tickets and revocations");
                }
                Err(_) => keeper.failed += 1,
            },
        );
    }
}

impl Unit for RevocationKeeper {
    const KIND: &'static str = "revocation_keeper";
    type View = RevocationKeeperView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        cx.every(Self::PERIOD, Self::poll);
        cx.every(Self::SWEEP, Self::sweep);
    }

    fn view(&self, _now: Instant) -> RevocationKeeperView {
        let in_force = self.published.len();
        RevocationKeeperView {
            in_force: Public(in_force),
            polls: Public(self.polls),
            failed: Public(self.failed),
        }
    }
}
