//! Changes of a playlist's songs.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{
    Added,
    arrange::{self, Standing},
    change::{Op, Open, refuse},
    rows,
};
use crate::{
    domain::{
        ids::EntryId,
        library::{
            Entry, LibraryEvent, MAX_EVENT_DATA, MAX_SONGS, MOST_TOLD, Place, Playlist,
            PlaylistRefusal, SongsAdded, SongsMoved, SongsRemoved, TargetId, in_parts, make_room,
        },
    },
    store::{StoreError, error::Failed},
};

type Outcome<T = Playlist> = Result<Result<T, PlaylistRefusal>, Failed>;

/// What an event of added songs has beside its entries, in bytes, with room to spare.
const BESIDE_ENTRIES: usize = 512;

/// Puts songs to a place.
pub(super) struct Add {
    pub place: Place,
    pub songs: Vec<TargetId>,
    pub first: EntryId,
}
/// Takes entries out.
pub(super) struct Remove(pub Vec<EntryId>);
/// Puts entries to a place.
pub(super) struct Move {
    pub entries: Vec<EntryId>,
    pub place: Place,
}
/// Puts all entries into another order.
pub(super) struct Reorder(pub Vec<EntryId>);
/// Puts songs in place of all that are there.
pub(super) struct Replace {
    pub songs: Vec<TargetId>,
    pub first: EntryId,
}

/// Entries for `songs`, of which the first has the id `first`.
pub(super) fn entries(songs: Vec<TargetId>, first: EntryId, at: DateTime<Utc>) -> Vec<Entry> {
    (0..)
        .zip(songs)
        .map(|(n, song_id)| Entry {
            id: first.after(n),
            song_id,
            added_at: at,
        })
        .collect()
}

/// Tells of entries behind `after`, in as many events as they need, and counts them.
pub(super) fn tell_added(
    open: &mut Open<'_, '_, '_>,
    mut after: Option<EntryId>,
    entries: Vec<Entry>,
) -> Result<(), Failed> {
    for part in in_parts(entries, MAX_EVENT_DATA - BESIDE_ENTRIES) {
        let version = open.touch();
        open.playlist.song_count += int(part.len())?;
        let behind = part.last().map(|entry| entry.id).or(after);
        let what = SongsAdded {
            id: open.playlist.id,
            version,
            song_count: open.playlist.song_count,
            updated_at: open.playlist.updated_at,
            after,
            entries: part,
        };
        open.log.append(&LibraryEvent::PlaylistSongsAdded(what))?;
        after = behind;
    }
    Ok(())
}

fn int(count: usize) -> Result<i64, StoreError> {
    i64::try_from(count).map_err(|_| StoreError::Corrupt("more entries than can be"))
}

impl Op for Add {
    const NAME: &'static str = "playlist_songs_add";
    type Value = Added;

    fn entries(&self) -> usize {
        self.songs.len()
    }

    async fn apply(&self, open: &mut Open<'_, '_, '_>) -> Outcome<Added> {
        refuse!(open.in_force());
        let count = open.playlist.song_count;
        if count + int(self.songs.len())? > int(MAX_SONGS)? {
            return Ok(Err(PlaylistRefusal::Full { song_count: count }));
        }
        let cut = match arrange::cut(open, self.place).await? {
            Ok(cut) => cut,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let new = entries(self.songs.clone(), self.first, open.target.issued.now);
        let standing = Standing::load(open, cut, new.len(), &[]).await?;
        let after = standing.nearest_below();
        let ranks = standing.spread(open).await?;
        rows::insert_entries(open.tx, open.playlist.id, &new, &ranks).await?;
        if new.len() > MOST_TOLD {
            open.playlist.song_count += int(new.len())?;
            open.tell_replaced()?;
        } else {
            tell_added(open, after, new)?;
        }
        open.store().await?;
        Ok(Ok(Added {
            playlist: open.playlist.clone(),
            first: self.first,
        }))
    }
}

impl Op for Remove {
    const NAME: &'static str = "playlist_songs_remove";
    type Value = Playlist;

    fn entries(&self) -> usize {
        self.0.len()
    }

