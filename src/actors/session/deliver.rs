//! Carries out what the core decides: frames to connections, reads of the log, cursors to the keeper.

use std::time::{Duration, Instant};

use super::{UserSession, messages::ToDevice};
use crate::{
    actors::{
        kernel::Cx,
        sync::{Advance, Flush},
    },
    domain::{
        ids::ConnId,
        sync::{CloseCode, Effect, Load, Seen, ServerFrame, SessionCore, WireEvent},
    },
    store::{LogPage, StoreError},
    telemetry::metrics::Origin,
};

impl UserSession {
    /// How long a read of the log for a device may take.
    const READ_BUDGET: Duration = Duration::from_secs(5);
    /// When a failed read is tried again.
    const RETRY: Duration = Duration::from_secs(1);
    /// A tick so late means that the session could not serve, not that its devices were silent.
    const LATE: Duration = Duration::from_secs(1);

    pub(super) fn apply(&mut self, effects: Vec<Effect>, cx: &mut Cx<'_, Self>) {
        self.apply_from(Origin::Log, effects, cx);
    }

    /// Carries out `effects`, whose events came from there; says how many were handed to connections.
    pub(super) fn apply_from(
        &mut self,
        origin: Origin,
        effects: Vec<Effect>,
        cx: &mut Cx<'_, Self>,
    ) -> u64 {
        let (mut events, mut bytes) = (0, 0);
        for effect in effects {
            match effect {
                Effect::Send(conn, texts) => {
                    if let Some(link) = self.links.get(&conn) {
                        for text in &texts {
                            if ServerFrame::is_event(text) {
                                events += 1;
                                bytes += text.len() as u64;
                            } else {
                                self.count_aside(text);
                            }
                        }
                        link.outlet.push(ToDevice::Text(texts));
                    }
                }
                Effect::Ping(conn) => self.push(conn, ToDevice::Ping),
                Effect::Close(conn, code) => self.close(conn, code),
                Effect::Load(conn, load) => self.load(conn, load, cx),
                Effect::ReadHead => self.read_head(cx),
                Effect::Acked(cursor) => {
                    // A cursor that the keeper loses costs a repetition, never an event.
                    let _ = self.parts.cursors.tell(Advance(cursor));
                }
                Effect::Detached(_) => {
                    let _ = self.parts.cursors.tell(Flush);
                }
                Effect::Relay(from, signal) => self.relay(from, signal),
                Effect::Present(devices) => self.tell_present(devices),
                Effect::Player(ask) => self.player_asked(*ask, cx),
                Effect::SignalDropped(_) => {
                    self.parts.metrics.signals_unread.inc();
                }
            }
        }
        if events > 0 {
            self.parts.metrics.delivered(origin, events, bytes);
        }
        self.parts.attached.owed(&self.owed, self.core.owes_since());
        self.arm(cx);
        self.look_for_rest(cx);
        events
    }

    /// Counts a frame that is no event.
    fn count_aside(&self, text: &str) {
        let metrics = &self.parts.metrics;
        if ServerFrame::is_signal(text) {
            metrics.signals_delivered.inc();
        } else if let Some(reason) = ServerFrame::resync_reason(text) {
            metrics.resync(reason);
        } else if ServerFrame::is_rate_limited(text) {
            // A session says so of signals only.
            metrics.signals_limited.inc();
        }
    }

    /// Tells the core how much each connection has not read yet, before it decides what may wait.
    pub(super) fn note_unread(&mut self) {
        for (conn, link) in self.links.iter() {
            self.core.unread(*conn, link.outlet.unread());
        }
    }

    fn push(&self, conn: ConnId, what: ToDevice) {
        if let Some(link) = self.links.get(&conn) {
            link.outlet.push(what);
        }
    }

    fn close(&mut self, conn: ConnId, code: CloseCode) {
        if let Some(link) = self.links.remove(&conn) {
            link.outlet.push(ToDevice::Close(code));
            self.publish_attached();
            self.note_left(link.caller.device, link.attach_epoch);
        }
    }

