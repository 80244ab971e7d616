//! What connections, and those who watch over them, tell a session.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    Attaching, Link, UserSession,
    fifo::Wanted,
    messages::{
        Attach, AttachHinted, AttachRefused, AttachedTo, Detached, Drain, FellBack, Frame,
        HeadHinted, HeadSeen, Heard, Listening, Recheck, Resumed, ToDevice,
    },
};
use crate::{
    actors::{
        Failure,
        kernel::{Cx, Reply, Serve},
    },
    domain::{
        few::Few,
        identity::{Caller, Refusal},
        ids::{ConnId, DeviceId},
        sync::{Attachment, ClientFrame, CloseCode, LogHead, Seen},
    },
    store::{AttachState, StoreError, Superseded},
};

impl UserSession {
    fn attach(
        &mut self,
        it: Attach,
        asked_at: Instant,
        state: Result<Option<AttachState>, StoreError>,
        cx: &mut Cx<'_, Self>,
    ) -> Result<AttachedTo, AttachRefused> {
        let meanwhile = self.attaching.remove(&it.conn);
        let refused = meanwhile.as_ref().and_then(|a| a.refused.get().copied());
        let state = match state {
            Ok(Some(state)) => state,
            Ok(None) => return Err(AttachRefused(CloseCode::DeviceRemoved)),
            Err(_) => return Err(AttachRefused(refused.unwrap_or(CloseCode::TryAgainLater))),
        };
        let device = it.caller.device;
        let is_new = it.resumed.is_none();
        let attach_epoch = if let Some(Resumed { attach_epoch, .. }) = it.resumed {
            attach_epoch
        } else {
            if let Some(hints) = &self.parts.hints {
                hints.attached(self.user, state.log.epoch, device, state.attach_epoch);
            }
            state.attach_epoch
        };
        let no_longer = refused.or_else(|| {
            // It was on its way when the others were told.
            self.leaving.then_some(CloseCode::GoingAway)
        });
        if let Some(code) = no_longer {
            if is_new {
                self.note_left(device, attach_epoch);
            }
            return Err(AttachRefused(code));
        }
        let hinted = |a: &Attaching| a.hinted.get(&state.log.epoch).copied();
        let newest = meanwhile
            .map_or(0, |a| a.seen_epoch.max(hinted(&a).unwrap_or_default()))
            .max(state.attach_epoch);
        if newest > attach_epoch {
            return Err(AttachRefused(CloseCode::Replaced));
        }
        if newest < attach_epoch {
            // The database fell back to an older state: nothing that is held counts any more.
            return Err(AttachRefused(CloseCode::TryAgainLater));
        }
        let attachment = Attachment {
            conn: it.conn,
            device,
            device_id: it.caller.device_id.clone(),
            acked_seq: state.acked_seq,
            attach_epoch,
            since: it.since,
            resumed: it.resumed.map(|resumed| resumed.epoch),
            resyncing: it.resumed.and_then(|resumed| resumed.resyncing),
            token_until: token_until(&it.caller, cx),
        };
        self.links.insert(
            it.conn,
            Link {
                caller: it.caller,
                attach_epoch,
                outlet: it.outlet,
            },
        );
        self.publish_attached();
        // Looked at only now: who revokes later finds the device among the attached ones.
        let link = self.links.get(&it.conn);
        if let Some(code) = link.and_then(|link| self.refusal(&link.caller)) {
            self.links.remove(&it.conn);
            self.publish_attached();
            self.note_left(device, attach_epoch);
            return Err(AttachRefused(code));
        }
        self.note_unread();
        let log = state.log;
        let seen = Seen { log, asked_at };
        let effects = self.core.attach(cx.world.instant(), attachment, seen);
        self.apply(effects, cx);
        if self.parts.draining.load(Ordering::Relaxed) {
            // It was on its way when the others were told.
            self.say_goodbye(cx);
        }
        // What its client was told, which what was read for it may contradict.
        let told = self.core.log().unwrap_or(state.log);
        Ok(AttachedTo {
            life: cx.life,
            epoch: told.epoch,
            attach_epoch,
        })
    }

    fn refusal(&self, caller: &Caller) -> Option<CloseCode> {
        self.parts
            .revocations
            .refusal(caller)
            .map(|refusal| match refusal {
                Refusal::DeviceRemoved => CloseCode::DeviceRemoved,
                Refusal::TokenOver => CloseCode::TokenOver,
            })
    }

