//! A user's history of plays.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    error::ApiError,
    etag,
    extract::{Actors, Authed, ask_session},
    headers::{written, written_bare},
    idempotency::{self, Repeatable},
    json::{Path, Query},
    openapi::Problem,
    page::{PageQuery, cut, page_limit, read_cursor},
};
use crate::{
    actors::session::{AddPlays, ClearHistory, Done, ListHistory, RemovePlay},
    domain::{
        error::{ErrorCode, FieldError},
        ids::PlayId,
        library::{HistoryPlace, MAX_NEW_PLAYS, NewPlay, Play, PlayResult},
        object::objects,
    },
};

/// Plays that a device brings.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPlays {
    /// 1 to 200.
    #[serde(deserialize_with = "objects")]
    plays: Vec<NewPlay>,
}

/// What became of each play that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlayResults {
    /// In the order in which they were sent.
    results: Vec<PlayResult>,
}

/// A page of the history, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryPage {
    items: Vec<Play>,
    /// Names the next page; null on the last.
    next_cursor: Option<String>,
}

/// Add plays. A play that is sent again changes nothing.
#[utoipa::path(post, path = "/v1/me/history", tag = "history", request_body = NewPlays,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 printable characters")),
    security(("bearer" = [])),
    responses((status = 200, description = "What became of each", body = PlayResults, headers(("Sync-Seq" = i64))),
              (status = 422, description = "`invalid_request`, or `idempotency_key_reused`", body = Problem)))]
pub(super) async fn add(
    graph: Actors,
    Authed(caller): Authed,
    Repeatable { body, key }: Repeatable<NewPlays>,
) -> Result<HttpResponse, ApiError> {
    let NewPlays { plays } = body;
    if !(1..=MAX_NEW_PLAYS).contains(&plays.len()) {
        return Err(FieldError::new("plays", format!("1 to {MAX_NEW_PLAYS} plays")).into());
    }
    let ask = AddPlays {
        plays,
        origin: caller.device_id.clone(),
        key,
    };
    let Done { value, seq, .. } = ask_session(&graph, &caller.user, ask).await?;
    let body = PlayResults { results: value };
    Ok(written(HttpResponse::Ok(), seq, body))
}

/// The user's history.
#[utoipa::path(get, path = "/v1/me/history", tag = "history",
    params(PageQuery), security(("bearer" = [])),
    responses((status = 200, description = "Newest first", body = HistoryPage, headers(("ETag" = String))),
              (status = 304, description = "`If-None-Match` names what it would be")))]
pub(super) async fn list(
    req: HttpRequest,
    graph: Actors,
    Authed(caller): Authed,
    Query(query): Query<PageQuery>,
) -> Result<HttpResponse, ApiError> {
    let limit = page_limit(query.limit)?;
    let before = read_cursor(query.cursor.as_deref(), HistoryPlace::decode)?;
    let ask = ListHistory {
        limit: limit + 1,
        before,
    };
    let items = ask_session(&graph, &caller.user, ask).await?;
    let (items, next_cursor) = cut(items, limit, |it| it.place().encode());
    etag::tagged(&req, &HistoryPage { items, next_cursor })
}

/// The path of a play.
#[derive(Debug, Deserialize)]
pub struct PlayPath {
    id: PlayId,
}

/// Remove a play. Sent again it stays out.
#[utoipa::path(delete, path = "/v1/me/history/{id}", tag = "history",
    params(("id" = PlayId, Path, description = "The client's id of the play")),
    security(("bearer" = [])),
    responses((status = 204, description = "It is not in the history", headers(("Sync-Seq" = i64))),
              (status = 404, description = "`play_not_found`: it never was, or long ago", body = Problem)))]
pub(super) async fn remove(
    graph: Actors,
    Authed(caller): Authed,
    Path(path): Path<PlayPath>,
) -> Result<HttpResponse, ApiError> {
    let ask = RemovePlay {
        id: path.id,
        origin: caller.device_id.clone(),
    };
    let Done {
        value: known, seq, ..
    } = ask_session(&graph, &caller.user, ask).await?;
    if known {
        Ok(written_bare(seq))
    } else {
        Err(ErrorCode::PlayNotFound.into())
    }
}

/// Clear the history. Plays of before that come later are ignored.
#[utoipa::path(delete, path = "/v1/me/history", tag = "history",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 printable characters")),
    security(("bearer" = [])),
    responses((status = 204, description = "It is empty", headers(("Sync-Seq" = i64))),
              (status = 422, description = "`idempotency_key_reused`", body = Problem)))]
pub(super) async fn clear(
    req: HttpRequest,
    graph: Actors,
    Authed(caller): Authed,
) -> Result<HttpResponse, ApiError> {
    let ask = ClearHistory {
        origin: caller.device_id.clone(),
        key: idempotency::of_call(&req)?,
    };
    let done = ask_session(&graph, &caller.user, ask).await?;
    Ok(written_bare(done.seq))
}

/// Registers the routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/v1/me/history")
            .route(web::get().to(list))
            .route(web::post().to(add))
            .route(web::delete().to(clear)),
    )
    .service(web::resource("/v1/me/history/{id}").route(web::delete().to(remove)));
}
