//! Looks at the other actors for an operator, and ends their lives on an operator's word.
//!
//! Owns the samples from which rates are made, and the live feed: both only while somebody looks. The
//! admin API asks it, and it is started there when first asked. It reads meters, which costs the actors
//! nothing, and asks one actor at a time for its view. It must never hold up an actor, nor show what a
//! view hides.

mod list;
mod sample;
mod show;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use list::{ActorPage, ListQuery, Place, Sort};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry as Metrics,
};
use sample::Sample;
pub use sample::{KindRow, Kinds};
pub use show::{ActorRow, ActorView, HaltedView};
use tokio::sync::watch;

use super::kernel::{
    Caps, Cx, Directory, Halt, Kernel, Kind, Observed, Powers, Public, Registry, Reply,
    RestartPolicy, Serve, Unit, asks, view,
};
use super::session::UserSession;
use crate::telemetry::metrics::SocketMetrics;

/// The inspector, started when it is first asked; there is one, of key 0.
pub type Inspectors = Registry<u8, Inspector>;

/// The key of the one inspector.
pub const THE_ONE: u8 = 0;

/// What the inspector works with.
#[derive(Debug, Clone)]
pub struct InspectorParts {
    /// Where all actors are found.
    pub directory: Directory,
    /// Where sockets are counted.
    pub sockets: SocketMetrics,
    /// Where lives are counted that an operator ended.
    pub metrics: InspectorMetrics,
}

/// What an operator did to actors.
#[derive(Debug, Clone, Default)]
pub struct InspectorMetrics {
    halts: Family<HaltLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HaltLabels {
    kind: &'static str,
    action: &'static str,
}

impl InspectorMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Metrics) -> Self {
        let it = Self::default();
        // There from the start, so that the first one is seen as an increase.
        for action in ["stop", "restart"] {
            let kind = UserSession::KIND;
            drop(it.halts.get_or_create(&HaltLabels { kind, action }));
        }
        registry.register(
            "actor_interventions",
            "Actors that an operator stopped or restarted",
            it.halts.clone(),
        );
        it
    }
}

/// An empty registry for the one inspector.
#[must_use]
pub fn inspectors(kernel: Kernel, parts: InspectorParts) -> Inspectors {
    let place = super::kernel::Place {
        caps: Caps {
            commands: 8,
            reads: 16,
        },
        policy: RestartPolicy::ROOT,
    };
    Registry::new(kernel, place, move |_| Inspector::new(parts.clone()))
}

/// Every kind, with its rates.
#[derive(Debug)]
pub struct ListKinds;

/// A page of the actors of a kind.
#[derive(Debug)]
pub struct ListActors(pub ListQuery);

/// One actor.
#[derive(Debug)]
pub struct ShowActor {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: String,
}

/// End an actor's life.
#[derive(Debug)]
pub struct HaltActor {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// How.
    pub how: Halt,
}

/// Why an actor's life was not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotHalted {
    /// There is no such actor.
    Unknown,
    /// Actors of its kind may not be.
    NotAllowed,
}

/// Follow the live feed: a frame of JSON each second. None: too many do.
#[derive(Debug)]
pub struct Watch;

asks! {
    Read ListKinds -> Kinds;
    Read ListActors -> Option<ActorPage>;
    Read ShowActor -> Option<ActorView>;
    Command HaltActor -> Result<HaltedView, NotHalted>;
    Read Watch -> Option<watch::Receiver<Arc<str>>>;
}

/// See the module.
#[derive(Debug)]
pub struct Inspector {
    parts: InspectorParts,
    /// Rates are the difference between this and now.
    last: Option<Sample>,
    /// While somebody watches.
    feed: Option<watch::Sender<Arc<str>>>,
    looks: u64,
}

view! {
    /// What the inspector shows of itself.
    pub struct InspectorView {
        watchers: Public<usize>,
        looks: Public<u64>,
    }
}

impl Inspector {
    /// Rates are taken over so long at least.
    const SECOND: Duration = Duration::from_secs(1);
    /// A sample that is older says nothing of now.
    const STALE: Duration = Duration::from_secs(10);
    /// How long an actor may take to show itself.
    const VIEW: Duration = Duration::from_secs(1);
    /// How long is waited for the end of a life.
    const HALT: Duration = Duration::from_secs(5);
    /// How many may watch at once.
    const WATCHERS: usize = 16;
    /// Without a watcher it rests after so long.
    const IDLE: Duration = Duration::from_mins(1);
    /// Actors in a frame of the feed.
    const SLOWEST: usize = 10;

    fn new(parts: InspectorParts) -> Self {
        Self {
            parts,
            last: None,
            feed: None,
            looks: 0,
        }
    }

    fn watchers(&self) -> usize {
        self.feed.as_ref().map_or(0, watch::Sender::receiver_count)
    }

    /// A frame for all who watch, and the next a second later; the end of it when nobody does.
    fn tick(&mut self, cx: &mut Cx<'_, Self>) {
        if self.watchers() == 0 {
            self.feed = None;
            return;
        }
        let kinds = self.compare(cx.world.instant());
        let frame = self.frame(kinds, cx);
        if let (Some(feed), Ok(frame)) = (&self.feed, serde_json::to_string(&frame)) {
            feed.send_replace(frame.into());
        }
        cx.after(Self::SECOND, Self::tick);
    }

