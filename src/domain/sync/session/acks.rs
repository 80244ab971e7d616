//! How acks are judged: at once where the head known here covers them, else after a read of the head.

use std::time::Instant;

use super::{
    super::{
        delivery::AckError,
        event::{Position, Seen},
        frame::{FrameErrorCode, Ref},
    },
    Effect, SessionCore,
};
use crate::domain::ids::{ConnId, DeviceId};

/// An ack beyond the head known here. A hint may show that it is good; that it is not, only a read
/// of the head that began after it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ParkedAck {
    position: Position,
    reference: Option<Ref>,
    /// The first read of the head that began after it came.
    decided_by: u64,
}

impl SessionCore {
    /// Acks of a device that may wait for a read of the head; only a client that is wrong has more.
    const PARKED: usize = 8;

    pub(super) fn ack(
        &mut self,
        now: Instant,
        conn: ConnId,
        position: Position,
        reference: Option<Ref>,
        effects: &mut Vec<Effect>,
    ) {
        let ack = ParkedAck {
            position,
            reference,
            decided_by: self.head_reads.0 + 1,
        };
        self.judge(now, conn, ack, effects);
    }

    /// The ends of the log were read as [`Effect::ReadHead`] asked.
    pub fn head_read(&mut self, now: Instant, seen: Seen) -> Vec<Effect> {
        self.head_reads.1 = self.head_reads.0;
        self.head_seen(now, seen)
    }

    /// The ends of the log could not be read as [`Effect::ReadHead`] asked: acks that waited for it
    /// are answered.
    pub fn head_failed(&mut self, now: Instant) -> Vec<Effect> {
        self.head_reads.1 = self.head_reads.0;
        let mut effects = Vec::new();
        for (conn, ack) in self.take_parked(now) {
            self.unjudged(conn, ack.reference, &mut effects);
        }
        effects
    }

    fn unjudged(&self, conn: ConnId, reference: Option<Ref>, effects: &mut Vec<Effect>) {
        let code = FrameErrorCode::StoreUnavailable;
        self.error(
            conn,
            code,
            "the ack could not be judged",
            reference,
            effects,
        );
    }

    fn take_parked(&mut self, now: Instant) -> Vec<(ConnId, ParkedAck)> {
        let mut parked = Vec::new();
        for (conn, link) in self.links.iter_mut() {
            if !link.parked_acks.is_empty() {
                // While they waited the device owed nothing.
                link.delivery.forgive(now);
                parked.extend(link.parked_acks.drain(..).map(|ack| (*conn, ack)));
            }
        }
        parked
    }

    pub(super) fn judge_parked(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for (conn, ack) in self.take_parked(now) {
            self.judge(now, conn, ack, effects);
        }
    }

    fn judge(&mut self, now: Instant, conn: ConnId, ack: ParkedAck, effects: &mut Vec<Effect>) {
        let (Some(link), Some(log)) = (self.links.get_mut(&conn), self.log) else {
            return;
        };
        if ack.position.epoch != log.epoch && !planted!(AckOfAnotherEpoch) {
            let code = FrameErrorCode::EpochChanged;
            let detail = "the position belongs to another epoch of the log";
            return self.error(conn, code, detail, ack.reference, effects);
        }
        match link.delivery.ack(now, ack.position.seq, log.head_seq) {
            Ok(true) => effects.push(Effect::Acked(link.cursor(log))),
            Ok(false) => {}
            Err(AckError::BeyondHead) if ack.decided_by <= self.head_reads.1 => {
                let code = FrameErrorCode::AckBeyondHead;
                let detail = format!("the head of the log is {}", log.head_seq);
                self.error(conn, code, &detail, ack.reference, effects);
            }
            Err(AckError::BeyondHead) => {
                if link.parked_acks.len() == Self::PARKED {
                    return self.unjudged(conn, ack.reference, effects);
                }
                link.parked_acks.push(ack);
                // One read at a time: what it does not decide waits for the next.
                let (asked, answered) = &mut self.head_reads;
                if *asked == *answered {
                    *asked += 1;
                    effects.push(Effect::ReadHead);
                }
            }
        }
    }

    /// The device acknowledged `position` by another way than its socket, and the store took it. What
    /// counts is what the client named: its cursor may be further, if it lost what it had.
    pub fn acked_elsewhere(
        &mut self,
        now: Instant,
        device: DeviceId,
        position: Position,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        // In another life than the one known here it means nothing yet; the next look at the head tells.
        let Some(log) = self.log.as_mut().filter(|l| l.epoch == position.epoch) else {
            return effects;
        };
        // The store looked: the log reaches so far.
        log.head_seq = log.head_seq.max(position.seq);
        for link in self.links.values_mut().filter(|l| l.device == device) {
            // It cannot be beyond the head.
            let _ = link.delivery.ack(now, position.seq, log.head_seq);
        }
        self.pump(&mut effects);
        effects
    }
}
