//! A user's favorites.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    error::ApiError,
    etag,
    extract::{Actors, Authed, ask_session},
    headers::{written, written_bare},
    json::{Path, Query},
    openapi::Problem,
    page::{cut, page_limit, read_cursor},
};
use crate::{
    actors::session::{Done, ListFavorites, PutFavorite, RemoveFavorite, RestoreFavorite},
    domain::{
        error::ErrorCode,
        library::{Favorite, FavoriteCursor, FavoriteKey, FavoriteType},
    },
};

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct FavoriteList {
    /// Only favorites of this type.
    #[serde(rename = "type")]
    kind: Option<FavoriteType>,
    /// 1 to 200; 50 when left out.
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of favorites, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct FavoritePage {
    items: Vec<Favorite>,
    /// Names the next page; null on the last.
    next_cursor: Option<String>,
}

/// Make something a favorite.
#[utoipa::path(put, path = "/v1/me/favorites/{type}/{target_id}", tag = "favorites",
    params(FavoriteKey), security(("bearer" = [])),
    responses((status = 201, description = "It is one now", body = Favorite, headers(("Sync-Seq" = i64))),
              (status = 200, description = "It was one", body = Favorite, headers(("Sync-Seq" = i64)))))]
pub(super) async fn put(
    graph: Actors,
    Authed(caller): Authed,
    Path(key): Path<FavoriteKey>,
) -> Result<HttpResponse, ApiError> {
    let ask = PutFavorite {
        key,
        origin: caller.device_id.clone(),
    };
    let Done {
        value: (favorite, added),
        seq,
        ..
    } = ask_session(&graph, &caller.user, ask).await?;
    let answer = if added {
        HttpResponse::Created()
    } else {
        HttpResponse::Ok()
    };
    Ok(written(answer, seq, favorite))
}

/// Remove a favorite. It can be restored.
#[utoipa::path(delete, path = "/v1/me/favorites/{type}/{target_id}", tag = "favorites",
    params(FavoriteKey), security(("bearer" = [])),
    responses((status = 204, description = "It is none", headers(("Sync-Seq" = i64))),
              (status = 404, description = "`favorite_not_found`: it never was one", body = Problem)))]
pub(super) async fn remove(
    graph: Actors,
    Authed(caller): Authed,
    Path(key): Path<FavoriteKey>,
) -> Result<HttpResponse, ApiError> {
    let ask = RemoveFavorite {
        key,
        origin: caller.device_id.clone(),
    };
    let Done {
        value: known, seq, ..
    } = ask_session(&graph, &caller.user, ask).await?;
    if known {
        Ok(written_bare(seq))
    } else {
        Err(ErrorCode::FavoriteNotFound.into())
    }
}

/// Bring a removed favorite back, as old as it was.
#[utoipa::path(post, path = "/v1/me/favorites/{type}/{target_id}/restore", tag = "favorites",
    params(FavoriteKey), security(("bearer" = [])),
    responses((status = 200, description = "It is one", body = Favorite, headers(("Sync-Seq" = i64))),
              (status = 404, description = "`favorite_not_found`: it never was one", body = Problem)))]
pub(super) async fn restore(
    graph: Actors,
    Authed(caller): Authed,
    Path(key): Path<FavoriteKey>,
) -> Result<HttpResponse, ApiError> {
    let ask = RestoreFavorite {
        key,
        origin: caller.device_id.clone(),
    };
    let Done { value, seq, .. } = ask_session(&graph, &caller.user, ask).await?;
    let favorite = value.ok_or(ErrorCode::FavoriteNotFound)?;
    Ok(written(HttpResponse::Ok(), seq, favorite))
}

/// The user's favorites.
#[utoipa::path(get, path = "/v1/me/favorites", tag = "favorites",
    params(FavoriteList), security(("bearer" = [])),
    responses((status = 200, description = "Newest first", body = FavoritePage, headers(("ETag" = String))),
              (status = 304, description = "`If-None-Match` names what it would be")))]
pub(super) async fn list(
    req: HttpRequest,
    graph: Actors,
    Authed(caller): Authed,
    Query(query): Query<FavoriteList>,
) -> Result<HttpResponse, ApiError> {
    let limit = page_limit(query.limit)?;
    let before = read_cursor(query.cursor.as_deref(), FavoriteCursor::decode)?;
    let ask = ListFavorites {
        kind: query.kind,
        limit: limit + 1,
        before: before.map(|it| (it.created_at, it.id)),
    };
    let items = ask_session(&graph, &caller.user, ask).await?;
    let (items, next_cursor) = cut(items, limit, |it| FavoriteCursor::after(it).encode());
    etag::tagged(&req, &FavoritePage { items, next_cursor })
}

/// Registers the routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/v1/me/favorites").route(web::get().to(list)))
        .service(
            web::resource("/v1/me/favorites/{type}/{target_id}")
                .route(web::put().to(put))
                .route(web::delete().to(remove)),
        )
        .service(
            web::resource("/v1/me/favorites/{type}/{target_id}/restore")
                .route(web::post().to(restore)),
        );
}
