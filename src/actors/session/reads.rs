//! Reads: they overlap with one another and with commands.

use std::collections::BTreeSet;

use super::{
    UserSession,
    messages::{
        ChangesReply, GetSnapshot, ListDevices, ListFavorites, Presence, Profile, ReadChanges,
    },
};
use crate::{
    actors::{
        Failure,
        kernel::{Cx, Deadline, Reply, Serve},
    },
    domain::{
        identity::{ClientDeviceId, Device, User},
        ids::{NodeId, UserId},
        library::Favorite,
        sync::PresentDevice,
    },
    store::{FavoriteQuery, SnapshotOutcome, Store, StoreError},
};

type Answer<T> = Reply<UserSession, Result<T, Failure>>;

impl UserSession {
    /// The devices that are attached here, by this session's own account, and those that the store says
    /// are attached to other nodes.
    fn present_with(&self, stored: Vec<(ClientDeviceId, NodeId)>) -> Vec<PresentDevice> {
        let nodes = &self.parts.nodes;
        let elsewhere = stored
            .into_iter()
            .filter(|(_, node)| *node != nodes.own() && !nodes.is_gone(*node))
            .map(|(device_id, _)| device_id);
        let all: BTreeSet<_> = self
            .core
            .present_here()
            .into_iter()
            .chain(elsewhere)
            .collect();
        all.into_iter()
            .map(|device_id| PresentDevice { device_id })
            .collect()
    }

    pub(super) fn read<T: 'static>(
        work: impl Future<Output = Result<T, StoreError>> + 'static,
    ) -> Answer<T> {
        Reply::later(work, |_, result, _| result.map_err(Failure::from))
    }
}

impl Serve<Profile> for UserSession {
    fn serve(&mut self, _: Profile, cx: &mut Cx<'_, Self>) -> Answer<Option<User>> {
        let (store, user, deadline) = (self.parts.store.clone(), self.user, self.deadline(cx));
        Self::read(async move { store.user_fetch(deadline, user).await })
    }
}

impl Serve<ListDevices> for UserSession {
    fn serve(&mut self, _: ListDevices, cx: &mut Cx<'_, Self>) -> Answer<Vec<Device>> {
        let (store, user, deadline) = (self.parts.store.clone(), self.user, self.deadline(cx));
        Self::read(async move { store.device_list(deadline, user).await })
    }
}

impl Serve<Presence> for UserSession {
    fn serve(&mut self, _: Presence, cx: &mut Cx<'_, Self>) -> Reply<Self, Vec<PresentDevice>> {
        let deadline = self.deadline(cx);
        if self.parts.nodes.is_alone() {
            return Reply::Now(self.core.present());
        }
        // What other nodes told is of the users with a device here only, and may be lost.
        let (store, user) = (self.parts.store.clone(), self.user);
        let stored = async move { store.devices_attached(deadline, user).await };
        Reply::later(stored, |session: &mut Self, stored, _| match stored {
            Ok(stored) => session.present_with(stored),
            Err(_) => session.core.present(),
        })
    }
}

impl Serve<ListFavorites> for UserSession {
    fn serve(&mut self, it: ListFavorites, cx: &mut Cx<'_, Self>) -> Answer<Vec<Favorite>> {
        let (store, deadline) = (self.parts.store.clone(), self.deadline(cx));
        let ListFavorites {
            kind,
            limit,
            before,
        } = it;
        let query = FavoriteQuery {
            user: self.user,
            kind,
            limit,
            before,
        };
        Self::read(async move { store.favorite_list(deadline, query).await })
    }
}

impl Serve<GetSnapshot> for UserSession {
    fn serve(&mut self, _: GetSnapshot, cx: &mut Cx<'_, Self>) -> Answer<SnapshotOutcome> {
        let (store, user, deadline) = (self.parts.store.clone(), self.user, self.deadline(cx));
        let turn = self.snapshot.replace();
        Self::read(async move { store.snapshot(deadline, user, turn).await })
    }
}

impl Serve<ReadChanges> for UserSession {
    fn serve(&mut self, it: ReadChanges, cx: &mut Cx<'_, Self>) -> Answer<ChangesReply> {
        let (store, user, deadline) = (self.parts.store.clone(), self.user, self.deadline(cx));
        Self::read(read_changes(store, user, it, deadline))
    }
}

async fn read_changes(
    store: Store,
    user: UserId,
    it: ReadChanges,
    deadline: Deadline,
) -> Result<ChangesReply, StoreError> {
    let after = match it.since {
        Some(since) => since,
        None => match store.device_cursor(deadline, user, it.device).await? {
            Some(acked_seq) => acked_seq,
            None => return Ok(ChangesReply::NoDevice),
        },
    };
    let Some(page) = store.log_page(deadline, user, after, it.limit).await? else {
        // The user is gone, and so is the device.
        return Ok(ChangesReply::NoDevice);
    };
    let log = page.log;
    // Ahead of a log of the same epoch is as foreign as another epoch.
    if it.epoch.is_some_and(|epoch| epoch != log.epoch) || after > log.head_seq {
        return Ok(ChangesReply::EpochChanged(log));
    }
    if after < log.floor_seq {
        return Ok(ChangesReply::Compacted(log));
    }
    let events = page
        .events
        .into_iter()
        .map(|e| e.into_view(log.epoch))
        .collect();
    Ok(ChangesReply::Page { events, log })
}
