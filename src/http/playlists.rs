//! A user's playlists. Their songs are in `playlist_songs.rs`, links for everybody in
//! `public_playlists.rs`.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    error::ApiError,
    etag::{self, IfMatch},
    extract::{Actors, Authed, ask_session},
    headers::{written, written_bare},
    idempotency::Repeatable,
    json::{Json, Path, Query},
    openapi::Problem,
    page::{cut, page_limit, read_cursor},
    playlist_songs,
};
use crate::{
    actors::session::{
        CreatePlaylist, DeletePlaylist, Done, ListPlaylists, PlaylistTarget, ReadPlaylist,
        RestorePlaylist, UpdatePlaylist,
    },
    domain::{
        error::{ErrorCode, FieldError},
        identity::Caller,
        ids::PlaylistId,
        library::{
            CoverUrl, Expected, MAX_PLAYLISTS, MAX_SONGS, NewPlaylist, Nullable, Playlist,
            PlaylistCursor, PlaylistName, PlaylistRefusal, PlaylistUpdate, VersionTag, given,
        },
    },
};

/// Names a playlist.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
#[serde(deny_unknown_fields)]
pub struct PlaylistPath {
    /// The playlist's id.
    pub(super) id: PlaylistId,
}

impl PlaylistPath {
    /// For a command of `caller`.
    pub(super) fn target(self, expected: Option<Expected>, caller: &Caller) -> PlaylistTarget {
        PlaylistTarget {
            id: self.id,
            expected,
            origin: caller.device_id.clone(),
        }
    }
}

/// A playlist to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBody {
    /// 1 to 128 characters, none of them a control character.
    name: PlaylistName,
    /// An https URL of at most 1024 characters.
    #[serde(default)]
    cover_url: Option<CoverUrl>,
    /// Whether everybody who has its link may read it.
    #[serde(default)]
    is_public: bool,
}

/// What is to be different about a playlist; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateBody {
    /// 1 to 128 characters, none of them a control character.
    #[serde(default, deserialize_with = "given")]
    name: Option<PlaylistName>,
    /// An https URL of at most 1024 characters; null takes the picture away.
    #[serde(default)]
    #[schema(value_type = Option<CoverUrl>)]
    cover_url: Nullable<CoverUrl>,
    /// Whether everybody who has its link may read it.
    #[serde(default, deserialize_with = "given")]
    is_public: Option<bool>,
}

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PlaylistList {
    /// `true`: those that were deleted and can be restored.
    #[serde(default)]
    deleted: bool,
    /// 1 to 200; 50 when left out.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of playlists, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlaylistPage {
    items: Vec<Playlist>,
    /// Names the next page; null on the last.
    next_cursor: Option<String>,
}

impl From<PlaylistRefusal> for ApiError {
    fn from(refusal: PlaylistRefusal) -> Self {
        match refusal {
            PlaylistRefusal::NotFound => ErrorCode::PlaylistNotFound.into(),
            PlaylistRefusal::Stale { version } => {
                Self::new(ErrorCode::PreconditionFailed).extension("version", version)
            }
            PlaylistRefusal::NoEntry { field } => Self::new(ErrorCode::EntryNotFound)
                .field(FieldError::new(field, "the playlist has no such entry")),
            PlaylistRefusal::LeftOut { missing, version } => Self::new(ErrorCode::OrderIncomplete)
                .extension("missing", missing)
                .extension("version", version),
            PlaylistRefusal::TooMany => {
                Self::new(ErrorCode::PlaylistLimitReached).extension("limit", MAX_PLAYLISTS)
            }
            PlaylistRefusal::Full { song_count } => Self::new(ErrorCode::PlaylistFull)
                .extension("limit", MAX_SONGS)
                .extension("song_count", song_count),
        }
    }
}

/// A playlist after a change of it.
pub(super) fn changed(
    done: Done<Result<Playlist, PlaylistRefusal>>,
) -> Result<HttpResponse, ApiError> {
    let Done { value, seq, epoch } = done;
    let playlist = value?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header(etag::of_version(VersionTag::new(playlist.version, epoch)));
    Ok(written(answer, seq, playlist))
}

/// Make a playlist.
#[utoipa::path(post, path = "/v1/me/playlists", tag = "playlists", request_body = CreateBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the call, so that it may be sent again")),
    security(("bearer" = [])),
    responses((status = 201, description = "It is there", body = Playlist,
               headers(("Location" = String), ("ETag" = String), ("Sync-Seq" = i64))),
              (status = 409, description = "`playlist_limit_reached`", body = Problem)))]
pub(super) async fn create(
    graph: Actors,
    Authed(caller): Authed,
    call: Repeatable<CreateBody>,
) -> Result<HttpResponse, ApiError> {
    let CreateBody {
        name,
        cover_url,
        is_public,
    } = call.body;
    let ask = CreatePlaylist {
        new: NewPlaylist {
            name,
            cover_url,
            is_public,
        },
        origin: caller.device_id.clone(),
        key: call.key,
    };
    let Done { value, seq, epoch } = ask_session(&graph, &caller.user, ask).await?;
    let playlist = value?;
    let place = format!("/v1/me/playlists/{}", playlist.id);
    let mut answer = HttpResponse::Created();
    answer
        .insert_header((header::LOCATION, place))
        .insert_header(etag::of_version(VersionTag::new(playlist.version, epoch)));
    Ok(written(answer, seq, playlist))
}

