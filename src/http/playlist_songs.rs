//! The songs of a user's playlists.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    error::ApiError,
    etag::{self, IfMatch},
    extract::{Actors, Authed, ask_session},
    headers::written,
    idempotency::Repeatable,
    json::{Json, Path, Query},
    openapi::Problem,
    page::{self, read_cursor},
    playlists::{PlaylistPath, changed},
};
use crate::{
    actors::session::{
        AddSongs, Done, MoveSongs, OrderSongs, ReadSongs, RemoveSongs, ReplaceSongs,
    },
    domain::{
        error::{ErrorCode, FieldError},
        ids::EntryId,
        library::{
            Edition, Entries, Entry, MAX_AT_ONCE, MAX_SONGS, Nullable, Place, Playlist, SongCursor,
            SongPage, Songs, SongsPut, TargetId, VersionTag, given,
        },
    },
};

/// Songs to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddBody {
    /// 1 to 1000 songs, in the order in which they are to stand. A song may come twice.
    #[schema(value_type = Vec<TargetId>)]
    song_ids: Songs<MAX_AT_ONCE>,
    /// The entry behind which they are to stand; null: at the beginning.
    #[serde(default)]
    #[schema(value_type = Option<EntryId>)]
    after: Nullable<EntryId>,
    /// The entry before which they are to stand; null, or neither of both: at the end.
    #[serde(default)]
    #[schema(value_type = Option<EntryId>)]
    before: Nullable<EntryId>,
}

/// Entries to be taken out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveBody {
    /// 1 to 1000 entries, none twice. Those that are not there are left out.
    #[schema(value_type = Vec<EntryId>)]
    entry_ids: Entries<MAX_AT_ONCE>,
}

/// Entries to be moved.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveBody {
    /// 1 to 1000 entries, none twice, in the order in which they are to stand.
    #[schema(value_type = Vec<EntryId>)]
    entry_ids: Entries<MAX_AT_ONCE>,
    /// The entry behind which they are to stand, none of those that move; null: at the beginning.
    #[serde(default)]
    #[schema(value_type = Option<EntryId>)]
    after: Nullable<EntryId>,
    /// The entry before which they are to stand; null, or neither of both: at the end.
    #[serde(default)]
    #[schema(value_type = Option<EntryId>)]
    before: Nullable<EntryId>,
}

/// The whole order, or other songs. Exactly one of both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceBody {
    /// Every entry of the playlist once, in the new order.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<EntryId>>)]
    entry_ids: Option<Entries<MAX_SONGS>>,
    /// At most 10,000 songs, in place of those that are there.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<TargetId>>)]
    song_ids: Option<Songs<MAX_SONGS>>,
}

/// Which page of a playlist's songs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SongList {
    /// 1 to 1000; 200 when left out.
    limit: Option<u32>,
    /// The `next_cursor` of the page before: good as long as the playlist does not change.
    cursor: Option<String>,
}

impl SongList {
    /// How many, and behind which place.
    pub(super) fn read(&self) -> Result<(u32, Option<SongCursor>), FieldError> {
        let limit = self.limit.unwrap_or(200);
        if !(1..=1000).contains(&limit) {
            return Err(FieldError::new("limit", "1 to 1000"));
        }
        let cursor = read_cursor(self.cursor.as_deref(), SongCursor::decode)?;
        Ok((limit, cursor))
    }
}

/// Names the page after one of at most `limit` entries of which `page`, of that edition, may have one more.
pub(super) fn next_cursor(page: &SongPage, edition: Edition, limit: u32) -> Option<String> {
    page::next_cursor(&page.entries, limit, |&(_, rank)| {
        SongCursor { edition, rank }.encode()
    })
}

/// A page of a playlist's songs, in order.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryPage {
    items: Vec<Entry>,
    /// The playlist's version: all pages of it are one order.
    version: i64,
    /// How many songs the playlist has.
    song_count: i64,
    /// Names the next page; null on the last.
    next_cursor: Option<String>,
}

