//! Keeps the published snapshot of other services' keys in step with the database.
//!
//! Owns the poll. What it read holds for less than a second: a key that was revoked, through whichever
//! node or none, opens nothing after that, and where the database does not answer no key opens anything.
//! The internal listener's extractors read the snapshot. Whoever changed a key tells it to look at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    actors::kernel::{Cx, Public, Reply, Serve, Unit, asks, view},
    domain::services::{KeyRing, StoredKey},
    store::{Store, StoreError},
};

/// A key was changed through this node: answered when the change is in force here.
#[derive(Debug)]
pub struct RefreshKeys;

asks! {
    Control RefreshKeys -> ();
}

/// See the module.
#[derive(Debug)]
pub struct KeyKeeper {
    store: Store,
    published: Arc<KeyRing>,
    /// Somebody may present a key here.
    serves: bool,
    reading: bool,
    polls: u64,
    failed: u64,
}

view! {
    /// What the keeper shows of itself.
    pub struct KeyKeeperView {
        in_force: Public<usize>,
        polls: Public<u64>,
        failed: Public<u64>,
    }
}

impl KeyKeeper {
    /// With the time of a read far below what a read holds.
    const PERIOD: Duration = Duration::from_millis(250);
    const BUDGET: Duration = Duration::from_secs(2);

    /// Polls if keys can be presented here: if the node `serves` other services.
    #[must_use]
    pub const fn new(store: Store, published: Arc<KeyRing>, serves: bool) -> Self {
        Self {
            store,
            published,
            serves,
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
        let (store, as_of) = (self.store.clone(), cx.world.instant());
        cx.spawn(
            async move { store.api_key_list(as_of + Self::BUDGET).await },
            move |keeper, result, _| {
                keeper.reading = false;
                keeper.read(result, as_of);
            },
        );
    }

    fn read(&mut self, result: Result<Vec<StoredKey>, StoreError>, as_of: Instant) {
        self.polls += 1;
        match result {
            Ok(keys) => self.published.publish(keys, as_of),
            Err(_) => self.failed += 1,
        }
    }
}

impl Unit for KeyKeeper {
    const KIND: &'static str = "key_keeper";
    type View = KeyKeeperView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        if self.serves {
            self.poll(cx);
            cx.every(Self::PERIOD, Self::poll);
        }
    }

    fn view(&self, _now: Instant) -> KeyKeeperView {
        KeyKeeperView {
            in_force: Public(self.published.len()),
            polls: Public(self.polls),
            failed: Public(self.failed),
        }
    }
}

impl Serve<RefreshKeys> for KeyKeeper {
    fn serve(&mut self, _: RefreshKeys, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        // Not by way of a poll that is under way: it may have begun before the change.
        let (store, as_of) = (self.store.clone(), cx.world.instant());
        Reply::later(
            async move { store.api_key_list(as_of + Self::BUDGET).await },
            move |keeper: &mut Self, result, _| keeper.read(result, as_of),
        )
    }
}
