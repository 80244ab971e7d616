//! The rules of a user's session: which of the user's devices is sent what, and which is let go.
//!
//! A pure core: it is told what happened and when, and answers with [`Effect`]s for its shell (the
//! `UserSession` actor, or a simulation) to carry out. It holds positions and times, never events.

mod effect;
mod liveness;

use std::{collections::BTreeMap, time::Instant};

use super::{
    delivery::{AckError, Delivery},
    event::{LogHead, Position, WireEvent},
    frame::{ClientFrame, CloseCode, FrameErrorCode, Ref, ResyncReason, ServerFrame},
};
use crate::domain::ids::{ConnId, DeviceId, UserId};
pub use effect::{Attachment, Effect, SessionConfig};
use effect::{error, resync_frame, texts};

#[derive(Debug)]
struct Link {
    device: DeviceId,
    delivery: Delivery,
    last_heard: Instant,
    next_ping: Instant,
    token_until: Instant,
    parked_ack: Option<ParkedAck>,
}

/// An ack beyond the head known here. A hint may show that it is good; that it is not, only a read
/// of the head that began after it came.
#[derive(Debug)]
struct ParkedAck {
    position: Position,
    reference: Option<Ref>,
    /// The first read of the head that began after it came.
    decided_by: u64,
}

/// One user's attached devices.
#[derive(Debug)]
pub struct SessionCore {
    user: UserId,
    config: SessionConfig,
    log: Option<LogHead>,
    links: BTreeMap<ConnId, Link>,
    /// Reads of the head that were asked for, and those that were answered: one at a time.
    head_reads: (u64, u64),
}

