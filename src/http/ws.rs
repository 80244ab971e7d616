//! The socket of a device: one actor a connection, frames in and frames out, nothing else.
//!
//! The only file that names `actix-web-actors`. The connection is judged by its session, which owns
//! liveness and the window; it attaches again when the session was made anew. It must never buffer
//! for a client: what may be in flight is bounded by the session.

use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, StreamHandler, WrapFuture,
};
use actix_http::ws::Item;
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use actix_web_actors::ws::{
    self, CloseCode as WsCode, CloseReason, HandshakeError, Message, ProtocolError,
    WebsocketContext,
};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    error::ApiError,
    extract::{Actors, authenticate, deadline, refuse_when_draining},
    headers::Origins,
    json::Query,
    limit::Limits,
    openapi::Problem,
};
use crate::{
    actors::{
        Failure, Graph,
        kernel::{Ask, CallError, Handle, Life, Outlet, Push, Serve},
        session::{
            Attach, AttachRefused, AttachedTo, Detached, Frame, Heard, RedeemTicket, Resumed,
            ToDevice, UserSession,
        },
    },
    domain::{
        error::{ErrorCode, FieldError},
        identity::{Caller, Secrets, Ticket},
        ids::{ConnId, Epoch},
        sync::{ClientFrame, CloseCode, Position},
    },
    telemetry::metrics::{Metrics, SocketMetrics},
};

/// The subprotocol that this server speaks.
pub const SUBPROTOCOL: &str = "listen-stream.v1";
/// How long a session may take to come back before its connections close.
const REATTACH: Duration = Duration::from_secs(1);

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
              (status = 503, description = "`session_quarantined`", body = Problem)))]
