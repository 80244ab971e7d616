//! What passes beside the log: signals between devices, who is there, answers to single frames.
//!
//! None of it is stored, and none of it may pile up: above a bound of frames that a connection has
//! not taken, signals and answers are dropped, and presence waits until it can be told once.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    super::{
        frame::{FrameErrorCode, Ref, ServerFrame},
        signal::{PresentDevice, Signal, SignalTo},
    },
    Effect, PlayerAsk, SessionCore,
};
use crate::domain::{identity::ClientDeviceId, ids::ConnId, library::PlayerSignal};

/// Devices of the user at another node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Remote {
    devices: Vec<ClientDeviceId>,
    /// A node that does not tell again until then is gone.
    pub until: Instant,
}

/// A rate: so many a second, and as many at once after a second of silence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pace {
    /// When everything taken so far is paid off.
    paid: Instant,
}

impl Pace {
    /// Nothing was taken yet.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { paid: now }
    }

    /// Whether one more is within `per_second` (at least 1); if so it is taken.
    pub fn take(&mut self, now: Instant, per_second: u32) -> bool {
        const SECOND: Duration = Duration::from_secs(1);
        let next = self.paid.max(now) + SECOND / per_second.max(1);
        let within = next <= now + SECOND;
        if within {
            self.paid = next;
        }
        within
    }
}

