//! What all changes of one playlist have in common: the log's lock, the playlist as it is, whether it is
//! the one that was expected.

use std::{future::Future, time::Instant};

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};

use super::{PlaylistCommand, rows};
use crate::{
    domain::library::{LibraryEvent, Playlist, PlaylistRefusal, PlaylistReplaced},
    store::{
        Issued, Tx, Written,
        command::{Command, weight_of},
        error::Failed,
        idempotency::{Kept, OfUser, Outcome},
        sync::OpenLog,
    },
};

/// A kind of change.
pub(super) trait Op: Send + Sync + 'static {
    const NAME: &'static str;
    type Value: Serialize + DeserializeOwned + Send + 'static;
    /// How many entries it names; it may touch about as many rows.
    fn entries(&self) -> usize {
        0
    }
    /// Changes the playlist, or refuses before anything is written.
    fn apply(
        &self,
        open: &mut Open<'_, '_, '_>,
    ) -> impl Future<Output = Result<Result<Self::Value, PlaylistRefusal>, Failed>> + Send;
}

/// A playlist in a command's transaction: nobody else changes it, on any node.
pub(super) struct Open<'a, 't, 'c> {
    pub tx: &'a mut Tx<'t>,
    pub log: OpenLog<'c>,
    pub target: &'c PlaylistCommand,
    /// As it is; changes are made here, and stored by [`Open::store`].
    pub playlist: Playlist,
    pub deleted_at: Option<DateTime<Utc>>,
}

impl Open<'_, '_, '_> {
    /// Whether it is the version that was expected.
    pub fn expected(&self) -> Result<(), PlaylistRefusal> {
        let version = self.playlist.version;
        match &self.target.expected {
            Some(expected) if !expected.includes(self.log.tag(version)) => {
                Err(PlaylistRefusal::Stale { version })
            }
            _ => Ok(()),
        }
    }

    /// Whether it is in force, and the version that was expected.
    pub fn in_force(&self) -> Result<(), PlaylistRefusal> {
        if self.deleted_at.is_some() {
            return Err(PlaylistRefusal::NotFound);
        }
        self.expected()
    }

    /// Notes that it changes now, with an event that is about to be appended. Answers the version.
    pub fn touch(&mut self) -> i64 {
        self.playlist.version = self.log.next_seq();
        self.playlist.updated_at = self.target.issued.now;
        self.playlist.version
    }

    /// Tells that the songs are to be fetched.
    pub fn tell_replaced(&mut self) -> Result<(), Failed> {
        let (id, version) = (self.playlist.id, self.touch());
        let what = PlaylistReplaced { id, version };
        self.log.append(&LibraryEvent::PlaylistReplaced(what))
    }

    /// Writes its row as it is now.
    pub async fn store(&mut self) -> Result<(), Failed> {
        rows::store(self.tx, &self.playlist, self.deleted_at).await
    }
}

/// What was refused may be possible later: there is room again, the entry is back.
impl<T> Outcome for Result<T, PlaylistRefusal> {
    fn kept(&self) -> Kept {
        if self.is_ok() {
            Kept::Answer
        } else {
            Kept::Asked
        }
    }
}

/// One change, as the store runs it.
pub(super) struct Change<O> {
    target: PlaylistCommand,
    op: O,
}

impl<O> Change<O> {
    pub(super) const fn of(target: PlaylistCommand, op: O) -> Self {
        Self { target, op }
    }
}

impl<O: Op> OfUser for Change<O> {
    fn issued(&self) -> &Issued {
        &self.target.issued
    }
}

impl<O: Op> Command for Change<O> {
    const NAME: &'static str = O::NAME;
    type Out = Written<Result<O::Value, PlaylistRefusal>>;

    fn weight(&self) -> usize {
        weight_of(self.op.entries())
    }

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let target = &self.target;
        let log = OpenLog::lock(tx, &target.issued).await?;
        let Some((playlist, deleted_at)) = rows::find(tx, target.issued.user, target.id).await?
        else {
            return log.close(tx, Err(PlaylistRefusal::NotFound)).await;
        };
        let mut open = Open {
            tx,
            log,
            target,
            playlist,
            deleted_at,
        };
        let outcome = self.op.apply(&mut open).await?;
        let Open { tx, log, .. } = open;
        log.close(tx, outcome).await
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }
}

/// Leaves an [`Op`] with what was refused.
macro_rules! refuse {
    ($checked:expr) => {
        if let Err(refusal) = $checked {
            return Ok(Err(refusal));
        }
    };
}
pub(super) use refuse;
