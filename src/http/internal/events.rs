//! Events that services append: to one user's log, or to many.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::{EventsAppend, EventsBroadcast, Service};
use crate::{
    actors::{
        Failure,
        services::StartBroadcast,
        session::{AppendEvent, Done},
    },
    domain::{
        error::{ErrorCode, FieldError},
        ids::{BroadcastId, EventId, UserId},
        services::{Appended, BroadcastStarted, EventData, EventType, Over, Quota, Segment},
    },
    http::{
        error::ApiError,
        extract::{Actors, deadline},
        headers::written,
        idempotency::Repeatable,
        json::Path,
        openapi::Problem,
    },
};

/// A user.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct UserPath {
    /// The user's id.
    #[param(value_type = UserId)]
    pub(super) id: UserId,
}

/// An event for one user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// Such as `billing.paid`. Not one of the server's own types.
    event_type: EventType,
    /// What it says: at most 16 KiB of JSON.
    data: EventData,
}

/// An event that is in a user's log.
#[derive(Debug, Serialize, ToSchema)]
pub struct StoredEvent {
    /// Its place in the log.
    seq: i64,
    /// Its id.
    id: EventId,
}

/// An event for many users.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBroadcastEvent {
    /// Such as `news.published`. Not one of the server's own types.
    event_type: EventType,
    /// What it says: at most 16 KiB of JSON.
    data: EventData,
    /// For whom; everybody where it is left out.
    segment: Option<Segment>,
}

/// A broadcast that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedBroadcast {
    /// Its id.
    id: BroadcastId,
}

/// Append an event to a user's log.
///
/// Devices that are attached get it at once, others when they come back.
#[utoipa::path(post, path = "/internal/v1/users/{id}/events", tag = "events",
    params(UserPath, ("Idempotency-Key" = Option<String>, Header, description = "Names the call for 24 hours: a repetition gets the same answer, and appends nothing")),
    request_body = NewEvent, security(("key" = ["events:append"])),
    responses((status = 201, description = "It is in the log", body = StoredEvent, headers(("Sync-Seq" = i64))),
              (status = 401, description = "`api_key_invalid`", body = Problem),
              (status = 403, description = "`scope_missing`", body = Problem),
              (status = 404, description = "`user_not_found`", body = Problem),
              (status = 422, description = "A field that cannot be taken, or `idempotency_key_reused`", body = Problem),
              (status = 429, description = "`quota_exceeded`: `Retry-After` says when there may be room", body = Problem)))]
pub(super) async fn append(
    graph: Actors,
    service: Service<EventsAppend>,
    Path(user): Path<UserPath>,
    Repeatable { body, key: once }: Repeatable<NewEvent>,
) -> Result<HttpResponse, ApiError> {
    let ask = AppendEvent {
        key: service.key.id,
        quotas: graph.services.quotas_of(&service.key),
        event_type: body.event_type,
        data: body.data,
        once,
    };
    let done = graph.sessions.ask(&user.id, ask, deadline(&graph)).await?;
    let done = done.map_err(|e| match e {
        Failure::NoUser => ErrorCode::UserNotFound.into(),
        e => ApiError::from(e),
    })?;
    let Done { value, .. } = done.ok_or(ErrorCode::IdempotencyKeyReused)?;
    let metrics = &graph.services.metrics;
    match value {
        Appended::Stored { seq, id } => {
            metrics.event("stored");
            let event = StoredEvent { seq, id };
            Ok(written(HttpResponse::Created(), seq, event))
        }
        Appended::OverQuota(Over { what, retry_after }) => {
            let (counted, whose) = match what {
                Quota::Key => ("over_key_quota", "key"),
                Quota::User => ("over_user_quota", "user"),
                Quota::Log => ("over_log_share", "log"),
            };
            metrics.event(counted);
            Err(ApiError::new(ErrorCode::QuotaExceeded)
                .extension("quota", whose)
                .retry_after(retry_after))
        }
        Appended::KeyRevoked => {
            metrics.refused("invalid");
            Err(ErrorCode::ApiKeyInvalid.into())
        }
    }
}

/// Append an event to the log of everybody who exists now, or of a segment.
///
/// Goes on in the background, in the order of users' ids, and gives nobody the event twice, whatever
/// happens to the node. Users who are over their quota are skipped.
#[utoipa::path(post, path = "/internal/v1/events:broadcast", tag = "broadcasts",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the call for 24 hours: a repetition gets the same answer, and begins nothing")),
    request_body = NewBroadcastEvent, security(("key" = ["events:broadcast"])),
    responses((status = 202, description = "It is stored, and begins soon", body = AcceptedBroadcast),
              (status = 401, description = "`api_key_invalid`", body = Problem),
              (status = 403, description = "`scope_missing`", body = Problem),
              (status = 409, description = "`broadcast_limit_reached`: ten are unfinished", body = Problem),
              (status = 422, description = "A field that cannot be taken, or `idempotency_key_reused`", body = Problem)))]
pub(super) async fn broadcast(
    graph: Actors,
    service: Service<EventsBroadcast>,
    Repeatable { body, key: once }: Repeatable<NewBroadcastEvent>,
) -> Result<HttpResponse, ApiError> {
    let segment = body.segment.map_or(Ok(Segment::Everybody), Segment::named);
    let ask = StartBroadcast {
        key: service.key.id,
        event_type: body.event_type,
        data: body.data,
        segment: segment.map_err(|expected| FieldError::new("segment", expected))?,
        once,
    };
    let broadcaster = &graph.services.broadcaster;
    let id = match broadcaster.ask(ask, deadline(&graph)).await?? {
        BroadcastStarted::Accepted(id) => id,
        BroadcastStarted::TooMany => return Err(ErrorCode::BroadcastLimitReached.into()),
        BroadcastStarted::Reused => return Err(ErrorCode::IdempotencyKeyReused.into()),
        BroadcastStarted::KeyRevoked => return Err(ErrorCode::ApiKeyInvalid.into()),
    };
    let place = format!("/internal/v1/broadcasts/{id}");
    Ok(HttpResponse::Accepted()
        .insert_header(("Location", place))
        .json(AcceptedBroadcast { id }))
}

/// Registers the routes.
pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    let append_to = web::resource("/internal/v1/users/{id}/events");
    let to_many = web::resource("/internal/v1/events:broadcast");
    cfg.service(append_to.route(web::post().to(append)))
        .service(to_many.route(web::post().to(broadcast)));
}