impl SessionCore {
    /// So many frames wait for a connection that has not taken them yet.
    pub fn unread(&mut self, conn: ConnId, frames: usize) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.unread = frames;
        }
    }

    fn is_full(&self, conn: ConnId) -> bool {
        let bound = self.config.side_frames;
        self.links.get(&conn).is_none_or(|l| l.unread >= bound)
    }

    /// Sends a frame beside the log, unless too many wait already.
    pub(super) fn aside(&self, conn: ConnId, frame: &ServerFrame, effects: &mut Vec<Effect>) {
        if !self.is_full(conn) {
            effects.push(Effect::Send(conn, vec![frame.to_text()]));
        }
    }

    pub(super) fn error(
        &self,
        conn: ConnId,
        code: FrameErrorCode,
        detail: &str,
        reference: Option<Ref>,
        effects: &mut Vec<Effect>,
    ) {
        let frame = ServerFrame::Error {
            code,
            detail: detail.to_owned(),
            reference,
        };
        self.aside(conn, &frame, effects);
    }

    /// Answers that a renewed token was not taken.
    pub fn token_refused(
        &mut self,
        now: Instant,
        conn: ConnId,
        detail: &str,
        reference: Option<Ref>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.heard(now, conn);
        let code = FrameErrorCode::TokenInvalid;
        self.error(conn, code, detail, reference, &mut effects);
        effects
    }

    /// A device sends a signal to others of its user, here and at other nodes.
    pub(super) fn signal(
        &mut self,
        now: Instant,
        conn: ConnId,
        signal: Signal,
        reference: Option<Ref>,
        effects: &mut Vec<Effect>,
    ) {
        let rate = self.config.signals_per_second;
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        if !link.signals.take(now, rate) {
            let code = FrameErrorCode::RateLimited;
            let detail = format!("at most {rate} signals a second");
            return self.error(conn, code, &detail, reference, effects);
        }
        let from = link.device_id.clone();
        match PlayerSignal::parse(&signal) {
            None => self.send_on(conn, from, signal, reference, effects),
            Some(Ok(meaning)) => effects.push(Effect::Player(Box::new(PlayerAsk {
                conn,
                from,
                signal,
                meaning,
                reference,
            }))),
            Some(Err(field)) => {
                let code = FrameErrorCode::InvalidSignal;
                self.error(conn, code, &field.to_string(), reference, effects);
            }
        }
    }

    /// A signal of [`Effect::Player`] goes to whom it now names.
    #[must_use]
    pub fn pass(&self, conn: ConnId, signal: Signal, reference: Option<Ref>) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(link) = self.links.get(&conn) {
            let from = link.device_id.clone();
            self.send_on(conn, from, signal, reference, &mut effects);
        }
        effects
    }

    /// A signal of [`Effect::Player`] is not taken.
    #[must_use]
    pub fn refuse(
        &self,
        conn: ConnId,
        code: FrameErrorCode,
        detail: &str,
        reference: Option<Ref>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.error(conn, code, detail, reference, &mut effects);
        effects
    }

    fn send_on(
        &self,
        conn: ConnId,
        from: ClientDeviceId,
        signal: Signal,
        reference: Option<Ref>,
        effects: &mut Vec<Effect>,
    ) {
        let here = self.deliver(&from, &signal, effects);
        let elsewhere = self.remote.values().any(|it| match &signal.to {
            SignalTo::All => !it.devices.is_empty(),
            SignalTo::Device(id) => it.devices.contains(id),
        });
        if elsewhere {
            effects.push(Effect::Relay(from, signal));
        } else if !here && signal.to != SignalTo::All {
            let code = FrameErrorCode::DeviceNotAttached;
            let detail = "no such device of yours is connected";
            self.error(conn, code, detail, reference, effects);
        }
    }

    /// A signal came from a device at another node.
    pub fn signal_arrived(&self, from: &ClientDeviceId, signal: &Signal) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.deliver(from, signal, &mut effects);
        effects
    }

    /// Hands a signal to those whom it names here; says whether there are any.
    fn deliver(&self, from: &ClientDeviceId, signal: &Signal, effects: &mut Vec<Effect>) -> bool {
        let text = ServerFrame::Signal {
            from_device_id: from.clone(),
            name: signal.name.clone(),
            data: signal.data.clone(),
        }
        .to_text();
        let mut found = false;
        for (conn, link) in self.links.iter() {
            let meant = match &signal.to {
                SignalTo::All => link.device_id != *from,
                SignalTo::Device(id) => link.device_id == *id,
            };
            if meant {
                found = true;
                effects.push(if self.is_full(*conn) {
                    Effect::SignalDropped(*conn)
                } else {
                    Effect::Send(*conn, vec![text.clone()])
                });
            }
        }
        found
    }

    /// The devices that are attached here.
    #[must_use]
    pub fn present_here(&self) -> Vec<ClientDeviceId> {
        let here: BTreeSet<_> = self.links.values().map(|l| &l.device_id).collect();
        here.into_iter().cloned().collect()
    }

    /// The devices that are attached anywhere, as far as is known here.
    #[must_use]
    pub fn present(&self) -> Vec<PresentDevice> {
        let here = self.links.values().map(|l| &l.device_id);
        let there = self.remote.values().flat_map(|it| &it.devices);
        let all: BTreeSet<_> = here.chain(there).collect();
        all.into_iter()
            .map(|id| PresentDevice {
                device_id: id.clone(),
            })
            .collect()
    }

    /// Another node tells which devices are attached to it.
    pub fn presence_arrived(
        &mut self,
        now: Instant,
        node: &str,
        devices: Vec<ClientDeviceId>,
    ) -> Vec<Effect> {
        let before = self.present();
        if devices.is_empty() {
            self.remote.remove(node);
        } else {
            let until = now + self.config.heartbeat_timeout;
            let remote = Remote { devices, until };
            self.remote.insert(node.to_owned(), remote);
        }
        self.if_presence_changed(&before)
    }

    /// Forgets nodes that have not told of themselves for too long.
    pub(super) fn forget_silent_nodes(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let before = self.present();
        self.remote.retain(|_, it| it.until > now);
        effects.extend(self.if_presence_changed(&before));
    }

    fn if_presence_changed(&mut self, before: &[PresentDevice]) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.present() != before {
            for link in self.links.values_mut() {
                link.presence_due = true;
            }
            self.catch_up_presence(&mut effects);
        }
        effects
    }

    /// A device came; `changed`: or went. Everyone here is told, and other nodes.
    pub(super) fn tell_presence(&mut self, changed: bool, effects: &mut Vec<Effect>) {
        if self.links.is_empty() {
            // Nobody here hears any more who is elsewhere.
            self.remote.clear();
        }
        if changed {
            for link in self.links.values_mut() {
                link.presence_due = true;
            }
            effects.push(Effect::Present(self.present_here()));
        }
        self.catch_up_presence(effects);
    }

    /// Tells who is there to those who are due to hear it and have room: however much changed
    /// meanwhile, once.
    pub(super) fn catch_up_presence(&mut self, effects: &mut Vec<Effect>) {
        if self.links.values().all(|l| !l.presence_due) {
            return;
        }
        let devices = self.present();
        let text = ServerFrame::Presence { devices }.to_text();
        let bound = self.config.side_frames;
        for (conn, link) in self.links.iter_mut() {
            if link.presence_due && link.unread < bound {
                link.presence_due = false;
                effects.push(Effect::Send(*conn, vec![text.clone()]));
            }
        }
    }
}
