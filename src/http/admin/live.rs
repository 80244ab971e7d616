//! The live feed: a frame a second, for whoever watches.

use actix_web::{HttpRequest, HttpResponse, web};

use super::socket;
use crate::{
    actors::inspector::{THE_ONE, Watch},
    domain::error::ErrorCode,
    http::{
        error::ApiError,
        extract::{Actors, deadline},
        openapi::Problem,
    },
};

/// Seconds after which a watcher that found no room comes again.
const ROOM_AGAIN: u64 = 5;

/// Follow what the actors do: a WebSocket with a text frame of JSON each second, which has the kinds as
/// `/admin/v1/actors` lists them, `at`, `sockets_open`, and `slowest`: the ten actors that answered
/// slowest lately. Sixteen may watch; one that does not answer pings is dropped after 10 s.
#[utoipa::path(get, path = "/admin/v1/live", tag = "actors", security(("admin" = [])),
    responses((status = 101, description = "The feed is open"),
              (status = 401, description = "`admin_token_invalid`", body = Problem),
              (status = 403, description = "`admin_off`", body = Problem),
              (status = 426, description = "`upgrade_required`", body = Problem),
              (status = 503, description = "`connection_limit_reached`: sixteen watch", body = Problem)))]
pub(super) async fn live(
    graph: Actors,
    req: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    socket::check(&req)?;
    let frames = graph
        .inspectors
        .ask(&THE_ONE, Watch, deadline(&graph))
        .await?;
    let frames = frames
        .ok_or_else(|| ApiError::new(ErrorCode::ConnectionLimitReached).retry_after(ROOM_AGAIN))?;
    socket::open(frames, graph.world.clone(), &req, payload)
}

/// Registers the route.
pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/live").route(web::get().to(live)));
}
