//! Which devices are still there, and how they are let go: heartbeats, acks that are owed, the ends
//! of tokens, evictions.

use std::time::{Duration, Instant};

use super::{Effect, Link, SessionCore};
use crate::domain::{
    ids::{ConnId, DeviceId},
    sync::{CloseCode, ServerFrame},
};

impl SessionCore {
    /// What a session that was kept from running gets to hear what came meanwhile.
    const CATCH_UP: Duration = Duration::from_secs(1);

    /// When [`Self::tick`] is due next; none without devices.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        let timeout = self.config.heartbeat_timeout;
        let links = self.links.values().map(|l| {
            let due = l.next_ping.min(l.last_heard + timeout).min(l.token_until);
            self.overdue_at(l).map_or(due, |at| due.min(at))
        });
        // Without a device here nobody asks who is elsewhere.
        let due = links.min()?;
        let silent = self.remote.values().map(|it| it.until).min();
        Some(silent.map_or(due, |at| due.min(at)))
    }

    /// Since when a device has owed an ack without giving one, the one that has for longest.
    #[must_use]
    pub fn owes_since(&self) -> Option<Instant> {
        let links = self.links.values();
        links.filter_map(|l| l.delivery.owes_since()).min()
    }

    /// When a device that owes an ack is let go. What it said and could not be judged yet may have
    /// been that ack.
    fn overdue_at(&self, link: &Link) -> Option<Instant> {
        let patience = self.config.progress_timeout;
        let judged = link.parked_acks.is_empty();
        link.delivery.overdue_at(patience).filter(|_| judged)
    }

    /// Something was heard from a device: a frame, or the answer to a ping.
    pub fn heard(&mut self, now: Instant, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.last_heard = now;
        }
    }

    /// The device's token was renewed.
    pub fn renewed(&mut self, now: Instant, conn: ConnId, token_until: Instant) {
        self.heard(now, conn);
        if let Some(link) = self.links.get_mut(&conn) {
            link.token_until = token_until;
        }
    }

    /// Judges tokens, heartbeats and progress at `now`. `late` is how long the session itself was kept from
    /// running since the tick was due: that time does not count against a device.
    pub fn tick(&mut self, now: Instant, late: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        // What devices said meanwhile is still on its way here.
        let late = if late.is_zero() {
            late
        } else {
            late + Self::CATCH_UP
        };
        for link in self.links.values_mut() {
            link.last_heard = (link.last_heard + late).min(now);
            link.delivery.excuse(late, now);
        }
        let over = self.links.iter().filter_map(|(conn, link)| {
            let silent = now >= link.last_heard + self.config.heartbeat_timeout;
            let overdue = self.overdue_at(link).is_some_and(|at| now >= at);
            let code = match () {
                () if now >= link.token_until => CloseCode::TokenOver,
                () if silent => CloseCode::NoHeartbeat,
                () if overdue => CloseCode::NotAcking,
                () => return None,
            };
            Some((*conn, code))
        });
        let over = over.collect();
        self.close(over, &mut effects);
        let mut pinged = false;
        for (conn, link) in self.links.iter_mut() {
            if now >= link.next_ping {
                link.next_ping = now + self.config.heartbeat;
                effects.push(Effect::Ping(*conn));
                pinged = true;
            }
        }
        if pinged {
            // So that other nodes notice when this one is gone.
            effects.push(Effect::Present(self.present_here()));
        }
        self.forget_silent_nodes(now, &mut effects);
        // A device that had too much to read may say nothing more that would show that it has read it.
        self.catch_up_presence(&mut effects);
        effects
    }

    /// The device has attached again somewhere, and that attachment is `attach_epoch`: an older one
    /// that is here must go.
    pub fn superseded(&mut self, device: DeviceId, attach_epoch: i64) -> Vec<Effect> {
        let older = self
            .links
            .iter()
            .filter(|(_, l)| l.device == device && l.attach_epoch < attach_epoch)
            .filter(|_| !planted!(OlderConnectionStays))
            .map(|(conn, _)| (*conn, CloseCode::Replaced))
            .collect();
        let mut effects = Vec::new();
        self.close(older, &mut effects);
        effects
    }

    /// The store no longer knows of the attachment `held`: it fell back to an older state. The device
    /// must come again.
    pub fn unknown(&mut self, device: DeviceId, held: i64) -> Vec<Effect> {
        let it = self
            .links
            .iter()
            .filter(|(_, l)| l.device == device && l.attach_epoch == held)
            .map(|(conn, _)| (*conn, CloseCode::TryAgainLater))
            .collect();
        let mut effects = Vec::new();
        self.close(it, &mut effects);
        effects
    }

    /// The connection must go.
    pub fn evict(&mut self, conn: ConnId, code: CloseCode) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.close(vec![(conn, code)], &mut effects);
        effects
    }

    /// Every connection must go; each hears when to come back.
    pub fn evict_all(&mut self, retry_after: impl Fn() -> Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        let all: Vec<_> = self.links.keys().copied().collect();
        for conn in &all {
            let retry_after_ms = u64::try_from(retry_after().as_millis()).unwrap_or(u64::MAX);
            let goodbye = ServerFrame::Goodbye {
                reason: "going_away",
                retry_after_ms,
            };
            effects.push(Effect::Send(*conn, vec![goodbye.to_text()]));
        }
        let all = all.into_iter().map(|conn| (conn, CloseCode::GoingAway));
        self.close(all.collect(), &mut effects);
        effects
    }
}
