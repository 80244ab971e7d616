//! Ranks: numbers with gaps that keep an order, so that a change of it writes few rows.
//!
//! What is put between two entries gets a rank from the gap between theirs. Where the gap is used up,
//! the entries of a window around it are spread anew: windows are aligned pieces of 2, 4, 8 … ranks, and
//! the smallest is taken in which entries are not too dense, where a larger window may be less dense than
//! a smaller one. So what is spread has room for as many more as it cost, whoever chooses the places, and
//! a long list is hardly ever touched as a whole.

/// The lowest rank there may be.
pub const LEAST: i64 = 0;
/// The highest.
pub const MOST: i64 = (1 << BITS) - 1;

/// All ranks are a window of this level.
const BITS: u32 = 62;
/// Between entries that are put to an end of the list.
const STEP: i64 = 1 << 32;
/// Where a list begins: it can grow to both sides.
const MIDDLE: i64 = 1 << (BITS - 1);

/// The entries around a place, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// The ranks below it, the nearest first.
    pub below: Vec<i64>,
    /// There are no more below.
    pub below_is_all: bool,
    /// The ranks above it, the nearest first.
    pub above: Vec<i64>,
    /// There are no more above.
    pub above_is_all: bool,
}

/// Ranks for what is put to a place, and for its neighbours that are spread anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// How many of the nearest entries below get another rank.
    pub below: usize,
    /// How many of the nearest above.
    pub above: usize,
    /// Ascending: of those below, of the new ones, of those above.
    pub ranks: Vec<i64>,
}

/// Makes room for `n` entries at a place. None: more of its neighbours must be known; never when all are,
/// for as many entries as a playlist may have.
#[must_use]
pub fn make_room(around: &Around, n: usize) -> Option<Room> {
    let below = nearest(&around.below, around.below_is_all)?;
    let above = nearest(&around.above, around.above_is_all)?;
    if let Some(ranks) = between(below, above, n) {
        return Some(Room {
            below: 0,
            above: 0,
            ranks,
        });
    }
    let pivot = below.or(above)?;
    for level in 1..=BITS {
        let last = (1 << level) - 1;
        let (from, to) = (pivot & !last, pivot | last);
        let below = around.below.iter().take_while(|it| **it >= from).count();
        let above = around.above.iter().take_while(|it| **it <= to).count();
        let unknown = below == around.below.len() && !around.below_is_all && from > LEAST
            || above == around.above.len() && !around.above_is_all && to < MOST;
        if unknown {
            return None;
        }
        let count = below + n + above;
        if u128::try_from(count).is_ok_and(|count| count <= capacity(level)) {
            return Some(Room {
                below,
                above,
                ranks: spread(from, level, count),
            });
        }
    }
    None
}

/// The nearest one's rank, or that there is none; none at all if that is not known.
#[expect(clippy::option_option, reason = "unknown, known to be none, known")]
fn nearest(ranks: &[i64], is_all: bool) -> Option<Option<i64>> {
    match ranks.first() {
        Some(rank) => Some(Some(*rank)),
        None => is_all.then_some(None),
    }
}

/// As many entries as a window may have after it was spread: 1.25 times as many for twice the ranks. With
/// more, fewer places would be left; with less, larger windows would be needed.
fn capacity(level: u32) -> u128 {
    (0..level).fold(1 << 40, |capacity: u128, _| capacity * 5 / 4) >> 40
}

/// `count` ranks in the window that begins at `from`, as far from one another and from its ends as can be.
fn spread(from: i64, level: u32, count: usize) -> Vec<i64> {
    let (size, all) = (1_i128 << level, int(count));
    (0..all)
        .map(|n| narrow(i128::from(from) + size * (2 * n + 1) / (2 * all)))
        .collect()
}

/// `n` ranks between two neighbours, if there is room. At an end of the list they keep their distance.
fn between(below: Option<i64>, above: Option<i64>, n: usize) -> Option<Vec<i64>> {
    let (step, count) = (i128::from(STEP), int(n));
    let run = |first: i128| (0..count).map(|i| narrow(first + i * step)).collect();
    let end = i128::from(MOST) + 1;
    match (below.map(i128::from), above.map(i128::from)) {
        (None, None) if count * step < i128::from(MIDDLE) => Some(run(i128::from(MIDDLE))),
        (Some(below), None) if below + count * step < end => Some(run(below + step)),
        (None, Some(above)) if above - count * step >= i128::from(LEAST) => {
            Some(run(above - count * step))
        }
        (below, above) => {
            let from = below.unwrap_or(i128::from(LEAST) - 1);
            let gap = above.unwrap_or(end) - from;
            let within = |i: i128| narrow(from + i * gap / (count + 1));
            (gap > count).then(|| (1..=count).map(within).collect())
        }
    }
}

fn int(n: usize) -> i128 {
    i128::try_from(n).unwrap_or(i128::MAX)
}

/// Ranks are computed wide; what comes out lies between [`LEAST`] and [`MOST`].
fn narrow(rank: i128) -> i64 {
    i64::try_from(rank).unwrap_or(MOST)
}

#[cfg(test)]
mod tests;