    fn load(&mut self, conn: ConnId, load: Load, cx: &mut Cx<'_, Self>) {
        let (store, user) = (self.parts.store.clone(), self.user);
        let asked_at = cx.world.instant();
        let deadline = asked_at + Self::READ_BUDGET;
        cx.spawn(
            async move { store.log_page(deadline, user, load.after, load.limit).await },
            move |session, page, cx| session.loaded(conn, load, asked_at, page, cx),
        );
    }

    fn loaded(
        &mut self,
        conn: ConnId,
        load: Load,
        asked_at: Instant,
        page: Result<Option<LogPage>, StoreError>,
        cx: &mut Cx<'_, Self>,
    ) {
        let LogPage { log, events } = match (page, self.core.log()) {
            (Ok(Some(page)), _) => page,
            (Ok(None), _) => {
                // The user is gone, as after a restore; the token will not be good for more either.
                let effects = self.core.evict(conn, CloseCode::TokenOver);
                return self.apply(effects, cx);
            }
            // What is missing above the floor is a hole like what is missing below it: a reload heals it.
            (Err(StoreError::Corrupt(_)), Some(log)) => LogPage {
                log,
                events: Vec::new(),
            },
            (Err(_), _) => {
                self.core.load_failed(conn);
                return self.retry_later(cx);
            }
        };
        let events: Vec<_> = events
            .into_iter()
            .map(|e| WireEvent::new(e, log.epoch))
            .collect();
        let (now, seen) = (cx.world.instant(), Seen { log, asked_at });
        let effects = self.core.loaded(now, conn, load, seen, &events);
        self.apply(effects, cx);
    }

    fn retry_later(&mut self, cx: &mut Cx<'_, Self>) {
        if !std::mem::replace(&mut self.retrying, true) {
            cx.after(Self::RETRY, |session, cx| {
                session.retrying = false;
                let effects = session.core.retry();
                session.apply(effects, cx);
            });
        }
    }

    /// Reads the head as the core asked: one at a time, and judged as such.
    fn read_head(&self, cx: &mut Cx<'_, Self>) {
        self.with_head(cx, |core, now, seen| match seen {
            Some(seen) => core.head_read(now, seen),
            None => core.head_failed(now),
        });
    }

    /// Reads the head to find what no hint told.
    pub(super) fn look_at_head(&self, cx: &mut Cx<'_, Self>) {
        self.with_head(cx, |core, now, seen| {
            // A failed look is made good by the head watcher's next.
            seen.map(|seen| core.head_seen(now, seen))
                .unwrap_or_default()
        });
    }

    fn with_head(
        &self,
        cx: &mut Cx<'_, Self>,
        then: fn(&mut SessionCore, Instant, Option<Seen>) -> Vec<Effect>,
    ) {
        let (store, user) = (self.parts.store.clone(), self.user);
        let asked_at = cx.world.instant();
        let deadline = asked_at + Self::READ_BUDGET;
        cx.spawn(
            async move { store.log_heads(deadline, &[user]).await },
            move |session, heads, cx| {
                let log = heads
                    .ok()
                    .and_then(|heads| heads.first().map(|(_, log)| *log));
                let seen = log.map(|log| Seen { log, asked_at });
                let effects = then(&mut session.core, cx.world.instant(), seen);
                session.apply(effects, cx);
            },
        );
    }

    /// Sets the timer for the core's next tick, if it is due earlier than the one that is set.
    fn arm(&mut self, cx: &mut Cx<'_, Self>) {
        let Some(due) = self.core.next_tick() else {
            if let Some((_, timer)) = self.tick.take() {
                cx.cancel(timer);
            }
            return;
        };
        if let Some((set_for, timer)) = self.tick {
            // Deadlines mostly move away with each frame: an early tick finds nothing and sets anew.
            if set_for <= due {
                return;
            }
            cx.cancel(timer);
        }
        let delay = due.saturating_duration_since(cx.world.instant());
        let timer = cx.after(delay, move |session, cx| session.ticked(due, cx));
        self.tick = Some((due, timer));
    }

    fn ticked(&mut self, due: Instant, cx: &mut Cx<'_, Self>) {
        self.tick = None;
        let now = cx.world.instant();
        let late = now.saturating_duration_since(due);
        let late = if late >= Self::LATE {
            late
        } else {
            Duration::ZERO
        };
        self.note_unread();
        let effects = self.core.tick(now, late);
        self.apply(effects, cx);
    }
}
