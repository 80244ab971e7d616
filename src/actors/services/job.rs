//! A broadcast that this node works at: its next step, and what the step did.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::own_quota;
use crate::{
    domain::{
        ids::EventId,
        services::{Pace, Quotas},
    },
    store::{BroadcastStep, Stepped, Store, StoreError, TakenBroadcast},
};

/// A broadcast that this node works at.
#[derive(Debug)]
pub(super) struct Job {
    pub taken: TakenBroadcast,
    pub pace: Pace,
    /// Failures one after another.
    pub failures: u32,
}

/// What a step needs beside the broadcast.
pub(super) struct Round {
    pub store: Store,
    pub owner: String,
    pub quotas: Quotas,
    pub event_id: EventId,
    pub now: DateTime<Utc>,
    pub lease_until: DateTime<Utc>,
    pub deadline: Instant,
}

/// What became of a step.
pub(super) enum Taken {
    /// It was taken.
    Step(Stepped),
    /// Another one has moved the broadcast, or it was ended.
    Lost,
}

impl Job {
    pub(super) fn new(taken: TakenBroadcast) -> Self {
        Self {
            taken,
            pace: Pace::default(),
            failures: 0,
        }
    }

    /// Takes the next step. The broadcast is where it was if that fails. Says also whether it was the
    /// last.
    pub(super) async fn step(&mut self, round: Round) -> Result<(Taken, bool), StoreError> {
        let Round {
            store,
            owner,
            quotas,
            event_id,
            now,
            lease_until,
            deadline,
        } = round;
        let it = &self.taken;
        let page = store
            .broadcast_page(
                deadline,
                &it.segment,
                it.position,
                it.last_user,
                self.pace.batch(),
            )
            .await?;
        let (to, last) = (page.to, page.last);
        let step = BroadcastStep {
            id: it.id,
            owner,
            lease_until,
            position: it.position,
            page,
            key: it.key,
            quotas: own_quota(quotas, it.events_per_hour),
            event_type: it.event_type.clone(),
            data: it.data.clone(),
            event_id,
            now,
        };
        let Some(stepped) = store.broadcast_step(deadline, step).await? else {
            return Ok((Taken::Lost, false));
        };
        self.taken.position = to;
        self.failures = 0;
        Ok((Taken::Step(stepped), last))
    }

    /// How long to leave the store in peace after one more failure.
    pub(super) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = Duration::from_millis(250) * 2_u32.saturating_pow(self.failures.min(6));
        pause.min(Duration::from_secs(5))
    }
}
