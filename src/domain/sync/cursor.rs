//! How the cursors of one device are merged on their way to the store.

use std::cmp::Ordering;

use super::event::Cursor;

impl Cursor {
    /// What is left of this cursor and of `later`, which was told after it, of the same device. A
    /// position of another life of the log replaces the one before. Within a life a higher attach epoch
    /// wins, and within one of those the cursor moves forward only.
    #[must_use]
    pub fn merged(self, later: Self) -> Self {
        if later.position.epoch != self.position.epoch {
            // A store that fell back to an older state gives out lower attach epochs too.
            return later;
        }
        let back = later.position.seq < self.position.seq;
        match later.attach_epoch.cmp(&self.attach_epoch) {
            Ordering::Less => self,
            Ordering::Equal if back => self,
            Ordering::Greater if back && planted!(CursorOfAnOlderConnection) => Self {
                attach_epoch: later.attach_epoch,
                ..self
            },
            Ordering::Equal | Ordering::Greater => later,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        ids::{DeviceId, Epoch},
        sync::Position,
    };

    fn cursor(attach_epoch: i64, life: u128, seq: i64) -> Cursor {
        Cursor {
            device: DeviceId(Uuid::nil()),
            attach_epoch,
            position: Position {
                epoch: Epoch(Uuid::from_u128(life)),
                seq,
            },
        }
    }

    #[test]
    fn forward_within_a_connection_and_a_newer_connection_wins() {
        let held = cursor(2, 1, 50);
        for (later, expected) in [
            (cursor(2, 1, 51), cursor(2, 1, 51)),
            (cursor(2, 1, 49), held),
            (cursor(3, 1, 10), cursor(3, 1, 10)),
            (cursor(1, 1, 99), held),
            (cursor(2, 7, 3), cursor(2, 7, 3)),
            (cursor(1, 7, 99), cursor(1, 7, 99)),
        ] {
            assert_eq!(held.merged(later), expected, "{later:?}");
        }
    }

    proptest! {
        /// Where the log keeps its life, the order in which cursors come does not matter: a batch
        /// that failed may be merged back.
        #[test]
        fn order_does_not_matter_in_one_life(told in prop::collection::vec((0..4_i64, 0..9_i64), 1..20)) {
            let merge = |all: &[(i64, i64)]| {
                all.iter()
                    .map(|(attach, seq)| cursor(*attach, 1, *seq))
                    .reduce(Cursor::merged)
            };
            let mut sorted = told.clone();
            sorted.sort_unstable();
            prop_assert_eq!(merge(&told), merge(&sorted));
            let best = told.iter().max().copied();
            prop_assert_eq!(merge(&told), best.map(|(attach, seq)| cursor(attach, 1, seq)));
        }
    }
}
