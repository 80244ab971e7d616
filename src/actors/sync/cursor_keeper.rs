//! Makes the cursors of all users durable, in batches.
//!
//! Owns the cursors that moved and are not yet stored, and the connections whose end is not noted yet.
//! Sessions tell it [`Advance`] with each ack, [`Left`] and [`Flush`] at each detach; shutdown asks for
//! a last flush. A cursor that it loses with a crash
//! costs a repetition of events, never a loss. It never moves a cursor back, and the store refuses
//! those of connections that were replaced: their sessions are told.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::Attached;
use crate::{
    actors::{
        kernel::{Cx, Halt, Public, Reply, Serve, Unit, asks, view},
        session::Sessions,
    },
    domain::{ids::DeviceId, sync::Cursor},
    store::{Store, StoreError, Superseded},
    telemetry::metrics::SyncMetrics,
};

/// A device acknowledged everything up to here.
#[derive(Debug)]
pub struct Advance(pub Cursor);

asks! {
    Control Advance -> ();
    Control Left -> ();
    Control Flush -> ();
}

/// A device's connection ended: it is attached here no more, unless it has a newer one.
#[derive(Debug)]
pub struct Left(pub DeviceId, pub i64);

/// Store what is pending now. Asked: answers when it is stored, or could not be.
#[derive(Debug)]
pub struct Flush;

/// What the keeper works with.
#[derive(Debug, Clone)]
pub struct KeeperParts {
    pub(crate) store: Store,
    pub(crate) attached: Arc<Attached>,
    /// Whom to tell of devices that attached elsewhere. Sessions know the keeper, so it is known to
    /// them before they are to it.
    pub(crate) sessions: Arc<OnceLock<Sessions>>,
    pub(crate) metrics: Arc<SyncMetrics>,
    /// Cursors are stored after so long at the latest.
    pub period: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct CursorKeeper {
    parts: KeeperParts,
    pending: HashMap<DeviceId, Cursor>,
    /// Devices that are attached here no more, each with the connection that ended.
    left: HashMap<DeviceId, i64>,
    /// When the first of them came.
    pending_since: Option<Instant>,
    /// One batch at a time: a device's cursors arrive in order.
    flushing: bool,
    /// This life ends: what still comes is stored at once.
    leaving: bool,
    /// Who waits for the batch that is under way.
    in_batch: Vec<oneshot::Sender<()>>,
    /// Who waits for the one after it.
    for_next: Vec<oneshot::Sender<()>>,
    failed: u64,
    superseded: u64,
}

view! {
    /// What the keeper shows of itself.
    pub struct CursorKeeperView {
        pending: Public<usize>,
        flushing: Public<bool>,
        failed: Public<u64>,
        superseded: Public<u64>,
    }
}

impl CursorKeeper {
    /// How long a batch may take.
    const BUDGET: Duration = Duration::from_secs(5);

    /// Nothing is pending.
    #[must_use]
    pub fn new(parts: KeeperParts) -> Self {
        Self {
            parts,
            pending: HashMap::new(),
            left: HashMap::new(),
            pending_since: None,
            flushing: false,
            leaving: false,
            in_batch: Vec::new(),
            for_next: Vec::new(),
            failed: 0,
            superseded: 0,
        }
    }

    /// Starts a batch of what is pending, unless one is under way.
    fn flush(&mut self, cx: &mut Cx<'_, Self>) {
        if self.flushing {
            return;
        }
        if self.pending.is_empty() && self.left.is_empty() {
            answer(&mut self.for_next);
            return;
        }
        self.flushing = true;
        self.in_batch = std::mem::take(&mut self.for_next);
        let batch: Vec<Cursor> = self.pending.drain().map(|(_, cursor)| cursor).collect();
        let left: Vec<(DeviceId, i64)> = self.left.drain().collect();
        let store = self.parts.store.clone();
        let now = cx.world.instant();
        let (deadline, since) = (now + Self::BUDGET, self.pending_since.take().unwrap_or(now));
        cx.spawn(
            async move {
                let result = store.cursors_advance(deadline, &batch).await;
                let noted = store.devices_left(deadline, &left).await;
                (batch, result, noted.map_err(|_| left))
            },
            move |keeper, (batch, result, noted), cx| {
                keeper.note_again(noted.err().unwrap_or_default());
                keeper.flushed(&batch, since, result, cx);
            },
        );
    }

