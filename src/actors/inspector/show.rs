//! One actor as an operator sees it, and the frames of the live feed.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Inspector,
    list::{ListQuery, Sort, first},
    sample::Kinds,
};
use crate::{
    actors::kernel::{Class, Cx, Directory, Halted, Kind, Life, Observed, Seen, short_name},
    domain::clock::World,
};

/// An actor and its meters. What is not counted for its kind is null.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ActorRow {
    /// Its kind and key: `user_session:…`.
    id: String,
    /// Its kind.
    kind: &'static str,
    /// Its key.
    key: String,
    /// `up`, `restarting`, `quarantined` or `stopped`.
    state: &'static str,
    /// Which of its lives it is in, the first being 0; null while it is in none.
    life: Option<u32>,
    /// For how long it is still left alone.
    quarantined_for_ms: Option<u64>,
    /// When its first life began.
    started: Option<DateTime<Utc>>,
    /// Messages handled.
    handled: Option<u64>,
    /// Time spent in handlers.
    busy_ms: Option<f64>,
    /// What is waiting, handled or not answered yet.
    in_progress: InProgress,
    /// For how long asks have been in hand without an answer to any.
    owing_ms: Option<u64>,
    /// The slowest answer of the last half minute to minute.
    slowest: Option<SlowAnswer>,
    /// How often it was made anew.
    restarts: Option<u32>,
    /// How long ago it handled its last message.
    idle_ms: Option<u64>,
}

/// Messages in progress, by what is bounded together.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct InProgress {
    commands: u64,
    reads: u64,
    control: u64,
}

/// An answer that was slow.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct SlowAnswer {
    /// What was asked.
    what: &'static str,
    /// From the ask to the answer.
    ms: f64,
}

/// An actor, with what it shows of itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ActorView {
    /// Its meters, which are read without asking it.
    #[serde(flatten)]
    row: ActorRow,
    /// How fresh the view is: `live`; `timeout`: it did not answer within a second; `quarantined`,
    /// `restarting`: it is not up.
    freshness: &'static str,
    /// How long the view took.
    took_ms: f64,
    /// What it shows, by kind; null unless it is live.
    #[schema(value_type = Option<Object>)]
    view: Option<Value>,
    /// Who answers for it.
    parent: Option<String>,
    /// For whom it answers.
    children: Children,
    /// How its last lives ended before their time, the newest first.
    ends: Vec<EndView>,
}

/// Actors for which another one answers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Children {
    /// How many there are.
    count: usize,
    /// The first hundred.
    ids: Vec<String>,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct EndView {
    /// When.
    at: DateTime<Utc>,
    /// Which life.
    life: u32,
    /// What the panic said, if it is text of the program.
    reason: &'static str,
    /// Whether the actor was quarantined for it.
    quarantined: bool,
}

/// What became of a stop or a restart.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HaltedView {
    /// The actor.
    id: String,
    /// `stop` or `restart`.
    action: &'static str,
    /// What state it was in.
    was: &'static str,
    /// What state it is in.
    is: &'static str,
    /// Whether it is done; else it is still under way.
    pub done: bool,
}

/// A frame of the live feed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FeedFrame {
    at: DateTime<Utc>,
    sockets_open: i64,
    #[serde(flatten)]
    kinds: Kinds,
    /// The slowest lately, of all kinds.
    slowest: Vec<ActorRow>,
}

fn id(kind: &str, key: &str) -> String {
    format!("{kind}:{key}")
}

