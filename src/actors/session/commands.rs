//! Commands: what changes something. They take turns; their events go to the attached devices.

use std::{future::Future, sync::Arc, time::Instant};

use chrono::TimeDelta;

use super::{
    UserSession,
    fifo::Wanted,
    messages::{
        AckChanges, AckReply, Done, IssueTicket, PutFavorite, RedeemTicket, RemoveDevice,
        RemoveFavorite, RestoreFavorite, Rotate, RotateReply,
    },
};
use crate::{
    actors::{
        Failure,
        identity::open,
        janitor::Trim,
        kernel::{Cx, Deadline, Reply, Serve},
    },
    domain::{
        clock::EntropyError,
        identity::{Caller, ClientDeviceId, Revocation, Secrets, Ticket},
        ids::{DeviceId, EventId, FavoriteId},
        library::{Favorite, FavoriteKey},
        sync::{Event, Seen, WireEvent},
    },
    store::{
        CursorAck, FavoriteCommand, Issued, NewTicket, Once, RotateOutcome, Store, StoreError,
        Written,
    },
    telemetry::metrics::Origin,
};

pub(super) type Answer<T> = Reply<UserSession, Result<T, Failure>>;

impl UserSession {
    /// Runs `work` when it is its turn. Whoever asks calls [`Self::turn_over`] with what came of it.
    pub(super) fn on_turn<T, F, W>(
        &mut self,
        what: &'static str,
        deadline: Deadline,
        cx: &Cx<'_, Self>,
        work: W,
    ) -> impl Future<Output = Result<T, StoreError>> + use<T, F, W>
    where
        W: FnOnce(Store, Deadline) -> F,
        F: Future<Output = Result<T, StoreError>>,
    {
        let asked = self.last_used(cx);
        let turn = self.turns.turn(Wanted { what, asked });
        let (store, world) = (self.parts.store.clone(), cx.world.clone());
        async move {
            // The sender is dropped only with the session, and this future with it.
            let _ = turn.await;
            if world.instant() >= deadline {
                return Err(StoreError::Deadline);
            }
            work(store, deadline).await
        }
    }

    /// The next one has the turn.
    pub(super) fn turn_over(&mut self, failure: Option<Failure>, cx: &mut Cx<'_, Self>) {
        let now = cx.world.instant();
        let had = self.turns.done(now);
        self.slow.note(had, failure, now, cx);
    }

