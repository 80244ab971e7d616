//! Reads of playlists, each of one moment.

use std::time::Instant;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::rows::{COLUMNS, PlaylistRow};
use crate::{
    domain::{
        ids::{EntryId, Epoch, PlaylistId, UserId},
        library::{Entry, LEAST, Playlist, SongPage, TargetId},
    },
    store::{Store, StoreError, on_pool},
};

/// A piece of a user's playlists.
#[derive(Debug, Clone)]
pub struct PlaylistQuery {
    /// Whose.
    pub user: UserId,
    /// Those that are deleted, not those in force.
    pub deleted: bool,
    /// At most so many.
    pub limit: u32,
    /// Only older ones than this.
    pub before: Option<(DateTime<Utc>, PlaylistId)>,
}

/// A piece of a playlist's songs.
#[derive(Debug, Clone)]
pub struct SongQuery {
    /// Which playlist.
    pub id: PlaylistId,
    /// Whose; none: whosever it is, as long as it is public.
    pub user: Option<UserId>,
    /// At most so many.
    pub limit: u32,
    /// Only behind the entry of this rank.
    pub after: Option<i64>,
}

/// The epoch of the log that a playlist's version is of.
const EPOCH: &str = "(SELECT epoch FROM user_logs l WHERE l.user_id = playlists.user_id) AS epoch";

#[derive(sqlx::FromRow)]
struct OfEpoch {
    #[sqlx(flatten)]
    row: PlaylistRow,
    epoch: Epoch,
}

#[derive(sqlx::FromRow)]
struct PageRow {
    version: i64,
    epoch: Epoch,
    song_count: i64,
    id: Option<EntryId>,
    song_id: Option<TargetId>,
    added_at: Option<DateTime<Utc>>,
    rank: Option<i64>,
}

impl PageRow {
    fn entry(self) -> Option<(Entry, i64)> {
        let entry = Entry {
            id: self.id?,
            song_id: self.song_id?,
            added_at: self.added_at?,
        };
        Some((entry, self.rank?))
    }
}

impl Store {
    /// A user's playlists, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_list(
        &self,
        deadline: Instant,
        query: PlaylistQuery,
    ) -> Result<Vec<Playlist>, StoreError> {
        self.read("playlist_list", deadline, async move |db| {
            let state = if query.deleted { "NOT NULL" } else { "NULL" };
            let page = if query.before.is_some() {
                "AND (created_at, id) < ($3, $4)"
            } else {
                ""
            };
            let sql = format!(
                "SELECT {COLUMNS} FROM playlists WHERE user_id = $1 AND deleted_at IS {state} {page}
                 ORDER BY created_at DESC, id DESC LIMIT $2"
            );
            let rows: Vec<PlaylistRow> = on_pool!(&db, pool => {
                let mut rows = sqlx::query_as(AssertSqlSafe(sql))
                    .bind(query.user).bind(i64::from(query.limit));
                if let Some((at, id)) = query.before {
                    rows = rows.bind(at).bind(id);
                }
                rows.fetch_all(pool).await?
            });
            Ok(rows.into_iter().map(Playlist::from).collect())
        })
        .await
    }

    /// A playlist in force, of this user, or of anybody if it is public; and the epoch of its user's log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_fetch(
        &self,
        deadline: Instant,
        id: PlaylistId,
        user: Option<UserId>,
    ) -> Result<Option<(Playlist, Epoch)>, StoreError> {
        self.read("playlist_fetch", deadline, async move |db| {
            let sql = format!(
                "SELECT {COLUMNS}, {EPOCH} FROM playlists WHERE id = $1 AND deleted_at IS NULL AND {}",
                readable(user)
            );
            let row: Option<OfEpoch> = on_pool!(&db, pool => {
                let row = sqlx::query_as(AssertSqlSafe(sql)).bind(id);
                let row = if let Some(user) = user { row.bind(user) } else { row };
                row.fetch_optional(pool).await?
            });
            Ok(row.map(|it| (it.row.into(), it.epoch)))
        })
        .await
    }

    /// Songs of a playlist in force.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn playlist_songs(
        &self,
        deadline: Instant,
        query: SongQuery,
    ) -> Result<Option<SongPage>, StoreError> {
        self.read("playlist_songs", deadline, async move |db| {
            // One statement, so that the songs and the version are of one moment.
            let sql = format!(
                "SELECT p.version, p.epoch, p.song_count, e.id, e.song_id, e.added_at, e.rank
                 FROM (SELECT id, version, {EPOCH}, song_count FROM playlists
                       WHERE id = $1 AND deleted_at IS NULL AND {}) p
                 LEFT JOIN (SELECT playlist_id, id, song_id, added_at, rank FROM playlist_entries
                            WHERE playlist_id = $1 AND rank > $2 ORDER BY rank LIMIT $3) e
                     ON e.playlist_id = p.id
                 ORDER BY e.rank",
                readable(query.user).replace("$2", "$4")
            );
            let after = query.after.unwrap_or(LEAST - 1);
            let rows: Vec<PageRow> = on_pool!(&db, pool => {
                let rows = sqlx::query_as(AssertSqlSafe(sql))
                    .bind(query.id).bind(after).bind(i64::from(query.limit));
                let rows = if let Some(user) = query.user { rows.bind(user) } else { rows };
                rows.fetch_all(pool).await?
            });
            let Some(first) = rows.first() else {
                return Ok(None);
            };
            Ok(Some(SongPage {
                version: first.version,
                epoch: first.epoch,
                song_count: first.song_count,
                entries: rows.into_iter().filter_map(PageRow::entry).collect(),
            }))
        })
        .await
    }
}

/// Whose playlists may be read.
const fn readable(user: Option<UserId>) -> &'static str {
    match user {
        Some(_) => "user_id = $2",
        None => "is_public",
    }
}
