//! Rows of plays, within a command's transaction.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use crate::{
    domain::{
        ids::{PlayId, UserId},
        library::{HistoryPlace, KnownPlay, MAX_REMOVED, NewPlay, Play},
    },
    store::{
        Tx,
        error::Failed,
        on_tx,
        sync::{pieces, places, rows},
    },
};

/// Up to when it is cleared, and how many plays are in it.
pub(super) async fn history_look(
    tx: &mut Tx<'_>,
    user: UserId,
) -> Result<(Option<DateTime<Utc>>, usize), Failed> {
    let (cleared, stored): (Option<DateTime<Utc>>, i64) = on_tx!(tx, conn => sqlx::query_as(
        "SELECT (SELECT cleared_at FROM histories WHERE user_id = $1),
             (SELECT count(*) FROM plays WHERE user_id = $1 AND deleted_at IS NULL)")
        .bind(user).fetch_one(conn).await?);
    Ok((cleared, usize::try_from(stored).unwrap_or(0)))
}

/// What is known of the plays that are sent.
pub(super) async fn plays_find(
    tx: &mut Tx<'_>,
    user: UserId,
    sent: &[NewPlay],
) -> Result<HashMap<PlayId, KnownPlay>, Failed> {
    let mut known = HashMap::new();
    for piece in pieces(sent) {
        let sql = format!(
            "SELECT id, played_at, deleted_at IS NOT NULL FROM plays
             WHERE user_id = $1 AND id IN ({})",
            places(piece.len(), 2)
        );
        let found: Vec<(PlayId, DateTime<Utc>, bool)> = on_tx!(tx, conn => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(user);
            for play in piece {
                query = query.bind(play.id);
            }
            query.fetch_all(conn).await?
        });
        let found = found.into_iter();
        known.extend(found.map(|(id, played_at, removed)| (id, KnownPlay { played_at, removed })));
    }
    Ok(known)
}

/// The places of the `n` oldest plays.
pub(super) async fn plays_oldest(
    tx: &mut Tx<'_>,
    user: UserId,
    n: usize,
) -> Result<Vec<HistoryPlace>, Failed> {
    let limit = i64::try_from(n).unwrap_or(i64::MAX);
    let oldest: Vec<(DateTime<Utc>, PlayId)> = on_tx!(tx, conn => sqlx::query_as(
        "SELECT played_at, id FROM plays WHERE user_id = $1 AND deleted_at IS NULL
         ORDER BY played_at, id LIMIT $2")
        .bind(user).bind(limit).fetch_all(conn).await?);
    let oldest = oldest.into_iter();
    Ok(oldest
        .map(|(played_at, id)| HistoryPlace { played_at, id })
        .collect())
}

/// Deletes plays before `oldest`, and tells how many.
pub(super) async fn plays_trim(
    tx: &mut Tx<'_>,
    user: UserId,
    oldest: HistoryPlace,
) -> Result<u64, Failed> {
    Ok(on_tx!(tx, conn => sqlx::query(
        "DELETE FROM plays
         WHERE user_id = $1 AND deleted_at IS NULL AND (played_at, id) < ($2, $3)")
        .bind(user).bind(oldest.played_at).bind(oldest.id).execute(conn).await?.rows_affected()))
}

/// Forgets the plays that were removed first, where more are remembered than may be. Those of clearings,
/// which share a version, count for themselves: a clearing must not bring back what was removed before.
pub(super) async fn removed_trim(tx: &mut Tx<'_>, user: UserId) -> Result<u64, Failed> {
    Ok(on_tx!(tx, conn => sqlx::query(
        "DELETE FROM plays WHERE user_id = $1 AND id IN
             (SELECT id FROM
                 (SELECT id, row_number() OVER
                      (PARTITION BY cleared ORDER BY deleted_at DESC, id DESC) AS place
                  FROM (SELECT id, deleted_at,
                            count(*) OVER (PARTITION BY version) > 1 AS cleared
                        FROM plays WHERE user_id = $1 AND deleted_at IS NOT NULL) AS removed
                 ) AS placed
              WHERE place > $2)")
        .bind(user).bind(i64::from(MAX_REMOVED)).execute(conn).await?.rows_affected()))
}

/// Writes plays that are new, each with its version.
pub(super) async fn plays_store(
    tx: &mut Tx<'_>,
    user: UserId,
    added: &[(i64, Play)],
) -> Result<(), Failed> {
    for piece in pieces(added) {
        let sql = format!(
            "INSERT INTO plays
                 (user_id, id, song_id, song_name, artist_name, duration, played_at, version)
             VALUES {}",
            rows(piece.len(), 8)
        );
        on_tx!(tx, conn => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (version, play) in piece {
                query = query.bind(user).bind(play.id).bind(&play.song_id).bind(&play.song_name)
                    .bind(&play.artist_name).bind(play.duration).bind(play.played_at)
                    .bind(*version);
            }
            query.execute(conn).await?;
        });
    }
    Ok(())
}