    /// Runs `work` when it is its turn, then `then` before the next one's.
    pub(super) fn in_turn<T: 'static, R: 'static, F>(
        &mut self,
        cx: &mut Cx<'_, Self>,
        work: impl FnOnce(Store, Deadline) -> F + 'static,
        then: impl FnOnce(&mut Self, T, &mut Cx<'_, Self>) -> Result<R, Failure> + 'static,
    ) -> Answer<R>
    where
        F: Future<Output = Result<T, StoreError>> + 'static,
    {
        let deadline = self.deadline(cx);
        let waiting = self.on_turn(cx.message, deadline, cx, work);
        Reply::later(waiting, |session, result, cx| {
            let reply = result
                .map_err(Failure::from)
                .and_then(|v| then(session, v, cx));
            session.turn_over(reply.as_ref().err().copied(), cx);
            reply
        })
    }

    /// Sends the events of a stored change to the attached devices; its command came at `asked_at`.
    pub(super) fn announce<T>(
        &mut self,
        asked_at: Instant,
        written: Written<T>,
        cx: &mut Cx<'_, Self>,
    ) -> Done<T> {
        let Written {
            value,
            log,
            events,
            committed_at,
        } = written;
        let changes_player = |e: &Event| e.event_type.starts_with("player.");
        let appended = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let before = log.head_seq.saturating_sub(appended);
        if let Some(desk) = &mut self.player {
            let changed = events.iter().any(changes_player);
            desk.moved(before, log, changed, cx.world.instant());
        }
        if let Some(hints) = self.parts.hints.as_ref().filter(|_| !events.is_empty()) {
            hints.publish(self.user, log);
        }
        if self.parts.retention.is_overfull(&log) {
            // Told with each change until it is done; a tell that is lost is made good by the next.
            let _ = self.parts.janitor.tell(Trim(self.user));
        }
        // One that attaches may have read the head before this commit.
        if !self.links.is_empty() || !self.attaching.is_empty() {
            let events: Vec<_> = events
                .into_iter()
                .map(|e| WireEvent::new(e, log.epoch))
                .collect();
            let now = cx.world.instant();
            let effects = self.core.committed(now, Seen { log, asked_at }, &events);
            if self.apply_from(Origin::Live, effects, cx) > 0
                && let Some(committed_at) = committed_at
            {
                let delay = now.saturating_duration_since(committed_at);
                self.parts.metrics.pushed_after(delay);
            }
        }
        Done {
            value,
            seq: log.head_seq,
            epoch: log.epoch,
        }
    }

    /// The same for a command that may have run before; a key of something else is a failure.
    pub(super) fn announce_once<T>(
        &mut self,
        asked_at: Instant,
        once: Once<T>,
        cx: &mut Cx<'_, Self>,
    ) -> Result<Done<T>, Failure> {
        match once {
            Once::Ran(written) => Ok(self.announce(asked_at, written, cx)),
            Once::Reused => Err(Failure::KeyReused),
        }
    }

    fn favorite_command(
        &self,
        key: FavoriteKey,
        origin: ClientDeviceId,
        cx: &Cx<'_, Self>,
    ) -> Result<FavoriteCommand, EntropyError> {
        Ok(FavoriteCommand {
            user: self.user,
            key,
            origin: Some(origin),
            now: cx.world.now(),
            favorite_id: FavoriteId(cx.world.uuid()?),
            event_id: EventId(cx.world.uuid()?),
        })
    }

    /// Puts in force here what was stored, and has the other nodes look.
    fn revoked(&mut self, revocation: &Revocation, cx: &mut Cx<'_, Self>) {
        self.parts.revocations.add(revocation);
        if let Some(hints) = &self.parts.hints {
            hints.revoked();
        }
        self.recheck(cx);
    }

    fn removed(&mut self, device: DeviceId, cx: &mut Cx<'_, Self>) -> Answer<bool> {
        let life = Revocation::life(self.parts.access_life);
        let asked_at = cx.world.instant();
        let issued = match self.issued(None, cx) {
            Ok(issued) => issued,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        self.in_turn(
            cx,
            move |store, deadline| async move {
                store.device_remove(deadline, issued, device, life).await
            },
            move |session, removed, cx| {
                let Some(written) = removed else {
                    return Ok(false);
                };
                let revocation = session.announce(asked_at, written, cx).value;
                session.revoked(&revocation, cx);
                Ok(true)
            },
        )
    }

    /// What a command is issued with, now.
    pub(super) fn issued(
        &self,
        origin: impl Into<Option<ClientDeviceId>>,
        cx: &Cx<'_, Self>,
    ) -> Result<Issued, EntropyError> {
        Ok(Issued {
            user: self.user,
            origin: origin.into(),
            now: cx.world.now(),
            event_id: EventId(cx.world.uuid()?),
        })
    }
}

impl Serve<PutFavorite> for UserSession {
    fn serve(&mut self, it: PutFavorite, cx: &mut Cx<'_, Self>) -> Answer<Done<(Favorite, bool)>> {
        #[cfg(feature = "faults")]
        plant_fault(&it.key);
        let command = match self.favorite_command(it.key, it.origin, cx) {
            Ok(command) => command,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let asked_at = cx.world.instant();
        self.in_turn(
            cx,
            move |store, deadline| async move { store.favorite_put(deadline, command).await },
            move |session, written, cx| {
                Ok(session
                    .announce(asked_at, written, cx)
                    .map(|it| (it.favorite, it.added)))
            },
        )
    }
}

/// A fault that tests plant from outside.
#[cfg(feature = "faults")]
fn plant_fault(key: &FavoriteKey) {
    assert!(key.target_id.as_str() != "fault:panic", "planted fault");
}

impl Serve<RemoveFavorite> for UserSession {
    fn serve(&mut self, it: RemoveFavorite, cx: &mut Cx<'_, Self>) -> Answer<Done<bool>> {
        let command = match self.favorite_command(it.key, it.origin, cx) {
            Ok(command) => command,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let asked_at = cx.world.instant();
        self.in_turn(
            cx,
            move |store, deadline| async move { store.favorite_remove(deadline, command).await },
            move |session, written, cx| Ok(session.announce(asked_at, written, cx)),
        )
    }
}

impl Serve<RestoreFavorite> for UserSession {
    fn serve(
        &mut self,
        it: RestoreFavorite,
        cx: &mut Cx<'_, Self>,
    ) -> Answer<Done<Option<Favorite>>> {
        let command = match self.favorite_command(it.key, it.origin, cx) {
            Ok(command) => command,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let asked_at = cx.world.instant();
        self.in_turn(
            cx,
            move |store, deadline| async move { store.favorite_restore(deadline, command).await },
            move |session, written, cx| Ok(session.announce(asked_at, written, cx)),
        )
    }
}

impl Serve<AckChanges> for UserSession {
    fn serve(&mut self, it: AckChanges, cx: &mut Cx<'_, Self>) -> Answer<AckReply> {
        let (user, AckChanges { device, position }) = (self.user, it);
        self.parts.metrics.acks_by_http.inc();
        self.in_turn(
            cx,
            move |store, deadline| async move {
                store.cursor_ack(deadline, user, device, position).await
            },
            move |session, ack, cx| {
                Ok(match ack {
                    CursorAck::Acked(seq) => {
                        let effects =
                            session
                                .core
                                .acked_elsewhere(cx.world.instant(), device, position);
                        session.apply(effects, cx);
                        AckReply::Acked(seq)
                    }
                    CursorAck::BeyondHead(head) => AckReply::BeyondHead(head),
                    CursorAck::EpochChanged(epoch) => AckReply::EpochChanged(epoch),
                    CursorAck::NoDevice => AckReply::NoDevice,
                })
            },
        )
    }
}

impl Serve<RemoveDevice> for UserSession {
    fn serve(&mut self, it: RemoveDevice, cx: &mut Cx<'_, Self>) -> Answer<bool> {
        self.removed(it.0, cx)
    }
}

impl Serve<Rotate> for UserSession {
    fn serve(&mut self, it: Rotate, cx: &mut Cx<'_, Self>) -> Answer<RotateReply> {
        let life: TimeDelta = self.parts.access_life;
        let rotate = crate::store::Rotate {
            token: it.token,
            presented: it.presented,
            now: cx.world.now(),
            revocation_life: Revocation::life(life),
            secrets: Arc::clone(&self.parts.secrets),
        };
        self.in_turn(
            cx,
            move |store, deadline| async move { store.refresh_rotate(deadline, rotate).await },
            move |session, outcome, cx| match outcome {
                RotateOutcome::Fresh(opened) => {
                    let opened = open(&session.parts.secrets, *opened, life)?;
                    Ok(RotateReply::Opened(Box::new(opened)))
                }
                RotateOutcome::Reused(revocation) => {
                    session.revoked(&revocation, cx);
                    Ok(RotateReply::Reused)
                }
                RotateOutcome::Invalid => Ok(RotateReply::Invalid),
            },
        )
    }
}

impl Serve<IssueTicket> for UserSession {
    fn serve(&mut self, it: IssueTicket, cx: &mut Cx<'_, Self>) -> Answer<Option<String>> {
        let nonce = match cx.world.uuid() {
            Ok(nonce) => nonce,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let ticket = Ticket {
            user: self.user,
            nonce,
        }
        .seal(&self.parts.secrets);
        let row = NewTicket {
            ticket_hash: Secrets::sha256(&ticket),
            caller: it.0,
            expires_at: cx.world.now() + TimeDelta::seconds(Ticket::LIFE_SECS),
        };
        self.in_turn(
            cx,
            move |store, deadline| async move { store.ticket_put(deadline, row).await },
            |_, stored, _| Ok(stored.then_some(ticket)),
        )
    }
}

impl Serve<RedeemTicket> for UserSession {
    fn serve(&mut self, it: RedeemTicket, cx: &mut Cx<'_, Self>) -> Answer<Option<Caller>> {
        let (user, now) = (self.user, cx.world.now());
        self.in_turn(
            cx,
            move |store, deadline| async move {
                store
                    .ticket_redeem(deadline, &it.ticket_hash, user, now)
                    .await
            },
            |_, caller, _| Ok(caller),
        )
    }
}
