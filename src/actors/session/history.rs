//! The history of plays: what a session is asked about it, and what it does.
//!
//! Handlers ask. The rules are in `domain/library/history.rs`, and the store decides by them.

use chrono::{DateTime, Utc};

use super::{UserSession, commands::Answer, messages::Done};
use crate::{
    actors::{
        Failure,
        kernel::{Cx, Reply, Serve, asks},
    },
    domain::{
        idempotency::IdempotencyKey,
        identity::ClientDeviceId,
        ids::PlayId,
        library::{HistoryPlace, NewPlay, Play, PlayResult},
    },
    store::{HistoryAdd, HistoryClear, HistoryQuery, PlayRemoved},
};

/// Take plays into the history. Answers for each, in the same order, what became of it.
#[derive(Debug)]
pub struct AddPlays {
    /// As they were sent.
    pub plays: Vec<NewPlay>,
    /// The device whose command it is.
    pub origin: ClientDeviceId,
    /// What names the call, if it may be repeated.
    pub key: Option<IdempotencyKey>,
}

/// Take a play out of the history. Answers whether it ever was in it, as far as is known.
#[derive(Debug)]
pub struct RemovePlay {
    /// Which.
    pub id: PlayId,
    /// The device whose command it is.
    pub origin: ClientDeviceId,
}

/// Empty the history. Answers up to when plays are ignored from now on.
#[derive(Debug)]
pub struct ClearHistory {
    /// The device whose command it is.
    pub origin: ClientDeviceId,
    /// What names the call, if it may be repeated.
    pub key: Option<IdempotencyKey>,
}

/// A page of the history, newest first.
#[derive(Debug)]
pub struct ListHistory {
    /// At most so many.
    pub limit: u32,
    /// Only plays before this place.
    pub before: Option<HistoryPlace>,
}

asks! {
    Command AddPlays -> Result<Done<Vec<PlayResult>>, Failure>;
    Command RemovePlay -> Result<Done<bool>, Failure>;
    Command ClearHistory -> Result<Done<DateTime<Utc>>, Failure>;
    Read ListHistory -> Result<Vec<Play>, Failure>;
}

impl Serve<AddPlays> for UserSession {
    fn serve(&mut self, it: AddPlays, cx: &mut Cx<'_, Self>) -> Answer<Done<Vec<PlayResult>>> {
        let AddPlays { plays, origin, key } = it;
        let issued = match self.issued(origin, cx) {
            Ok(issued) => issued,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let add = HistoryAdd {
            issued,
            key,
            plays,
            keep: self.parts.max_plays,
        };
        let asked_at = cx.world.instant();
        self.in_turn(
            cx,
            move |store, deadline| async move { store.history_add(deadline, add).await },
            move |session, once, cx| session.announce_once(asked_at, once, cx),
        )
    }
}

impl Serve<RemovePlay> for UserSession {
    fn serve(&mut self, it: RemovePlay, cx: &mut Cx<'_, Self>) -> Answer<Done<bool>> {
        let RemovePlay { id, origin } = it;
        let issued = match self.issued(origin, cx) {
            Ok(issued) => issued,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let asked_at = cx.world.instant();
        self.in_turn(
            cx,
            move |store, deadline| async move { store.history_remove(deadline, issued, id).await },
            move |session, written, cx| {
                let done = session.announce(asked_at, written, cx);
                Ok(done.map(|removed| removed == PlayRemoved::Gone))
            },
        )
    }
}

impl Serve<ClearHistory> for UserSession {
    fn serve(&mut self, it: ClearHistory, cx: &mut Cx<'_, Self>) -> Answer<Done<DateTime<Utc>>> {
        let ClearHistory { origin, key } = it;
        let issued = match self.issued(origin, cx) {
            Ok(issued) => issued,
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let clear = HistoryClear { issued, key };
        let asked_at = cx.world.instant();
        self.in_turn(
            cx,
            move |store, deadline| async move { store.history_clear(deadline, clear).await },
            move |session, once, cx| session.announce_once(asked_at, once, cx),
        )
    }
}

impl Serve<ListHistory> for UserSession {
    fn serve(&mut self, it: ListHistory, cx: &mut Cx<'_, Self>) -> Answer<Vec<Play>> {
        let (store, deadline) = (self.parts.store.clone(), self.deadline(cx));
        let query = HistoryQuery {
            user: self.user,
            limit: it.limit,
            before: it.before,
        };
        Self::read(async move { store.history_list(deadline, query).await })
    }
}
