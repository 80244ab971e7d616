//! The player: carries out what `Player` in the domain rules about the signals of devices.
//!
//! Which device is active is the log's to say. A copy is held while the log's head is the one at
//! which it was read; when anything moved the head elsewhere, the next signal reads it again. What
//! plays is stored from time to time, and at once when it is another song or a pause.

use std::time::{Duration, Instant};

use super::{
    UserSession,
    messages::{Done, GetPlayer, TransferPlayer},
};
use crate::{
    actors::{
        Failure,
        kernel::{Cx, Reply, Serve},
    },
    domain::{
        identity::ClientDeviceId,
        ids::ConnId,
        library::{Player, PlayerRefusal, PlayerSignal, Ruling},
        sync::{FrameErrorCode, LogHead, Pace, PlayerAsk, Ref, Signal, SignalTo},
    },
    store::{ActivatePlayer, PlayerActivation, StoreError, Written},
};

impl UserSession {
    /// How long a signal's work in the store may take.
    const PLAYER_BUDGET: Duration = Duration::from_secs(5);
    /// While a song goes on, its place is stored so often.
    const SAVE_EVERY: Duration = Duration::from_secs(5);
    /// Handovers by signals a second.
    const TRANSFERS: u32 = 2;
    /// Signals that may wait for the player to be read.
    const MAX_WAITING: usize = 64;

    /// A device says something of the player.
    pub(super) fn player_asked(&mut self, ask: PlayerAsk, cx: &mut Cx<'_, Self>) {
        let log = self.core.log();
        let desk = self.player.get_or_insert_default();
        if desk.is_fresh(log) && !desk.reading {
            return self.player_ruled(ask, cx);
        }
        if desk.waiting.len() >= Self::MAX_WAITING {
            let code = FrameErrorCode::RateLimited;
            return self.player_refused(&ask, code, "too many signals wait", cx);
        }
        desk.waiting.push(ask);
        if std::mem::replace(&mut desk.reading, true) {
            return;
        }
        let (store, user) = (self.parts.store.clone(), self.user);
        let asked_at = cx.world.instant();
        let deadline = asked_at + Self::PLAYER_BUDGET;
        cx.spawn(
            async move { store.player_fetch(deadline, user).await },
            move |session, read, cx| session.player_read(asked_at, read, cx),
        );
    }

    fn player_read(
        &mut self,
        asked_at: Instant,
        read: Result<Option<(LogHead, Player)>, StoreError>,
        cx: &mut Cx<'_, Self>,
    ) {
        let Some(desk) = self.player.as_mut() else {
            return;
        };
        desk.reading = false;
        let waiting = std::mem::take(&mut desk.waiting);
        if let Ok(Some((at, player))) = read {
            desk.read(player, at, asked_at, cx.world);
            for ask in waiting {
                self.player_ruled(ask, cx);
            }
        } else {
            for ask in waiting {
                let code = FrameErrorCode::StoreUnavailable;
                self.player_refused(&ask, code, "the player cannot be read now", cx);
            }
        }
    }

    fn player_ruled(&mut self, ask: PlayerAsk, cx: &mut Cx<'_, Self>) {
        let Some(known) = self.player.as_mut().and_then(|desk| desk.known.as_mut()) else {
            return;
        };
        match known.player.judge(&ask.from, ask.meaning.clone()) {
            Ok(Ruling::Pass(to)) => self.player_passed(ask, to, cx),
            Ok(Ruling::Tell(playing)) => {
                let is_other = known.player.report(playing, cx.world.now());
                self.player_passed(ask, SignalTo::All, cx);
                self.player_unsaved(is_other, cx);
            }
            Ok(Ruling::Activate(device)) => {
                if self.may_transfer(cx.world.instant()) {
                    self.player_transferred(ask, device, cx);
                } else {
                    let detail = format!("at most {} handovers a second", Self::TRANSFERS);
                    self.player_refused(&ask, FrameErrorCode::RateLimited, &detail, cx);
                }
            }
            Err(refusal) => {
                let code = match refusal {
                    PlayerRefusal::NotActive => FrameErrorCode::NotActivePlayer,
                    PlayerRefusal::NoneActive => FrameErrorCode::NoActivePlayer,
                };
                self.player_refused(&ask, code, &refusal.to_string(), cx);
            }
        }
    }

    fn may_transfer(&mut self, now: Instant) -> bool {
        let desk = self.player.get_or_insert_default();
        let pace = desk.transfers.get_or_insert_with(|| Pace::new(now));
        pace.take(now, Self::TRANSFERS)
    }

    fn player_passed(&mut self, ask: PlayerAsk, to: SignalTo, cx: &mut Cx<'_, Self>) {
        self.note_unread();
        let signal = Signal { to, ..ask.signal };
        let effects = self.core.pass(ask.conn, signal, ask.reference);
        self.apply(effects, cx);
    }

    fn player_refused(
        &mut self,
        ask: &PlayerAsk,
        code: FrameErrorCode,
        detail: &str,
        cx: &mut Cx<'_, Self>,
    ) {
        self.player_answered(ask.conn, ask.reference.clone(), code, detail, cx);
    }

    fn player_answered(
        &mut self,
        conn: ConnId,
        reference: Option<Ref>,
        code: FrameErrorCode,
        detail: &str,
        cx: &mut Cx<'_, Self>,
    ) {
        self.note_unread();
        let effects = self.core.refuse(conn, code, detail, reference);
        self.apply(effects, cx);
    }