    /// Lets go of connections whose tokens were revoked.
    pub(super) fn recheck(&mut self, cx: &mut Cx<'_, Self>) {
        let refused: Vec<(ConnId, CloseCode)> = self
            .links
            .iter()
            .filter_map(|(conn, link)| Some((*conn, self.refusal(&link.caller)?)))
            .collect();
        for (conn, code) in refused {
            let effects = self.core.evict(conn, code);
            self.apply(effects, cx);
        }
    }

    /// Lets go of every connection, each with a time to come back at.
    pub(super) fn say_goodbye(&mut self, cx: &mut Cx<'_, Self>) {
        let world = cx.world.clone();
        let spread = std::time::Duration::from_secs(5);
        let effects = self.core.evict_all(|| world.jitter(spread));
        self.apply(effects, cx);
    }

    /// Takes a renewed token of the same device, or says why not.
    fn renew(
        &mut self,
        conn: ConnId,
        token: &str,
        cx: &mut Cx<'_, Self>,
    ) -> Result<(), &'static str> {
        let link = self
            .links
            .get_mut(&conn)
            .ok_or("the connection is not attached")?;
        let caller = self
            .parts
            .secrets
            .check(token, cx.world.now())
            .map_err(|_| "the access token is not valid or has expired")?;
        if (caller.user, caller.device) != (link.caller.user, link.caller.device) {
            return Err("the access token belongs to another device");
        }
        if self.parts.revocations.refusal(&caller).is_some() {
            return Err("the access token was revoked");
        }
        if !self.parts.trust.holds(cx.world.instant()) {
            return Err(
                "whether the access token was revoked is not known now; send it again later",
            );
        }
        let until = token_until(&caller, cx);
        link.outlet
            .push(ToDevice::Renewed(Box::new(caller.clone())));
        link.caller = caller;
        self.core.renewed(cx.world.instant(), conn, until);
        Ok(())
    }
}

/// The end of a token's life on the monotonic clock.
fn token_until(caller: &Caller, cx: &Cx<'_, UserSession>) -> std::time::Instant {
    let left = (caller.expires_at - cx.world.now())
        .to_std()
        .unwrap_or_default();
    cx.world.instant() + left
}