impl SessionCore {
    /// A session without devices.
    #[must_use]
    pub const fn new(user: UserId, config: SessionConfig) -> Self {
        Self {
            user,
            config,
            log: None,
            links: BTreeMap::new(),
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

    /// A device attaches to a log whose ends are `log`. A connection that the same device had is
    /// replaced.
    pub fn attach(&mut self, now: Instant, it: Attachment, log: LogHead) -> Vec<Effect> {
        let mut effects = Vec::new();
        let older: Vec<ConnId> = self
            .links
            .iter()
            .filter(|(_, l)| l.device == it.device)
            .map(|(c, _)| *c)
            .collect();
        for conn in older {
            self.close(conn, CloseCode::Replaced, &mut effects);
        }
        if self.learn(log) {
            self.resync_all(log, &mut effects);
        }
        let log = self.log.unwrap_or(log);
        let (delivery, resync) = self.place(&it, log);
        let mut first = Vec::new();
        if it.resumed.is_none() {
            let welcome = ServerFrame::Welcome {
                conn_id: it.conn,
                user_id: self.user,
                device_id: it.device_id,
                node: self.config.node.clone(),
                epoch: log.epoch,
                head_seq: log.head_seq,
                acked_seq: delivery.acked().max(it.acked_seq),
                window: self.config.window,
                heartbeat_secs: self.config.heartbeat.as_secs(),
            };
            first.push(welcome.to_text());
        }
        first.extend(resync.map(|reason| resync_frame(log, reason)));
        if !first.is_empty() {
            effects.push(Effect::Send(it.conn, first));
        }
        if resync.is_none() && delivery.acked() > it.acked_seq {
            effects.push(Effect::Acked(it.device, delivery.acked()));
        }
        let link = Link {
            device: it.device,
            delivery,
            last_heard: now,
            next_ping: now + self.config.heartbeat,
            token_until: it.token_until,
            parked_ack: None,
        };
        self.links.insert(it.conn, link);
        self.pump(&mut effects);
        effects
    }

    /// Where a device starts: behind its cursor, or behind what it says of itself.
    fn place(&self, it: &Attachment, log: LogHead) -> (Delivery, Option<ResyncReason>) {
        let window = self.config.window;
        let resync = |reason| (Delivery::resyncing(it.acked_seq, window), Some(reason));
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

    /// Takes newer ends of the log; says whether its life changed under attached devices.
    fn learn(&mut self, log: LogHead) -> bool {
        match &mut self.log {
            Some(known) if known.epoch == log.epoch => {
                known.head_seq = known.head_seq.max(log.head_seq);
                known.floor_seq = known.floor_seq.max(log.floor_seq);
                false
            }
            known => known.replace(log).is_some(),
        }
    }

    fn resync_all(&mut self, log: LogHead, effects: &mut Vec<Effect>) {
        for (conn, link) in &mut self.links {
            link.delivery.resync();
            let frame = resync_frame(log, ResyncReason::EpochChanged);
            effects.push(Effect::Send(*conn, vec![frame]));
        }
    }

    /// The ends of the log were told by another part of the system, or seen by the way. They may be
    /// older than what is known here.
    pub fn head_seen(&mut self, log: LogHead) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.learn(log) {
            self.resync_all(log, &mut effects);
        }
        self.judge_parked(&mut effects);
        self.pump(&mut effects);
        effects
    }

    /// The ends of the log were read as [`Effect::ReadHead`] asked.
    pub fn head_read(&mut self, log: LogHead) -> Vec<Effect> {
        self.head_reads.1 = self.head_reads.0;
        self.head_seen(log)
    }

    /// The ends of the log could not be read as [`Effect::ReadHead`] asked: acks that waited for it
    /// are answered.
    pub fn head_failed(&mut self) -> Vec<Effect> {
        self.head_reads.1 = self.head_reads.0;
        let mut effects = Vec::new();
        for (conn, link) in &mut self.links {
            if let Some(ack) = link.parked_ack.take() {
                let code = FrameErrorCode::StoreUnavailable;
                let detail = "the ack could not be judged";
                effects.push(error(*conn, code, detail, ack.reference));
            }
        }
        effects
    }

    fn judge_parked(&mut self, effects: &mut Vec<Effect>) {
        let parked: Vec<_> = self
            .links
            .iter_mut()
            .filter_map(|(c, l)| Some((*c, l.parked_ack.take()?)))
            .collect();
        for (conn, ack) in parked {
            self.judge(conn, ack, effects);
        }
    }

    /// Events were appended by a command of this session; `log` has the ends after it.
    pub fn committed(&mut self, log: LogHead, events: &[WireEvent]) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.learn(log) {
            self.resync_all(log, &mut effects);
        }
        for (conn, link) in &mut self.links {
            let sent = link.delivery.committed(events);
            if !sent.is_empty() {
                effects.push(Effect::Send(*conn, texts(sent)));
            }
        }
        self.pump(&mut effects);
        effects
    }

    /// The events asked for by [`Effect::Load`] were read.
    pub fn loaded(&mut self, conn: ConnId, after: i64, events: &[WireEvent]) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let (Some(link), Some(log)) = (self.links.get_mut(&conn), self.log) {
            match link.delivery.loaded(after, events) {
                Some([]) => {}
                Some(sent) => effects.push(Effect::Send(conn, texts(sent))),
                None => {
                    link.delivery.resync();
                    let frame = resync_frame(log, ResyncReason::Compacted);
                    effects.push(Effect::Send(conn, vec![frame]));
                }
            }
        }
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
                let ack = ParkedAck {
                    position,
                    reference,
                    decided_by: self.head_reads.0 + 1,
                };
                self.judge(conn, ack, &mut effects);
                self.pump(&mut effects);
            }
            ClientFrame::Ping(reference) => {
                effects.push(Effect::Send(
                    conn,
                    vec![ServerFrame::Pong { reference }.to_text()],
                ));
            }
            ClientFrame::Unknown(reference) => {
                let detail = "this server does not know frames of this type";
                effects.push(error(conn, FrameErrorCode::UnknownType, detail, reference));
            }
            ClientFrame::Auth(_, reference) => {
                let detail = "the token cannot be judged here";
                effects.push(error(conn, FrameErrorCode::TokenInvalid, detail, reference));
            }
        }
        effects
    }

    fn judge(&mut self, conn: ConnId, ack: ParkedAck, effects: &mut Vec<Effect>) {
        let (Some(link), Some(log)) = (self.links.get_mut(&conn), self.log) else {
            return;
        };
        if ack.position.epoch != log.epoch {
            let code = FrameErrorCode::EpochChanged;
            let detail = "the position belongs to another epoch of the log";
            effects.push(error(conn, code, detail, ack.reference));
            return;
        }
        match link.delivery.ack(ack.position.seq, log.head_seq) {
            Ok(true) => effects.push(Effect::Acked(link.device, link.delivery.acked())),
            Ok(false) => {}
            Err(AckError::BeyondHead) if ack.decided_by <= self.head_reads.1 => {
                let code = FrameErrorCode::AckBeyondHead;
                let detail = format!("the head of the log is {}", log.head_seq);
                effects.push(error(conn, code, &detail, ack.reference));
            }
            Err(AckError::BeyondHead) => {
                // One read at a time: what it does not decide waits for the next.
                let (asked, answered) = &mut self.head_reads;
                if *asked == *answered {
                    *asked += 1;
                    effects.push(Effect::ReadHead);
                }
                link.parked_ack = Some(ack);
            }
        }
    }

    /// The device acknowledged `position` by another way than its socket, and the store took it. What
    /// counts is what the client named: its cursor may be further, if it lost what it had.
    pub fn acked_elsewhere(&mut self, device: DeviceId, position: Position) -> Vec<Effect> {
        let mut effects = Vec::new();
        // In another life than the one known here it means nothing yet; the next look at the head tells.
        let Some(log) = self.log.as_mut().filter(|l| l.epoch == position.epoch) else {
            return effects;
        };
        // The store looked: the log reaches so far.
        log.head_seq = log.head_seq.max(position.seq);
        for link in self.links.values_mut().filter(|l| l.device == device) {
            // It cannot be beyond the head.
            let _ = link.delivery.ack(position.seq, log.head_seq);
        }
        self.pump(&mut effects);
        effects
    }

    /// The connection ended by itself.
    pub fn detached(&mut self, conn: ConnId) -> Vec<Effect> {
        self.links
            .remove(&conn)
            .map(|l| Effect::Detached(l.device))
            .into_iter()
            .collect()
    }

    fn close(&mut self, conn: ConnId, code: CloseCode, effects: &mut Vec<Effect>) {
        if let Some(link) = self.links.remove(&conn) {
            effects.push(Effect::Close(conn, code));
            effects.push(Effect::Detached(link.device));
        }
    }

    fn pump(&mut self, effects: &mut Vec<Effect>) {
        let Some(log) = self.log else { return };
        for (conn, link) in &mut self.links {
            if let Some(load) = link.delivery.next_load(log.head_seq) {
                effects.push(Effect::Load(*conn, load));
            }
        }
    }
}

#[cfg(test)]
mod tests;
