//! What plays and where, by REST. Devices that have a socket use signals.

use actix_web::{HttpResponse, web};

use super::{
    error::ApiError,
    extract::{Actors, Authed, ask_session},
    headers::written,
    json::Json,
    openapi::Problem,
};
use crate::{
    actors::session::{Done, GetPlayer, PlayerActivation, TransferPlayer},
    domain::{
        error::ErrorCode,
        library::{Player, Transfer},
    },
};

/// What plays, and on which device.
#[utoipa::path(get, path = "/v1/me/player", tag = "player", security(("bearer" = [])),
    responses((status = 200, description = "As the active device said last", body = Player)))]
pub(super) async fn get(graph: Actors, Authed(caller): Authed) -> Result<HttpResponse, ApiError> {
    let player = ask_session(&graph, &caller.user, GetPlayer).await?;
    match player {
        Some(player) => Ok(HttpResponse::Ok().json(player)),
        None => Err(ErrorCode::TokenRevoked.into()),
    }
}

/// Hand playback over to another device, or to this one.
#[utoipa::path(put, path = "/v1/me/player/device", tag = "player", security(("bearer" = [])),
    request_body = Transfer,
    responses((status = 200, description = "It is the active one", body = Player, headers(("Sync-Seq" = i64))),
              (status = 404, description = "`device_not_found`", body = Problem)))]
pub(super) async fn transfer(
    graph: Actors,
    Authed(caller): Authed,
    Json(Transfer { device_id: device }): Json<Transfer>,
) -> Result<HttpResponse, ApiError> {
    let ask = TransferPlayer {
        device,
        origin: caller.device_id.clone(),
    };
    let Done { value, seq, .. } = ask_session(&graph, &caller.user, ask).await?;
    match value {
        PlayerActivation::Active(player) => Ok(written(HttpResponse::Ok(), seq, player)),
        PlayerActivation::NoDevice => Err(ErrorCode::DeviceNotFound.into()),
    }
}

/// Registers the routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/v1/me/player").route(web::get().to(get)))
        .service(web::resource("/v1/me/player/device").route(web::put().to(transfer)));
}
