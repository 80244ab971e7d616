//! The history of plays: added in batches, removed, cleared, listed.
//!
//! Which plays are taken in is decided in `domain`; here it is looked up what that needs, in few
//! statements however many plays a call brings, and the outcome is stored with its events.

mod rows;
mod trim;

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use self::rows::{history_look, plays_find, plays_oldest, plays_store, plays_trim, removed_trim};
pub use self::trim::{HistoryTrim, HistoryTrimPage};
use crate::{
    domain::{
        idempotency::IdempotencyKey,
        ids::{PlayId, UserId},
        library::{
            Arrivals, HistoryAdded, HistoryCleared, HistoryPlace, HistoryRemoved, HistoryTrimmed,
            LibraryEvent, MAX_EVENT_DATA, NewPlay, Play, PlayResult, TargetId, cleared_at,
            in_parts,
        },
    },
    store::{
        Once, Store, StoreError, Tx, Written,
        command::Command,
        error::Failed,
        idempotency::{OfUser, OnlyOnce, Outcome},
        on_pool, on_tx,
        sync::{Issued, OpenLog},
    },
};

/// Room in an event for what is beside its plays.
const BESIDE_PLAYS: usize = 512;

/// Plays for a user's history.
#[derive(Debug, Clone)]
pub struct HistoryAdd {
    /// Whose, and by whom.
    pub issued: Issued,
    /// What names the call, if it may be repeated.
    pub key: Option<IdempotencyKey>,
    /// In the order in which they were sent.
    pub plays: Vec<NewPlay>,
    /// Plays that a history has at most.
    pub keep: u32,
}

/// A clearing of a user's history.
#[derive(Debug, Clone)]
pub struct HistoryClear {
    /// Whose, and by whom.
    pub issued: Issued,
    /// What names the call, if it may be repeated.
    pub key: Option<IdempotencyKey>,
}

/// What became of a play that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlayRemoved {
    /// It is gone, now or before.
    Gone,
    /// There is none, or was long ago.
    Unknown,
}

/// A piece of a user's history.
#[derive(Debug, Clone)]
pub struct HistoryQuery {
    /// Whose.
    pub user: UserId,
    /// At most so many.
    pub limit: u32,
    /// Only older ones than this.
    pub before: Option<HistoryPlace>,
}

