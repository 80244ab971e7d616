//! What is left over in histories: plays beyond a number that was lowered, and removed plays that are
//! remembered for longer than they need be.

use std::time::Instant;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::rows::{history_look, plays_oldest, plays_trim, removed_trim};
use crate::{
    domain::{
        ids::UserId,
        library::{HistoryTrimmed, LibraryEvent, REMOVED_FOR},
    },
    store::{
        Store, StoreError, Tx, Written,
        command::Command,
        error::Failed,
        on_pool, on_tx,
        sync::{Issued, OpenLog},
    },
};

/// A piece of the list of all users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryTrimPage {
    /// Those of the piece in whose history something is left over.
    pub users: Vec<UserId>,
    /// Where the next piece begins; none after the last.
    pub next: Option<UserId>,
}

/// What was removed of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryTrim {
    /// Plays that were too many.
    pub plays: u64,
    /// Removed plays that are no longer remembered.
    pub removed_plays: u64,
}

impl Store {
    /// The next `limit` users after `after`: those with more than `keep` plays, or with plays that were
    /// removed long before `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn histories_to_trim(
        &self,
        deadline: Instant,
        after: Option<UserId>,
        limit: u32,
        keep: u32,
        now: DateTime<Utc>,
    ) -> Result<HistoryTrimPage, StoreError> {
        self.read("histories_to_trim", deadline, async move |db| {
            let after = after.unwrap_or(UserId(Uuid::nil()));
            let rows: Vec<(UserId, bool)> = on_pool!(&db, pool => sqlx::query_as(
                "SELECT u.id,
                     (SELECT count(*) FROM plays p
                      WHERE p.user_id = u.id AND p.deleted_at IS NULL) > $3
                     OR EXISTS (SELECT 1 FROM plays p
                                WHERE p.user_id = u.id AND p.deleted_at <= $4)
                 FROM (SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2) u ORDER BY u.id")
                .bind(after).bind(i64::from(limit)).bind(i64::from(keep)).bind(now - REMOVED_FOR)
                .fetch_all(pool).await?);
            let full = u32::try_from(rows.len()).is_ok_and(|n| n == limit);
            let next = rows.last().filter(|_| full).map(|row| row.0);
            let worth = rows.into_iter().filter(|row| row.1);
            Ok(HistoryTrimPage {
                users: worth.map(|row| row.0).collect(),
                next,
            })
        })
        .await
    }

    /// Removes what is left over in a user's history.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn history_trim(
        &self,
        deadline: Instant,
        issued: Issued,
        keep: u32,
    ) -> Result<Written<HistoryTrim>, StoreError> {
        self.write(deadline, Trim { issued, keep }).await
    }
}

struct Trim {
    issued: Issued,
    keep: u32,
}

impl Command for Trim {
    const NAME: &'static str = "history_trim";
    type Out = Written<HistoryTrim>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let (user, before) = (self.issued.user, self.issued.now - REMOVED_FOR);
        let mut log = OpenLog::lock(tx, &self.issued).await?;
        let (_, stored) = history_look(tx, user).await?;
        let over = stored.saturating_sub(self.keep.max(1) as usize);
        let mut plays = 0;
        if over > 0
            && let Some(oldest) = plays_oldest(tx, user, over + 1).await?.pop()
        {
            plays = plays_trim(tx, user, oldest).await?;
            let version = log.next_seq();
            log.append(&LibraryEvent::HistoryTrimmed(HistoryTrimmed {
                oldest,
                version,
            }))?;
        }
        let forgotten = on_tx!(tx, conn => sqlx::query(
            "DELETE FROM plays WHERE user_id = $1 AND deleted_at <= $2")
            .bind(user).bind(before).execute(conn).await?.rows_affected());
        let removed_plays = forgotten + removed_trim(tx, user).await?;
        log.close(
            tx,
            HistoryTrim {
                plays,
                removed_plays,
            },
        )
        .await
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }
}
