//! Lines of a snapshot on their way to its reader: how much may wait, and how slow a reader may be.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{
    places::Place,
    turn::{Going, SnapshotTurn},
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

/// Some lines. Dropping them makes room for others.
#[derive(Debug)]
pub struct Batch {
    /// In order.
    pub lines: Vec<SnapshotLine>,
    _room: OwnedSemaphorePermit,
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
    place: Place,
    world: World,
    going: Arc<Going>,
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
    /// For the reader whose turn it is, at a place.
    pub fn new(SnapshotTurn { going, lines }: SnapshotTurn, place: Place, world: &World) -> Self {
        Self {
            waiting: Vec::with_capacity(BATCH),
            size: 0,
            // With the first line, which goes ahead.
            count: 1,
            sent: 0,
            begun: world.instant(),
            room: Arc::new(Semaphore::new(WAITING)),
            place,
            world: world.clone(),
            going,
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
        let left = self.due().saturating_duration_since(self.world.instant());
        let wait = async {
            self.place.slow_down(&self.going, &self.world).await?;
            let room = Arc::clone(&self.room).acquire_many_owned(units);
            room.await.ok()
        };
        timeout(left, wait).await.ok().flatten().ok_or(Stop::Left)
    }

    /// Until when a reader may take nothing.
    fn due(&self) -> Instant {
        let patience = self.world.instant() + PATIENCE;
        let pace = self.begun + GRACE + Duration::from_secs(self.sent / PACE);
        let due = patience.min(pace);
        self.place.due().map_or(due, |leaves| leaves.min(due))
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

#[cfg(test)]
mod tests;