    /// What happened since the last sample, which is taken anew if it is a second old.
    fn compare(&mut self, now: Instant) -> Kinds {
        let sample = Sample::take(&self.parts.directory, now);
        let kinds = sample.since(self.last.as_ref().unwrap_or(&sample));
        let age = self.last.as_ref().map(|last| sample.after(last));
        if age.is_none_or(|age| age >= Self::SECOND) {
            self.last = Some(sample);
        }
        kinds
    }
}

/// What an operator may do with the actors of a kind.
fn powers(kind: &dyn Kind) -> Powers {
    // The inspector would wait for itself.
    if kind.name() == Inspector::KIND {
        return Powers::default();
    }
    kind.powers()
}

impl Unit for Inspector {
    const KIND: &'static str = "inspector";
    type View = InspectorView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        cx.every(Self::IDLE, |it, cx| {
            if it.feed.is_none() {
                // If a message is in progress, the next look may find none.
                cx.rest();
            }
        });
    }

    fn view(&self, _now: Instant) -> InspectorView {
        InspectorView {
            watchers: Public(self.watchers()),
            looks: Public(self.looks),
        }
    }
}

impl Serve<ListKinds> for Inspector {
    fn serve(&mut self, _: ListKinds, cx: &mut Cx<'_, Self>) -> Reply<Self, Kinds> {
        self.looks += 1;
        let now = cx.world.instant();
        let age = self.last.as_ref().map(|last| last.age(now));
        if age.is_some_and(|age| (Self::SECOND..Self::STALE).contains(&age)) {
            return Reply::Now(self.compare(now));
        }
        // Somebody begins to look: rates are of the second that now begins.
        let begin = Sample::take(&self.parts.directory, now);
        Reply::later(
            tokio::time::sleep(Self::SECOND),
            move |it: &mut Self, (), cx| {
                let sample = Sample::take(&it.parts.directory, cx.world.instant());
                let kinds = sample.since(&begin);
                it.last = Some(sample);
                kinds
            },
        )
    }
}

impl Serve<ListActors> for Inspector {
    fn serve(
        &mut self,
        ListActors(query): ListActors,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Option<ActorPage>> {
        self.looks += 1;
        let kind = self.parts.directory.kind(&query.kind);
        Reply::Now(kind.map(|kind| list::page(kind.as_ref(), &query, cx.world)))
    }
}

impl Serve<ShowActor> for Inspector {
    fn serve(&mut self, it: ShowActor, cx: &mut Cx<'_, Self>) -> Reply<Self, Option<ActorView>> {
        self.looks += 1;
        let ShowActor { kind, key } = it;
        let Some((kind, actor)) = self.find(&kind, &key) else {
            return Reply::Now(None);
        };
        let begun = cx.world.instant();
        let looking = actor.view(begun + Self::VIEW);
        let directory = self.parts.directory.clone();
        Reply::later(looking, move |_, seen, cx| {
            let took = cx.world.instant().saturating_duration_since(begun);
            Some(ActorView::new(
                &directory,
                kind.as_ref(),
                &key,
                actor.as_ref(),
                (seen, took),
                cx.world,
            ))
        })
    }
}

impl Serve<HaltActor> for Inspector {
    fn serve(
        &mut self,
        it: HaltActor,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<HaltedView, NotHalted>> {
        let HaltActor { kind, key, how } = it;
        let Some((kind, actor)) = self.find(&kind, &key) else {
            return Reply::Now(Err(NotHalted::Unknown));
        };
        let (action, allowed) = match how {
            Halt::Stop => ("stop", powers(&*kind).stop),
            Halt::Restart => ("restart", powers(&*kind).restart),
        };
        if !allowed {
            return Reply::Now(Err(NotHalted::NotAllowed));
        }
        let labels = HaltLabels {
            kind: kind.name(),
            action,
        };
        self.parts.metrics.halts.get_or_create(&labels).inc();
        let halting = actor.halt(how, cx.world.instant() + Self::HALT);
        Reply::later(halting, move |_, halted, _| {
            Ok(HaltedView::new(kind.name(), &key, action, halted))
        })
    }
}

impl Serve<Watch> for Inspector {
    fn serve(
        &mut self,
        _: Watch,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Option<watch::Receiver<Arc<str>>>> {
        if self.watchers() >= Self::WATCHERS {
            return Reply::Now(None);
        }
        if let Some(feed) = &self.feed {
            return Reply::Now(Some(feed.subscribe()));
        }
        let (feed, frames) = watch::channel(Arc::from(""));
        self.feed = Some(feed);
        // The first frame has rates too.
        self.compare(cx.world.instant());
        cx.after(Self::SECOND, Self::tick);
        Reply::Now(Some(frames))
    }
}

impl Inspector {
    fn find(&self, kind: &str, key: &str) -> Option<(Arc<dyn Kind>, Box<dyn Observed>)> {
        let kind = self.parts.directory.kind(kind)?;
        let actor = kind.find(key)?;
        Some((kind, actor))
    }
}
