//! The socket of a device: one actor a connection, on the bare bytes.
//!
//! Owns the connection from the upgrade to its end: frames in and frames out, the closing handshake,
//! the bound of what waits for a client that does not read, and the bound of what a client may
//! send. The handshake (`http/ws.rs`) admits it, `http/upgrade.rs` starts it, its session pushes to
//! it and judges its liveness and its window; it attaches again when the session was made anew. It
//! must never wait for its client: what the mailbox brings is handled whatever the client does.

mod directory;
mod drive;
mod frames;
mod gate;
mod mailbox;
mod outbox;
mod utf8;

use std::{sync::Arc, time::Duration};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use actix_http::ws::{CloseCode as WsCode, CloseReason};
use actix_web::web::BytesMut;

use super::{
    places::{Place, Places},
    transport::Transport,
};
use crate::{
    actors::{
        Graph,
        kernel::{Ask, CallError, Handle, Life, Outlet, Serve},
        session::{Attach, AttachRefused, AttachedTo, Detached, Frame, Resumed, UserSession},
    },
    domain::{
        identity::Caller,
        ids::{ConnId, UserId},
        sync::{
            ClientFrame, CloseCode, Flood, FloodLimit, FrameErrorCode, Position, ServerFrame,
            Verdict,
        },
    },
    telemetry::metrics::SocketMetrics,
};
pub use directory::Connections;
use drive::Drive;
use frames::Decoder;
pub use gate::{ConnectionGate, Permit};
use outbox::Outbox;

/// How long a session may take to come back before its connections close.
const REATTACH: Duration = Duration::from_secs(1);
/// How long a client may take to finish the closing handshake.
const CLOSING: Duration = Duration::from_secs(5);

/// What every connection works with.
#[derive(Debug)]
pub struct SocketParts {
    /// Whom to attach to.
    pub graph: Graph,
    /// Where sockets are counted.
    pub metrics: SocketMetrics,
    /// How many there may be.
    pub gate: ConnectionGate,
    /// Where they are found.
    pub connections: Connections,
    /// How many each user may have, those among them that are closing or not attached yet.
    pub of_users: Places<UserId>,
    /// How much each may send.
    pub flood: FloodLimit,
    /// Bytes that may wait for a client beyond what the system holds.
    pub send_queue: usize,
    /// Bytes that the system may hold for a client.
    pub send_buffer: usize,
}

/// A connection that passed every check and waits for its bytes.
#[derive(Debug)]
pub struct Admitted {
    /// What every connection works with.
    pub parts: Arc<SocketParts>,
    /// Its place among the node's sockets.
    pub permit: Permit,
    /// Its place among those of its user.
    pub place: Place<UserId>,
    /// Its name.
    pub conn: ConnId,
    /// Whose it is.
    pub caller: Caller,
    /// Where the client says it is.
    pub since: Option<Position>,
}

impl Admitted {
    /// Starts the actor. `read` came in with the handshake and is not looked at yet; `first` is to
    /// go out before everything else.
    pub(super) fn start(self, io: Transport, read: &[u8], first: BytesMut) {
        io.set_send_buffer(self.parts.send_buffer);
        self.parts.metrics.open.inc();
        let connection = DeviceConnection {
            conn: self.conn,
            caller: self.caller,
            position: self.since,
            resumed: None,
            resync: None,
            session: None,
            phase: Phase::Attaching,
            ended: SocketMetrics::PEER_GONE,
            io,
            decoder: Decoder::new(read),
            outbox: Outbox::new(first),
            flood: Flood::new(self.parts.flood, self.parts.graph.world.instant()),
            untold: Untold::default(),
            ignored: 0,
            parts: self.parts,
            _places: (self.permit, self.place),
        };
        connection.start();
    }
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The session does not know it: no frame is read.
    Attaching,
    /// Frames go both ways.
    Open,
    /// Our close frame goes out; the client's is awaited.
    Closing,
    /// Both close frames are there, or the client's bytes mean nothing any more: what waits goes
    /// out, then the writing half ends.
    Ending,
    /// The writing half is over; the client's end is awaited.
    Lingering,
}

