//! The handshake of a device's socket: every check before the connection is one.
//!
//! Owns what an upgrade must bring: an allowed origin, a position, the headers of RFC 6455, the
//! subprotocol, room on the node, and a token or a ticket. What passes is answered `101` with an
//! [`Admitted`] among the answer's extensions, of which `http/upgrade.rs` makes the connection.

use std::sync::Arc;

use actix_http::ws::{self, HandshakeError};
use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    http::{Version, header},
    web,
};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    error::{self, ApiError},
    extract::{ask_session, authenticate, refuse_when_draining, refuse_when_in_doubt},
    headers::Origins,
    json::Query,
    limit::Limits,
    openapi::Problem,
    socket::{Admitted, SocketParts},
    upgrade::HandedOver,
};
use crate::{
    actors::{Failure, Graph, kernel::Life, session::RedeemTicket},
    domain::{
        error::{ErrorCode, FieldError},
        identity::{Caller, Secrets, Ticket},
        ids::{ConnId, Epoch, UserId},
        sync::Position,
    },
    telemetry::metrics::SocketMetrics,
};

/// The subprotocol that this server speaks.
pub const SUBPROTOCOL: &str = "listen-stream.v1";
/// Seconds after which a client that found no room comes again, and as many more at random.
const ROOM_AGAIN: u64 = 5;

/// Where a client says it is.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// Everything up to here is applied: above the device's cursor it counts as an ack, below it the
    /// events come again.
    since: Option<i64>,
    /// The epoch that `since` belongs to; may be left out when `since` is 0 or left out.
    epoch: Option<Epoch>,
}

impl Since {
    fn position(self) -> Result<Option<Position>, FieldError> {
        match (self.since, self.epoch) {
            (Some(..=-1), _) => Err(FieldError::new("since", "0 or more")),
            (Some(1..), None) => Err(FieldError::new("epoch", "needed when since is above 0")),
            (None, _) => Ok(None),
            (Some(seq), epoch) => Ok(Some(Position {
                epoch: epoch.unwrap_or(Epoch(Uuid::nil())),
                seq,
            })),
        }
    }
}

/// Open the socket of a device: subprotocol `listen-stream.v1`, see `docs/protocol.md`. The token
/// comes in `Authorization`, or a ticket as a second subprotocol `ticket.<ticket>`.
#[utoipa::path(get, path = "/v1/sync", tag = "sync", params(Since), security(("bearer" = [])),
    responses((status = 101, description = "The socket is open"),
              (status = 401, description = "No good token or ticket", body = Problem),
              (status = 403, description = "`origin_not_allowed`", body = Problem),
              (status = 426, description = "`upgrade_required`", body = Problem),
              (status = 503, description = "`session_quarantined`, `connection_limit_reached`, `shutting_down`", body = Problem)))]
pub(super) async fn connect(
    sockets: web::Data<SocketParts>,
    origins: web::Data<Origins>,
    limits: web::Data<Limits>,
    req: HttpRequest,
    Query(since): Query<Since>,
) -> Result<HttpResponse, ApiError> {
    let answer = admit(&sockets, &origins, &limits, &req, since).await;
    let result = error::result(&answer, SocketMetrics::ADMITTED);
    sockets.metrics.upgrades.inc(result);
    answer
}

async fn admit(
    sockets: &web::Data<SocketParts>,
    origins: &Origins,
    limits: &Limits,
    req: &HttpRequest,
    since: Since,
) -> Result<HttpResponse, ApiError> {
    // One that is no text is there all the same: taken for none it would pass.
    let text = |name| req.headers().get(name).map(|v| v.to_str().unwrap_or(""));
    if !origins.allows(text(header::ORIGIN), text(header::HOST)) {
        return Err(ErrorCode::OriginNotAllowed.into());
    }
    let since = since.position()?;
    let mut answer = handshake(req)?;
    let (offered, ticket) = offered_ticket(req)?;
    let graph = &sockets.graph;
    refuse_when_draining(graph)?;
    let permit = sockets.gate.enter().ok_or_else(|| no_room(graph))?;
    // Everything that may be refused is, before a ticket is used up.
    let enter = |user| {
        refuse_quarantined(graph, user)?;
        sockets.of_users.enter(user).ok_or_else(|| no_room(graph))
    };
    let (caller, place) = if let Some(text) = ticket {
        // Checked before any actor is started for the user that it names.
        let ticket = Ticket::open(&graph.secrets, &text).ok_or(ErrorCode::TicketInvalid)?;
        // One that was used up is as well made as a new one, and asks the store as much.
        limits.check_user(req, ticket.user)?;
        let place = enter(ticket.user)?;
        (redeem(graph, &ticket, &text).await?, place)
    } else {
        let caller = (*authenticate(req)?).clone();
        let place = enter(caller.user)?;
        (caller, place)
    };
    if offered {
        answer.insert_header((header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL));
    }
    let conn = ConnId(graph.world.uuid().map_err(ApiError::internal)?);
    let mut answer = HttpResponse::from(answer.finish().map_into_boxed_body());
    answer.extensions_mut().insert(Admitted {
        parts: Arc::clone(sockets),
        permit,
        place,
        conn,
        caller,
        since,
    });
    Ok(answer)
}

