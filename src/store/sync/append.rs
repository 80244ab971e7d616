//! A user's log, held open by a command: it changes rows, says so in events, and closes the log.
//!
//! Everything is in the command's transaction. Another command of the user, on any node, waits
//! until it ends, so what is read after [`OpenLog::lock`] stays true.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{log_lock, logs_append};
use crate::{
    domain::{
        identity::ClientDeviceId,
        ids::{EventId, UserId},
        library::{LibraryEvent, MAX_EVENT_DATA, VersionTag},
        sync::{Event, LogHead},
    },
    store::{StoreError, Tx, Written, error::Failed},
};

/// By whom and when a command was issued: what its events say.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Whose log.
    pub user: UserId,
    /// The device that asks; none when it is the server or a service.
    pub origin: Option<ClientDeviceId>,
    /// When.
    pub now: DateTime<Utc>,
    /// The first event's id; those of the others are derived from it.
    pub event_id: EventId,
}

impl Issued {
    /// What happened, as the `n`th event of the command and as `seq` of the log.
    pub(in crate::store) fn event(
        &self,
        n: u32,
        seq: i64,
        what: &LibraryEvent,
    ) -> Result<Event, StoreError> {
        let data = serde_json::to_value(what);
        Ok(self.named(
            n,
            seq,
            what.event_type(),
            data.map_err(|_| StoreError::Corrupt("an event that cannot be written"))?,
        ))
    }

    /// The same with a type and data of any kind.
    pub(in crate::store) fn named(
        &self,
        n: u32,
        seq: i64,
        event_type: &str,
        data: serde_json::Value,
    ) -> Event {
        Event {
            id: self.event_id.after(n),
            seq,
            event_type: event_type.to_owned(),
            user_id: self.user,
            data,
            origin_device_id: self.origin.clone(),
            created_at: self.now,
        }
    }
}

/// A user's log in a command's transaction.
pub(in crate::store) struct OpenLog<'c> {
    issued: &'c Issued,
    log: LogHead,
    events: Vec<Event>,
}

impl<'c> OpenLog<'c> {
    /// Locks the log of the user; [`StoreError::NoUser`] when there is none.
    pub(in crate::store) async fn lock(
        tx: &mut Tx<'_>,
        issued: &'c Issued,
    ) -> Result<Self, Failed> {
        let log = Self::try_lock(tx, issued).await?;
        Ok(log.ok_or(StoreError::NoUser)?)
    }

    /// Locks the log of the user; `None` when there is none.
    pub(in crate::store) async fn try_lock(
        tx: &mut Tx<'_>,
        issued: &'c Issued,
    ) -> Result<Option<Self>, Failed> {
        let log = log_lock(tx, issued.user).await?;
        Ok(log.map(|log| Self {
            issued,
            log,
            events: Vec::new(),
        }))
    }

    /// What the next event's `seq` will be: the version of what it changes.
    pub(in crate::store) const fn next_seq(&self) -> i64 {
        self.log.head_seq + 1
    }

    /// What a version of this log is called.
    pub(in crate::store) fn tag(&self, version: i64) -> VersionTag {
        VersionTag::new(version, self.log.epoch)
    }

    /// Says that something happened.
    pub(in crate::store) fn append(&mut self, what: &LibraryEvent) -> Result<(), Failed> {
        let n = self.next_index()?;
        let event = self.issued.event(n, self.next_seq(), what)?;
        if event.data.to_string().len() > MAX_EVENT_DATA {
            return Err(StoreError::Corrupt("an event that is too large").into());
        }
        self.push(event);
        Ok(())
    }

    /// The same with a type and data of any kind.
    pub(in crate::store) fn append_named(
        &mut self,
        event_type: &str,
        data: serde_json::Value,
    ) -> Result<(), Failed> {
        let n = self.next_index()?;
        let event = self.issued.named(n, self.next_seq(), event_type, data);
        self.push(event);
        Ok(())
    }

    fn next_index(&self) -> Result<u32, StoreError> {
        u32::try_from(self.events.len()).map_err(|_| StoreError::Corrupt("too many events"))
    }

    fn push(&mut self, event: Event) {
        self.log.head_seq = event.seq;
        self.events.push(event);
    }

    /// Writes the events, if there are any. The command's last act.
    pub(in crate::store) async fn close<T>(
        self,
        tx: &mut Tx<'_>,
        value: T,
    ) -> Result<Written<T>, Failed> {
        let heads = HashMap::from([(self.issued.user, self.log)]);
        logs_append(tx, &heads, &self.events).await?;
        Ok(Written {
            value,
            log: self.log,
            events: self.events,
            committed_at: None,
        })
    }
}