/// What the client said in one wake-up and its session was not told yet.
#[derive(Debug, Default)]
struct Untold {
    /// The furthest of acks that came one after another.
    ack: Option<Position>,
    /// A sign of life without content.
    heard: bool,
}

/// One socket.
struct DeviceConnection {
    conn: ConnId,
    caller: Caller,
    /// Where the client last said it is: from there it goes on when the session was made anew.
    position: Option<Position>,
    /// What it is attached to, with the epoch of the log that the client knows.
    resumed: Option<Resumed>,
    /// The epoch and the floor of a resync that the client has not acknowledged: it is not told again.
    resync: Option<Position>,
    /// Once attached.
    session: Option<Handle<UserSession>>,
    phase: Phase,
    /// Why it ended, for the metric.
    ended: &'static str,
    io: Transport,
    decoder: Decoder,
    outbox: Outbox,
    flood: Flood,
    untold: Untold,
    /// Bytes that came after the connection was given up.
    ignored: usize,
    parts: Arc<SocketParts>,
    /// Held for as long as the connection is there.
    _places: (Permit, Place<UserId>),
}

type Ctx = Context<DeviceConnection>;

impl DeviceConnection {
    /// Attaches to the session within `patience`, then waits for that life of it to end. Until it is
    /// attached no frame is read: the session would not know whose it is.
    fn attach(&mut self, patience: Duration, ctx: &mut Ctx) {
        self.phase = Phase::Attaching;
        let number = self.outbox.attach();
        let resumed = self.resumed.map(|it| match self.resync {
            Some(told) => it.resyncing(told),
            None => it,
        });
        let ask = Attach {
            conn: self.conn,
            caller: self.caller.clone(),
            since: self.position,
            resumed,
            outlet: Outlet::new(ctx.address().recipient(), self.outbox.unread(), number),
        };
        let (sessions, user) = (self.parts.graph.sessions.clone(), self.caller.user);
        let deadline = self.parts.graph.world.instant() + patience;
        let attaching = async move { sessions.ask_and_tell(&user, ask, deadline).await };
        ctx.spawn(
            attaching
                .into_actor(self)
                .map(|reply, it, ctx| it.attached(reply, ctx)),
        );
    }

