//! Counts of what all actors of a kind do, registered as metrics and readable by the program itself.
//!
//! Owns the families. An actor looks its kind up once, when it is started.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    meter::NAME,
    timing::{Timed, Timing},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// The metric families of all actors.
#[derive(Debug, Clone)]
pub struct KernelMetrics {
    live: Family<Kind, Gauge>,
    messages: Family<Kind, Counter>,
    shed: Family<Kind, Counter>,
    expired: Family<Kind, Counter>,
    restarts: Family<Kind, Counter>,
    quarantines: Family<Kind, Counter>,
    handle: Family<Kind, Timing>,
    wait: Family<Kind, Timing>,
    kinds: Arc<Mutex<HashMap<&'static str, Arc<KindMeter>>>>,
}

impl KernelMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self {
            live: Family::default(),
            messages: Family::default(),
            shed: Family::default(),
            expired: Family::default(),
            restarts: Family::default(),
            quarantines: Family::default(),
            handle: Family::default(),
            wait: Family::default(),
            kinds: Arc::default(),
        };
        registry.register("actor_live", "Actors alive", it.live.clone());
        registry.register("actor_messages", "Messages handled", it.messages.clone());
        registry.register(
            "actor_shed",
            "Asks refused because the actor was full",
            it.shed.clone(),
        );
        registry.register(
            "actor_expired",
            "Asks whose caller was gone when their turn came",
            it.expired.clone(),
        );
        registry.register(
            "actor_restarts",
            "Actors made anew after a panic",
            it.restarts.clone(),
        );
        registry.register(
            "actor_quarantines",
            "Actors that failed too often",
            it.quarantines.clone(),
        );
        registry.register(
            "actor_handle_seconds",
            "Time in handlers, without waiting",
            it.handle.clone(),
        );
        registry.register("actor_wait_seconds", "Time in mailboxes", it.wait.clone());
        it
    }

    /// The meters of one kind, looked up once an actor.
    pub(super) fn kind(&self, kind: &'static str) -> Arc<KindMeter> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let label = Kind { kind };
        let known = kinds.entry(kind).or_insert_with(|| {
            Arc::new(KindMeter {
                live: self.live.get_or_create_owned(&label),
                messages: self.messages.get_or_create_owned(&label),
                shed: self.shed.get_or_create_owned(&label),
                expired: self.expired.get_or_create_owned(&label),
                restarts: self.restarts.get_or_create_owned(&label),
                quarantines: self.quarantines.get_or_create_owned(&label),
                handle: self.handle.get_or_create_owned(&label),
                wait: self.wait.get_or_create_owned(&label),
                asks: Mutex::default(),
            })
        });
        Arc::clone(known)
    }
}

/// The meters that all actors of a kind share.
#[derive(Debug)]
pub(super) struct KindMeter {
    pub live: Gauge,
    pub messages: Counter,
    pub shed: Counter,
    pub expired: Counter,
    pub restarts: Counter,
    pub quarantines: Counter,
    pub handle: Timing,
    pub wait: Timing,
    /// The asks that were ever the slowest of an actor: meters name them by their place here.
    asks: Mutex<Vec<&'static str>>,
}

/// What all actors of a kind did so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Messages handled.
    pub messages: u64,
    /// Asks refused because an actor was full.
    pub shed: u64,
    /// Asks whose caller was gone when their turn came.
    pub expired: u64,
    /// Restarts after a panic.
    pub restarts: u64,
    /// Quarantines.
    pub quarantines: u64,
    /// Time in handlers, by length.
    pub handle: Timed,
    /// Time in mailboxes, by length.
    pub wait: Timed,
}

impl KindMeter {
    pub(super) fn totals(&self) -> Totals {
        Totals {
            messages: self.messages.get(),
            shed: self.shed.get(),
            expired: self.expired.get(),
            restarts: self.restarts.get(),
            quarantines: self.quarantines.get(),
            handle: self.handle.so_far(),
            wait: self.wait.so_far(),
        }
    }

    /// The place of an ask's name, for which 16 bits must do.
    pub(super) fn place_of(&self, ask: &'static str) -> u64 {
        let mut asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        let at = asks.iter().position(|known| *known == ask);
        let at = at.unwrap_or_else(|| {
            asks.push(ask);
            asks.len() - 1
        });
        u64::try_from(at).unwrap_or(NAME).min(NAME)
    }

    pub(super) fn ask_at(&self, place: u64) -> &'static str {
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        let name = usize::try_from(place).ok().and_then(|at| asks.get(at));
        name.map_or("", |name| short_name(name))
    }
}

/// The last part of a type's name, as people know it.
#[must_use]
pub fn short_name(name: &'static str) -> &'static str {
    let generics = name.find('<').unwrap_or(name.len());
    let begin = name[..generics].rfind("::").map_or(0, |at| at + 2);
    &name[begin..]
}
