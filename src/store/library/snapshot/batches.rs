//! Lines of a snapshot on their way to its reader: how much may wait, and how slow a reader may be.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use crate::{
    domain::{clock::World, library::SnapshotLine},
    store::error::Failed,
};

/// Lines that are handed over at once.
const BATCH: usize = 64;
/// Bytes of lines that may wait for a reader, about.
const WAITING: usize = 4 << 20;
/// A reader who takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// A reader who takes less than so many bytes a second, after [`GRACE`], is given up too.
const PACE: u64 = 1 << 20;
const GRACE: Duration = Duration::from_secs(30);
/// How long one that does not fit into memory waits for the place of such ones. It has an open
/// transaction and stands in others' way by then.
const SOON: Duration = Duration::from_secs(2);

/// Some lines. Dropping them makes room for others.
#[derive(Debug)]
pub struct Batch {
    /// In order.
    pub lines: Vec<SnapshotLine>,
    _room: OwnedSemaphorePermit,
}

/// Places for reads of snapshots: a connection each.
pub(in crate::store) struct Places {
    pub(super) any: Arc<Semaphore>,
    /// For one that does not fit into memory: it may take long, and must not keep others from theirs.
    pub(super) large: Arc<Semaphore>,
}

impl Places {
    /// At most half of `readers`: the other half is for who waits for a short answer.
    pub(in crate::store) fn new(readers: u32) -> Self {
        Self {
            any: Arc::new(Semaphore::new((readers / 2).max(1) as usize)),
            large: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Lines on their way to the reader.
pub(super) struct Batches {
    waiting: Vec<SnapshotLine>,
    /// Bytes of those, about.
    size: usize,
    pub(super) count: u64,
    /// Bytes that were handed over.
    sent: u64,
    begun: Instant,
    room: Arc<Semaphore>,
    place: OwnedSemaphorePermit,
    large: Arc<Semaphore>,
    /// It has the place of those that do not fit into memory.
    slow: bool,
    world: World,
    lines: mpsc::UnboundedSender<Batch>,
}

/// Why a snapshot ended early.
pub(super) enum Stop {
    Failed(Failed),
    /// Nobody reads it, or too slowly.
    Left,
}

impl<E: Into<Failed>> From<E> for Stop {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

impl Batches {
    /// For the reader behind `lines`, at a place of `places`.
    pub fn new(
        lines: mpsc::UnboundedSender<Batch>,
        (places, place): (&Places, OwnedSemaphorePermit),
        world: &World,
    ) -> Self {
        Self {
            waiting: Vec::with_capacity(BATCH),
            size: 0,
            // With the first line, which goes ahead.
            count: 1,
            sent: 0,
            begun: world.instant(),
            room: Arc::new(Semaphore::new(WAITING)),
            place,
            large: Arc::clone(&places.large),
            slow: false,
            world: world.clone(),
            lines,
        }
    }

    pub async fn push(&mut self, line: SnapshotLine) -> Result<(), Stop> {
        self.count += 1;
        self.size += size(&line);
        self.waiting.push(line);
        if self.waiting.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    pub async fn flush(&mut self) -> Result<(), Stop> {
        let lines = std::mem::replace(&mut self.waiting, Vec::with_capacity(BATCH));
        let size = std::mem::take(&mut self.size).min(WAITING);
        let units = u32::try_from(size).unwrap_or(u32::MAX);
        let room = match Arc::clone(&self.room).try_acquire_many_owned(units) {
            Ok(room) => room,
            Err(_) => self.wait_for_room(units).await?,
        };
        self.sent += u64::from(units);
        let batch = Batch { lines, _room: room };
        self.lines.send(batch).map_err(|_| Stop::Left)
    }

    /// The reader is slower than the database.
    async fn wait_for_room(&mut self, units: u32) -> Result<OwnedSemaphorePermit, Stop> {
        let now = self.world.instant();
        let due = self.begun + GRACE + Duration::from_secs(self.sent / PACE);
        let left = due.saturating_duration_since(now).min(PATIENCE);
        let wait = async {
            if !self.slow {
                // From here on it goes at its reader's pace. It leaves its place to others only
                // when it has the other one: each open transaction keeps a connection.
                let place = Arc::clone(&self.large).acquire_owned();
                let place = timeout(SOON, place).await.ok()?.ok()?;
                drop(std::mem::replace(&mut self.place, place));
                self.slow = true;
            }
            let room = Arc::clone(&self.room).acquire_many_owned(units);
            tokio::select! {
                room = room => room.ok(),
                () = self.lines.closed() => None,
            }
        };
        timeout(left, wait).await.ok().flatten().ok_or(Stop::Left)
    }
}

/// Bytes that a line takes, about.
fn size(line: &SnapshotLine) -> usize {
    match line {
        SnapshotLine::Favorite(_) | SnapshotLine::History(_) | SnapshotLine::End(_) => 200,
        SnapshotLine::Play(it) => 300 + it.song_name.len() + it.artist_name.len(),
        SnapshotLine::Playlist(_) | SnapshotLine::Player(_) => 2000,
        SnapshotLine::Entries(it) => 100 + 150 * it.entries.len(),
    }
}
