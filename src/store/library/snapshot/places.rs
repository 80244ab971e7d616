//! Places for reads of snapshots: a connection each, and one of them for what goes at its reader's pace.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::turn::Going;
use crate::domain::clock::World;

/// How long one that does not fit into memory waits for the place of such ones. It has an open
/// transaction and stands in others' way by then.
const SOON: Duration = Duration::from_secs(2);
/// For so long a large one keeps its place though another one waits for it.
const TERM: Duration = Duration::from_mins(1);

/// See the module.
pub(in crate::store) struct Places {
    any: Arc<Semaphore>,
    large: Arc<Large>,
}

impl Places {
    /// At most half of `readers`, or one: the others are for who waits for a short answer.
    pub(in crate::store) fn new(readers: u32) -> Self {
        let places = (readers / 2).max(1) as usize;
        Self {
            any: Arc::new(Semaphore::new(places)),
            large: Arc::new(Large {
                place: Arc::new(Semaphore::new(1)),
                holder: Mutex::default(),
                is_only: places == 1,
            }),
        }
    }

    /// Free ones, and whether that of large ones is among what is free.
    #[cfg(test)]
    pub(in crate::store) fn free(&self) -> (usize, bool) {
        let large = self.large.place.available_permits() > 0;
        (self.any.available_permits(), large)
    }

    /// Waits for a place.
    pub(super) async fn take(&self) -> Result<Place, AcquireError> {
        Ok(Place {
            slow: None,
            large: Arc::clone(&self.large),
            _any: Arc::clone(&self.any).acquire_owned().await?,
        })
    }
}

/// A place. Dropping it leaves it to others.
pub(super) struct Place {
    /// It goes at its reader's pace.
    slow: Option<Slow>,
    large: Arc<Large>,
    _any: OwnedSemaphorePermit,
}

impl Place {
    /// From here on `going` goes at its reader's pace: only one may, so that the other places are soon
    /// free. None: that one was not done in time.
    pub async fn slow_down(&mut self, going: &Arc<Going>, world: &World) -> Option<()> {
        if self.slow.is_none() {
            let taken = timeout(SOON, self.large.take(going, world));
            self.slow = Some(taken.await.ok()?.ok()?);
        }
        Some(())
    }

    /// When it has to be left, if that is known: with one place for all, others wait for that too.
    pub fn due(&self) -> Option<Instant> {
        let slow = self.slow.as_ref().filter(|_| self.large.is_only)?;
        Some(slow.since + TERM)
    }
}

/// For one that does not fit into memory: it may take long, and must not keep others from theirs.
struct Large {
    place: Arc<Semaphore>,
    holder: Mutex<Option<Holder>>,
    /// There is one place for all.
    is_only: bool,
}

struct Holder {
    since: Instant,
    going: Arc<Going>,
}

impl Large {
    async fn take(
        self: &Arc<Self>,
        going: &Arc<Going>,
        world: &World,
    ) -> Result<Slow, AcquireError> {
        let place = Arc::clone(&self.place).acquire_owned();
        tokio::pin!(place);
        let place = tokio::select! {
            biased;
            place = &mut place => place,
            () = self.end_overdue(world) => place.await,
        }?;
        let since = world.instant();
        *self.holder() = Some(Holder {
            since,
            going: Arc::clone(going),
        });
        Ok(Slow {
            since,
            large: Arc::clone(self),
            _place: place,
        })
    }

    /// Ends who has the place, as soon as that is for long.
    async fn end_overdue(&self, world: &World) {
        loop {
            let left = {
                let holder = self.holder();
                let Some(holder) = holder.as_ref() else {
                    // It was taken or left just now.
                    return;
                };
                let left = (holder.since + TERM).saturating_duration_since(world.instant());
                if left.is_zero() {
                    holder.going.end();
                    return;
                }
                left
            };
            // Then it may be another's.
            sleep(left).await;
        }
    }

    fn holder(&self) -> MutexGuard<'_, Option<Holder>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of large ones.
struct Slow {
    since: Instant,
    large: Arc<Large>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Slow {
    fn drop(&mut self) {
        // Before the place is another's: what is read to its end is not cut off for those who wait.
        let holder = self.large.holder().take();
        drop(holder);
    }
}
