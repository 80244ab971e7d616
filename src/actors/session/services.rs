//! What other services ask of a user's session, and what broadcasts tell it.

use std::time::Instant;

use super::{UserSession, messages::Done};
use crate::{
    actors::{
        Failure,
        kernel::{Cx, Reply, Serve, asks},
    },
    domain::{
        idempotency::IdempotencyKey,
        ids::{ApiKeyId, DeviceId, EventId},
        services::{Appended, EventData, EventType, OfflinePage, OfflineState, Quotas},
        sync::{Event, LogHead},
    },
    store::{Issued, Once, ServiceAppend, Written},
};

/// Events of services that may have or await their turn at once: of a session's places for commands, so
/// many that most are left to the user, however much services ask.
const AT_ONCE: usize = 8;

type Answer<T> = Reply<UserSession, Result<T, Failure>>;

/// Append an event of another service. None: its idempotency key was used for something else.
#[derive(Debug)]
pub struct AppendEvent {
    /// The key that asks.
    pub key: ApiKeyId,
    /// What it may append in an hour.
    pub quotas: Quotas,
    /// The event's type.
    pub event_type: EventType,
    /// What it says.
    pub data: EventData,
    /// Names the call, if it may be repeated.
    pub once: Option<IdempotencyKey>,
}

/// What the user's devices have not acknowledged. None: there is no such user.
#[derive(Debug)]
pub struct ShowOffline;

/// A page of the events that a device has not acknowledged. None: the user has no such device.
#[derive(Debug)]
pub struct ReadOffline {
    /// The device.
    pub device: DeviceId,
    /// After this one; where none is named, the device's cursor is meant.
    pub after: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// A broadcast appended an event to the user's log.
#[derive(Debug)]
pub struct Broadcasted {
    /// The log after it.
    pub log: LogHead,
    /// The event.
    pub event: Event,
    /// When the command began.
    pub asked_at: Instant,
    /// When the store had the answer to the commit.
    pub committed_at: Option<Instant>,
}

asks! {
    Command AppendEvent -> Result<Option<Done<Appended>>, Failure>;
    Read ShowOffline -> Result<Option<OfflineState>, Failure>;
    Read ReadOffline -> Result<Option<OfflinePage>, Failure>;
    Control Broadcasted -> ();
}

impl Serve<AppendEvent> for UserSession {
    fn serve(&mut self, it: AppendEvent, cx: &mut Cx<'_, Self>) -> Answer<Option<Done<Appended>>> {
        if self.turns.wanted(cx.message) >= AT_ONCE {
            return Reply::Now(Err(Failure::Overloaded));
        }
        let event_id = match cx.world.uuid() {
            Ok(id) => EventId(id),
            Err(e) => return Reply::Now(Err(e.into())),
        };
        let command = ServiceAppend {
            issued: Issued {
                user: self.user,
                origin: None,
                now: cx.world.now(),
                event_id,
            },
            key: it.key,
            quotas: it.quotas,
            event_type: it.event_type,
            data: it.data,
        };
        let asked_at = cx.world.instant();
        self.in_turn(
            cx,
            move |store, deadline| async move {
                store.service_append(deadline, command, it.once).await
            },
            move |session, once, cx| {
                Ok(match once {
                    Once::Ran(written) => Some(session.announce(asked_at, written, cx)),
                    Once::Reused => None,
                })
            },
        )
    }
}

impl Serve<ShowOffline> for UserSession {
    fn serve(&mut self, _: ShowOffline, cx: &mut Cx<'_, Self>) -> Answer<Option<OfflineState>> {
        let (store, user, deadline) = (self.parts.store.clone(), self.user, self.deadline(cx));
        Self::read(async move { store.offline_state(deadline, user).await })
    }
}

impl Serve<ReadOffline> for UserSession {
    fn serve(&mut self, it: ReadOffline, cx: &mut Cx<'_, Self>) -> Answer<Option<OfflinePage>> {
        let (store, user, deadline) = (self.parts.store.clone(), self.user, self.deadline(cx));
        Self::read(async move {
            let Some(acked) = store.device_cursor(deadline, user, it.device).await? else {
                return Ok(None);
            };
            let after = it.after.unwrap_or(acked);
            let page = store.log_page(deadline, user, after, it.limit).await?;
            Ok(page.map(|page| OfflinePage {
                after,
                log: page.log,
                events: page.events,
            }))
        })
    }
}

impl Serve<Broadcasted> for UserSession {
    fn serve(&mut self, it: Broadcasted, cx: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        let written = Written {
            value: (),
            log: it.log,
            events: vec![it.event],
            committed_at: it.committed_at,
        };
        self.announce(it.asked_at, written, cx);
        Reply::Now(())
    }
}