    /// Stores all that is pending, and answers when it is, or could not be.
    fn flush_all(&mut self, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        // What is in a batch that is under way comes back if that fails: it is waited for too.
        let (stored, waiting) = oneshot::channel();
        self.for_next.push(stored);
        self.flush(cx);
        Reply::later(waiting, |_, _, _| ())
    }

    /// The ends of these connections could not be noted.
    fn note_again(&mut self, left: Vec<(DeviceId, i64)>) {
        for (device, attach_epoch) in left {
            let known = self.left.entry(device).or_insert(attach_epoch);
            *known = attach_epoch.max(*known);
        }
    }

    fn flushed(
        &mut self,
        batch: &[Cursor],
        since: Instant,
        result: Result<Vec<Superseded>, StoreError>,
        cx: &mut Cx<'_, Self>,
    ) {
        self.flushing = false;
        if batch.is_empty() {
            // Only ends were noted.
        } else if let Ok(superseded) = result {
            let stored = batch.len().saturating_sub(superseded.len()) as u64;
            let delay = cx.world.instant().saturating_duration_since(since);
            self.parts.metrics.cursors_stored(stored, delay);
            for it in superseded {
                self.tell(it);
            }
        } else {
            self.failed += 1;
            self.parts.metrics.cursor_failures.inc();
            self.pending_since = Some(since);
            for &cursor in batch {
                // What came meanwhile is newer.
                let newer = self.pending.get(&cursor.device);
                let kept = newer.map_or(cursor, |newer| cursor.merged(*newer));
                self.pending.insert(cursor.device, kept);
            }
        }
        answer(&mut self.in_batch);
        if !self.for_next.is_empty() {
            self.flush(cx);
        }
    }

    /// A device attached anew, and this node may not know.
    fn tell(&mut self, it: Superseded) {
        self.superseded += 1;
        let Some(sessions) = self.parts.sessions.get() else {
            return;
        };
        for user in self.parts.attached.matching(it.device.0) {
            if let Some(session) = sessions.find(&user) {
                // One that is not up finds it out when its devices attach again.
                let _ = session.tell(it);
            }
        }
    }
}

fn answer(waiting: &mut Vec<oneshot::Sender<()>>) {
    for asked in waiting.drain(..) {
        // One who no longer waits needs no answer.
        let _ = asked.send(());
    }
}

impl Unit for CursorKeeper {
    const KIND: &'static str = "cursor_keeper";
    type View = CursorKeeperView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        cx.every(self.parts.period, Self::flush);
    }

    fn leaving(&mut self, _: Halt, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.leaving = true;
        self.flush_all(cx)
    }

    fn view(&self, _now: Instant) -> CursorKeeperView {
        let Self {
            pending,
            flushing,
            failed,
            superseded,
            ..
        } = self;
        CursorKeeperView {
            pending: Public(pending.len()),
            flushing: Public(*flushing),
            failed: Public(*failed),
            superseded: Public(*superseded),
        }
    }
}

impl Serve<Advance> for CursorKeeper {
    fn serve(&mut self, Advance(cursor): Advance, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.pending_since.get_or_insert_with(|| cx.world.instant());
        let known = self.pending.entry(cursor.device).or_insert(cursor);
        *known = known.merged(cursor);
        if self.leaving {
            return self.flush_all(cx);
        }
        Reply::Now(())
    }
}

impl Serve<Left> for CursorKeeper {
    fn serve(&mut self, it: Left, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let Left(device, attach_epoch) = it;
        self.note_again(vec![(device, attach_epoch)]);
        Reply::Now(())
    }
}

impl Serve<Flush> for CursorKeeper {
    fn serve(&mut self, _: Flush, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if cx.deadline.is_none() {
            self.flush(cx);
            return Reply::Now(());
        }
        self.flush_all(cx)
    }
}
