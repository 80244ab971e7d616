//! The sync log by REST, and tickets for the socket.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    error::ApiError,
    extract::{Actors, Authed, ask_session, deadline},
    json::{Json, Query},
    openapi::Problem,
    page::page_limit,
};
use crate::{
    actors::session::{AckChanges, AckReply, ChangesReply, IssueTicket, Presence, ReadChanges},
    domain::{
        error::{ErrorCode, FieldError},
        identity::Ticket,
        ids::Epoch,
        sync::{EventView, LogHead, Position, PresentDevice},
    },
};

/// Which piece of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ChangesQuery {
    /// Events after this one; after the calling device's cursor when left out.
    since: Option<i64>,
    /// The epoch that `since` belongs to; may be left out when `since` is 0 or left out.
    epoch: Option<Epoch>,
    /// 1 to 200; 50 when left out.
    limit: Option<u32>,
}

/// A piece of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct Changes {
    /// In order, without a gap.
    events: Vec<EventView>,
    /// The log's life.
    epoch: Epoch,
    /// The newest event.
    head_seq: i64,
    /// Whether there are events after these.
    has_more: bool,
}

/// A cursor to be moved.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// Everything up to here is applied.
    up_to: i64,
    /// The epoch that it belongs to.
    epoch: Epoch,
}

/// A cursor.
#[derive(Debug, Serialize, ToSchema)]
pub struct Acked {
    /// Everything up to here is acknowledged.
    acked_seq: i64,
}

/// A ticket.
#[derive(Serialize, ToSchema)]
pub struct TicketView {
    /// To be offered as the subprotocol `ticket.<ticket>`; good for one use.
    ticket: String,
    /// Seconds for which it holds.
    expires_in: i64,
}

/// Who of the user's devices is connected.
#[derive(Debug, Serialize, ToSchema)]
pub struct PresenceView {
    devices: Vec<PresentDevice>,
}

/// The user's devices that are connected, as the socket's `presence` tells it.
#[utoipa::path(get, path = "/v1/me/presence", tag = "sync", security(("bearer" = [])),
    responses((status = 200, description = "The devices", body = PresenceView)))]
pub(super) async fn presence(
    graph: Actors,
    Authed(caller): Authed,
) -> Result<web::Json<PresenceView>, ApiError> {
    let devices = graph
        .sessions
        .ask(&caller.user, Presence, deadline(&graph))
        .await?;
    Ok(web::Json(PresenceView { devices }))
}

/// Events after a position. Reading moves no cursor.
#[utoipa::path(get, path = "/v1/me/changes", tag = "sync",
    params(ChangesQuery), security(("bearer" = [])),
    responses((status = 200, description = "The events", body = Changes),
              (status = 410, description = "`log_compacted` or `epoch_changed`, with `epoch` and `head_seq`", body = Problem)))]
pub(super) async fn changes(
    graph: Actors,
    Authed(caller): Authed,
    Query(query): Query<ChangesQuery>,
) -> Result<HttpResponse, ApiError> {
    let ChangesQuery {
        since,
        epoch,
        limit,
    } = query;
    let limit = page_limit(limit)?;
    match since {
        Some(..=-1) => return Err(FieldError::new("since", "0 or more").into()),
        Some(1..) if epoch.is_none() => {
            return Err(FieldError::new("epoch", "needed when since is above 0").into());
        }
        _ => {}
    }
    let ask = ReadChanges {
        device: caller.device,
        since,
        epoch,
        limit,
    };
    match ask_session(&graph, &caller.user, ask).await? {
        ChangesReply::Page {
            events,
            log: LogHead {
                epoch, head_seq, ..
            },
        } => {
            let last = events.last().map(|e| e.seq);
            let has_more = last.is_some_and(|seq| seq < head_seq);
            Ok(HttpResponse::Ok().json(Changes {
                events,
                epoch,
                head_seq,
                has_more,
            }))
        }
        ChangesReply::Compacted(log) => Err(gone(ErrorCode::LogCompacted, log)),
        ChangesReply::EpochChanged(log) => Err(gone(ErrorCode::EpochChanged, log)),
        ChangesReply::NoDevice => Err(ErrorCode::TokenRevoked.into()),
    }
}

fn gone(code: ErrorCode, log: LogHead) -> ApiError {
    ApiError::new(code)
        .detail("load your data anew, then ack the position that it stands for")
        .extension("epoch", log.epoch.to_string())
        .extension("head_seq", log.head_seq)
}

/// Acknowledge everything up to a position.
#[utoipa::path(post, path = "/v1/me/changes/ack", tag = "sync", request_body = Ack, security(("bearer" = [])),
    responses((status = 200, description = "The cursor now in force, durable", body = Acked),
              (status = 410, description = "`epoch_changed`", body = Problem),
              (status = 422, description = "`ack_beyond_head`", body = Problem)))]
pub(super) async fn ack(
    graph: Actors,
    Authed(caller): Authed,
    Json(body): Json<Ack>,
) -> Result<HttpResponse, ApiError> {
    if body.up_to < 0 {
        return Err(FieldError::new("up_to", "0 or more").into());
    }
    let position = Position {
        epoch: body.epoch,
        seq: body.up_to,
    };
    let ask = AckChanges {
        device: caller.device,
        position,
    };
    match ask_session(&graph, &caller.user, ask).await? {
        AckReply::Acked(acked_seq) => Ok(HttpResponse::Ok().json(Acked { acked_seq })),
        AckReply::BeyondHead(head) => {
            Err(ApiError::new(ErrorCode::AckBeyondHead).extension("head_seq", head))
        }
        AckReply::EpochChanged(epoch) => {
            Err(ApiError::new(ErrorCode::EpochChanged).extension("epoch", epoch.to_string()))
        }
        AckReply::NoDevice => Err(ErrorCode::TokenRevoked.into()),
    }
}

/// Make a ticket, for clients that can set no header on a socket.
#[utoipa::path(post, path = "/v1/sync/tickets", tag = "sync", security(("bearer" = [])),
    responses((status = 201, description = "Good for one use within 30 s", body = TicketView)))]
pub(super) async fn ticket(
    graph: Actors,
    Authed(caller): Authed,
) -> Result<HttpResponse, ApiError> {
    let user = caller.user;
    match ask_session(&graph, &user, IssueTicket((*caller).clone())).await? {
        Some(ticket) => {
            let expires_in = Ticket::LIFE_SECS;
            Ok(HttpResponse::Created().json(TicketView { ticket, expires_in }))
        }
        None => Err(ErrorCode::TokenRevoked.into()),
    }
}

/// Registers the routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/v1/me/presence").route(web::get().to(presence)))
        .service(web::resource("/v1/me/changes").route(web::get().to(changes)))
        .service(web::resource("/v1/me/changes/ack").route(web::post().to(ack)))
        .service(web::resource("/v1/sync/tickets").route(web::post().to(ticket)));
}