/// The songs of a playlist.
#[utoipa::path(get, path = "/v1/me/playlists/{id}/songs", tag = "playlists",
    params(PlaylistPath, SongList), security(("bearer" = [])),
    responses((status = 200, description = "In order", body = EntryPage, headers(("ETag" = String))),
              (status = 304, description = "`If-None-Match` names the playlist's version"),
              (status = 404, description = "`playlist_not_found`", body = Problem),
              (status = 412, description = "`precondition_failed`, with `version`: the playlist changed since the page before", body = Problem)))]
pub(super) async fn songs(
    req: HttpRequest,
    graph: Actors,
    Authed(caller): Authed,
    Path(path): Path<PlaylistPath>,
    Query(query): Query<SongList>,
) -> Result<HttpResponse, ApiError> {
    let (limit, cursor) = query.read()?;
    let ask = ReadSongs {
        id: path.id,
        limit: limit + 1,
        after: cursor.map(|it| it.rank),
    };
    let found = ask_session(&graph, &caller.user, ask).await?;
    let page = found.ok_or(ErrorCode::PlaylistNotFound)?;
    let (version, tag) = (page.version, page.tag());
    let edition = graph.secrets.edition(path.id, tag);
    if cursor.is_some_and(|it| it.edition != edition) {
        return Err(ApiError::new(ErrorCode::PreconditionFailed)
            .detail("the playlist changed since the page before: begin anew")
            .extension("version", version));
    }
    let next_cursor = next_cursor(&page, edition, limit);
    let body = EntryPage {
        version,
        song_count: page.song_count,
        next_cursor,
        items: page
            .entries
            .into_iter()
            .take(limit as usize)
            .map(|it| it.0)
            .collect(),
    };
    Ok(etag::versioned(&req, tag, &body))
}

/// Add songs.
#[utoipa::path(post, path = "/v1/me/playlists/{id}/songs", tag = "playlists", request_body = AddBody,
    params(PlaylistPath, ("If-Match" = Option<String>, Header, description = "The version that it must have"),
           ("Idempotency-Key" = Option<String>, Header, description = "Names the call, so that it may be sent again")),
    security(("bearer" = [])),
    responses((status = 201, description = "They are there", body = SongsPut, headers(("ETag" = String), ("Sync-Seq" = i64))),
              (status = 404, description = "`playlist_not_found`, `entry_not_found`", body = Problem),
              (status = 409, description = "`playlist_full`", body = Problem),
              (status = 412, description = "`precondition_failed`, with `version`", body = Problem)))]
pub(super) async fn add_songs(
    graph: Actors,
    Authed(caller): Authed,
    IfMatch(expected): IfMatch,
    Path(path): Path<PlaylistPath>,
    call: Repeatable<AddBody>,
) -> Result<HttpResponse, ApiError> {
    let AddBody {
        song_ids,
        after,
        before,
    } = call.body;
    let ask = AddSongs {
        target: path.target(expected, &caller),
        place: Place::of(after, before)?,
        songs: song_ids.into_inner(),
        key: call.key,
    };
    let Done { value, seq, epoch } = ask_session(&graph, &caller.user, ask).await?;
    let put = value?;
    let tag = VersionTag::new(put.playlist.version, epoch);
    let mut answer = HttpResponse::Created();
    answer.insert_header(etag::of_version(tag));
    Ok(written(answer, seq, put))
}

/// Take songs out. What is not there is left out, so that the call may be sent again.
#[utoipa::path(post, path = "/v1/me/playlists/{id}/songs:remove", tag = "playlists", request_body = RemoveBody,
    params(PlaylistPath, ("If-Match" = Option<String>, Header, description = "The version that it must have")),
    security(("bearer" = [])),
    responses((status = 200, description = "As it is now", body = Playlist, headers(("ETag" = String), ("Sync-Seq" = i64))),
              (status = 404, description = "`playlist_not_found`", body = Problem),
              (status = 412, description = "`precondition_failed`, with `version`", body = Problem)))]