pub(super) async fn connect(
    graph: Actors,
    origins: web::Data<Origins>,
    metrics: web::Data<Metrics>,
    limits: web::Data<Limits>,
    req: HttpRequest,
    Query(since): Query<Since>,
    body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    // One that is no text is there all the same: taken for none it would pass.
    let text = |name| req.headers().get(name).map(|v| v.to_str().unwrap_or(""));
    if !origins.allows(text(header::ORIGIN), text(header::HOST)) {
        return Err(ErrorCode::OriginNotAllowed.into());
    }
    let since = since.position()?;
    ws::handshake(&req).map_err(handshake_error)?;
    let caller = match offered_ticket(&req)? {
        Some(ticket) => redeem(&graph, &req, &limits, &ticket).await?,
        None => authenticate(&req)?,
    };
    if let Some(session) = graph.sessions.find(&caller.user)
        && let Life::Quarantined(until) = session.life()
    {
        let retry_after = until.saturating_duration_since(graph.world.instant());
        return Err(Failure::Quarantined { retry_after }.into());
    }
    let conn = ConnId(graph.world.uuid().map_err(ApiError::internal)?);
    let connection = DeviceConnection {
        conn,
        caller,
        position: since,
        resumed: None,
        graph: graph.get_ref().clone(),
        session: None,
        fragments: None,
        metrics: metrics.sockets.clone(),
        closed: CloseCode::Normal,
    };
    ws::WsResponseBuilder::new(connection, &req, body)
        .protocols(&[SUBPROTOCOL])
        .frame_size(ClientFrame::MAX_BYTES)
        .start()
        .map_err(|e| ApiError::new(ErrorCode::InvalidHeader).detail(e.to_string()))
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

/// The ticket among the offered subprotocols.
fn offered_ticket(req: &HttpRequest) -> Result<Option<String>, ApiError> {
    let mut offered = req
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    let (mut known, mut ticket) = (false, None);
    for name in offered {
        known |= name == SUBPROTOCOL;
        ticket = ticket.or_else(|| name.strip_prefix("ticket.").map(str::to_owned));
    }
    if known {
        Ok(ticket)
    } else {
        let field = FieldError::new("Sec-WebSocket-Protocol", format!("offer {SUBPROTOCOL}"));
        Err(ApiError::new(ErrorCode::InvalidHeader).field(field))
    }
}

async fn redeem(
    graph: &Graph,
    req: &HttpRequest,
    limits: &Limits,
    text: &str,
) -> Result<Caller, ApiError> {
    refuse_when_draining(graph)?;
    // Checked before any actor is started for the user that it names.
    let ticket = Ticket::open(&graph.secrets, text).ok_or(ErrorCode::TicketInvalid)?;
    // One that was used up is as well made as a new one, and asks the store as much.
    limits.check_user(req, ticket.user)?;
    let ask = RedeemTicket {
        ticket_hash: Secrets::sha256(text),
    };
    let caller = graph
        .sessions
        .ask(&ticket.user, ask, deadline(graph))
        .await??
        .ok_or(ErrorCode::TicketInvalid)?;
    if graph.revocations.refusal(&caller).is_some() {
        return Err(ErrorCode::TokenRevoked.into());
    }
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

/// One socket.
struct DeviceConnection {
    conn: ConnId,
    caller: Caller,
    /// Where the client last said it is: from there it goes on when the session was made anew.
    position: Option<Position>,
    /// What it is attached to, with the epoch of the log that the client knows.
    resumed: Option<Resumed>,
    graph: Graph,
    /// Once attached.
    session: Option<Handle<UserSession>>,
    /// The beginning of a text message that comes in fragments.
    fragments: Option<Vec<u8>>,
    metrics: SocketMetrics,
    closed: CloseCode,
}

type Ctx = WebsocketContext<DeviceConnection>;

impl DeviceConnection {
    /// Attaches to the session within `patience`, then waits for that life of it to end. Until it is
    /// attached no frame is read: the session would not know whose it is.
    fn attach(&mut self, patience: Duration, ctx: &mut Ctx) {
        let ask = Attach {
            conn: self.conn,
            caller: self.caller.clone(),
            since: self.position,
            resumed: self.resumed,
            outlet: Outlet::from(ctx.address().recipient()),
        };
        let (sessions, user) = (self.graph.sessions.clone(), self.caller.user);
        let deadline = self.graph.world.instant() + patience;
        let attaching = async move { sessions.ask(&user, ask, deadline).await };
        ctx.wait(
            attaching
                .into_actor(self)
                .map(|reply, it, ctx| it.attached(reply, ctx)),
        );
    }

    fn attached(
        &mut self,
        reply: Result<Result<AttachedTo, AttachRefused>, CallError>,
        ctx: &mut Ctx,
    ) {
        let to = match reply {
            Ok(Ok(to)) => to,
            Ok(Err(AttachRefused(code))) => return self.close(code, ctx),
            Err(_) => return self.close(CloseCode::TryAgainLater, ctx),
        };
        // It cannot be at rest: a device is attached.
        let Some(session) = self.graph.sessions.find(&self.caller.user) else {
            return self.close(CloseCode::TryAgainLater, ctx);
        };
        self.session = Some(session.clone());
        self.resumed = Some(to.resumed());
        let ended = async move { session.life_after(Life::Up(to.life)).await };
        ctx.spawn(ended.into_actor(self).map(|next, it, ctx| match next {
            Life::Up(_) | Life::Restarting => it.attach(REATTACH, ctx),
            Life::Quarantined(_) | Life::Stopped => it.close(CloseCode::TryAgainLater, ctx),
        }));
    }

    /// Tells the session; while it is being made anew what is told is lost, and does not matter.
    fn tell<M: Ask<Reply = ()>>(&self, msg: M)
    where
        UserSession: Serve<M>,
    {
        if let Some(session) = &self.session {
            let _ = session.tell(msg);
        }
    }

    fn text(&mut self, text: &str, ctx: &mut Ctx) {
        match ClientFrame::parse(text) {
            Ok(frame) => {
                if let ClientFrame::Ack(position, _) = &frame {
                    self.moved(*position);
                }
                self.tell(Frame {
                    conn: self.conn,
                    frame,
                });
            }
            Err(_) => self.close(CloseCode::BadFrame, ctx),
        }
    }

    /// The client said where it is. An older position of the same epoch says nothing new.
    fn moved(&mut self, to: Position) {
        let older = |known: Position| known.epoch == to.epoch && known.seq >= to.seq;
        if !self.position.is_some_and(older) {
            self.position = Some(to);
            self.resumed = self.resumed.map(|it| it.at(to.epoch));
        }
    }

    fn fragment(&mut self, item: Item, ctx: &mut Ctx) {
        let (piece, last) = match item {
            Item::FirstText(piece) => {
                self.fragments = Some(Vec::new());
                (piece, false)
            }
            Item::Continue(piece) => (piece, false),
            Item::Last(piece) => (piece, true),
            Item::FirstBinary(_) => return self.close(CloseCode::BadFrame, ctx),
        };
        let Some(text) = &mut self.fragments else {
            return self.close(CloseCode::BadFrame, ctx);
        };
        if text.len() + piece.len() > ClientFrame::MAX_BYTES {
            return self.close(CloseCode::TooBig, ctx);
        }
        text.extend_from_slice(&piece);
        if last {
            let whole = self.fragments.take().unwrap_or_default();
            match String::from_utf8(whole) {
                Ok(text) => self.text(&text, ctx),
                Err(_) => self.close(CloseCode::BadFrame, ctx),
            }
        }
    }

    fn close(&mut self, code: CloseCode, ctx: &mut Ctx) {
        self.closed = code;
        let reason = CloseReason {
            code: WsCode::from(code.number()),
            description: Some(code.reason().to_owned()),
        };
        ctx.close(Some(reason));
        ctx.stop();
    }
}

impl Actor for DeviceConnection {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        self.metrics.open.inc();
        self.attach(REATTACH * 10, ctx);
    }

    fn stopped(&mut self, _: &mut Ctx) {
        self.metrics.ended(self.closed.reason());
        match &self.session {
            Some(_) => self.tell(Detached(self.conn)),
            // The attachment may still be under way.
            None => {
                if let Some(session) = self.graph.sessions.find(&self.caller.user) {
                    let _ = session.tell(Detached(self.conn));
                }
            }
        }
    }
}

impl Handler<Push<ToDevice>> for DeviceConnection {
    type Result = ();

    fn handle(&mut self, Push(what): Push<ToDevice>, ctx: &mut Ctx) {
        match what {
            ToDevice::Text(texts) => {
                for text in texts {
                    ctx.text(text);
                }
            }
            ToDevice::Ping => ctx.ping(b""),
            ToDevice::Renewed(caller) => self.caller = *caller,
            ToDevice::Close(code) => self.close(code, ctx),
        }
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for DeviceConnection {
    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Ctx) {
        match message {
            Ok(Message::Text(text)) => self.text(&text, ctx),
            Ok(Message::Continuation(item)) => self.fragment(item, ctx),
            Ok(Message::Ping(payload)) => {
                ctx.pong(&payload);
                self.tell(Heard(self.conn));
            }
            Ok(Message::Pong(_)) => self.tell(Heard(self.conn)),
            Ok(Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            Ok(Message::Nop) => {}
            Err(ProtocolError::Overflow) => self.close(CloseCode::TooBig, ctx),
            Err(ProtocolError::Io(_)) => ctx.stop(),
            Ok(Message::Binary(_)) | Err(_) => self.close(CloseCode::BadFrame, ctx),
        }
    }
}
