//! The socket of a watcher: the only file that knows `actix-web-actors`.
//!
//! Owns one watcher of the live feed. Frames are taken from the feed only when the socket has room: of a
//! watcher that does not read the feed keeps the newest frame, which is everybody's, and nothing more.
//! One that does not answer pings is let go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, AsyncContext, StreamHandler};
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use futures_util::stream;
use tokio::sync::watch;

use crate::{
    domain::{clock::World, error::ErrorCode},
    http::error::ApiError,
};

/// A watcher that was not heard for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// More than a watcher has to say.
const FRAME_BYTES: usize = 4096;

struct Watcher {
    frames: Option<watch::Receiver<Arc<str>>>,
    world: World,
    heard: Instant,
}

/// What comes from the feed.
struct Frame(Arc<str>);

type Ctx = ws::WebsocketContext<Watcher>;

impl Actor for Watcher {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        let Some(frames) = self.frames.take() else {
            return;
        };
        ctx.add_stream(stream::unfold(frames, |mut frames| async move {
            frames.changed().await.ok()?;
            let frame = Arc::clone(&frames.borrow_and_update());
            Some((Frame(frame), frames))
        }));
    }
}

impl StreamHandler<Frame> for Watcher {
    fn handle(&mut self, Frame(frame): Frame, ctx: &mut Ctx) {
        if self.world.instant().saturating_duration_since(self.heard) > SILENCE {
            ctx.stop();
            return;
        }
        ctx.text(&*frame);
        ctx.ping(b"");
    }

    fn finished(&mut self, ctx: &mut Ctx) {
        // The inspector was made anew: it does not know its watchers any more.
        ctx.close(Some(ws::CloseCode::Again.into()));
        ctx.stop();
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Watcher {
    fn handle(&mut self, it: Result<ws::Message, ws::ProtocolError>, ctx: &mut Ctx) {
        self.heard = self.world.instant();
        match it {
            Ok(ws::Message::Ping(payload)) => ctx.pong(&payload),
            Ok(ws::Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            Ok(_) => {}
            Err(_) => ctx.stop(),
        }
    }
}

/// Whether the request is an upgrade.
pub(super) fn check(req: &HttpRequest) -> Result<(), ApiError> {
    ws::handshake(req)
        .map(|_| ())
        .map_err(|e| ApiError::new(ErrorCode::UpgradeRequired).detail(e.to_string()))
}

/// Opens the socket and sends `frames` as they come.
pub(super) fn open(
    frames: watch::Receiver<Arc<str>>,
    world: World,
    req: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let heard = world.instant();
    let watcher = Watcher {
        frames: Some(frames),
        world,
        heard,
    };
    ws::WsResponseBuilder::new(watcher, req, payload)
        .frame_size(FRAME_BYTES)
        .start()
        .map_err(|e| ApiError::new(ErrorCode::UpgradeRequired).detail(e.to_string()))
}
