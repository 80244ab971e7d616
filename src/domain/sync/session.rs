//! The rules of a user's session: which of the user's devices is sent what, and which is let go.
//!
//! A pure core: it is told what happened and when, and answers with [`Effect`]s for its shell (the
//! `UserSession` actor, or a simulation) to carry out. It holds positions and times, never events.

mod acks;
mod effect;
mod links;
mod liveness;
mod side;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    close::CloseCode,
    delivery::{Delivery, Load},
    event::{Cursor, LogHead, Position, Seen, WireEvent},
    frame::{ClientFrame, FrameErrorCode, ResyncReason, ServerFrame},
};
use crate::domain::{
    few::Few,
    identity::ClientDeviceId,
    ids::{ConnId, DeviceId, UserId},
};
use acks::ParkedAck;
pub use effect::{Attachment, Effect, PlayerAsk, SessionConfig};
use effect::{resync_frame, texts};
pub use links::LinkState;
pub use side::Pace;
use side::Remote;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Link {
    device: DeviceId,
    device_id: ClientDeviceId,
    attach_epoch: i64,
    delivery: Delivery,
    last_heard: Instant,
    next_ping: Instant,
    token_until: Instant,
    parked_acks: Vec<ParkedAck>,
    signals: Pace,
    /// Frames that the connection has not taken yet, as last told.
    unread: usize,
    /// It was not told who is there now, because it had too much to read.
    presence_due: bool,
}

/// One user's attached devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionCore {
    user: UserId,
    config: Arc<SessionConfig>,
    log: Option<LogHead>,
    /// When the log's present life became known: who asked before may have seen an earlier one.
    epoch_since: Option<Instant>,
    links: Few<ConnId, Link>,
    /// Devices at other nodes, by node.
    remote: BTreeMap<String, Remote>,
    /// Reads of the head that were asked for, and those that were answered: one at a time.
    head_reads: (u64, u64),
}

impl SessionCore {
    /// A session without devices.
    #[must_use]
    pub fn new(user: UserId, config: impl Into<Arc<SessionConfig>>) -> Self {
        Self {
            user,
            config: config.into(),
            log: None,
            epoch_since: None,
            links: Few::new(),
            remote: BTreeMap::new(),
            head_reads: (0, 0),
        }
    }

