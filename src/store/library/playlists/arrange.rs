//! Where entries stand: looks at the neighbours of a place, and spreads them anew where they stand too
//! close. What is spread is nobody's business: no event tells of it.

use std::collections::HashSet;

use super::{
    change::Open,
    rows::{self, Side},
};
use crate::{
    domain::{
        ids::EntryId,
        library::{Around, LEAST, MOST, Place, PlaylistRefusal, Room, make_room},
    },
    store::{StoreError, error::Failed},
};

/// Neighbours that are looked at, on each side: more only where these stand too close.
const LOOKS: [usize; 4] = [1, 64, 1024, usize::MAX];

/// A place between ranks: entries of this rank or a lower one are below it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut(i64);

/// Where `place` is.
pub(super) async fn cut(
    open: &mut Open<'_, '_, '_>,
    place: Place,
) -> Result<Result<Cut, PlaylistRefusal>, Failed> {
    let Some((id, field)) = place.named() else {
        let rank = if place == Place::Beginning {
            LEAST - 1
        } else {
            MOST
        };
        return Ok(Ok(Cut(rank)));
    };
    let there = rows::ranks(open.tx, open.playlist.id, &[id]).await?;
    Ok(match there.get(&id) {
        Some(rank) if matches!(place, Place::Before(_)) => Ok(Cut(*rank - 1)),
        Some(rank) => Ok(Cut(*rank)),
        None => Err(PlaylistRefusal::NoEntry {
            field: field.to_owned(),
        }),
    })
}

/// An empty playlist.
pub(super) const fn nothing() -> Around {
    Around {
        below: Vec::new(),
        below_is_all: true,
        above: Vec::new(),
        above_is_all: true,
    }
}

/// The neighbours of a place where entries are to stand, and room for them.
#[derive(Debug)]
pub(super) struct Standing<'m> {
    /// Nearest first, without those that move.
    below: Vec<(EntryId, i64)>,
    above: Vec<(EntryId, i64)>,
    /// Those around the place as they stand, those that move among them.
    now: Vec<EntryId>,
    moving: &'m [EntryId],
    room: Room,
    n: usize,
}

impl<'m> Standing<'m> {
    /// Looks at as many neighbours as room for `n` needs. Entries that move away from where they are do
    /// not count.
    pub(super) async fn load(
        open: &mut Open<'_, '_, '_>,
        Cut(cut): Cut,
        n: usize,
        moving: &'m [EntryId],
    ) -> Result<Self, Failed> {
        let (id, away) = (open.playlist.id, moving.iter().collect::<HashSet<_>>());
        for look in LOOKS {
            // So many are left, whoever moves away.
            let limit = look.saturating_add(moving.len());
            let mut below = rows::neighbours(open.tx, id, Side::Below, cut, limit).await?;
            let mut above = rows::neighbours(open.tx, id, Side::Above, cut, limit).await?;
            let (below_is_all, above_is_all) = (below.len() < limit, above.len() < limit);
            let now = below.iter().rev().chain(&above).map(|row| row.0).collect();
            below.retain(|row| !away.contains(&row.0));
            above.retain(|row| !away.contains(&row.0));
            let around = Around {
                below: below.iter().map(|row| row.1).collect(),
                below_is_all,
                above: above.iter().map(|row| row.1).collect(),
                above_is_all,
            };
            if let Some(room) = make_room(&around, n) {
                return Ok(Self {
                    below,
                    above,
                    now,
                    moving,
                    room,
                    n,
                });
            }
        }
        Err(StoreError::Corrupt("a playlist without room").into())
    }

    /// The entry behind which the new ones will stand; none at the beginning.
    pub(super) fn nearest_below(&self) -> Option<EntryId> {
        self.below.first().map(|row| row.0)
    }

    /// Whether those that move stand there already, in their order.
    pub(super) fn is_so_already(&self) -> bool {
        let start = match self.nearest_below() {
            None => Some(0),
            Some(id) => self.now.iter().position(|it| *it == id).map(|at| at + 1),
        };
        start.is_some_and(|start| self.now[start..].starts_with(self.moving))
    }

    /// Gives the neighbours that stand too close other ranks. Answers those of the new ones.
    pub(super) async fn spread(self, open: &mut Open<'_, '_, '_>) -> Result<Vec<i64>, Failed> {
        let Room {
            below,
            above,
            mut ranks,
        } = self.room;
        let of_above = ranks.split_off(below + self.n);
        let new = ranks.split_off(below);
        let below = self.below[..below].iter().rev().zip(ranks);
        let above = self.above[..above].iter().zip(of_above);
        let other: Vec<_> = below
            .chain(above)
            .filter(|((_, was), rank)| was != rank)
            .map(|((id, _), rank)| (*id, rank))
            .collect();
        rows::set_ranks(open.tx, open.playlist.id, &other).await?;
        Ok(new)
    }
}