pub(super) async fn remove_songs(
    graph: Actors,
    Authed(caller): Authed,
    IfMatch(expected): IfMatch,
    Path(path): Path<PlaylistPath>,
    Json(body): Json<RemoveBody>,
) -> Result<HttpResponse, ApiError> {
    let ask = RemoveSongs {
        target: path.target(expected, &caller),
        entries: body.entry_ids.into_inner(),
    };
    changed(ask_session(&graph, &caller.user, ask).await?)
}

/// Move songs to one place.
#[utoipa::path(post, path = "/v1/me/playlists/{id}/songs:move", tag = "playlists", request_body = MoveBody,
    params(PlaylistPath, ("If-Match" = Option<String>, Header, description = "The version that it must have")),
    security(("bearer" = [])),
    responses((status = 200, description = "As it is now", body = Playlist, headers(("ETag" = String), ("Sync-Seq" = i64))),
              (status = 404, description = "`playlist_not_found`, `entry_not_found`", body = Problem),
              (status = 412, description = "`precondition_failed`, with `version`", body = Problem)))]
pub(super) async fn move_songs(
    graph: Actors,
    Authed(caller): Authed,
    IfMatch(expected): IfMatch,
    Path(path): Path<PlaylistPath>,
    Json(body): Json<MoveBody>,
) -> Result<HttpResponse, ApiError> {
    let place = Place::of(body.after, body.before)?;
    let entries = body.entry_ids.into_inner();
    if let Some((_, field)) = place.named().filter(|(id, _)| entries.contains(id)) {
        return Err(FieldError::new(field, "an entry that does not move").into());
    }
    let ask = MoveSongs {
        target: path.target(expected, &caller),
        entries,
        place,
    };
    changed(ask_session(&graph, &caller.user, ask).await?)
}

/// Replace the whole order, or all songs.
#[utoipa::path(put, path = "/v1/me/playlists/{id}/songs", tag = "playlists", request_body = ReplaceBody,
    params(PlaylistPath, ("If-Match" = Option<String>, Header, description = "The version that it must have")),
    security(("bearer" = [])),
    responses((status = 200, description = "As it is now", body = Playlist, headers(("ETag" = String), ("Sync-Seq" = i64))),
              (status = 404, description = "`playlist_not_found`, `entry_not_found`", body = Problem),
              (status = 409, description = "`order_incomplete`, with `missing` and `version`", body = Problem),
              (status = 412, description = "`precondition_failed`, with `version`", body = Problem)))]
pub(super) async fn replace_songs(
    graph: Actors,
    Authed(caller): Authed,
    IfMatch(expected): IfMatch,
    Path(path): Path<PlaylistPath>,
    Json(body): Json<ReplaceBody>,
) -> Result<HttpResponse, ApiError> {
    let target = path.target(expected, &caller);
    let user = &caller.user;
    let done = match (body.entry_ids, body.song_ids) {
        (Some(entries), None) => {
            let entries = entries.into_inner();
            ask_session(&graph, user, OrderSongs { target, entries }).await?
        }
        (None, Some(songs)) => {
            let songs = songs.into_inner();
            ask_session(&graph, user, ReplaceSongs { target, songs }).await?
        }
        (None, None) => return Err(FieldError::new("entry_ids", "missing; or song_ids").into()),
        (Some(_), Some(_)) => {
            return Err(FieldError::new("song_ids", "not beside entry_ids").into());
        }
    };
    changed(done)
}

/// Registers the routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/v1/me/playlists/{id}/songs")
            .route(web::get().to(songs))
            .route(web::post().to(add_songs))
            .route(web::put().to(replace_songs)),
    )
    .service(
        web::resource("/v1/me/playlists/{id}/songs:remove").route(web::post().to(remove_songs)),
    )
    .service(web::resource("/v1/me/playlists/{id}/songs:move").route(web::post().to(move_songs)));
}
