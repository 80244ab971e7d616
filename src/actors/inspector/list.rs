//! A page of the actors of a kind, in an order of the operator's choice.
//!
//! One walk over the kind's meters a page: no actor is asked anything, and no more is kept than the page
//! holds. What is counted changes while somebody pages, so an actor may come on two pages or on none,
//! but not in the order by id.

use std::{cmp::Ordering, collections::BinaryHeap, time::Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::show::ActorRow;
use crate::{
    actors::kernel::{Class, Kind, Observed},
    domain::clock::World,
};

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// By key.
    #[default]
    Id,
    /// Who answered slowest lately, or owes an answer for longest.
    Slowest,
    /// Who spent most time in handlers.
    Busy,
    /// Who has most asks in progress.
    Waiting,
    /// Who handled most messages.
    Handled,
    /// Who was made anew most often.
    Restarts,
}

/// Which page of which list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Actors of this kind.
    pub kind: String,
    /// Only those whose key has this in it.
    pub part: String,
    /// The order.
    pub sort: Sort,
    /// Only those after this one.
    pub after: Option<Place>,
    /// At most so many.
    pub limit: usize,
}

/// A place in a list, opaque to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    sort: Sort,
    value: u64,
    key: String,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ActorPage {
    items: Vec<ActorRow>,
    /// Names the next page; null on the last.
    next_cursor: Option<String>,
}

impl Place {
    /// Text of base64url.
    #[must_use]
    pub fn encode(&self) -> String {
        let Self { sort, value, key } = self;
        let sort = *sort as u8;
        URL_SAFE_NO_PAD.encode(format!("{sort}.{value}.{key}"))
    }

    /// Reads what [`Self::encode`] made for a list of this order; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str, sort: Sort) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut parts = text.splitn(3, '.');
        let of = parts.next()?.parse::<u8>().ok()?;
        let value = parts.next()?.parse().ok()?;
        let key = parts.next()?.to_owned();
        (of == sort as u8).then_some(Self { sort, value, key })
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Whether there is anything that it is sorted by.
    pub(super) const fn weighs(&self) -> bool {
        self.value > 0
    }

    fn cmp_to(&self, value: u64, key: &str) -> Ordering {
        // The highest first.
        value
            .cmp(&self.value)
            .then_with(|| self.key.as_str().cmp(key))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_to(other.value, &other.key)
    }
}

/// The first places of a walk; no more than wanted are kept.
struct First {
    sort: Sort,
    wanted: usize,
    kept: BinaryHeap<Place>,
}

impl First {
    fn offer(&mut self, value: u64, key: &str) {
        if self.kept.len() == self.wanted {
            let last = self.kept.peek();
            if last.is_none_or(|last| last.cmp_to(value, key).is_le()) {
                return;
            }
            self.kept.pop();
        }
        self.kept.push(Place {
            sort: self.sort,
            value,
            key: key.to_owned(),
        });
    }
}

/// What an actor is sorted by.
pub(super) fn weight(sort: Sort, actor: &dyn Observed, now: Instant) -> u64 {
    if sort == Sort::Id {
        return 0;
    }
    if sort == Sort::Waiting {
        return actor.in_progress(Class::Command) + actor.in_progress(Class::Read);
    }
    let Some(it) = actor.read(now) else { return 0 };
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    match sort {
        Sort::Slowest => {
            let slowest = it.slowest.map_or(0, |slowest| micros(slowest.took));
            it.owing.map_or(slowest, |owing| micros(owing).max(slowest))
        }
        Sort::Busy => micros(it.busy),
        Sort::Handled => it.handled,
        Sort::Restarts => it.restarts.into(),
        Sort::Id | Sort::Waiting => 0,
    }
}

/// The first of a kind after a place.
pub(super) fn first(kind: &dyn Kind, query: &ListQuery, wanted: usize, now: Instant) -> Vec<Place> {
    let mut first = First {
        sort: query.sort,
        wanted,
        kept: BinaryHeap::with_capacity(wanted),
    };
    kind.visit(&mut |key, actor| {
        if !key.contains(&query.part) {
            return;
        }
        let value = weight(query.sort, actor, now);
        let after = query.after.as_ref();
        if after.is_none_or(|after| after.cmp_to(value, key).is_lt()) {
            first.offer(value, key);
        }
    });
    first.kept.into_sorted_vec()
}

pub(super) fn page(kind: &dyn Kind, query: &ListQuery, world: &World) -> ActorPage {
    // One more says whether there is a next page.
    let mut places = first(kind, query, query.limit + 1, world.instant());
    let more = places.len() > query.limit;
    places.truncate(query.limit);
    // One that ended meanwhile is left out.
    let rows = places.iter().filter_map(|place| {
        let actor = kind.find(&place.key)?;
        Some(ActorRow::new(
            kind.name(),
            &place.key,
            actor.as_ref(),
            world,
        ))
    });
    ActorPage {
        items: rows.collect(),
        next_cursor: places.last().filter(|_| more).map(Place::encode),
    }
}