const fn state(life: Life) -> &'static str {
    match life {
        Life::Up(_) => "up",
        Life::Restarting => "restarting",
        Life::Quarantined(_) => "quarantined",
        Life::Stopped => "stopped",
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds to the microsecond.
fn ms(time: Duration) -> f64 {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1e3
}

impl ActorRow {
    pub(super) fn new(kind: &'static str, key: &str, actor: &dyn Observed, world: &World) -> Self {
        let (now, life) = (world.instant(), actor.life());
        let it = actor.read(now);
        let age = actor.age(now);
        let started = age.and_then(|age| {
            world
                .now()
                .checked_sub_signed(TimeDelta::from_std(age).ok()?)
        });
        Self {
            id: id(kind, key),
            kind,
            key: key.to_owned(),
            state: state(life),
            life: match life {
                Life::Up(life) => Some(life),
                _ => None,
            },
            quarantined_for_ms: match life {
                Life::Quarantined(until) => Some(whole_ms(until.saturating_duration_since(now))),
                _ => None,
            },
            started,
            handled: it.map(|it| it.handled),
            busy_ms: it.map(|it| ms(it.busy)),
            in_progress: InProgress {
                commands: actor.in_progress(Class::Command),
                reads: actor.in_progress(Class::Read),
                control: actor.in_progress(Class::Control),
            },
            owing_ms: it.and_then(|it| it.owing).map(whole_ms),
            slowest: it.and_then(|it| it.slowest).map(|slowest| SlowAnswer {
                what: short_name(slowest.what),
                ms: ms(slowest.took),
            }),
            restarts: it.map(|it| it.restarts),
            idle_ms: it.and_then(|it| it.idle).map(whole_ms),
        }
    }
}

impl ActorView {
    /// Children that are named.
    const NAMED: usize = 100;

    pub(super) fn new(
        directory: &Directory,
        kind: &dyn Kind,
        key: &str,
        actor: &dyn Observed,
        (seen, took): (Seen, Duration),
        world: &World,
    ) -> Self {
        let (freshness, view) = match seen {
            Seen::Live(view) => ("live", Some(view)),
            Seen::Timeout => ("timeout", None),
            Seen::NotUp => ("restarting", None),
            Seen::Quarantined => ("quarantined", None),
        };
        let mut children = Children {
            count: 0,
            ids: Vec::new(),
        };
        for other in directory.kinds() {
            let room = Self::NAMED.saturating_sub(children.ids.len());
            let (keys, count) = other.children_of(kind.name(), key, room);
            children.count += count;
            let ids = keys.iter().map(|key| id(other.name(), key));
            children.ids.extend(ids);
        }
        let ends = actor.failures().into_iter().rev().map(|it| EndView {
            at: it.at,
            life: it.life,
            reason: it.reason,
            quarantined: it.quarantined,
        });
        Self {
            row: ActorRow::new(kind.name(), key, actor, world),
            freshness,
            took_ms: ms(took),
            view,
            parent: kind.parent(key).map(|(kind, key)| id(kind, &key)),
            children,
            ends: ends.collect(),
        }
    }
}

impl HaltedView {
    pub(super) fn new(kind: &str, key: &str, action: &'static str, halted: Halted) -> Self {
        Self {
            id: id(kind, key),
            action,
            was: state(halted.was),
            is: state(halted.is),
            done: halted.done,
        }
    }
}

impl Inspector {
    pub(super) fn frame(&self, kinds: Kinds, cx: &Cx<'_, Self>) -> FeedFrame {
        FeedFrame {
            at: cx.world.now(),
            sockets_open: self.parts.sockets.open.get(),
            kinds,
            slowest: self.slowest(cx.world),
        }
    }

    fn slowest(&self, world: &World) -> Vec<ActorRow> {
        let now: Instant = world.instant();
        let mut slowest = Vec::new();
        for kind in self.parts.directory.kinds() {
            let query = ListQuery {
                kind: String::new(),
                part: String::new(),
                sort: Sort::Slowest,
                after: None,
                limit: Self::SLOWEST,
            };
            for place in first(kind.as_ref(), &query, Self::SLOWEST, now) {
                slowest.push((place, kind.clone()));
            }
        }
        slowest.sort_by(|(a, _), (b, _)| a.cmp(b));
        slowest.truncate(Self::SLOWEST);
        let rows = slowest.iter().filter(|(place, _)| place.weighs());
        let rows = rows.filter_map(|(place, kind)| {
            let actor = kind.find(place.key())?;
            Some(ActorRow::new(
                kind.name(),
                place.key(),
                actor.as_ref(),
                world,
            ))
        });
        rows.collect()
    }
}
