//! The statements of playlists and their entries.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use crate::{
    domain::{
        ids::{EntryId, PlaylistId, UserId},
        library::{Entry, Playlist, TargetId},
    },
    store::{
        StoreError, Tx,
        error::Failed,
        on_tx,
        sync::{large_pieces, places, rows},
    },
};

/// What [`PlaylistRow`] reads.
pub(super) const COLUMNS: &str =
    "id, name, cover_url, is_public, song_count, version, created_at, updated_at";

#[derive(sqlx::FromRow)]
pub(in crate::store::library) struct PlaylistRow {
    id: PlaylistId,
    name: String,
    cover_url: Option<String>,
    is_public: bool,
    song_count: i64,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<PlaylistRow> for Playlist {
    fn from(row: PlaylistRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            cover_url: row.cover_url,
            is_public: row.is_public,
            song_count: row.song_count,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Found {
    #[sqlx(flatten)]
    row: PlaylistRow,
    deleted_at: Option<DateTime<Utc>>,
}

/// A playlist of a user, deleted or not.
pub(super) async fn find(
    tx: &mut Tx<'_>,
    user: UserId,
    id: PlaylistId,
) -> Result<Option<(Playlist, Option<DateTime<Utc>>)>, Failed> {
    let sql = format!("SELECT {COLUMNS}, deleted_at FROM playlists WHERE id = $1 AND user_id = $2");
    let found: Option<Found> = on_tx!(tx, conn => sqlx::query_as(AssertSqlSafe(sql))
        .bind(id).bind(user).fetch_optional(conn).await?);
    Ok(found.map(|it| (it.row.into(), it.deleted_at)))
}

/// How many playlists in force a user has.
pub(super) async fn count(tx: &mut Tx<'_>, user: UserId) -> Result<i64, Failed> {
    Ok(on_tx!(tx, conn => sqlx::query_scalar(
        "SELECT COUNT(*) FROM playlists WHERE user_id = $1 AND deleted_at IS NULL")
        .bind(user).fetch_one(conn).await?))
}

pub(super) async fn insert(tx: &mut Tx<'_>, user: UserId, it: &Playlist) -> Result<(), Failed> {
    on_tx!(tx, conn => sqlx::query(
        "INSERT INTO playlists (id, user_id, name, cover_url, is_public, song_count, version,
             created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
        .bind(it.id).bind(user).bind(&it.name).bind(&it.cover_url).bind(it.is_public)
        .bind(it.song_count).bind(it.version).bind(it.created_at).bind(it.updated_at)
        .execute(conn).await.map(|_| ())?);
    Ok(())
}

/// Writes what may change.
pub(super) async fn store(
    tx: &mut Tx<'_>,
    it: &Playlist,
    deleted_at: Option<DateTime<Utc>>,
) -> Result<(), Failed> {
    on_tx!(tx, conn => sqlx::query(
        "UPDATE playlists SET name = $1, cover_url = $2, is_public = $3, song_count = $4,
             version = $5, updated_at = $6, deleted_at = $7 WHERE id = $8")
        .bind(&it.name).bind(&it.cover_url).bind(it.is_public).bind(it.song_count)
        .bind(it.version).bind(it.updated_at).bind(deleted_at).bind(it.id)
        .execute(conn).await.map(|_| ())?);
    Ok(())
}

/// Deletes for good what was deleted before the last `keep` that were.
pub(super) async fn purge(tx: &mut Tx<'_>, user: UserId, keep: i64) -> Result<(), Failed> {
    // Each has the version of its end. PostgreSQL takes no LIMIT -1, SQLite no OFFSET alone.
    on_tx!(tx, conn => sqlx::query(
        "DELETE FROM playlists WHERE id IN
             (SELECT id FROM playlists WHERE user_id = $1 AND deleted_at IS NOT NULL
              ORDER BY version DESC LIMIT 1000 OFFSET $2)")
        .bind(user).bind(keep).execute(conn).await.map(|_| ())?);
    Ok(())
}

/// The ranks of those that are there.
pub(super) async fn ranks(
    tx: &mut Tx<'_>,
    playlist: PlaylistId,
    ids: &[EntryId],
) -> Result<HashMap<EntryId, i64>, Failed> {
    let mut all = HashMap::with_capacity(ids.len());
    for piece in large_pieces(ids) {
        let sql = format!(
            "SELECT id, rank FROM playlist_entries WHERE playlist_id = $1 AND id IN ({})",
            places(piece.len(), 2)
        );
        let found: Vec<(EntryId, i64)> = on_tx!(tx, conn => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(playlist);
            for id in piece {
                query = query.bind(*id);
            }
            query.fetch_all(conn).await?
        });
        all.extend(found);
    }
    Ok(all)
}

/// All entries and their ranks, in order.
pub(super) async fn order(
    tx: &mut Tx<'_>,
    playlist: PlaylistId,
) -> Result<Vec<(EntryId, i64)>, Failed> {
    Ok(on_tx!(tx, conn => sqlx::query_as(
        "SELECT id, rank FROM playlist_entries WHERE playlist_id = $1 ORDER BY rank")
        .bind(playlist).fetch_all(conn).await?))
}

/// On which side of a place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Below,
    Above,
}

/// The nearest `limit` entries on one side of `cut`; those of this rank are below it.
pub(super) async fn neighbours(
    tx: &mut Tx<'_>,
    playlist: PlaylistId,
    side: Side,
    cut: i64,
    limit: usize,
) -> Result<Vec<(EntryId, i64)>, Failed> {
    let sql = match side {
        Side::Below => {
            "SELECT id, rank FROM playlist_entries WHERE playlist_id = $1 AND rank <= $2
             ORDER BY rank DESC LIMIT $3"
        }
        Side::Above => {
            "SELECT id, rank FROM playlist_entries WHERE playlist_id = $1 AND rank > $2
             ORDER BY rank LIMIT $3"
        }
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(on_tx!(tx, conn => sqlx::query_as(sql)
        .bind(playlist).bind(cut).bind(limit).fetch_all(conn).await?))
}

#[derive(sqlx::FromRow)]
pub(super) struct EntryRow {
    id: EntryId,
    song_id: TargetId,
    added_at: DateTime<Utc>,
}

impl From<EntryRow> for Entry {
    fn from(row: EntryRow) -> Self {
        Self {
            id: row.id,
            song_id: row.song_id,
            added_at: row.added_at,
        }
    }
}

/// All entries, in order.
pub(super) async fn entries(tx: &mut Tx<'_>, playlist: PlaylistId) -> Result<Vec<Entry>, Failed> {
    let all: Vec<EntryRow> = on_tx!(tx, conn => sqlx::query_as(
        "SELECT id, song_id, added_at FROM playlist_entries WHERE playlist_id = $1 ORDER BY rank")
        .bind(playlist).fetch_all(conn).await?);
    Ok(all.into_iter().map(Entry::from).collect())
}

/// Writes new entries, each with its rank.
pub(super) async fn insert_entries(
    tx: &mut Tx<'_>,
    playlist: PlaylistId,
    entries: &[Entry],
    ranks: &[i64],
) -> Result<(), Failed> {
    let all: Vec<_> = entries.iter().zip(ranks).collect();
    if all.len() < entries.len() {
        return Err(StoreError::Corrupt("an entry without a rank").into());
    }
    for piece in large_pieces(&all) {
        let sql = format!(
            "INSERT INTO playlist_entries (playlist_id, id, song_id, rank, added_at) VALUES {}",
            rows(piece.len(), 5)
        );
        on_tx!(tx, conn => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (entry, rank) in piece {
                query = query.bind(playlist).bind(entry.id).bind(&entry.song_id).bind(**rank)
                    .bind(entry.added_at);
            }
            query.execute(conn).await?;
        });
    }
    Ok(())
}

/// Gives entries other ranks.
pub(super) async fn set_ranks(
    tx: &mut Tx<'_>,
    playlist: PlaylistId,
    ranks: &[(EntryId, i64)],
) -> Result<(), Failed> {
    for piece in large_pieces(ranks) {
        // The playlist stands in each row, so that an entry is looked up by both.
        let sql = format!(
            "UPDATE playlist_entries SET rank = v.column3 FROM (VALUES {}) AS v
             WHERE playlist_entries.playlist_id = v.column1 AND playlist_entries.id = v.column2",
            rows(piece.len(), 3)
        );
        let count = on_tx!(tx, conn => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (id, rank) in piece {
                query = query.bind(playlist).bind(*id).bind(*rank);
            }
            query.execute(conn).await?.rows_affected()
        });
        if usize::try_from(count) != Ok(piece.len()) {
            return Err(StoreError::Corrupt("an entry that was there is not").into());
        }
    }
    Ok(())
}

/// Deletes entries; answers those that were there, in the order given.
pub(super) async fn delete_entries(
    tx: &mut Tx<'_>,
    playlist: PlaylistId,
    ids: &[EntryId],
) -> Result<Vec<EntryId>, Failed> {
    let mut gone = HashSet::with_capacity(ids.len());
    for piece in large_pieces(ids) {
        let sql = format!(
            "DELETE FROM playlist_entries WHERE playlist_id = $1 AND id IN ({}) RETURNING id",
            places(piece.len(), 2)
        );
        let found: Vec<EntryId> = on_tx!(tx, conn => {
            let mut query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(playlist);
            for id in piece {
                query = query.bind(*id);
            }
            query.fetch_all(conn).await?
        });
        gone.extend(found);
    }
    Ok(ids.iter().copied().filter(|id| gone.contains(id)).collect())
}

pub(super) async fn delete_all_entries(
    tx: &mut Tx<'_>,
    playlist: PlaylistId,
) -> Result<(), Failed> {
    on_tx!(tx, conn => sqlx::query("DELETE FROM playlist_entries WHERE playlist_id = $1")
        .bind(playlist).execute(conn).await.map(|_| ())?);
    Ok(())
}