    /// Attached devices, with what was sent and acknowledged.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceId, &Delivery)> {
        self.links.values().map(|l| (l.device, &l.delivery))
    }

    /// How many devices are attached.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.links.len()
    }

    /// The ends of the log as last seen; none before the first attachment.
    #[must_use]
    pub const fn log(&self) -> Option<LogHead> {
        self.log
    }

    /// A device attaches to a log whose ends are `seen`. A connection that the same device had is
    /// replaced. One that attaches again gives way to a newer one.
    pub fn attach(&mut self, now: Instant, it: Attachment, seen: Seen) -> Vec<Effect> {
        let mut effects = Vec::new();
        let usable = self.learn(now, seen, &mut effects);
        let log = self.log.unwrap_or(seen.log);
        let same = self.links.iter().filter(|(_, l)| l.device == it.device);
        // Attachments begin one after another: one that is new and has the lower number was given it by
        // a store that fell back to an older state, and whoever holds the higher must come again.
        let is_newer = |l: &Link| l.attach_epoch > it.attach_epoch;
        if it.resumed.is_some() && same.clone().any(|(_, l)| is_newer(l)) {
            effects.push(Effect::Close(it.conn, CloseCode::Replaced));
            return effects;
        }
        let others: Vec<_> = same
            .map(|(conn, l)| {
                let code = if is_newer(l) {
                    CloseCode::TryAgainLater
                } else {
                    CloseCode::Replaced
                };
                (*conn, code)
            })
            .collect();
        let was_present = !others.is_empty();
        self.drop_links(others, &mut effects);

        // What was read in an earlier life of the log says nothing of this one.
        let told = it.resyncing.filter(|told| told.epoch == log.epoch);
        let (delivery, resync) = if let Some(told) = told {
            // Once. Its ack may be under way, and would be taken for that of a second resync.
            let acked = if usable { it.acked_seq } else { 0 };
            let delivery = Delivery::resyncing(acked, told.seq, self.config.window);
            (delivery, None)
        } else if usable {
            self.place(&it, log)
        } else {
            let delivery = Delivery::resyncing(0, log.floor_seq, self.config.window);
            (delivery, Some(ResyncReason::EpochChanged))
        };
        let mut first = Vec::new();
        if it.resumed.is_none() {
            let welcome = ServerFrame::Welcome {
                conn_id: it.conn,
                user_id: self.user,
                device_id: it.device_id.clone(),
                node: self.config.node.clone(),
                epoch: log.epoch,
                head_seq: log.head_seq,
                acked_seq: delivery.acked().max(it.acked_seq),
                window: self.config.window.events,
                heartbeat_secs: self.config.heartbeat.as_secs(),
            };
            first.push(welcome.to_text());
        }
        first.extend(resync.map(|reason| resync_frame(log, reason)));
        if !first.is_empty() {
            effects.push(Effect::Send(it.conn, first));
        }
        let link = Link {
            device: it.device,
            device_id: it.device_id,
            attach_epoch: it.attach_epoch,
            delivery,
            last_heard: now,
            next_ping: now + self.config.heartbeat,
            token_until: it.token_until,
            parked_acks: Vec::new(),
            signals: Pace::new(now),
            unread: 0,
            presence_due: true,
        };
        if resync.is_none() && link.delivery.acked() > it.acked_seq {
            effects.push(Effect::Acked(link.cursor(log)));
        }
        self.links.insert(it.conn, link);
        self.tell_presence(!was_present, &mut effects);
        self.pump(&mut effects);
        effects
    }

    /// Where a device starts: behind its cursor, or behind what it says of itself.
    fn place(&self, it: &Attachment, log: LogHead) -> (Delivery, Option<ResyncReason>) {
        let window = self.config.window;
        let resync = |reason| {
            let delivery = Delivery::resyncing(it.acked_seq, log.floor_seq, window);
            (delivery, Some(reason))
        };
        // Its client was told of another epoch, and is not told again by a welcome.
        if it.resumed.is_some_and(|epoch| epoch != log.epoch) {
            return resync(ResyncReason::EpochChanged);
        }
        let from = match it.since {
            None => it.acked_seq,
            // The beginning is the same in every epoch.
            Some(Position { seq: 0, .. }) => 0,
            Some(p) if p.epoch != log.epoch => return resync(ResyncReason::EpochChanged),
            Some(p) => p.seq,
        };
        // Ahead of a log of the same epoch is as foreign as another epoch.
        if from > log.head_seq {
            return resync(ResyncReason::EpochChanged);
        }
        if from < log.floor_seq {
            return resync(ResyncReason::Compacted);
        }
        (Delivery::new(from, window), None)
    }

    /// Takes ends of the log that are newer than those known. If its life changed, every attached
    /// device must load anew. Says whether `seen` is of the life that is known now: if not, it is an
    /// old answer that came late.
    fn learn(&mut self, now: Instant, seen: Seen, effects: &mut Vec<Effect>) -> bool {
        let Seen { log, asked_at } = seen;
        match &mut self.log {
            Some(known) if known.epoch == log.epoch => {
                known.head_seq = known.head_seq.max(log.head_seq);
                known.floor_seq = known.floor_seq.max(log.floor_seq);
                return true;
            }
            Some(_) if self.epoch_since.is_some_and(|since| asked_at < since) => return false,
            known => *known = Some(log),
        }
        self.epoch_since = Some(now);
        for (conn, link) in self.links.iter_mut() {
            link.delivery.resync(log.floor_seq);
            let frame = resync_frame(log, ResyncReason::EpochChanged);
            effects.push(Effect::Send(*conn, vec![frame]));
        }
        true
    }

    /// The ends of the log were told by another part of the system, or seen by the way. They may be
    /// older than what is known here.
    pub fn head_seen(&mut self, now: Instant, seen: Seen) -> Vec<Effect> {
        let mut effects = Vec::new();
        if planted!(HintTakenForARead) {
            self.head_reads.1 = self.head_reads.0;
        }
        self.learn(now, seen, &mut effects);
        self.judge_parked(now, &mut effects);
        self.pump(&mut effects);
        effects
    }

    /// Events were appended by a command of this session; `seen` has the ends after it.
    pub fn committed(&mut self, now: Instant, seen: Seen, events: &[WireEvent]) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.learn(now, seen, &mut effects) {
            for (conn, link) in self.links.iter_mut() {
                let sent = link.delivery.committed(now, events);
                if !sent.is_empty() {
                    effects.push(Effect::Send(*conn, texts(sent)));
                }
            }
        }
        self.pump(&mut effects);
        effects
    }

    /// The events asked for by [`Effect::Load`] were read; `seen` has the ends at that moment.
    pub fn loaded(
        &mut self,
        now: Instant,
        conn: ConnId,
        load: Load,
        seen: Seen,
        events: &[WireEvent],
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        let usable = self.learn(now, seen, &mut effects);
        if let (Some(link), Some(log)) = (self.links.get_mut(&conn), self.log) {
            if usable && events.is_empty() && load.after >= seen.log.head_seq {
                // There is nothing to read: a head that another node told was never reached.
                link.delivery.load_failed();
                self.log = Some(seen.log);
            } else if usable {
                match link.delivery.loaded(now, load, events) {
                    Some([]) => {}
                    Some(sent) => effects.push(Effect::Send(conn, texts(sent))),
                    None => {
                        link.delivery.resync(log.floor_seq);
                        let frame = resync_frame(log, ResyncReason::Compacted);
                        effects.push(Effect::Send(conn, vec![frame]));
                    }
                }
            } else {
                link.delivery.load_failed();
            }
        }
        self.judge_parked(now, &mut effects);
        self.pump(&mut effects);
        effects
    }

    /// The read asked for by [`Effect::Load`] failed; call [`Self::retry`] a little later.
    pub fn load_failed(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.delivery.load_failed();
        }
    }

    /// Asks again for what could not be read.
    pub fn retry(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.pump(&mut effects);
        effects
    }

    /// A frame came in. `Auth` is for the shell, which knows tokens: see [`Self::renewed`].
    pub fn frame(&mut self, now: Instant, conn: ConnId, frame: ClientFrame) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.heard(now, conn);
        match frame {
            ClientFrame::Ack(position, reference) => {
                self.ack(now, conn, position, reference, &mut effects);
                self.pump(&mut effects);
            }
            ClientFrame::Signal(signal, reference) => {
                self.signal(now, conn, signal, reference, &mut effects);
            }
            ClientFrame::Ping(reference) => {
                self.aside(conn, &ServerFrame::Pong { reference }, &mut effects);
            }
            ClientFrame::Unknown(reference) => {
                let detail = "this server does not know frames of this type";
                let code = FrameErrorCode::UnknownType;
                self.error(conn, code, detail, reference, &mut effects);
            }
            ClientFrame::Invalid(code, detail, reference) => {
                self.error(conn, code, detail, reference, &mut effects);
            }
            ClientFrame::Auth(_, reference) => {
                let detail = "the token cannot be judged here";
                let code = FrameErrorCode::TokenInvalid;
                self.error(conn, code, detail, reference, &mut effects);
            }
        }
        self.catch_up_presence(&mut effects);
        effects
    }

    /// The connection ended by itself.
    pub fn detached(&mut self, conn: ConnId) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(link) = self.links.remove(&conn) {
            effects.push(Effect::Detached(link.device));
            self.tell_presence(true, &mut effects);
        }
        effects
    }

    fn close(&mut self, which: Vec<(ConnId, CloseCode)>, effects: &mut Vec<Effect>) {
        if !which.is_empty() {
            self.drop_links(which, effects);
            self.tell_presence(true, effects);
        }
    }

    fn drop_links(&mut self, which: Vec<(ConnId, CloseCode)>, effects: &mut Vec<Effect>) {
        for (conn, code) in which {
            if let Some(link) = self.links.remove(&conn) {
                effects.push(Effect::Close(conn, code));
                effects.push(Effect::Detached(link.device));
            }
        }
    }

    fn pump(&mut self, effects: &mut Vec<Effect>) {
        let Some(log) = self.log else { return };
        for (conn, link) in self.links.iter_mut() {
            if let Some(load) = link.delivery.next_load(log.head_seq) {
                effects.push(Effect::Load(*conn, load));
            }
        }
    }
}

impl Link {
    fn cursor(&self, log: LogHead) -> Cursor {
        Cursor {
            device: self.device,
            attach_epoch: self.attach_epoch,
            position: Position {
                epoch: log.epoch,
                seq: self.delivery.acked(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
