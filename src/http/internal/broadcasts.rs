//! Broadcasts as the service that began them sees them.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::{EventsBroadcast, Service};
use crate::{
    actors::services::{CancelBroadcast, ListBroadcasts, ShowBroadcast},
    domain::{
        error::ErrorCode,
        ids::BroadcastId,
        services::{Broadcast, BroadcastCursor},
    },
    http::{
        error::ApiError,
        etag,
        extract::{Actors, deadline},
        json::{Path, Query},
        openapi::Problem,
        page::{PageQuery, cut, page_limit, read_cursor},
    },
};

/// A page of broadcasts, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct BroadcastPage {
    items: Vec<Broadcast>,
    /// Names the next page; null on the last.
    next_cursor: Option<String>,
}

/// A broadcast.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct BroadcastPath {
    /// The broadcast's id.
    #[param(value_type = BroadcastId)]
    id: BroadcastId,
}

/// How far a broadcast of this key is.
#[utoipa::path(get, path = "/internal/v1/broadcasts/{id}", tag = "broadcasts",
    params(BroadcastPath), security(("key" = ["events:broadcast"])),
    responses((status = 200, description = "How far it is", body = Broadcast),
              (status = 401, description = "`api_key_invalid`", body = Problem),
              (status = 403, description = "`scope_missing`", body = Problem),
              (status = 404, description = "`broadcast_not_found`: the key began no such", body = Problem)))]
pub(super) async fn show(
    graph: Actors,
    service: Service<EventsBroadcast>,
    Path(it): Path<BroadcastPath>,
) -> Result<HttpResponse, ApiError> {
    let ask = ShowBroadcast(service.key.id, it.id);
    let broadcaster = &graph.services.broadcaster;
    let found = broadcaster.ask(ask, deadline(&graph)).await??;
    Ok(HttpResponse::Ok().json(found.ok_or(ErrorCode::BroadcastNotFound)?))
}

/// End a broadcast of this key. Who has the event keeps it.
#[utoipa::path(post, path = "/internal/v1/broadcasts/{id}:cancel", tag = "broadcasts",
    params(BroadcastPath), security(("key" = ["events:broadcast"])),
    responses((status = 200, description = "It is over: cancelled, or finished before", body = Broadcast),
              (status = 401, description = "`api_key_invalid`", body = Problem),
              (status = 403, description = "`scope_missing`", body = Problem),
              (status = 404, description = "`broadcast_not_found`: the key began no such", body = Problem)))]
pub(super) async fn cancel(
    graph: Actors,
    service: Service<EventsBroadcast>,
    Path(it): Path<BroadcastPath>,
) -> Result<HttpResponse, ApiError> {
    let ask = CancelBroadcast(service.key.id, it.id);
    let broadcaster = &graph.services.broadcaster;
    let found = broadcaster.ask(ask, deadline(&graph)).await??;
    Ok(HttpResponse::Ok().json(found.ok_or(ErrorCode::BroadcastNotFound)?))
}

/// Broadcasts of this key, also finished ones, for 30 days.
#[utoipa::path(get, path = "/internal/v1/broadcasts", tag = "broadcasts",
    params(PageQuery), security(("key" = ["events:broadcast"])),
    responses((status = 200, description = "Newest first", body = BroadcastPage, headers(("ETag" = String))),
              (status = 304, description = "`If-None-Match` names what it would be"),
              (status = 401, description = "`api_key_invalid`", body = Problem),
              (status = 403, description = "`scope_missing`", body = Problem)))]
pub(super) async fn list(
    req: HttpRequest,
    graph: Actors,
    service: Service<EventsBroadcast>,
    Query(query): Query<PageQuery>,
) -> Result<HttpResponse, ApiError> {
    let limit = page_limit(query.limit)?;
    let before = read_cursor(query.cursor.as_deref(), BroadcastCursor::decode)?;
    let ask = ListBroadcasts {
        key: service.key.id,
        limit: limit + 1,
        before,
    };
    let broadcaster = &graph.services.broadcaster;
    let items = broadcaster.ask(ask, deadline(&graph)).await??;
    let (items, next_cursor) = cut(items, limit, |it| {
        let (created_at, id) = (it.created_at, it.id);
        BroadcastCursor { created_at, id }.encode()
    });
    etag::tagged(&req, &BroadcastPage { items, next_cursor })
}

/// Registers the routes.
pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    // The longer pattern first: an id could end like it, for all that the router knows.
    cfg.service(web::resource("/internal/v1/broadcasts").route(web::get().to(list)))
        .service(web::resource("/internal/v1/broadcasts/{id}:cancel").route(web::post().to(cancel)))
        .service(web::resource("/internal/v1/broadcasts/{id}").route(web::get().to(show)));
}