/// The user's playlists.
#[utoipa::path(get, path = "/v1/me/playlists", tag = "playlists",
    params(PlaylistList), security(("bearer" = [])),
    responses((status = 200, description = "Newest first", body = PlaylistPage, headers(("ETag" = String))),
              (status = 304, description = "`If-None-Match` names what it would be")))]
pub(super) async fn playlists(
    req: HttpRequest,
    graph: Actors,
    Authed(caller): Authed,
    Query(query): Query<PlaylistList>,
) -> Result<HttpResponse, ApiError> {
    let limit = page_limit(query.limit)?;
    let before = read_cursor(query.cursor.as_deref(), PlaylistCursor::decode)?;
    let ask = ListPlaylists {
        deleted: query.deleted,
        limit: limit + 1,
        before: before.map(|it| (it.created_at, it.id)),
    };
    let items = ask_session(&graph, &caller.user, ask).await?;
    let (items, next_cursor) = cut(items, limit, |it| PlaylistCursor::after(it).encode());
    etag::tagged(&req, &PlaylistPage { items, next_cursor })
}

/// A playlist, without its songs.
#[utoipa::path(get, path = "/v1/me/playlists/{id}", tag = "playlists",
    params(PlaylistPath), security(("bearer" = [])),
    responses((status = 200, description = "The playlist", body = Playlist, headers(("ETag" = String))),
              (status = 304, description = "`If-None-Match` names its version"),
              (status = 404, description = "`playlist_not_found`", body = Problem)))]
pub(super) async fn playlist(
    req: HttpRequest,
    graph: Actors,
    Authed(caller): Authed,
    Path(path): Path<PlaylistPath>,
) -> Result<HttpResponse, ApiError> {
    let ask = ReadPlaylist(path.id);
    let found = ask_session(&graph, &caller.user, ask).await?;
    let (playlist, epoch) = found.ok_or(ErrorCode::PlaylistNotFound)?;
    let tag = VersionTag::new(playlist.version, epoch);
    Ok(etag::versioned(&req, tag, &playlist))
}

/// Change a playlist's name, cover or visibility.
#[utoipa::path(patch, path = "/v1/me/playlists/{id}", tag = "playlists", request_body = UpdateBody,
    params(PlaylistPath, ("If-Match" = Option<String>, Header, description = "The version that it must have")),
    security(("bearer" = [])),
    responses((status = 200, description = "As it is now", body = Playlist, headers(("ETag" = String), ("Sync-Seq" = i64))),
              (status = 404, description = "`playlist_not_found`", body = Problem),
              (status = 412, description = "`precondition_failed`, with `version`", body = Problem)))]
pub(super) async fn update(
    graph: Actors,
    Authed(caller): Authed,
    IfMatch(expected): IfMatch,
    Path(path): Path<PlaylistPath>,
    Json(body): Json<UpdateBody>,
) -> Result<HttpResponse, ApiError> {
    let UpdateBody {
        name,
        cover_url,
        is_public,
    } = body;
    let ask = UpdatePlaylist {
        target: path.target(expected, &caller),
        update: PlaylistUpdate {
            name,
            cover_url,
            is_public,
        },
    };
    changed(ask_session(&graph, &caller.user, ask).await?)
}

/// Delete a playlist. It can be restored.
#[utoipa::path(delete, path = "/v1/me/playlists/{id}", tag = "playlists",
    params(PlaylistPath, ("If-Match" = Option<String>, Header, description = "The version that it must have")),
    security(("bearer" = [])),
    responses((status = 204, description = "It is deleted", headers(("Sync-Seq" = i64))),
              (status = 404, description = "`playlist_not_found`", body = Problem),
              (status = 412, description = "`precondition_failed`, with `version`", body = Problem)))]
pub(super) async fn delete(
    graph: Actors,
    Authed(caller): Authed,
    IfMatch(expected): IfMatch,
    Path(path): Path<PlaylistPath>,
) -> Result<HttpResponse, ApiError> {
    let ask = DeletePlaylist(path.target(expected, &caller));
    let Done { value, seq, .. } = ask_session(&graph, &caller.user, ask).await?;
    value?;
    Ok(written_bare(seq))
}

/// Bring a deleted playlist back, with its songs.
#[utoipa::path(post, path = "/v1/me/playlists/{id}/restore", tag = "playlists",
    params(PlaylistPath, ("If-Match" = Option<String>, Header, description = "The version that it must have")),
    security(("bearer" = [])),
    responses((status = 200, description = "It is there", body = Playlist, headers(("ETag" = String), ("Sync-Seq" = i64))),
              (status = 404, description = "`playlist_not_found`", body = Problem),
              (status = 409, description = "`playlist_limit_reached`", body = Problem),
              (status = 412, description = "`precondition_failed`, with `version`", body = Problem)))]
pub(super) async fn restore_playlist(
    graph: Actors,
    Authed(caller): Authed,
    IfMatch(expected): IfMatch,
    Path(path): Path<PlaylistPath>,
) -> Result<HttpResponse, ApiError> {
    let ask = RestorePlaylist(path.target(expected, &caller));
    changed(ask_session(&graph, &caller.user, ask).await?)
}

/// Registers the routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/v1/me/playlists")
            .route(web::post().to(create))
            .route(web::get().to(playlists)),
    )
    .service(
        web::resource("/v1/me/playlists/{id}")
            .route(web::get().to(playlist))
            .route(web::patch().to(update))
            .route(web::delete().to(delete)),
    )
    .service(web::resource("/v1/me/playlists/{id}/restore").route(web::post().to(restore_playlist)))
    .configure(playlist_songs::routes);
}
