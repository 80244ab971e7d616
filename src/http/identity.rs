//! Login, tokens, and a user's devices.

use std::net::IpAddr;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    client::ClientAddress,
    error::{self, ApiError},
    etag,
    extract::{Actors, Authed, ask_session, deadline, refuse_when_draining},
    idempotency,
    json::{Json, Path},
    openapi::Problem,
};
use crate::{
    actors::{
        Graph,
        identity::{CodeReply, LogIn, LogInReply, Opened, RequestCode},
        session::{ListDevices, Profile, RemoveDevice, Rotate, RotateReply},
    },
    domain::{
        error::ErrorCode,
        identity::{
            ClientDeviceId, Device, NewDevice, Phone, Platform, Presented, RefreshToken, Secrets,
            SmsCode, User,
        },
        ids::DeviceId,
        object::object,
    },
    telemetry::metrics::Metrics,
};

/// A phone that wants a code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCode {
    /// E.164.
    #[schema(example = "+8613800138000")]
    phone: Phone,
}

/// A code that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct CodeSent {
    /// Seconds for which the code holds.
    expires_in: u64,
    /// Seconds after which another may be asked for.
    resend_after: u64,
}

/// A login.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSession {
    /// E.164.
    #[schema(example = "+8613800138000")]
    phone: Phone,
    /// The code that was sent to the phone.
    #[schema(example = "123456")]
    code: SmsCode,
    /// The device that logs in.
    #[serde(deserialize_with = "object")]
    device: NewDevice,
    /// The device that gives way if there is no room, by `device_id` or `id`.
    replace_device_id: Option<String>,
}

/// A refresh token to be exchanged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// The newest refresh token.
    refresh_token: String,
}

/// An open session.
#[derive(Serialize, ToSchema)]
pub struct SessionView {
    /// A JWT.
    access_token: String,
    /// Opaque; good for one exchange.
    refresh_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds for which the access token holds.
    expires_in: i64,
    /// Whose it is.
    user: User,
    /// The device.
    device: SessionDevice,
}

/// The device of a session.
#[derive(Serialize, ToSchema)]
pub struct SessionDevice {
    id: DeviceId,
    device_id: ClientDeviceId,
    platform: Platform,
    name: String,
}

/// A device in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceView {
    #[serde(flatten)]
    device: Device,
    /// Whether it is the caller's own.
    current: bool,
}

/// A user's devices, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceList {
    items: Vec<DeviceView>,
    /// Always null: there are at most a few.
    next_cursor: Option<String>,
}

fn view(opened: Opened, now: DateTime<Utc>) -> SessionView {
    let Opened { user, device, pair } = opened;
    SessionView {
        expires_in: pair.expires_in(now),
        access_token: pair.access_token,
        refresh_token: pair.refresh_token,
        token_type: "Bearer",
        user,
        device: SessionDevice {
            id: device.id,
            device_id: device.device_id,
            platform: device.platform,
            name: device.name,
        },
    }
}

/// Send a code to a phone.
#[utoipa::path(post, path = "/v1/auth/sms-codes", tag = "auth", request_body = NewCode,
    responses((status = 202, description = "The code is on its way", body = CodeSent),
              (status = 429, description = "`sms_cooldown`", body = Problem),
              (status = 503, description = "`sms_unavailable`", body = Problem)))]
pub(super) async fn request_code(
    graph: Actors,
    metrics: web::Data<Metrics>,
    Json(body): Json<NewCode>,
) -> Result<HttpResponse, ApiError> {
    let answer = send_code(&graph, body).await;
    metrics.auth.codes.inc(error::result(&answer, "sent"));
    answer
}

async fn send_code(graph: &Graph, body: NewCode) -> Result<HttpResponse, ApiError> {
    let ask = RequestCode {
        phone: body.phone.clone(),
    };
    match graph.login.ask(&body.phone, ask, deadline(graph)).await?? {
        CodeReply::Sent {
            expires_in,
            resend_after,
        } => Ok(HttpResponse::Accepted().json(CodeSent {
            expires_in: expires_in.as_secs(),
            resend_after: resend_after.as_secs(),
        })),
        CodeReply::TooSoon { wait } => Err(ApiError::new(ErrorCode::SmsCooldown).retry_after(
            wait.as_millis()
                .div_ceil(1000)
                .max(1)
                .try_into()
                .unwrap_or(u64::MAX),
        )),
        CodeReply::NotSent => Err(ErrorCode::SmsUnavailable.into()),
    }
}

/// Log in with a code. The first login makes the user.
#[utoipa::path(post, path = "/v1/auth/sessions", tag = "auth", request_body = NewSession,
    responses((status = 201, description = "The session is open", body = SessionView),
              (status = 401, description = "`sms_code_invalid`", body = Problem),
              (status = 409, description = "`device_limit_reached`, with `devices`", body = Problem),
              (status = 429, description = "`sms_code_exhausted`", body = Problem)))]
pub(super) async fn log_in(
    graph: Actors,
    metrics: web::Data<Metrics>,
    ClientAddress(ip): ClientAddress,
    Json(body): Json<NewSession>,
) -> Result<HttpResponse, ApiError> {
    let answer = open_session(&graph, ip, body).await;
    metrics.auth.logins.inc(error::result(&answer, "opened"));
    answer
}