    fn attached(
        &mut self,
        reply: Result<(Handle<UserSession>, Result<AttachedTo, AttachRefused>), CallError>,
        ctx: &mut Ctx,
    ) {
        if self.phase != Phase::Attaching {
            // It was told to close meanwhile. What it said of that may have found no session.
            if let Ok((session, Ok(_))) = reply {
                let _ = session.tell(Detached(self.conn));
            }
            return;
        }
        // The session that answered: by now another may be found under the user's id.
        let (session, to) = match reply {
            Ok((session, Ok(to))) => (session, to),
            Ok((_, Err(AttachRefused(CloseCode::GoingAway)))) => return self.let_go(ctx),
            Ok((_, Err(AttachRefused(code)))) => return self.close(code, ctx),
            Err(_) => return self.close(CloseCode::TryAgainLater, ctx),
        };
        self.session = Some(session.clone());
        self.resumed = Some(to.resumed());
        self.phase = Phase::Open;
        let ended = async move { session.life_after(Life::Up(to.life)).await };
        // A new future of the actor has all of them polled, and so what waits is read now.
        ctx.spawn(ended.into_actor(self).map(|next, it, ctx| {
            if it.phase == Phase::Open {
                match next {
                    Life::Up(_) | Life::Restarting => it.attach(REATTACH, ctx),
                    Life::Quarantined(_) | Life::Stopped => it.close(CloseCode::TryAgainLater, ctx),
                }
            }
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

    fn told(&self, frame: ClientFrame) {
        let conn = self.conn;
        self.tell(Frame { conn, frame });
    }

    /// The client said where it is. An older position of the same epoch says nothing new.
    fn moved(&mut self, to: Position) {
        // What lies below the floor was said before the resync came.
        let answers = |told: &Position| to.epoch == told.epoch && to.seq >= told.seq;
        self.resync = self.resync.filter(|told| !answers(told));
        let older = |known: Position| known.epoch == to.epoch && known.seq >= to.seq;
        if !self.position.is_some_and(older) {
            self.position = Some(to);
            self.resumed = self.resumed.map(|it| it.at(to.epoch));
        }
    }

    /// Counts a frame of the client; says whether to take it.
    fn admits(&mut self, ctx: &mut Ctx) -> bool {
        match self.flood.frame(self.parts.graph.world.instant()) {
            Verdict::Take => return true,
            Verdict::Drop => {}
            Verdict::Warn => {
                let error = ServerFrame::Error {
                    code: FrameErrorCode::RateLimited,
                    detail: "frames come too fast: some are dropped".to_owned(),
                    reference: None,
                };
                self.outbox.own_text(error.to_text());
            }
            Verdict::Close => self.fail(CloseCode::BadFrame, ctx),
        }
        false
    }

    /// Closes in order: what waits goes out, then the close frame, and the client's is awaited.
    fn close(&mut self, code: CloseCode, ctx: &mut Ctx) {
        self.begin_closing(Phase::Closing, code.reason(), Some(frame_of(code)), ctx);
    }

    /// Closes on a client whose bytes mean nothing any more.
    fn fail(&mut self, code: CloseCode, ctx: &mut Ctx) {
        self.begin_closing(Phase::Ending, code.reason(), Some(frame_of(code)), ctx);
    }

    /// Answers the client's close frame.
    fn closed_by_client(&mut self, reason: Option<CloseReason>, ctx: &mut Ctx) {
        // The code comes back as it came, without the words.
        let description = None;
        let echo = reason.map(|it| CloseReason { description, ..it });
        let reason = CloseCode::Normal.reason();
        self.begin_closing(Phase::Ending, reason, echo, ctx);
    }

    fn begin_closing(
        &mut self,
        phase: Phase,
        why: &'static str,
        frame: Option<CloseReason>,
        ctx: &mut Ctx,
    ) {
        match self.phase {
            Phase::Attaching | Phase::Open => {}
            Phase::Closing => {
                // The client's part of a handshake that we began.
                self.phase = phase;
                return;
            }
            Phase::Ending | Phase::Lingering => return,
        }
        (self.phase, self.ended) = (phase, why);
        self.outbox.close(frame);
        self.detach();
        ctx.run_later(CLOSING, |it, ctx| {
            it.parts.metrics.close_timeouts.inc();
            it.io.abort();
            ctx.stop();
        });
    }

    /// Nothing more of this connection concerns its session.
    fn detach(&mut self) {
        self.tell_untold();
        let known = self.session.take();
        // The attachment may still be under way.
        if let Some(session) = known.or_else(|| self.known_session()) {
            let _ = session.tell(Detached(self.conn));
        }
    }

    fn known_session(&self) -> Option<Handle<UserSession>> {
        self.parts.graph.sessions.find(&self.caller.user)
    }

    /// Ends at once, without a close frame: the client takes nothing.
    fn drop_client(&mut self, ctx: &mut Ctx) {
        self.ended = SocketMetrics::SEND_QUEUE_FULL;
        self.io.abort();
        ctx.stop();
    }
}

fn frame_of(code: CloseCode) -> CloseReason {
    CloseReason {
        code: WsCode::from(code.number()),
        description: Some(code.reason().to_owned()),
    }
}

impl Actor for DeviceConnection {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        let (all, to) = (&self.parts.connections, ctx.address().downgrade());
        all.add(self.conn, self.caller.user, to);
        // The first future, so that it is polled before the others.
        ctx.spawn(Drive);
        self.attach(REATTACH * 10, ctx);
    }
}

impl Drop for DeviceConnection {
    /// However it ends, by a panic too: the session hears of it, and it is counted.
    fn drop(&mut self) {
        if matches!(self.phase, Phase::Attaching | Phase::Open) {
            self.detach();
        }
        self.parts.connections.remove(self.conn);
        self.parts.metrics.ended(self.ended);
    }
}