    /// What plays is newer than what is stored: stores it, now or when it is due.
    fn player_unsaved(&mut self, at_once: bool, cx: &mut Cx<'_, Self>) {
        let now = cx.world.instant();
        let Some(known) = self.player.as_mut().and_then(|desk| desk.known.as_mut()) else {
            return;
        };
        let since = |saved| now.saturating_duration_since(saved);
        let due = known.saved.map_or(Duration::ZERO, |saved| {
            Self::SAVE_EVERY.saturating_sub(since(saved))
        });
        if at_once || due.is_zero() {
            self.save_player(cx);
        } else if known.save.is_none() {
            known.save = Some(cx.after(due, |session, cx| {
                if let Some(known) = session.player.as_mut().and_then(|it| it.known.as_mut()) {
                    known.save = None;
                }
                session.save_player(cx);
            }));
        }
    }

    fn save_player(&mut self, cx: &mut Cx<'_, Self>) {
        let Some(known) = self.player.as_mut().and_then(|desk| desk.known.as_mut()) else {
            return;
        };
        if let Some(timer) = known.save.take() {
            cx.cancel(timer);
        }
        known.saved = Some(cx.world.instant());
        let Some(state) = known.player.state.clone() else {
            return;
        };
        let (store, user, version) = (self.parts.store.clone(), self.user, known.player.version);
        let (deadline, now) = (cx.world.instant() + Self::PLAYER_BUDGET, cx.world.now());
        cx.spawn(
            async move {
                store
                    .player_report(deadline, user, version, state, now)
                    .await
            },
            // One that is lost is made good by the next.
            |_, _, _| (),
        );
    }

    /// A device of the user says at another node what plays.
    pub(super) fn player_heard(
        &mut self,
        from: &ClientDeviceId,
        signal: &Signal,
        cx: &Cx<'_, Self>,
    ) {
        let known = self.player.as_mut().and_then(|desk| desk.known.as_mut());
        if let Some(known) = known
            && known.player.active_device_id.as_ref() == Some(from)
            && let Some(Ok(PlayerSignal::State(playing))) = PlayerSignal::parse(signal)
        {
            // That node stores it.
            known.player.report(playing, cx.world.now());
        }
    }

    fn transfer(
        &self,
        device: Option<ClientDeviceId>,
        origin: ClientDeviceId,
        cx: &Cx<'_, Self>,
    ) -> Result<ActivatePlayer, Failure> {
        let known = self.player.as_ref().and_then(|desk| desk.known.as_ref());
        Ok(ActivatePlayer {
            issued: self.issued(Some(origin), cx)?,
            device,
            latest: known.and_then(|known| known.player.state.clone()),
        })
    }

    fn player_transferred(
        &mut self,
        ask: PlayerAsk,
        device: Option<ClientDeviceId>,
        cx: &mut Cx<'_, Self>,
    ) {
        let asked_at = cx.world.instant();
        let deadline = asked_at + Self::PLAYER_BUDGET;
        let PlayerAsk {
            conn,
            from,
            reference,
            ..
        } = ask;
        let Ok(command) = self.transfer(device, from, cx) else {
            let code = FrameErrorCode::StoreUnavailable;
            return self.player_answered(conn, reference, code, "try again", cx);
        };
        let work = self.on_turn(
            "PlayerTransfer",
            deadline,
            cx,
            |store, deadline| async move { store.player_activate(deadline, command).await },
        );
        cx.spawn(work, move |session, result, cx| {
            let refused = match &result {
                Ok(Written {
                    value: PlayerActivation::Active(_),
                    ..
                }) => None,
                Ok(_) => Some((
                    FrameErrorCode::DeviceNotFound,
                    "data.device_id: the user has no such device",
                )),
                Err(_) => Some((FrameErrorCode::StoreUnavailable, "try again")),
            };
            let failure = result.as_ref().err().map(|e| Failure::from(*e));
            if let Ok(written) = result {
                session.player_activated(asked_at, written, cx);
            }
            session.turn_over(failure, cx);
            if let Some((code, detail)) = refused {
                session.player_answered(conn, reference, code, detail, cx);
            }
        });
    }

    fn player_activated(
        &mut self,
        asked_at: Instant,
        written: Written<PlayerActivation>,
        cx: &mut Cx<'_, Self>,
    ) -> Done<PlayerActivation> {
        let log = written.log;
        let done = self.announce(asked_at, written, cx);
        if let PlayerActivation::Active(player) = &done.value {
            let desk = self.player.get_or_insert_default();
            desk.learn(player.clone(), log, cx.world);
        }
        done
    }
}

impl Serve<GetPlayer> for UserSession {
    fn serve(
        &mut self,
        _: GetPlayer,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<Option<Player>, Failure>> {
        let (store, user, deadline) = (self.parts.store.clone(), self.user, self.deadline(cx));
        let asked_at = cx.world.instant();
        Reply::later(
            async move { store.player_fetch(deadline, user).await },
            move |session: &mut Self, read, cx| {
                let Some((at, player)) = read.map_err(Failure::from)? else {
                    return Ok(None);
                };
                let desk = session.player.get_or_insert_default();
                desk.read(player, at, asked_at, cx.world);
                Ok(desk.known.as_ref().map(|known| known.player.clone()))
            },
        )
    }
}

impl Serve<TransferPlayer> for UserSession {
    fn serve(
        &mut self,
        it: TransferPlayer,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<Done<PlayerActivation>, Failure>> {
        let command = match self.transfer(it.device, it.origin, cx) {
            Ok(command) => command,
            Err(e) => return Reply::Now(Err(e)),
        };
        let asked_at = cx.world.instant();
        self.in_turn(
            cx,
            move |store, deadline| async move { store.player_activate(deadline, command).await },
            move |session, written, cx| Ok(session.player_activated(asked_at, written, cx)),
        )
    }
}
