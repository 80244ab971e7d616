use proptest::prelude::*;

use super::*;

/// A list as the store has it: entries with ranks, of which a change looks at a few.
#[derive(Debug, Default)]
struct List {
    /// In order of rank.
    rows: Vec<(u32, i64)>,
    next: u32,
    /// Ranks of entries that were there before and have another one now, but for those that moved.
    touched: usize,
    /// The same of the change that did the most.
    most: usize,
    put: usize,
}

impl List {
    /// With ranks as close as can be, or as they come.
    fn of(n: u32, dense: bool) -> Self {
        let mut list = Self::default();
        if dense {
            list.rows = (0..n).map(|i| (i, MIDDLE + i64::from(i))).collect();
            list.next = n;
        } else {
            list.insert(0, n as usize);
            list.put = 0;
        }
        list
    }

    fn around(&self, at: usize, known: usize) -> Around {
        let (below, above) = self.rows.split_at(at);
        Around {
            below: below.iter().rev().take(known).map(|row| row.1).collect(),
            below_is_all: below.len() < known,
            above: above.iter().take(known).map(|row| row.1).collect(),
            above_is_all: above.len() < known,
        }
    }

    fn put_rows(&mut self, at: usize, ids: &[u32]) {
        // As few as can be are known first.
        let room = [1, 4, 64, usize::MAX]
            .into_iter()
            .find_map(|known| make_room(&self.around(at, known), ids.len()))
            .expect("there is always room when all is known");
        assert_eq!(room.ranks.len(), room.below + ids.len() + room.above);
        let first = at - room.below;
        let new = ids.iter().map(|id| (*id, 0));
        self.rows.splice(at..at, new);
        for (row, rank) in self.rows[first..].iter_mut().zip(&room.ranks) {
            row.1 = *rank;
        }
        let touched = room.below + room.above;
        self.touched += touched;
        self.most = self.most.max(touched);
        self.put += ids.len();
        assert!(self.rows.is_sorted_by(|a, b| a.1 < b.1), "{:?}", self.rows);
        assert!(self.rows.iter().all(|row| (LEAST..=MOST).contains(&row.1)));
    }

    fn insert(&mut self, at: usize, n: usize) {
        let ids: Vec<u32> = (self.next..).take(n).collect();
        self.next += u32::try_from(n).unwrap();
        self.put_rows(at, &ids);
    }

    fn relocate(&mut self, from: usize, to: usize) {
        let (id, _) = self.rows.remove(from);
        self.put_rows(to, &[id]);
    }

    fn ids(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.0).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(usize, usize),
    Remove(usize),
    Move(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Places are drawn from few numbers, so that the same one comes again and again.
    let place = prop_oneof![0_usize..4, any::<usize>()];
    let count = prop_oneof![4 => 1_usize..4, 1 => 1_usize..400];
    let step = prop_oneof![
        3 => (place.clone(), count).prop_map(|(at, n)| Step::Insert(at, n)),
        1 => place.clone().prop_map(Step::Remove),
        6 => (place.clone(), place).prop_map(|(from, to)| Step::Move(from, to)),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn a_list_is_in_the_order_of_its_model(dense: bool, first in 0_u32..200, steps in steps()) {
        let mut list = List::of(first, dense);
        let mut model = list.ids();
        for step in steps {
            let len = model.len();
            match step {
                Step::Insert(at, n) => {
                    let at = at % (len + 1);
                    model.splice(at..at, list.next..list.next + u32::try_from(n).unwrap());
                    list.insert(at, n);
                }
                Step::Remove(at) if len > 0 => {
                    model.remove(at % len);
                    list.rows.remove(at % len);
                }
                Step::Move(from, to) if len > 0 => {
                    let id = model.remove(from % len);
                    model.insert(to % len, id);
                    list.relocate(from % len, to % len);
                }
                Step::Remove(_) | Step::Move(..) => {}
            }
            prop_assert_eq!(list.ids(), model.clone());
        }
        // A dense list is paid for once; see `capacity` for the rest.
        prop_assert!(list.touched <= 16 * (list.put + first as usize), "{} for {}", list.touched, list.put);
    }
}

/// Whoever chooses the places: what moves costs a few neighbours, in the long run.
#[test]
fn moves_among_ten_thousand_touch_few() {
    const N: u32 = 10_000;
    type Places = fn(usize) -> (usize, usize);
    let choices: [(&str, Places); 6] = [
        ("always behind the same one", |_| (9_999, 5_000)),
        ("always before the same one", |i| (0, 4_999 - i % 2)),
        ("always to the beginning", |_| (9_999, 0)),
        ("always to the end", |_| (0, 9_999)),
        ("between the last two moved", |i| {
            (if i % 2 == 0 { 0 } else { 9_999 }, 5_000)
        }),
        ("in the middle of what moved", |i| {
            ((i * 7_919) % 10_000, 5_000 - i % 3)
        }),
    ];
    for (name, choose) in choices {
        let mut list = List::of(N, false);
        for i in 0..20_000 {
            let (from, to) = choose(i);
            list.relocate(from, to);
        }
        let (touched, most) = (list.touched, list.most);
        assert!(touched <= 8 * list.put, "{name}: {touched} by {}", list.put);
        assert!(most < list.put, "{name}: {most} at once");
    }
}

/// A list whose gaps are all used up is the worst there can be: it is spread locally all the same.
#[test]
fn a_dense_list_is_not_spread_as_a_whole() {
    let mut list = List::of(10_000, true);
    list.relocate(0, 5_000);
    let at_once = list.most;
    assert!(at_once > 0);
    for i in 0..10_000 {
        list.relocate((i * 7_919) % 10_000, (i * 104_729) % 10_000);
    }
    assert!(
        list.touched <= 16 * list.put,
        "{} by {}",
        list.touched,
        list.put
    );
}

#[test]
fn the_ends_are_not_the_end() {
    // At the highest rank there is: the list goes on all the same.
    let mut list = List {
        rows: vec![(0, MOST)],
        next: 1,
        ..List::default()
    };
    for n in 1..500 {
        list.insert(n, 1);
    }
    let mut list = List {
        rows: vec![(0, LEAST)],
        next: 1,
        ..List::default()
    };
    for _ in 1..500 {
        list.insert(0, 3);
    }
    assert!(capacity(BITS) > 100_000);
    for level in 1..=BITS {
        assert!(capacity(level) <= 1 << level);
    }
}
