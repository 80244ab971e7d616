//! Where every actor of this node is found, whatever its kind.
//!
//! Owns nothing of the actors: a registry's own map is the directory of its kind, so that an actor
//! costs nothing more for being found. Boot adds each kind once. The inspector reads. Looking at an
//! actor's meters asks it nothing; only a view is asked for.

use std::{
    fmt::{Display, Write as _},
    hash::Hash,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use futures_util::future::LocalBoxFuture;
use serde_json::Value;

use super::{
    CallError, Class, Failure, Halt, Halted, Handle, Life, Observe, Reading, Registry, Totals, Unit,
};

/// An actor, for whoever looks at it from outside.
pub trait Observed: Send + Sync {
    /// What life it is in.
    fn life(&self) -> Life;

    /// How long ago it was started first.
    fn age(&self, now: Instant) -> Option<Duration>;

    /// What its meters show at `now`; none where it has none.
    fn read(&self, now: Instant) -> Option<Reading>;

    /// Messages in progress of a class.
    fn in_progress(&self, class: Class) -> u64;

    /// How its last lives ended before their time, the newest last.
    fn failures(&self) -> Vec<Failure>;

    /// Asks it for its view.
    fn view(&self, deadline: Instant) -> LocalBoxFuture<'static, Seen>;

    /// Ends its life, and waits until `deadline` for what comes of it.
    fn halt(&self, how: Halt, deadline: Instant) -> LocalBoxFuture<'static, Halted>;
}

/// What came of asking for a view.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// The view, fresh.
    Live(Value),
    /// No answer in time.
    Timeout,
    /// It is being made anew, or has just ended.
    NotUp,
    /// It failed too often, and is left alone.
    Quarantined,
}

/// What an operator may do with the actors of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Powers {
    /// They may be stopped.
    pub stop: bool,
    /// They may be made anew.
    pub restart: bool,
}

/// All living actors of a kind.
pub trait Kind: Send + Sync {
    /// The kind's name.
    fn name(&self) -> &'static str;

    /// How many live.
    fn live(&self) -> usize;

    /// What all of them did so far; none where it is not counted.
    fn totals(&self) -> Option<Totals>;

    /// Shows each to `each`, with its key. It must not ask for anything that waits.
    fn visit(&self, each: &mut dyn FnMut(&str, &dyn Observed));

    /// The one of this key.
    fn find(&self, key: &str) -> Option<Box<dyn Observed>>;

    /// What may be done with them.
    fn powers(&self) -> Powers;

    /// Who answers for the one of this key: its kind and key.
    fn parent(&self, _key: &str) -> Option<(&'static str, String)> {
        None
    }

    /// Keys of those for which the actor `key` of `kind` answers: `limit` at most, and how many there are.
    fn children_of(&self, _kind: &str, _key: &str, _limit: usize) -> (Vec<String>, usize) {
        (Vec::new(), 0)
    }
}

/// Every kind of this node. Cheap to clone: all clones are one.
#[derive(Clone, Default)]
pub struct Directory(Arc<RwLock<Vec<Arc<dyn Kind>>>>);

impl Directory {
    /// Makes a kind findable.
    pub fn add(&self, kind: impl Kind + 'static) {
        let mut kinds = self.0.write().unwrap_or_else(PoisonError::into_inner);
        kinds.push(Arc::new(kind));
    }

    /// Every kind.
    #[must_use]
    pub fn kinds(&self) -> Vec<Arc<dyn Kind>> {
        let kinds = self.0.read().unwrap_or_else(PoisonError::into_inner);
        kinds.clone()
    }

    /// The kind of this name.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<Arc<dyn Kind>> {
        self.kinds().into_iter().find(|kind| kind.name() == name)
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.kinds().iter().map(|kind| kind.name()).collect();
        write!(f, "Directory{names:?}")
    }
}

impl<A: Unit> Observed for Handle<A> {
    fn life(&self) -> Life {
        Self::life(self)
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        self.read(now).map(|reading| reading.age)
    }

    fn read(&self, now: Instant) -> Option<Reading> {
        let (meter, kind) = &self.0.meters;
        Some(meter.read(kind, now))
    }

    fn in_progress(&self, class: Class) -> u64 {
        Self::in_progress(self, class)
    }

    fn failures(&self) -> Vec<Failure> {
        self.0.meters.0.failures()
    }

    fn view(&self, deadline: Instant) -> LocalBoxFuture<'static, Seen> {
        let it = self.clone();
        Box::pin(async move {
            if matches!(it.life(), Life::Restarting | Life::Stopped) {
                return Seen::NotUp;
            }
            match it.ask(Observe, deadline).await {
                Ok(Some(view)) => Seen::Live(view),
                Err(CallError::Quarantined { .. }) => Seen::Quarantined,
                Err(CallError::Gone) => Seen::NotUp,
                Ok(None) | Err(CallError::Timeout | CallError::Overloaded) => Seen::Timeout,
            }
        })
    }

    fn halt(&self, how: Halt, deadline: Instant) -> LocalBoxFuture<'static, Halted> {
        let it = self.clone();
        Box::pin(async move { Self::halt(&it, how, deadline).await })
    }
}

impl<K, A> Kind for Registry<K, A>
where
    K: Eq + Hash + Clone + Display + FromStr + Send + Sync + 'static,
    A: Unit,
{
    fn name(&self) -> &'static str {
        A::KIND
    }

    fn live(&self) -> usize {
        self.len()
    }

    fn totals(&self) -> Option<Totals> {
        Some(self.totals())
    }

    fn visit(&self, each: &mut dyn FnMut(&str, &dyn Observed)) {
        let mut key_text = String::new();
        self.each(|key, handle| {
            key_text.clear();
            // Writing to a String cannot fail.
            let _ = write!(key_text, "{key}");
            each(&key_text, handle);
        });
    }

    fn find(&self, key: &str) -> Option<Box<dyn Observed>> {
        let handle = Self::find(self, &key.parse().ok()?)?;
        Some(Box::new(handle))
    }

    fn powers(&self) -> Powers {
        Powers {
            stop: true,
            restart: true,
        }
    }
}

/// The actors of a kind that live as long as the node, by key.
#[derive(Debug)]
pub struct Singles<A: Unit>(pub Vec<(String, Handle<A>)>);

impl<A: Unit> Singles<A> {
    /// The only one of its kind.
    #[must_use]
    pub fn one(handle: &Handle<A>) -> Self {
        Self(vec![("node".to_owned(), handle.clone())])
    }
}

impl<A: Unit> Kind for Singles<A> {
    fn name(&self) -> &'static str {
        A::KIND
    }

    fn live(&self) -> usize {
        self.0.len()
    }

    fn totals(&self) -> Option<Totals> {
        let (_, first) = self.0.first()?;
        Some(first.0.meters.1.totals())
    }

    fn visit(&self, each: &mut dyn FnMut(&str, &dyn Observed)) {
        for (key, handle) in &self.0 {
            each(key, handle);
        }
    }

    fn find(&self, key: &str) -> Option<Box<dyn Observed>> {
        let (_, handle) = self.0.iter().find(|(known, _)| known == key)?;
        Some(Box::new(handle.clone()))
    }

    fn powers(&self) -> Powers {
        // Without one of them the node does not serve as it should.
        Powers {
            stop: false,
            restart: true,
        }
    }
}