impl Serve<Attach> for UserSession {
    fn serve(
        &mut self,
        it: Attach,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<AttachedTo, AttachRefused>> {
        let (store, user, deadline) = (self.parts.store.clone(), self.user, self.deadline(cx));
        let device = it.caller.device;
        let is_here = |d: DeviceId| d == device;
        let held = it.resumed.map(|resumed| resumed.attach_epoch);
        // A connection that is new is newer than any that was there before.
        let is_newer = |a: &Attaching| a.held.is_none_or(|other| Some(other) > held);
        if held.is_some()
            && (self.links.values().any(|l| is_here(l.caller.device))
                || self
                    .attaching
                    .values()
                    .any(|a| is_here(a.device) && is_newer(a)))
        {
            // The device came with a newer connection while the session was being made anew.
            return Reply::Now(Err(AttachRefused(CloseCode::Replaced)));
        }
        // The connection that came last is the one that stays.
        for older in self.attaching.values_mut().filter(|a| is_here(a.device)) {
            let _ = older.refused.set(CloseCode::Replaced);
        }
        let refused = Arc::default();
        let attaching = Attaching {
            device,
            held,
            refused: Arc::clone(&refused),
            seen_epoch: 0,
            hinted: Few::new(),
        };
        self.attaching.insert(it.conn, attaching);
        // Writes may end in any order: the next one begins when this one has.
        let (what, asked) = (cx.message, self.last_used(cx));
        let turn = held
            .is_none()
            .then(|| self.attach_turns.turn(Wanted { what, asked }));
        let (world, node) = (cx.world.clone(), self.parts.nodes.own());
        let attaching = async move {
            if let Some(turn) = turn {
                // The sender is dropped only with the session, and this future with it.
                let _ = turn.await;
            }
            let asked_at = world.instant();
            // One that was refused while it waited writes nothing and holds nobody up.
            if asked_at >= deadline || refused.get().is_some() {
                return (asked_at, Err(StoreError::Deadline));
            }
            let state = store.device_attach(deadline, user, device, held, node);
            let state = state.await;
            (asked_at, state)
        };
        Reply::later(
            attaching,
            move |session: &mut Self, (asked_at, state), cx| {
                if held.is_none() {
                    let now = cx.world.instant();
                    let had = session.attach_turns.done(now);
                    let failure = state.as_ref().err().copied().map(Failure::from);
                    session.slow.note(had, failure, now, cx);
                }
                session.attach(it, asked_at, state, cx)
            },
        )
    }
}

impl Serve<Frame> for UserSession {
    fn serve(&mut self, it: Frame, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let Frame { conn, frame } = it;
        self.note_unread();
        if let ClientFrame::Auth(token, reference) = frame {
            if let Err(detail) = self.renew(conn, &token.0, cx) {
                let now = cx.world.instant();
                let effects = self.core.token_refused(now, conn, detail, reference);
                self.apply(effects, cx);
            }
        } else {
            let effects = self.core.frame(cx.world.instant(), conn, frame);
            self.apply(effects, cx);
        }
        Reply::Now(())
    }
}

impl Serve<Heard> for UserSession {
    fn serve(&mut self, it: Heard, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.core.heard(cx.world.instant(), it.0);
        Reply::Now(())
    }
}

impl Serve<Detached> for UserSession {
    fn serve(&mut self, it: Detached, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if let Some(attaching) = self.attaching.get_mut(&it.0) {
            let _ = attaching.refused.set(CloseCode::Normal);
        }
        if let Some(link) = self.links.remove(&it.0) {
            self.note_left(link.caller.device, link.attach_epoch);
        }
        self.note_unread();
        self.publish_attached();
        self.last_used = Some(cx.world.instant());
        let effects = self.core.detached(it.0);
        self.apply(effects, cx);
        Reply::Now(())
    }
}

impl Serve<HeadSeen> for UserSession {
    fn serve(&mut self, it: HeadSeen, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if !self.links.is_empty() {
            let now = cx.world.instant();
            let effects = self.core.head_seen(now, it.0);
            self.apply(effects, cx);
        }
        Reply::Now(())
    }
}

impl Serve<HeadHinted> for UserSession {
    fn serve(&mut self, it: HeadHinted, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let HeadHinted(Seen { log, asked_at }) = it;
        if let Some(known) = self.core.log().filter(|known| known.epoch == log.epoch) {
            let floor_seq = known.floor_seq;
            let log = LogHead { floor_seq, ..log };
            return self.serve(HeadSeen(Seen { log, asked_at }), cx);
        }
        self.look_at_head(cx);
        Reply::Now(())
    }
}

impl Serve<Superseded> for UserSession {
    fn serve(&mut self, it: Superseded, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let is_here = |device: DeviceId| device == it.device;
        for attaching in self.attaching.values_mut().filter(|a| is_here(a.device)) {
            attaching.seen_epoch = it.attach_epoch.max(attaching.seen_epoch);
        }
        let effects = self.core.superseded(it.device, it.attach_epoch);
        self.apply(effects, cx);
        Reply::Now(())
    }
}
impl Serve<FellBack> for UserSession {
    fn serve(&mut self, it: FellBack, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let effects = self.core.unknown(it.device, it.held);
        self.apply(effects, cx);
        Reply::Now(())
    }
}

impl Serve<AttachHinted> for UserSession {
    fn serve(&mut self, it: AttachHinted, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let AttachHinted(epoch, superseded) = it;
        let is_here = |device: DeviceId| device == superseded.device;
        for attaching in self.attaching.values_mut().filter(|a| is_here(a.device)) {
            // What is being read tells which of them is of this log.
            let seen = attaching.hinted.get(&epoch).copied().unwrap_or_default();
            let newest = superseded.attach_epoch.max(seen);
            attaching.hinted.insert(epoch, newest);
        }
        if self.core.log().is_some_and(|known| known.epoch == epoch) {
            let Superseded {
                device,
                attach_epoch,
            } = superseded;
            let effects = self.core.superseded(device, attach_epoch);
            self.apply(effects, cx);
        }
        Reply::Now(())
    }
}

impl Serve<Listening> for UserSession {
    fn serve(&mut self, _: Listening, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        if !self.links.is_empty() {
            self.look_at_head(cx);
            self.ask_who_is_elsewhere();
        }
        Reply::Now(())
    }
}

impl Serve<Recheck> for UserSession {
    fn serve(&mut self, _: Recheck, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.recheck(cx);
        Reply::Now(())
    }
}

impl Serve<Drain> for UserSession {
    fn serve(&mut self, _: Drain, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.say_goodbye(cx);
        Reply::Now(())
    }
}
