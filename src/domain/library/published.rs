//! What a node remembers of public playlists: answers that are good for a few seconds, so that a link
//! that many follow costs the store one read.
//!
//! A value without clock and I/O. Each answer is asked for once at a time ([`Published::look`] says who
//! asks), and what was asked for before a change is never remembered after it.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// Answers by key. Keys of one subject are forgotten together.
#[derive(Debug)]
pub struct Published<S, K, V> {
    slots: HashMap<K, Slot<S, V>>,
    /// Answers in the order in which they came, with the asking that they came from.
    order: VecDeque<(K, u64)>,
    /// Of all answers that are remembered.
    weight: usize,
    asked: u64,
    life: Duration,
    room: Bounds,
}

/// How much may be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Answers.
    pub answers: usize,
    /// What they weigh together.
    pub weight: usize,
}

#[derive(Debug)]
struct Slot<S, V> {
    subject: S,
    /// Tells it from one of the same key that was forgotten.
    asking: u64,
    answer: Option<Answer<V>>,
}

#[derive(Debug)]
struct Answer<V> {
    value: V,
    weight: usize,
    until: Instant,
}

/// What is known under a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Look<V> {
    /// The answer, still good.
    Known(V),
    /// Somebody asks for it already.
    Asked(u64),
    /// Nothing: ask, and tell [`Published::answered`] with this number.
    Ask(u64),
}

impl<S: PartialEq + Clone, K: Hash + Eq + Clone, V: Clone> Published<S, K, V> {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(life: Duration, room: Bounds) -> Self {
        Self {
            slots: HashMap::new(),
            order: VecDeque::new(),
            weight: 0,
            asked: 0,
            life,
            room,
        }
    }

    /// What is known at `now`; what is no longer good is dropped.
    pub fn look(&mut self, now: Instant, subject: &S, key: &K) -> Look<V> {
        self.drop_old(now);
        if let Some(slot) = self.slots.get(key) {
            return match &slot.answer {
                Some(answer) => Look::Known(answer.value.clone()),
                None => Look::Asked(slot.asking),
            };
        }
        self.asked += 1;
        let slot = Slot {
            subject: subject.clone(),
            asking: self.asked,
            answer: None,
        };
        self.slots.insert(key.clone(), slot);
        Look::Ask(self.asked)
    }

    /// The asking of that number came to its end, with nothing if it failed. What `value` weighs decides
    /// what goes to make room for it.
    pub fn answered(&mut self, now: Instant, key: &K, asking: u64, value: Option<(V, usize)>) {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.asking == asking) else {
            // It was forgotten meanwhile: what it says may be from before the change.
            return;
        };
        let fits = value.filter(|(_, weight)| *weight <= self.room.weight);
        let Some((value, weight)) = fits else {
            self.slots.remove(key);
            return;
        };
        slot.answer = Some(Answer {
            value,
            weight,
            until: now + self.life,
        });
        self.weight += weight;
        self.order.push_back((key.clone(), asking));
        while self.order.len() > self.room.answers || self.weight > self.room.weight {
            self.drop_first();
        }
    }

    /// Forgets what is known of a subject, and what is being asked for.
    pub fn forget(&mut self, subject: &S) {
        let weight = &mut self.weight;
        self.slots.retain(|_, slot| {
            let stays = slot.subject != *subject;
            if let Some(answer) = slot.answer.as_ref().filter(|_| !stays) {
                *weight -= answer.weight;
            }
            stays
        });
        let slots = &self.slots;
        self.order
            .retain(|(key, asking)| slots.get(key).is_some_and(|slot| slot.asking == *asking));
    }

    /// Drops what is no longer good.
    pub fn drop_old(&mut self, now: Instant) {
        // All live equally long: the first to come is the first to go.
        while let Some((key, _)) = self.order.front() {
            let slot = self.slots.get(key).and_then(|slot| slot.answer.as_ref());
            if slot.is_some_and(|answer| now < answer.until) {
                return;
            }
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((key, _)) = self.order.pop_front()
            && let Some(Slot {
                answer: Some(answer),
                ..
            }) = self.slots.remove(&key)
        {
            self.weight -= answer.weight;
        }
    }

    /// How many answers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// What they weigh.
    #[must_use]
    pub const fn weight(&self) -> usize {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::clock::World;

    #[derive(Debug, Clone)]
    enum Step {
        Look(u8, u8),
        Answer(usize, usize),
        Fail(usize),
        Change(u8),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0_u8..3, 0_u8..3).prop_map(|(s, k)| Step::Look(s, k)),
            4 => (any::<usize>(), 0_usize..8).prop_map(|(n, w)| Step::Answer(n, w)),
            1 => any::<usize>().prop_map(Step::Fail),
            2 => (0_u8..3).prop_map(Step::Change),
            2 => (0_u64..7).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Values are the numbers of changes of their subject: what is known is never older than the
        /// last change, nor older than its life; and one asks at a time.
        #[test]
        fn nothing_from_before_a_change_is_known_after_it(steps in steps()) {
            let room = Bounds { answers: 4, weight: 10 };
            let life = Duration::from_secs(5);
            let mut cache = Published::new(life, room);
            let mut now = World::system().instant();
            let mut changes = [0_u32; 3];
            // Askings under way: what the store said when it was asked, and since when.
            let mut asking: Vec<((u8, u8), u64, u32)> = Vec::new();
            for step in steps {
                match step {
                    Step::Look(subject, key) => match cache.look(now, &subject, &(subject, key)) {
                        Look::Known((value, at)) => {
                            prop_assert_eq!(value, changes[usize::from(subject)]);
                            prop_assert!(now < at + life);
                        }
                        Look::Asked(n) => {
                            let there = asking.iter().any(|it| it.0 == (subject, key) && it.1 == n);
                            prop_assert!(there, "nobody asks");
                        }
                        Look::Ask(n) => {
                            let value = changes[usize::from(subject)];
                            let others = asking.iter().filter(|it| it.0 == (subject, key));
                            let changed = others.into_iter().all(|it| it.2 < value);
                            prop_assert!(changed, "two ask at once");
                            asking.push(((subject, key), n, value));
                        }
                    },
                    Step::Answer(n, weight) if !asking.is_empty() => {
                        let (key, number, value) = asking.swap_remove(n % asking.len());
                        cache.answered(now, &key, number, Some(((value, now), weight)));
                    }
                    Step::Fail(n) if !asking.is_empty() => {
                        let (key, number, _) = asking.swap_remove(n % asking.len());
                        cache.answered(now, &key, number, None);
                    }
                    Step::Change(subject) => {
                        changes[usize::from(subject)] += 1;
                        cache.forget(&subject);
                    }
                    Step::Wait(secs) => now += Duration::from_secs(secs),
                    Step::Answer(..) | Step::Fail(_) => {}
                }
                prop_assert!(cache.len() <= room.answers && cache.weight() <= room.weight);
                prop_assert!(cache.slots.len() <= cache.len() + asking.len());
                let known = cache.slots.values().filter_map(|slot| slot.answer.as_ref());
                prop_assert_eq!(known.map(|it| it.weight).sum::<usize>(), cache.weight());
            }
            cache.drop_old(now + life);
            prop_assert!(cache.is_empty());
            prop_assert_eq!(cache.weight(), 0);
        }
    }
}
