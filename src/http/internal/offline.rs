//! What a user's devices have not acknowledged.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    access::{OfflineRead, Service},
    events::UserPath,
};
use crate::{
    actors::session::{ReadOffline, ShowOffline},
    domain::{
        error::{ErrorCode, FieldError},
        identity::{ClientDeviceId, DeviceName},
        ids::{DeviceId, Epoch, EventId, UserId},
        services::{OfflineDevice, OfflinePage, OfflineState},
        sync::{AckToken, Event, LogHead, Position},
        time::rfc3339,
    },
    http::{
        error::ApiError,
        extract::{Actors, ask_session},
        json::{Path, Query},
        openapi::Problem,
        page::{page_limit, read_cursor},
    },
};

/// What is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct OfflineQuery {
    /// The server's id of a device: the events that it has not acknowledged are listed.
    #[param(value_type = Option<DeviceId>)]
    device: Option<DeviceId>,
    /// With `device`: 1 to 200; 50 when left out.
    limit: Option<u32>,
    /// With `device`: the `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A user's devices and what each has not acknowledged.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfflineView {
    /// The user.
    user_id: UserId,
    /// The log's life.
    epoch: Epoch,
    /// The newest event's `seq`.
    head_seq: i64,
    /// Events up to this one may be gone.
    floor_seq: i64,
    /// The devices, the oldest first.
    items: Vec<OfflineDeviceView>,
}

/// A device and what it has not acknowledged.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfflineDeviceView {
    /// The server's id.
    id: DeviceId,
    /// The client's own.
    device_id: ClientDeviceId,
    /// Such as `ios`.
    platform: String,
    /// What people call it.
    name: DeviceName,
    /// Everything up to here is acknowledged. Up to a second behind what a connected device has said.
    acked_seq: i64,
    /// Events that the log has and the device has not acknowledged.
    events: i64,
    /// The log no longer has all that the device lacks: it will load everything anew.
    resync: bool,
    /// The time of the oldest of these events; null when there is none.
    oldest_at: Option<String>,
    /// When it logged in or renewed its tokens last.
    last_active_at: String,
}

/// A page of the events that a device has not acknowledged.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfflineEvents {
    /// In order, without a gap.
    items: Vec<OfflineEvent>,
    /// Names the next page; null on the last.
    next_cursor: Option<String>,
}

/// An event that a device has not acknowledged.
#[derive(Debug, Serialize, ToSchema)]
pub struct OfflineEvent {
    /// Unique.
    id: EventId,
    /// Its place in the log.
    seq: i64,
    /// Such as `favorite.added`.
    event_type: String,
    /// What changed, a JSON object by event type.
    #[schema(value_type = Object)]
    data: Value,
    /// The device whose command it was, by its own id; null when it was none.
    origin_device_id: Option<ClientDeviceId>,
    /// When the command came.
    #[serde(serialize_with = "time")]
    #[schema(value_type = String)]
    timestamp: DateTime<Utc>,
}

fn time<S: serde::Serializer>(at: &DateTime<Utc>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&rfc3339(*at))
}

impl From<Event> for OfflineEvent {
    fn from(it: Event) -> Self {
        Self {
            id: it.id,
            seq: it.seq,
            event_type: it.event_type,
            data: it.data,
            origin_device_id: it.origin_device_id,
            timestamp: it.created_at,
        }
    }
}

impl OfflineDeviceView {
    fn new(it: OfflineDevice, log: &LogHead) -> Self {
        Self {
            events: log.head_seq - it.acked_seq.clamp(log.floor_seq, log.head_seq),
            resync: it.acked_seq < log.floor_seq,
            id: it.id,
            device_id: it.device_id,
            platform: it.platform,
            name: it.name,
            acked_seq: it.acked_seq,
            oldest_at: it.oldest_at.map(rfc3339),
            last_active_at: rfc3339(it.last_active_at),
        }
    }
}

/// What a user's devices have not acknowledged; with `device` the events themselves.
#[utoipa::path(get, path = "/internal/v1/users/{id}/offline", tag = "offline",
    params(UserPath, OfflineQuery), security(("key" = ["offline:read"])),
    responses((status = 200, description = "The devices (`OfflineView`), or with `device` a page of events (`OfflineEvents`)",
               content((OfflineView = "application/json"), (OfflineEvents = "application/json"))),
              (status = 401, description = "`api_key_invalid`", body = Problem),
              (status = 403, description = "`scope_missing`", body = Problem),
              (status = 404, description = "`user_not_found`, or `device_not_found` with `device`", body = Problem),
              (status = 410, description = "`log_compacted` or `epoch_changed`: begin anew without `cursor`", body = Problem),
              (status = 422, description = "An unknown or wrong parameter, by its name", body = Problem)))]
pub(super) async fn offline(
    graph: Actors,
    _: Service<OfflineRead>,
    Path(user): Path<UserPath>,
    Query(query): Query<OfflineQuery>,
) -> Result<HttpResponse, ApiError> {
    let Some(device) = query.device else {
        for (name, given) in [
            ("limit", query.limit.is_some()),
            ("cursor", query.cursor.is_some()),
        ] {
            if given {
                return Err(FieldError::new(name, "only with device").into());
            }
        }
        return devices(&graph, user.id).await;
    };
    let limit = page_limit(query.limit)?;
    let at = read_cursor(query.cursor.as_deref(), AckToken::decode)?.map(|token| token.0);
    let ask = ReadOffline {
        device,
        after: at.map(|at| at.seq),
        limit,
    };
    let found = ask_session(&graph, &user.id, ask).await?;
    events(found.ok_or(ErrorCode::DeviceNotFound)?, at)
}

async fn devices(graph: &Actors, user_id: UserId) -> Result<HttpResponse, ApiError> {
    let found = ask_session(graph, &user_id, ShowOffline).await?;
    let OfflineState { log, devices } = found.ok_or(ErrorCode::UserNotFound)?;
    let items = devices.into_iter();
    Ok(HttpResponse::Ok().json(OfflineView {
        user_id,
        epoch: log.epoch,
        head_seq: log.head_seq,
        floor_seq: log.floor_seq,
        items: items.map(|it| OfflineDeviceView::new(it, &log)).collect(),
    }))
}

fn events(page: OfflinePage, at: Option<Position>) -> Result<HttpResponse, ApiError> {
    let OfflinePage { after, log, events } = page;
    if at.is_some_and(|at| at.epoch != log.epoch) || after > log.head_seq {
        return Err(ErrorCode::EpochChanged.into());
    }
    // What a device lacks that the log no longer has is no page: it loads everything anew.
    if after < log.floor_seq && at.is_some() {
        return Err(ErrorCode::LogCompacted.into());
    }
    let seq = events.last().map_or(log.head_seq, |event| event.seq);
    let next = (seq < log.head_seq).then_some(Position {
        epoch: log.epoch,
        seq,
    });
    Ok(HttpResponse::Ok().json(OfflineEvents {
        items: events.into_iter().map(OfflineEvent::from).collect(),
        next_cursor: next.map(|at| AckToken(at).encode()),
    }))
}

/// Registers the routes.
pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/internal/v1/users/{id}/offline").route(web::get().to(offline)));
}
