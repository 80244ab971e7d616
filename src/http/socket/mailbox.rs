//! What the mailbox of a connection brings: what its session pushes, and what an operator asks.

use std::time::Duration;

use actix::{Handler, Message};

use super::{Ctx, DeviceConnection, Phase};
use crate::{
    actors::{
        kernel::{Public, Push, Unit as _, view},
        session::{ToDevice, UserSession},
    },
    domain::{
        ids::{ConnId, DeviceId, UserId},
        sync::{CloseCode, ServerFrame},
    },
};

/// Clients that an operator let go come back within so long.
const COME_BACK: Duration = Duration::from_secs(5);

/// Asks a connection for its view.
pub(super) struct Look;

impl Message for Look {
    type Result = Option<serde_json::Value>;
}

/// Closes a connection, as an operator wishes.
pub(super) struct Release;

impl Message for Release {
    type Result = ();
}

view! {
    /// What a connection shows of itself.
    struct ConnectionView {
        conn: Public<ConnId>,
        user: Public<UserId>,
        device: Public<DeviceId>,
        /// `attaching`, `open`, `closing`, `ending` or `lingering`.
        phase: Public<&'static str>,
        /// Frames that wait to be written, and their bytes: the client does not read, or not as fast.
        frames_waiting: Public<usize>,
        bytes_waiting: Public<usize>,
        /// Frames beside the log among them, with those that the mailbox holds.
        unread_frames: Public<usize>,
        /// Where the client last said it is.
        position_seq: Option<Public<i64>>,
        /// Its place among the connections of its device.
        attach_epoch: Option<Public<i64>>,
        /// A resync was told that the client has not acknowledged.
        resyncing: Public<bool>,
        session: Public<String>,
    }
}

impl Handler<Push<ToDevice>> for DeviceConnection {
    type Result = ();

    fn handle(&mut self, Push { what, by }: Push<ToDevice>, ctx: &mut Ctx) {
        match what {
            ToDevice::Text(mut texts) => {
                texts.retain(|text| self.outbox.takes(by, text));
                let events = texts.iter().filter(|text| ServerFrame::is_event(text));
                self.flood.sent(events.count());
                for text in texts {
                    let told = ServerFrame::resync(&text);
                    if told.is_some() || ServerFrame::refuses_position(&text) {
                        // Where the client said it is counts no more, until it says it anew.
                        self.position = None;
                    }
                    self.resync = told.or(self.resync);
                    self.outbox.text(text);
                }
            }
            ToDevice::Ping => self.outbox.ping(),
            ToDevice::Renewed(caller) => self.caller = *caller,
            ToDevice::Close(code) => self.close(code, ctx),
        }
    }
}

impl Handler<Look> for DeviceConnection {
    type Result = Option<serde_json::Value>;

    fn handle(&mut self, _: Look, _: &mut Ctx) -> Self::Result {
        let phase = match self.phase {
            Phase::Attaching => "attaching",
            Phase::Open => "open",
            Phase::Closing => "closing",
            Phase::Ending => "ending",
            Phase::Lingering => "lingering",
        };
        let user = self.caller.user;
        let view = ConnectionView {
            conn: Public(self.conn),
            user: Public(user),
            device: Public(self.caller.device),
            phase: Public(phase),
            frames_waiting: Public(self.outbox.frames()),
            bytes_waiting: Public(self.outbox.waiting()),
            unread_frames: Public(self.outbox.unread_now()),
            position_seq: self.position.map(|it| Public(it.seq)),
            attach_epoch: self.resumed.map(|it| Public(it.attach_epoch)),
            resyncing: Public(self.resync.is_some()),
            session: Public(format!("{}:{user}", UserSession::KIND)),
        };
        serde_json::to_value(view).ok()
    }
}

impl Handler<Release> for DeviceConnection {
    type Result = ();

    fn handle(&mut self, _: Release, ctx: &mut Ctx) {
        self.let_go(ctx);
    }
}

impl DeviceConnection {
    /// Closes on a client that is to come back, and says when.
    pub(super) fn let_go(&mut self, ctx: &mut Ctx) {
        let wait = self.parts.graph.world.jitter(COME_BACK);
        let goodbye = ServerFrame::Goodbye {
            reason: "going_away",
            retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        self.outbox.own_text(goodbye.to_text());
        self.close(CloseCode::GoingAway, ctx);
    }
}