/// The session of a quarantined user would close the socket.
fn refuse_quarantined(graph: &Graph, user: UserId) -> Result<(), ApiError> {
    if let Some(session) = graph.sessions.find(&user)
        && let Life::Quarantined(until) = session.life()
    {
        let retry_after = until.saturating_duration_since(graph.world.instant());
        return Err(Failure::Quarantined { retry_after }.into());
    }
    Ok(())
}

/// The answer that opens the socket, if the request is an upgrade as RFC 6455 wants it.
fn handshake(req: &HttpRequest) -> Result<actix_http::ResponseBuilder, ApiError> {
    let refused = |e| Err(handshake_error(e));
    if let Err(e) = ws::verify_handshake(req.head()) {
        return refused(e);
    }
    // Some requests look like upgrades and are none to the server below: of HTTP/2, with a body in
    // chunks, or with more than one protocol in `Upgrade`.
    if req.extensions().get::<HandedOver>().is_none() || req.version() < Version::HTTP_11 {
        return refused(HandshakeError::NoWebsocketUpgrade);
    }
    Ok(ws::handshake_response(req.head()))
}

/// The node, or the user, has as many sockets as there may be.
fn no_room(graph: &Graph) -> ApiError {
    let more = graph.world.below(ROOM_AGAIN + 1);
    ApiError::new(ErrorCode::ConnectionLimitReached)
        .retry_after(ROOM_AGAIN + more.unwrap_or(ROOM_AGAIN))
}

fn handshake_error(e: HandshakeError) -> ApiError {
    let code = match e {
        HandshakeError::NoWebsocketUpgrade | HandshakeError::NoConnectionUpgrade => {
            ErrorCode::UpgradeRequired
        }
        HandshakeError::GetMethodRequired => ErrorCode::MethodNotAllowed,
        _ => ErrorCode::InvalidHeader,
    };
    ApiError::new(code).detail(e.to_string())
}

/// Whether subprotocols are offered, and the ticket among them.
fn offered_ticket(req: &HttpRequest) -> Result<(bool, Option<String>), ApiError> {
    let mut offered = req
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .peekable();
    if offered.peek().is_none() {
        return Ok((false, None));
    }
    let (mut known, mut ticket) = (false, None);
    for name in offered {
        known |= name == SUBPROTOCOL;
        ticket = ticket.or_else(|| name.strip_prefix("ticket.").map(str::to_owned));
    }
    if known {
        Ok((true, ticket))
    } else {
        let field = FieldError::new("Sec-WebSocket-Protocol", format!("offer {SUBPROTOCOL}"));
        Err(ApiError::new(ErrorCode::InvalidHeader).field(field))
    }
}

async fn redeem(graph: &Graph, ticket: &Ticket, text: &str) -> Result<Caller, ApiError> {
    let ask = RedeemTicket {
        ticket_hash: Secrets::sha256(text),
    };
    let caller = ask_session(graph, &ticket.user, ask)
        .await?
        .ok_or(ErrorCode::TicketInvalid)?;
    if graph.revocations.refusal(&caller).is_some() {
        return Err(ErrorCode::TokenRevoked.into());
    }
    refuse_when_in_doubt(graph)?;
    // The ticket may outlive the token that it was made with.
    if caller.expires_at <= graph.world.now() {
        return Err(ErrorCode::TokenExpired.into());
    }
    Ok(caller)
}

/// Registers the route.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/v1/sync").route(web::get().to(connect)));
}
