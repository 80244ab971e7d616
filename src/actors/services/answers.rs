//! What the broadcaster answers: each is one call of the store.

use super::{
    broadcaster::Broadcaster,
    messages::{CancelBroadcast, ListBroadcasts, ShowBroadcast, StartBroadcast},
};
use crate::{
    actors::{
        Failure,
        kernel::{Cx, Deadline, Reply, Serve},
    },
    domain::{
        ids::BroadcastId,
        services::{Broadcast, BroadcastStarted},
    },
    store::NewBroadcast,
};

fn deadline(cx: &Cx<'_, Broadcaster>) -> Deadline {
    cx.deadline.unwrap_or_else(|| cx.world.instant())
}

impl Serve<StartBroadcast> for Broadcaster {
    fn serve(
        &mut self,
        it: StartBroadcast,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<BroadcastStarted, Failure>> {
        let id = match cx.world.uuid() {
            Ok(id) => BroadcastId(id),
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let new = NewBroadcast {
            id,
            key: it.key,
            event_type: it.event_type,
            data: it.data,
            segment: it.segment,
            now: cx.world.now(),
        };
        let (store, deadline) = (self.parts.store.clone(), deadline(cx));
        Reply::later(
            async move { store.broadcast_start(deadline, new, it.once).await },
            move |it: &mut Self, started, cx| {
                // Not one that was accepted before.
                if started == Ok(BroadcastStarted::Accepted(id)) {
                    it.parts.metrics.broadcast("accepted");
                    it.look(cx);
                }
                started.map_err(Failure::from)
            },
        )
    }
}

impl Serve<CancelBroadcast> for Broadcaster {
    fn serve(
        &mut self,
        CancelBroadcast(key, id): CancelBroadcast,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<Option<Broadcast>, Failure>> {
        let (store, deadline, now) = (self.parts.store.clone(), deadline(cx), cx.world.now());
        Reply::later(
            async move { store.broadcast_cancel(deadline, key, id, now).await },
            move |it: &mut Self, cancelled, _| {
                // Not one that was over before.
                if let Ok(Some(found)) = &cancelled
                    && found.finished_at == Some(now)
                {
                    it.parts.metrics.broadcast("cancelled");
                }
                cancelled.map_err(Failure::from)
            },
        )
    }
}

impl Serve<ShowBroadcast> for Broadcaster {
    fn serve(
        &mut self,
        ShowBroadcast(key, id): ShowBroadcast,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<Option<Broadcast>, Failure>> {
        let (store, deadline) = (self.parts.store.clone(), deadline(cx));
        Reply::later(
            async move { store.broadcast_fetch(deadline, key, id).await },
            |_, found, _| found.map_err(Failure::from),
        )
    }
}

impl Serve<ListBroadcasts> for Broadcaster {
    fn serve(
        &mut self,
        it: ListBroadcasts,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<Vec<Broadcast>, Failure>> {
        let (store, deadline) = (self.parts.store.clone(), deadline(cx));
        Reply::later(
            async move {
                store
                    .broadcast_list(deadline, it.key, it.limit, it.before)
                    .await
            },
            |_, found, _| found.map_err(Failure::from),
        )
    }
}
