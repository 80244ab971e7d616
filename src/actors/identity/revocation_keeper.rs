//! Keeps the published snapshot of revocations in step with the database.
//!
//! Owns the poll. Everything that is revoked on this node is in the snapshot before its command is
//! answered; what other nodes revoke comes by the poll, with an overlap so that a slow commit is not
//! missed, and whole once a minute in case a node's clock is further behind than that. A notice by Redis
//! ([`LookNow`]) only brings the next poll forward. It tells the sessions of attached devices, and sweeps
//! out what is over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use crate::{
    actors::{
        identity::{Pulse, Trust},
        kernel::{Cx, Public, Reply, Serve, Unit, asks, view},
        session::{Recheck, Sessions},
        sync::Attached,
    },
    domain::identity::{Revocation, RevocationSet},
    store::Store,
};

/// What the keeper works with.
#[derive(Debug, Clone)]
pub struct RevocationParts {
    pub(crate) store: Store,
    pub(crate) sessions: Sessions,
    pub(crate) attached: Arc<Attached>,
    pub(crate) published: Arc<RevocationSet>,
    /// When the store last answered.
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) trust: Arc<Trust>,
    /// Everything before was read at the start.
    pub since: DateTime<Utc>,
}

/// See the module.
#[derive(Debug)]
pub struct RevocationKeeper {
    parts: RevocationParts,
    /// Read everything since then at the next poll.
    since: DateTime<Utc>,
    /// Read everything at the next poll.
    whole: bool,
    /// When the last poll began; while one is under way, what it reads may be from before a notice.
    polled_at: Option<Instant>,
    reading: bool,
    notice: Notice,
    polls: u64,
    failed: u64,
    notices: u64,
}

/// Another node says that it revoked something.
#[derive(Debug)]
pub struct LookNow;

asks! {
    Control LookNow -> ();
}

/// Whether another node said that there is something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// Nothing that no poll has followed.
    None,
    /// While a poll was under way, which may have read before.
    Came,
    /// A poll is set for soon.
    Timed,
}

view! {
    /// What the keeper shows of itself.
    pub struct RevocationKeeperView {
        in_force: Public<usize>,
        polls: Public<u64>,
        failed: Public<u64>,
        notices: Public<u64>,
    }
}

impl RevocationKeeper {
    const PERIOD: Duration = Duration::from_millis(500);
    const SWEEP: Duration = Duration::from_mins(1);
    const SWEEP_BUDGET: Duration = Duration::from_secs(5);
    /// A poll that takes longer is given up, so that the next one may find another connection.
    const BUDGET: Duration = Duration::from_secs(2);
    /// The least time between two polls, however many notices come.
    const GAP: Duration = Duration::from_millis(100);
    /// Longer than a write may take and clocks of nodes may differ.
    const OVERLAP: chrono::Duration = chrono::Duration::seconds(30);

    /// Polls from `since` on.
    #[must_use]
    pub const fn new(parts: RevocationParts) -> Self {
        let since = parts.since;
        Self {
            parts,
            since,
            whole: false,
            polled_at: None,
            reading: false,
            notice: Notice::None,
            polls: 0,
            failed: 0,
            notices: 0,
        }
    }

    fn poll(&mut self, cx: &mut Cx<'_, Self>) {
        if self.reading {
            return;
        }
        (self.reading, self.notice) = (true, Notice::None);
        let (store, now) = (self.parts.store.clone(), cx.world.now());
        let whole = std::mem::take(&mut self.whole);
        let since = if whole {
            DateTime::UNIX_EPOCH
        } else {
            self.since
        };
        let begun = cx.world.instant();
        self.polled_at = Some(begun);
        let deadline = begun + Self::BUDGET;
        cx.spawn(
            async move {
                // Also where reads go on, nothing can be changed without the writer.
                let alive = store.ping(deadline);
                let revocations = store.revocations_since(deadline, since);
                futures_util::future::join(alive, revocations).await
            },
            move |keeper, (alive, result), cx| {
                keeper.reading = false;
                keeper.polls += 1;
                if let Ok(revocations) = result {
                    if alive.is_ok() {
                        keeper.parts.pulse.beat(cx.world.instant());
                    }
                    // What is known is as old as the question.
                    keeper.parts.trust.read(begun);
                    keeper.since = now - Self::OVERLAP;
                    keeper.publish(&revocations);
                } else {
                    keeper.failed += 1;
                    keeper.whole |= whole;
                }
                if keeper.notice == Notice::Came {
                    keeper.poll_soon(cx);
                }
            },
        );
    }

    /// Polls as soon as a notice may make it.
    fn poll_soon(&mut self, cx: &mut Cx<'_, Self>) {
        if self.reading {
            self.notice = Notice::Came;
            return;
        }
        if std::mem::replace(&mut self.notice, Notice::Timed) == Notice::Timed {
            return;
        }
        let now = cx.world.instant();
        let next = self.polled_at.map_or(now, |at| at + Self::GAP);
        cx.after(next.saturating_duration_since(now), |keeper, cx| {
            if keeper.notice == Notice::Timed {
                keeper.poll(cx);
            }
        });
    }

    fn publish(&self, revocations: &[Revocation]) {
        for it in revocations.iter().filter(|it| self.parts.published.add(it)) {
            for user in self.parts.attached.matching(it.subject) {
                if let Some(session) = self.parts.sessions.find(&user) {
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
        let store = self.parts.store.clone();
        let deadline = cx.world.instant() + Self::SWEEP_BUDGET;
        cx.spawn(
            async move { store.expired_sweep(deadline, now).await },
            move |keeper, result, _| match result {
                Ok(rows) => {
                    // Not before what is stored: a poll would bring it back.
                    keeper.parts.published.sweep(now);
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
        let in_force = self.parts.published.len();
        RevocationKeeperView {
            in_force: Public(in_force),
            polls: Public(self.polls),
            failed: Public(self.failed),
            notices: Public(self.notices),
        }
    }
}

impl Serve<LookNow> for RevocationKeeper {
    fn serve(&mut self, _: LookNow, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.notices += 1;
        self.poll_soon(cx);
        Reply::Now(())
    }
}
