//! Makes the cursors of all users durable, in batches.
//!
//! Owns the cursors that moved and are not yet stored. Sessions tell it [`Advance`] with each ack
//! and [`Flush`] at each detach; shutdown asks for a last flush. A cursor that it loses with a crash
//! costs a repetition of events, never a loss. It never moves a cursor back.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;

use crate::{
    actors::kernel::{Ask, Class, Cx, Deadline, Reply, Serve, Unit},
    domain::ids::DeviceId,
    store::{Store, StoreError},
};

/// A device acknowledged everything up to here.
#[derive(Debug)]
pub struct Advance {
    /// The device.
    pub device: DeviceId,
    /// Its cursor.
    pub acked_seq: i64,
}

impl Ask for Advance {
    type Reply = ();
    const CLASS: Class = Class::Control;
}

/// Store what is pending now. Asked: answers when it is stored, or could not be.
#[derive(Debug)]
pub struct Flush;

impl Ask for Flush {
    type Reply = ();
    const CLASS: Class = Class::Control;
}

/// See the module.
#[derive(Debug)]
pub struct CursorKeeper {
    store: Store,
    period: Duration,
    pending: HashMap<DeviceId, i64>,
    /// One batch at a time: a device's cursors arrive in order.
    flushing: bool,
    failed: u64,
}

/// What the keeper shows of itself.
#[derive(Debug, Serialize)]
pub struct CursorKeeperView {
    pending: usize,
    flushing: bool,
    failed: u64,
}

impl CursorKeeper {
    /// How long a batch may take.
    const BUDGET: Duration = Duration::from_secs(5);

    /// Flushes at least each `period`.
    #[must_use]
    pub fn new(store: Store, period: Duration) -> Self {
        Self {
            store,
            period,
            pending: HashMap::new(),
            flushing: false,
            failed: 0,
        }
    }

    fn merge(&mut self, device: DeviceId, acked_seq: i64) {
        let cursor = self.pending.entry(device).or_insert(acked_seq);
        *cursor = (*cursor).max(acked_seq);
    }

    fn take(&mut self) -> Vec<(DeviceId, i64)> {
        self.pending.drain().collect()
    }

    fn stored(&mut self, batch: &[(DeviceId, i64)], result: Result<(), StoreError>) {
        if result.is_err() {
            self.failed += 1;
            for (device, seq) in batch {
                self.merge(*device, *seq);
            }
        }
    }

    fn flush(&mut self, cx: &mut Cx<'_, Self>) {
        if self.flushing || self.pending.is_empty() {
            return;
        }
        self.flushing = true;
        let batch = self.take();
        let (store, deadline) = (self.store.clone(), cx.world.instant() + Self::BUDGET);
        cx.spawn(
            async move {
                let result = store.cursors_advance(deadline, &batch).await;
                (batch, result)
            },
            |keeper, (batch, result), _| {
                keeper.flushing = false;
                keeper.stored(&batch, result);
            },
        );
    }
}

impl Unit for CursorKeeper {
    const KIND: &'static str = "cursor_keeper";
    type View = CursorKeeperView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        cx.every(self.period, Self::flush);
    }

    fn view(&self) -> CursorKeeperView {
        let Self {
            pending,
            flushing,
            failed,
            ..
        } = self;
        CursorKeeperView {
            pending: pending.len(),
            flushing: *flushing,
            failed: *failed,
        }
    }
}

impl Serve<Advance> for CursorKeeper {
    fn serve(&mut self, it: Advance, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.merge(it.device, it.acked_seq);
        Reply::Now(())
    }
}

impl Serve<Flush> for CursorKeeper {
    fn serve(&mut self, _: Flush, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let Some(deadline) = cx.deadline else {
            self.flush(cx);
            return Reply::Now(());
        };
        let (store, batch) = (self.store.clone(), self.take());
        Reply::later(
            flush_now(store, deadline, batch),
            |keeper: &mut Self, (batch, result), _| {
                keeper.stored(&batch, result);
            },
        )
    }
}

async fn flush_now(
    store: Store,
    deadline: Deadline,
    batch: Vec<(DeviceId, i64)>,
) -> (Vec<(DeviceId, i64)>, Result<(), StoreError>) {
    let result = store.cursors_advance(deadline, &batch).await;
    (batch, result)
}
