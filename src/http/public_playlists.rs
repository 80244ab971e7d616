//! Public playlists by link, for everybody, without a login.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::ApiError,
    etag,
    extract::{Actors, deadline, refuse_when_draining},
    json::{Path, Query},
    openapi::Problem,
    playlist_songs::{SongList, next_cursor},
    playlists::PlaylistPath,
};
use crate::{
    actors::library::{ReadPublicPlaylist, ReadPublicSongs},
    domain::{
        error::ErrorCode,
        ids::EntryId,
        library::{PublicPlaylist, TargetId},
    },
};

/// What caches on the way may keep, for as long as the node itself does (`actors::library::LIFE`).
const PUBLIC: &str = "public, max-age=5";

/// A song of a public playlist.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublicEntry<'a> {
    /// A song may stand twice: each place has its own id.
    id: EntryId,
    /// The catalogue's id of the song.
    song_id: &'a TargetId,
}

/// A page of a public playlist's songs, in order.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublicEntryPage<'a> {
    items: Vec<PublicEntry<'a>>,
    /// How many songs the playlist has.
    song_count: i64,
    /// Names the next page; null on the last.
    next_cursor: Option<String>,
}

/// A public playlist, without its songs.
#[utoipa::path(get, path = "/v1/playlists/{id}", tag = "playlists", params(PlaylistPath),
    responses((status = 200, description = "The playlist", body = PublicPlaylist,
               headers(("ETag" = String), ("Cache-Control" = String))),
              (status = 304, description = "`If-None-Match` names what it would be"),
              (status = 404, description = "`playlist_not_found`: there is none, or it is not public", body = Problem)))]
pub(super) async fn public_playlist(
    req: HttpRequest,
    graph: Actors,
    Path(path): Path<PlaylistPath>,
) -> Result<HttpResponse, ApiError> {
    refuse_when_draining(&graph)?;
    let ask = ReadPublicPlaylist(path.id);
    let found = graph.public.ask(ask, deadline(&graph)).await??;
    let playlist = found.ok_or(ErrorCode::PlaylistNotFound)?;
    etag::tagged_for(&req, &*playlist, PUBLIC)
}

/// The songs of a public playlist.
#[utoipa::path(get, path = "/v1/playlists/{id}/songs", tag = "playlists", params(PlaylistPath, SongList),
    responses((status = 200, description = "In order", body = PublicEntryPage<'_>,
               headers(("ETag" = String), ("Cache-Control" = String))),
              (status = 304, description = "`If-None-Match` names what it would be"),
              (status = 404, description = "`playlist_not_found`: there is none, or it is not public", body = Problem),
              (status = 412, description = "`precondition_failed`: the playlist changed since the page before", body = Problem)))]
pub(super) async fn public_songs(
    req: HttpRequest,
    graph: Actors,
    Path(path): Path<PlaylistPath>,
    Query(query): Query<SongList>,
) -> Result<HttpResponse, ApiError> {
    refuse_when_draining(&graph)?;
    let (limit, cursor) = query.read()?;
    let ask = ReadPublicSongs {
        id: path.id,
        limit: limit + 1,
        after: cursor.map(|it| it.rank),
    };
    let found = graph.public.ask(ask, deadline(&graph)).await??;
    let page = found.ok_or(ErrorCode::PlaylistNotFound)?;
    let edition = graph.secrets.edition(path.id, page.tag());
    if cursor.is_some_and(|it| it.edition != edition) {
        return Err(ApiError::new(ErrorCode::PreconditionFailed)
            .detail("the playlist changed since the page before: begin anew"));
    }
    let items = page.entries.iter().take(limit as usize);
    let items = items.map(|(entry, _)| PublicEntry {
        id: entry.id,
        song_id: &entry.song_id,
    });
    let body = PublicEntryPage {
        items: items.collect(),
        song_count: page.song_count,
        next_cursor: next_cursor(&page, edition, limit),
    };
    etag::tagged_for(&req, &body, PUBLIC)
}

/// Registers the routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/v1/playlists/{id}").route(web::get().to(public_playlist)))
        .service(web::resource("/v1/playlists/{id}/songs").route(web::get().to(public_songs)));
}