async fn open_session(
    graph: &Graph,
    ip: Option<IpAddr>,
    body: NewSession,
) -> Result<HttpResponse, ApiError> {
    let phone = body.phone.clone();
    let ask = LogIn {
        phone: body.phone,
        code: body.code,
        device: body.device,
        replace: body.replace_device_id,
        ip,
    };
    match graph.login.ask(&phone, ask, deadline(graph)).await?? {
        LogInReply::Opened(opened) => {
            Ok(HttpResponse::Created().json(view(*opened, graph.world.now())))
        }
        LogInReply::CodeInvalid => Err(ErrorCode::SmsCodeInvalid.into()),
        LogInReply::CodeExhausted => {
            Err(ApiError::new(ErrorCode::SmsCodeExhausted).detail("ask for a new code"))
        }
        LogInReply::DeviceLimit(devices) => {
            let devices = serde_json::to_value(devices).map_err(ApiError::internal)?;
            Err(ApiError::new(ErrorCode::DeviceLimitReached)
                .detail("repeat the call with replace_device_id; the code still holds")
                .extension("devices", devices))
        }
    }
}

/// Exchange a refresh token for the next pair. With an `Idempotency-Key` a lost answer can be asked
/// for again; any other second use signs the device out.
#[utoipa::path(post, path = "/v1/auth/tokens", tag = "auth", request_body = Refresh,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 printable characters")),
    responses((status = 200, description = "The next pair", body = SessionView),
              (status = 401, description = "`refresh_token_invalid` or `refresh_token_reused`", body = Problem)))]
pub(super) async fn refresh(
    graph: Actors,
    metrics: web::Data<Metrics>,
    req: HttpRequest,
    Json(body): Json<Refresh>,
) -> Result<HttpResponse, ApiError> {
    let answer = exchange(&graph, &req, body).await;
    metrics.auth.refreshes.inc(error::result(&answer, "opened"));
    answer
}

async fn exchange(
    graph: &Graph,
    req: &HttpRequest,
    body: Refresh,
) -> Result<HttpResponse, ApiError> {
    let retry_key = idempotency::key(req)?;
    // A session that ends with its worker would take the answer along, and the old token is used up.
    refuse_when_draining(graph)?;
    // Checked before any actor is started for the user that it names.
    let token = RefreshToken::open(&graph.secrets, &body.refresh_token)
        .ok_or(ErrorCode::RefreshTokenInvalid)?;
    let presented = Presented {
        family: token.family,
        counter: token.counter,
        token_hash: Secrets::sha256(&body.refresh_token),
        retry_key_hash: retry_key.map(Secrets::sha256),
    };
    let ask = Rotate { token, presented };
    match ask_session(graph, &token.user, ask).await? {
        RotateReply::Opened(opened) => {
            Ok(HttpResponse::Ok().json(view(*opened, graph.world.now())))
        }
        RotateReply::Reused => Err(ErrorCode::RefreshTokenReused.into()),
        RotateReply::Invalid => Err(ErrorCode::RefreshTokenInvalid.into()),
    }
}

/// Log out: the calling device is removed.
#[utoipa::path(delete, path = "/v1/auth/sessions/current", tag = "auth", security(("bearer" = [])),
    responses((status = 204, description = "Logged out")))]
pub(super) async fn log_out(
    graph: Actors,
    Authed(caller): Authed,
) -> Result<HttpResponse, ApiError> {
    ask_session(&graph, &caller.user, RemoveDevice(caller.device)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Who is calling.
#[utoipa::path(get, path = "/v1/me", tag = "me", security(("bearer" = [])),
    responses((status = 200, description = "The user", body = User)))]
pub(super) async fn me(graph: Actors, Authed(caller): Authed) -> Result<HttpResponse, ApiError> {
    match ask_session(&graph, &caller.user, Profile).await? {
        Some(user) => Ok(HttpResponse::Ok().json(user)),
        None => Err(ErrorCode::TokenRevoked.into()),
    }
}

/// The user's devices.
#[utoipa::path(get, path = "/v1/me/devices", tag = "me", security(("bearer" = [])),
    responses((status = 200, description = "Oldest first", body = DeviceList, headers(("ETag" = String))),
              (status = 304, description = "`If-None-Match` names what it would be")))]
pub(super) async fn devices(
    req: HttpRequest,
    graph: Actors,
    Authed(caller): Authed,
) -> Result<HttpResponse, ApiError> {
    let devices = ask_session(&graph, &caller.user, ListDevices).await?;
    let items = devices
        .into_iter()
        .map(|device| DeviceView {
            current: device.id == caller.device,
            device,
        })
        .collect();
    let next_cursor = None;
    etag::tagged(&req, &DeviceList { items, next_cursor })
}

/// The path of a device.
#[derive(Debug, Deserialize)]
pub struct DevicePath {
    id: DeviceId,
}

/// Remove a device: its tokens are refused at once, its socket closes.
#[utoipa::path(delete, path = "/v1/me/devices/{id}", tag = "me", security(("bearer" = [])),
    params(("id" = DeviceId, Path, description = "The server's id of the device")),
    responses((status = 204, description = "Removed"),
              (status = 404, description = "`device_not_found`", body = Problem)))]
pub(super) async fn remove_device(
    graph: Actors,
    Authed(caller): Authed,
    Path(path): Path<DevicePath>,
) -> Result<HttpResponse, ApiError> {
    if ask_session(&graph, &caller.user, RemoveDevice(path.id)).await? {
        Ok(HttpResponse::NoContent().finish())
    } else {
        Err(ErrorCode::DeviceNotFound.into())
    }
}

/// Registers the routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(web::resource("/v1/auth/sms-codes").route(web::post().to(request_code)))
        .service(web::resource("/v1/auth/sessions").route(web::post().to(log_in)))
        .service(web::resource("/v1/auth/sessions/current").route(web::delete().to(log_out)))
        .service(web::resource("/v1/auth/tokens").route(web::post().to(refresh)))
        .service(web::resource("/v1/me").route(web::get().to(me)))
        .service(web::resource("/v1/me/devices").route(web::get().to(devices)))
        .service(web::resource("/v1/me/devices/{id}").route(web::delete().to(remove_device)));
}
