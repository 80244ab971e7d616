//! Which devices are still there, and how they are let go: heartbeats, the ends of tokens, evictions.

use std::time::{Duration, Instant};

use super::{Effect, SessionCore};
use crate::domain::{
    ids::ConnId,
    sync::{CloseCode, ServerFrame},
};

impl SessionCore {
    /// When [`Self::tick`] is due next; none without devices.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        let timeout = self.config.heartbeat_timeout;
        self.links
            .values()
            .map(|l| l.next_ping.min(l.last_heard + timeout).min(l.token_until))
            .min()
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

    /// Judges tokens and heartbeats at `now`. `late` is how long the session itself was kept from
    /// running since the tick was due: that time does not count against a device.
    pub fn tick(&mut self, now: Instant, late: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut over = Vec::new();
        for (conn, link) in &mut self.links {
            link.last_heard = (link.last_heard + late).min(now);
            if now >= link.token_until {
                over.push((*conn, CloseCode::TokenOver));
            } else if now >= link.last_heard + self.config.heartbeat_timeout {
                over.push((*conn, CloseCode::NoHeartbeat));
            } else if now >= link.next_ping {
                link.next_ping = now + self.config.heartbeat;
                effects.push(Effect::Ping(*conn));
            }
        }
        for (conn, code) in over {
            self.close(conn, code, &mut effects);
        }
        effects
    }

    /// The connection must go.
    pub fn evict(&mut self, conn: ConnId, code: CloseCode) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.close(conn, code, &mut effects);
        effects
    }

    /// Every connection must go; each hears when to come back.
    pub fn evict_all(&mut self, retry_after: impl Fn() -> Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        for conn in self.links.keys().copied().collect::<Vec<_>>() {
            let retry_after_ms = u64::try_from(retry_after().as_millis()).unwrap_or(u64::MAX);
            let goodbye = ServerFrame::Goodbye {
                reason: "going_away",
                retry_after_ms,
            };
            effects.push(Effect::Send(conn, vec![goodbye.to_text()]));
            self.close(conn, CloseCode::GoingAway, &mut effects);
        }
        effects
    }
}