impl Store {
    /// Takes plays in, those that the history should have, and lets go of those that are too many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn history_add(
        &self,
        deadline: Instant,
        add: HistoryAdd,
    ) -> Result<Once<Vec<PlayResult>>, StoreError> {
        let (owner, key) = (add.issued.user.0, add.key.clone());
        let command = Add(add);
        let once = OnlyOnce {
            owner,
            key,
            command,
        };
        self.write(deadline, once).await
    }

    /// Takes a play out of the history. One that is gone stays gone, without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn history_remove(
        &self,
        deadline: Instant,
        issued: Issued,
        id: PlayId,
    ) -> Result<Written<PlayRemoved>, StoreError> {
        self.write(deadline, Remove { issued, id }).await
    }

    /// Empties the history. Answers up to when plays are ignored from now on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn history_clear(
        &self,
        deadline: Instant,
        clear: HistoryClear,
    ) -> Result<Once<DateTime<Utc>>, StoreError> {
        let (owner, key) = (clear.issued.user.0, clear.key.clone());
        let command = Clear(clear.issued);
        let once = OnlyOnce {
            owner,
            key,
            command,
        };
        self.write(deadline, once).await
    }

    /// Plays, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn history_list(
        &self,
        deadline: Instant,
        query: HistoryQuery,
    ) -> Result<Vec<Play>, StoreError> {
        self.read("history_list", deadline, async move |db| {
            let limit = i64::from(query.limit);
            let rows: Vec<PlayRow> = match query.before {
                None => on_pool!(&db, pool => sqlx::query_as(
                    "SELECT id, song_id, song_name, artist_name, duration, played_at FROM plays
                     WHERE user_id = $1 AND deleted_at IS NULL
                     ORDER BY played_at DESC, id DESC LIMIT $2")
                    .bind(query.user).bind(limit).fetch_all(pool).await?),
                Some(before) => on_pool!(&db, pool => sqlx::query_as(
                    "SELECT id, song_id, song_name, artist_name, duration, played_at FROM plays
                     WHERE user_id = $1 AND deleted_at IS NULL AND (played_at, id) < ($3, $4)
                     ORDER BY played_at DESC, id DESC LIMIT $2")
                    .bind(query.user).bind(limit).bind(before.played_at).bind(before.id)
                    .fetch_all(pool).await?),
            };
            Ok(rows.into_iter().map(PlayRow::into_play).collect())
        })
        .await
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct PlayRow {
    id: PlayId,
    song_id: TargetId,
    song_name: String,
    artist_name: String,
    duration: i64,
    played_at: DateTime<Utc>,
}

impl PlayRow {
    pub(super) fn into_play(self) -> Play {
        Play {
            id: self.id,
            song_id: self.song_id,
            song_name: self.song_name,
            artist_name: self.artist_name,
            duration: self.duration,
            played_at: self.played_at,
        }
    }
}

/// Also when all plays were ignored: sent again, they would be so again.
impl Outcome for Vec<PlayResult> {}

/// Also when the history was empty: what was played since stays.
impl Outcome for DateTime<Utc> {}

struct Add(HistoryAdd);

impl OfUser for Add {
    fn issued(&self) -> &Issued {
        &self.0.issued
    }
}

impl Command for Add {
    const NAME: &'static str = "history_add";
    type Out = Written<Vec<PlayResult>>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let HistoryAdd {
            issued,
            plays,
            keep,
            ..
        } = &self.0;
        let (user, keep) = (issued.user, *keep as usize);
        let mut log = OpenLog::lock(tx, issued).await?;
        let known = plays_find(tx, user, plays).await?;
        let (cleared, stored) = history_look(tx, user).await?;
        let arrivals = Arrivals::new(plays, issued.now, cleared, &known);
        let oldest = match arrivals.needs(stored, keep) {
            0 => Vec::new(),
            n => plays_oldest(tx, user, n).await?,
        };
        let settled = arrivals.settle(stored, keep, &oldest);
        if let Some(oldest) = settled.oldest {
            plays_trim(tx, user, oldest).await?;
        }
        let parts = in_parts(settled.added, MAX_EVENT_DATA - BESIDE_PLAYS);
        let last = parts.len().saturating_sub(1);
        let mut added = Vec::with_capacity(plays.len());
        let nothing_added = parts.is_empty();
        for (n, plays) in parts.into_iter().enumerate() {
            let version = log.next_seq();
            added.extend(plays.iter().map(|play| (version, play.clone())));
            log.append(&LibraryEvent::HistoryAdded(HistoryAdded {
                plays,
                oldest: settled.oldest.filter(|_| n == last),
                version,
            }))?;
        }
        if let Some(oldest) = settled.oldest.filter(|_| nothing_added) {
            let version = log.next_seq();
            log.append(&LibraryEvent::HistoryTrimmed(HistoryTrimmed {
                oldest,
                version,
            }))?;
        }
        plays_store(tx, user, &added).await?;
        log.close(tx, settled.results).await
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }
}

struct Remove {
    issued: Issued,
    id: PlayId,
}

impl Command for Remove {
    const NAME: &'static str = "history_remove";
    type Out = Written<PlayRemoved>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let (user, id) = (self.issued.user, self.id);
        let mut log = OpenLog::lock(tx, &self.issued).await?;
        let there: Option<bool> = on_tx!(tx, conn => sqlx::query_scalar(
            "SELECT deleted_at IS NULL FROM plays WHERE user_id = $1 AND id = $2")
            .bind(user).bind(id).fetch_optional(conn).await?);
        let Some(there) = there else {
            return log.close(tx, PlayRemoved::Unknown).await;
        };
        if there {
            let version = log.next_seq();
            on_tx!(tx, conn => sqlx::query(
                "UPDATE plays SET deleted_at = $3, version = $4, song_id = '', song_name = '',
                     artist_name = '', duration = 0
                 WHERE user_id = $1 AND id = $2")
                .bind(user).bind(id).bind(self.issued.now).bind(version)
                .execute(conn).await?.rows_affected());
            removed_trim(tx, user).await?;
            log.append(&LibraryEvent::HistoryRemoved(HistoryRemoved {
                ids: vec![id],
                version,
            }))?;
        }
        log.close(tx, PlayRemoved::Gone).await
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }
}

struct Clear(Issued);

impl OfUser for Clear {
    fn issued(&self) -> &Issued {
        &self.0
    }
}

impl Command for Clear {
    const NAME: &'static str = "history_clear";
    type Out = Written<DateTime<Utc>>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let (user, now) = (self.0.user, self.0.now);
        let mut log = OpenLog::lock(tx, &self.0).await?;
        let (before, stored) = history_look(tx, user).await?;
        let cleared = cleared_at(now, before);
        if stored == 0 && before == Some(cleared) {
            return log.close(tx, cleared).await;
        }
        let version = log.next_seq();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO histories (user_id, cleared_at) VALUES ($1, $2)
             ON CONFLICT (user_id) DO UPDATE SET cleared_at = excluded.cleared_at")
            .bind(user).bind(cleared).execute(conn).await?.rows_affected());
        // Their repeats are not always kept away by `cleared_at`: a play of a clock that is ahead has a
        // newer time, and one far ahead gets a newer one with each try. Of what it was nothing is kept,
        // nor of what older versions of the server kept of plays that were removed before.
        on_tx!(tx, conn => sqlx::query(
            "UPDATE plays SET song_id = '', song_name = '', artist_name = '', duration = 0,
                 version = CASE WHEN deleted_at IS NULL THEN $3 ELSE version END,
                 deleted_at = COALESCE(deleted_at, $2)
             WHERE user_id = $1 AND (deleted_at IS NULL OR song_id <> '')")
            .bind(user).bind(now).bind(version).execute(conn).await?.rows_affected());
        removed_trim(tx, user).await?;
        log.append(&LibraryEvent::HistoryCleared(HistoryCleared {
            cleared_at: cleared,
            version,
        }))?;
        log.close(tx, cleared).await
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }
}