    async fn apply(&self, open: &mut Open<'_, '_, '_>) -> Outcome {
        refuse!(open.in_force());
        let entry_ids = rows::delete_entries(open.tx, open.playlist.id, &self.0).await?;
        if entry_ids.is_empty() {
            return Ok(Ok(open.playlist.clone()));
        }
        open.playlist.song_count -= int(entry_ids.len())?;
        if entry_ids.len() > MOST_TOLD {
            open.tell_replaced()?;
        } else {
            let version = open.touch();
            let what = SongsRemoved {
                id: open.playlist.id,
                version,
                song_count: open.playlist.song_count,
                updated_at: open.playlist.updated_at,
                entry_ids,
            };
            open.log.append(&LibraryEvent::PlaylistSongsRemoved(what))?;
        }
        open.store().await?;
        Ok(Ok(open.playlist.clone()))
    }
}

impl Op for Move {
    const NAME: &'static str = "playlist_songs_move";
    type Value = Playlist;

    fn entries(&self) -> usize {
        self.entries.len()
    }

    async fn apply(&self, open: &mut Open<'_, '_, '_>) -> Outcome {
        refuse!(open.in_force());
        let there = rows::ranks(open.tx, open.playlist.id, &self.entries).await?;
        if let Some(n) = self.entries.iter().position(|id| !there.contains_key(id)) {
            let field = format!("entry_ids[{n}]");
            return Ok(Err(PlaylistRefusal::NoEntry { field }));
        }
        let cut = match arrange::cut(open, self.place).await? {
            Ok(cut) => cut,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let standing = Standing::load(open, cut, self.entries.len(), &self.entries).await?;
        if standing.is_so_already() {
            return Ok(Ok(open.playlist.clone()));
        }
        let after = standing.nearest_below();
        let ranks = standing.spread(open).await?;
        let moved: Vec<_> = self.entries.iter().copied().zip(ranks).collect();
        rows::set_ranks(open.tx, open.playlist.id, &moved).await?;
        if moved.len() > MOST_TOLD {
            open.tell_replaced()?;
        } else {
            let version = open.touch();
            let what = SongsMoved {
                id: open.playlist.id,
                version,
                updated_at: open.playlist.updated_at,
                after,
                entry_ids: self.entries.clone(),
            };
            open.log.append(&LibraryEvent::PlaylistSongsMoved(what))?;
        }
        open.store().await?;
        Ok(Ok(open.playlist.clone()))
    }
}

impl Op for Reorder {
    const NAME: &'static str = "playlist_songs_reorder";
    type Value = Playlist;

    fn entries(&self) -> usize {
        self.0.len()
    }

    async fn apply(&self, open: &mut Open<'_, '_, '_>) -> Outcome {
        refuse!(open.in_force());
        let there = rows::order(open.tx, open.playlist.id).await?;
        let known: HashMap<_, _> = there.iter().copied().collect();
        if let Some(n) = self.0.iter().position(|id| !known.contains_key(id)) {
            let field = format!("entry_ids[{n}]");
            return Ok(Err(PlaylistRefusal::NoEntry { field }));
        }
        // None is named twice.
        let missing = there.len() - self.0.len();
        if missing > 0 {
            let version = open.playlist.version;
            return Ok(Err(PlaylistRefusal::LeftOut { missing, version }));
        }
        // The ranks stay, entries change places: who stays where it was is not written.
        let moved: Vec<_> = self
            .0
            .iter()
            .zip(&there)
            .filter(|(id, (was, _))| *id != was)
            .map(|(id, (_, rank))| (*id, *rank))
            .collect();
        if !moved.is_empty() {
            rows::set_ranks(open.tx, open.playlist.id, &moved).await?;
            open.tell_replaced()?;
            open.store().await?;
        }
        Ok(Ok(open.playlist.clone()))
    }
}

impl Op for Replace {
    const NAME: &'static str = "playlist_songs_replace";
    type Value = Playlist;

    fn entries(&self) -> usize {
        // As many as may be there are taken out.
        MAX_SONGS
    }

    async fn apply(&self, open: &mut Open<'_, '_, '_>) -> Outcome {
        refuse!(open.in_force());
        if self.songs.is_empty() && open.playlist.song_count == 0 {
            return Ok(Ok(open.playlist.clone()));
        }
        let new = entries(self.songs.clone(), self.first, open.target.issued.now);
        let room = make_room(&arrange::nothing(), new.len());
        let room = room.ok_or(StoreError::Corrupt("no room in an empty playlist"))?;
        rows::delete_all_entries(open.tx, open.playlist.id).await?;
        rows::insert_entries(open.tx, open.playlist.id, &new, &room.ranks).await?;
        open.playlist.song_count = int(new.len())?;
        open.tell_replaced()?;
        open.store().await?;
        Ok(Ok(open.playlist.clone()))
    }
}
