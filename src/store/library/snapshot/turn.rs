//! A user's turn at the snapshot: one is on its way, and a newer one ends it.
//!
//! Owns the lines that wait for their reader, and the signal that ends a snapshot. A session holds the
//! current one, the store works for it and a reader takes from it: each of them ends it by letting go.
//! To end it must never wait for the reader: one who does not read is why it has to end.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Poll,
};

use tokio::sync::{Semaphore, mpsc};

use super::batches::Batch;

/// A snapshot on its way: what whoever has to do with it shares.
#[derive(Debug)]
pub(super) struct Going {
    /// What was read and not yet taken. None: it has ended, and keeps nothing in memory.
    lines: Mutex<Option<mpsc::UnboundedReceiver<Batch>>>,
    /// Has nothing to give: it is closed when the snapshot ends, which is seen then and later.
    ended: Semaphore,
}

impl Going {
    /// Ends it, wherever it is: waiting for a place, reading, or lying unread. What waited is dropped
    /// at once; whoever works for it drops what it holds as soon as it runs.
    pub fn end(&self) {
        self.ended.close();
        let unread = self.lines().take();
        // Not while it is locked: it may be megabytes.
        drop(unread);
    }

    /// Works until that is done. None: the snapshot ended before, and the work was dropped.
    pub async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.ended.acquire() => None,
            done = work => Some(done),
        }
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_closed()
    }

    fn lines(&self) -> MutexGuard<'_, Option<mpsc::UnboundedReceiver<Batch>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A user's current snapshot, if there is one. Dropping it ends that: a newer one could not.
#[derive(Debug, Default)]
pub struct CurrentSnapshot(Weak<Going>);

impl CurrentSnapshot {
    /// Begins the turn of a newer one. The one before is ended.
    #[must_use]
    pub fn replace(&mut self) -> SnapshotTurn {
        self.end();
        let turn = SnapshotTurn::default();
        self.0 = Arc::downgrade(&turn.going);
        turn
    }

    /// Whether it is on its way: somebody reads it, or works for it.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.0.strong_count() > 0
    }

    fn end(&self) {
        if let Some(going) = self.0.upgrade() {
            going.end();
        }
    }
}

impl Drop for CurrentSnapshot {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a snapshot is asked for with: the right to be on its way until a newer one is.
#[derive(Debug)]
pub struct SnapshotTurn {
    pub(super) going: Arc<Going>,
    pub(super) lines: mpsc::UnboundedSender<Batch>,
}

impl Default for SnapshotTurn {
    /// A turn that no newer one ends.
    fn default() -> Self {
        // Bounded by the room that each batch takes.
        let (lines, unread) = mpsc::unbounded_channel();
        let going = Arc::new(Going {
            lines: Mutex::new(Some(unread)),
            ended: Semaphore::new(0),
        });
        Self { going, lines }
    }
}

/// A snapshot's lines, for its reader. Dropping them ends it.
#[derive(Debug)]
pub struct SnapshotLines(pub(super) Arc<Going>);

impl SnapshotLines {
    /// The next ones. None: there are no more, or it was ended.
    pub async fn recv(&mut self) -> Option<Batch> {
        let next = poll_fn(|cx| match &mut *self.0.lines() {
            Some(lines) => lines.poll_recv(cx),
            None => Poll::Ready(None),
        });
        self.0.unless_ended(next).await.flatten()
    }
}

impl Drop for SnapshotLines {
    fn drop(&mut self) {
        self.0.end();
    }
}
