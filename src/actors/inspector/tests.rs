use std::{collections::BTreeMap, time::Duration};

use futures_util::future::LocalBoxFuture;

use super::{
    list::{ListQuery, Place, Sort, first},
    *,
};
use crate::{
    actors::kernel::{Class, Failure, Halted, Life, Powers, Reading, Seen, Slowest, Totals},
    domain::clock::{Clock as _, System},
};

/// Actors that are only read.
struct Many(BTreeMap<String, Meter>);

#[derive(Clone, Copy, Default)]
struct Meter {
    handled: u64,
    slow: u64,
    owing: u64,
}

impl Observed for Meter {
    fn life(&self) -> Life {
        Life::Up(0)
    }

    fn age(&self, _: Instant) -> Option<Duration> {
        None
    }

    fn read(&self, _: Instant) -> Option<Reading> {
        let millis = |n| (n > 0).then(|| Duration::from_millis(n));
        Some(Reading {
            age: Duration::ZERO,
            handled: self.handled,
            busy: Duration::ZERO,
            idle: None,
            owing: millis(self.owing),
            slowest: millis(self.slow).map(|took| Slowest { what: "Ask", took }),
            restarts: 0,
        })
    }

    fn in_progress(&self, _: Class) -> u64 {
        self.owing.min(1)
    }

    fn failures(&self) -> Vec<Failure> {
        Vec::new()
    }

    fn view(&self, _: Instant) -> LocalBoxFuture<'static, Seen> {
        unreachable!("a list asks nobody")
    }

    fn halt(&self, _: Halt, _: Instant) -> LocalBoxFuture<'static, Halted> {
        unreachable!("a list ends nobody")
    }
}

impl Kind for Many {
    fn name(&self) -> &'static str {
        "many"
    }

    fn live(&self) -> usize {
        self.0.len()
    }

    fn totals(&self) -> Option<Totals> {
        None
    }

    fn visit(&self, each: &mut dyn FnMut(&str, &dyn Observed)) {
        // Any order but that of the keys.
        for (key, meter) in self.0.iter().rev() {
            each(key, meter);
        }
    }

    fn find(&self, key: &str) -> Option<Box<dyn Observed>> {
        Some(Box::new(*self.0.get(key)?))
    }

    fn powers(&self) -> Powers {
        Powers {
            stop: false,
            restart: false,
        }
    }
}

fn query(sort: Sort, part: &str, after: Option<Place>) -> ListQuery {
    ListQuery {
        kind: "many".to_owned(),
        part: part.to_owned(),
        sort,
        after,
        limit: 7,
    }
}

fn many(count: u64, meter: impl Fn(u64) -> Meter) -> Many {
    Many((0..count).map(|n| (format!("{n:06}"), meter(n))).collect())
}

fn keys(places: &[Place]) -> Vec<&str> {
    places.iter().map(Place::key).collect()
}

#[test]
fn pages_follow_one_another_in_every_order() {
    let meter = |n: u64| Meter {
        // Many are the same: the key decides.
        handled: n % 5,
        slow: n % 3,
        owing: u64::from(n == 50) * 9,
    };
    let many = many(100, meter);
    let value = |sort, key: &str| list::weight(sort, &many.0[key], System.instant());
    for sort in [
        Sort::Id,
        Sort::Slowest,
        Sort::Waiting,
        Sort::Handled,
        Sort::Busy,
        Sort::Restarts,
    ] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = first(&many, &query(sort, "", after), 7, System.instant());
            seen.extend(keys(&page).iter().map(|key| (*key).to_owned()));
            let Some(last) = page.last() else { break };
            assert!(seen.len() <= 100, "an actor comes twice: {seen:?}");
            let text = last.encode();
            assert_eq!(Place::decode(&text, sort).as_ref(), Some(last));
            after = Some(last.clone());
        }
        let mut expected: Vec<_> = many.0.keys().cloned().collect();
        expected.sort_by_key(|key| (std::cmp::Reverse(value(sort, key)), key.clone()));
        assert_eq!(seen, expected, "{sort:?}");
    }
    // An ask that hangs is slower than any that was answered.
    let slowest = first(&many, &query(Sort::Slowest, "", None), 1, System.instant());
    assert_eq!(keys(&slowest), ["000050"]);
}

#[test]
fn a_part_of_the_key_finds_it() {
    let many = many(2000, |_| Meter::default());
    let found = first(&many, &query(Sort::Id, "0123", None), 7, System.instant());
    assert_eq!(
        keys(&found),
        [
            "000123", "001230", "001231", "001232", "001233", "001234", "001235"
        ]
    );
    let found = first(&many, &query(Sort::Id, "x", None), 7, System.instant());
    assert!(found.is_empty());
}

#[test]
fn a_cursor_of_another_list_is_none() {
    let place = first(
        &many(1, |_| Meter::default()),
        &query(Sort::Busy, "", None),
        1,
        System.instant(),
    );
    let text = place[0].encode();
    assert!(Place::decode(&text, Sort::Busy).is_some());
    assert_eq!(Place::decode(&text, Sort::Id), None);
    for text in ["", "x", "!!", &text[1..], "MS4y"] {
        assert_eq!(Place::decode(text, Sort::Busy), None, "{text}");
    }
}
