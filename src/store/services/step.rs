//! How a broadcast goes on: a look at who comes next, then one transaction that appends to their logs
//! and moves the broadcast's position.
//!
//! The position is guarded by its old value. So a step that is done twice, by a node that came back or
//! by two that both believe that they hold the lease, is done once: nobody gets the event twice.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::quota::{counts_find, counts_store, shares_add};
use crate::{
    domain::{
        identity::Platform,
        ids::{ApiKeyId, BroadcastId, EventId, UserId},
        services::{BroadcastState, Quotas, Segment, decide},
        sync::{Event, LogHead},
    },
    store::{
        Db, Store, StoreError, Tx,
        command::Command,
        error::Failed,
        on_pool, on_tx,
        sync::{logs_append, logs_lock, places},
    },
};

/// Users that one look goes through, where not all of them are meant.
const SCAN: u32 = 1000;

/// Who comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroadcastPage {
    /// Those who are meant, in the order of their ids.
    pub users: Vec<UserId>,
    /// Where the next page begins.
    pub to: UserId,
    /// There is no next page.
    pub last: bool,
}

/// The next step of a broadcast.
#[derive(Debug, Clone)]
pub struct BroadcastStep {
    /// Which.
    pub id: BroadcastId,
    /// Who holds the lease.
    pub owner: String,
    /// Until when.
    pub lease_until: DateTime<Utc>,
    /// Where the broadcast is.
    pub position: UserId,
    /// Whom it is for.
    pub page: BroadcastPage,
    /// The key that asked.
    pub key: ApiKeyId,
    /// What it may append in an hour.
    pub quotas: Quotas,
    /// The event's type.
    pub event_type: String,
    /// What it says.
    pub data: serde_json::Value,
    /// The first event's id; those of the others follow it.
    pub event_id: EventId,
    /// When.
    pub now: DateTime<Utc>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub struct Stepped {
    /// What was appended, each with its log after it.
    pub events: Vec<(LogHead, Event)>,
    /// Users who were over their quota.
    pub skipped: u64,
    /// Ids that name nobody.
    pub missing: u64,
    /// When the store had the answer to the commit.
    pub committed_at: Option<Instant>,
}

impl Store {
    /// Who of `segment` comes after `position`, up to `last`: so many at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn broadcast_page(
        &self,
        deadline: Instant,
        segment: &Segment,
        position: UserId,
        last: UserId,
        limit: u32,
    ) -> Result<BroadcastPage, StoreError> {
        if let Segment::Users(users) = segment {
            return Ok(named(users, position, limit));
        }
        let segment = segment.clone();
        self.read("broadcast_page", deadline, async move |db| {
            let (scan, rows) = match &segment {
                Segment::Devices {
                    platforms,
                    active_since,
                } => {
                    let found = with_devices(&db, position, last, platforms, *active_since).await?;
                    (SCAN, found)
                }
                Segment::Everybody | Segment::Users(_) => {
                    let found: Vec<UserId> = on_pool!(&db, pool => sqlx::query_scalar(
                        "SELECT id FROM users WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3")
                        .bind(position).bind(last).bind(i64::from(limit)).fetch_all(pool).await?);
                    (limit, found.into_iter().map(|user| (user, true)).collect())
                }
            };
            Ok(page(&rows, scan, limit, position))
        })
        .await
    }

    /// Takes a step. `None`: the broadcast is finished, or another one has moved it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn broadcast_step(
        &self,
        deadline: Instant,
        step: BroadcastStep,
    ) -> Result<Option<Stepped>, StoreError> {
        self.write(deadline, step).await
    }
}

/// The next of those who are named.
fn named(users: &[UserId], position: UserId, limit: u32) -> BroadcastPage {
    let after = users.partition_point(|user| *user <= position);
    let left = &users[after..];
    let taken = &left[..left.len().min(limit as usize)];
    BroadcastPage {
        users: taken.to_vec(),
        to: taken.last().copied().unwrap_or(position),
        last: taken.len() == left.len(),
    }
}

/// The first `limit` who are meant, of `rows` that a look at `scan` users found.
fn page(rows: &[(UserId, bool)], scan: u32, limit: u32, position: UserId) -> BroadcastPage {
    let mut users = Vec::new();
    let mut to = position;
    for (n, (user, is_meant)) in rows.iter().enumerate() {
        to = *user;
        if *is_meant {
            users.push(*user);
        }
        if users.len() == limit as usize {
            let last = rows.len() < scan as usize && n + 1 == rows.len();
            return BroadcastPage { users, to, last };
        }
    }
    let last = rows.len() < scan as usize;
    BroadcastPage { users, to, last }
}

/// The next users, each with whether one of the user's devices is meant.
async fn with_devices(
    db: &Db,
    position: UserId,
    last: UserId,
    platforms: &[Platform],
    active_since: Option<DateTime<Utc>>,
) -> Result<Vec<(UserId, bool)>, Failed> {
    let any = Platform::ALL;
    let platforms = if platforms.is_empty() { any } else { platforms };
    let sql = format!(
        "SELECT u.id, EXISTS (SELECT 1 FROM devices d WHERE d.user_id = u.id
             AND d.last_active_at >= $3 AND d.platform IN ({}))
         FROM (SELECT id FROM users WHERE id > $1 AND id <= $2 ORDER BY id LIMIT {SCAN}) u
         ORDER BY u.id",
        places(platforms.len(), 4)
    );
    Ok(on_pool!(db, pool => {
        let mut query = sqlx::query_as(AssertSqlSafe(sql))
            .bind(position).bind(last).bind(active_since.unwrap_or(DateTime::UNIX_EPOCH));
        for platform in platforms {
            query = query.bind(platform.as_str());
        }
        query.fetch_all(pool).await?
    }))
}

impl Command for BroadcastStep {
    const NAME: &'static str = "broadcast_step";
    type Out = Option<Stepped>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let moved = on_tx!(tx, conn => sqlx::query(
            "UPDATE broadcasts SET position = $4, lease_until = $5
             WHERE id = $1 AND lease_owner = $2 AND position = $3 AND finished_at IS NULL")
            .bind(self.id).bind(&self.owner).bind(self.position).bind(self.page.to)
            .bind(self.lease_until).execute(conn).await?.rows_affected());
        if moved == 0 {
            return Ok(None);
        }
        let users: BTreeSet<UserId> = self.page.users.iter().copied().collect();
        let mut logs = logs_lock(tx, &users).await?;
        let found: Vec<UserId> = users
            .iter()
            .copied()
            .filter(|it| logs.contains_key(it))
            .collect();
        let (events, counts) = self.decide(tx, &found, &mut logs).await?;
        logs_append(tx, &logs, &events).await?;
        counts_store(tx, self.key, &counts).await?;
        let places: Vec<_> = events.iter().map(|it| (it.user_id, it.seq)).collect();
        shares_add(tx, &places).await?;
        let stepped = Stepped {
            skipped: (found.len() - events.len()) as u64,
            missing: (users.len() - found.len()) as u64,
            events: events
                .into_iter()
                .filter_map(|event| Some((*logs.get(&event.user_id)?, event)))
                .collect(),
            committed_at: None,
        };
        self.count(tx, &stepped).await?;
        Ok(Some(stepped))
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        if let Some(stepped) = out {
            stepped.committed_at = Some(at);
        }
    }
}

impl BroadcastStep {
    /// The events for those who are within their quota, and what is counted of them.
    async fn decide(
        &self,
        tx: &mut Tx<'_>,
        users: &[UserId],
        logs: &mut HashMap<UserId, LogHead>,
    ) -> Result<(Vec<Event>, Vec<(UserId, crate::domain::services::Count)>), Failed> {
        let mut found = counts_find(tx, users, self.key).await?;
        let (mut events, mut counts) = (Vec::new(), Vec::new());
        for (n, user) in (0_u32..).zip(users) {
            let of_user = found.remove(user).unwrap_or_default();
            let decided = decide(self.now, &of_user, self.quotas);
            let (Ok(count), Some(log)) = (decided, logs.get_mut(user)) else {
                continue;
            };
            log.head_seq += 1;
            counts.push((*user, count));
            events.push(Event {
                id: self.event_id.after(n),
                seq: log.head_seq,
                event_type: self.event_type.clone(),
                user_id: *user,
                data: self.data.clone(),
                origin_device_id: None,
                created_at: self.now,
            });
        }
        Ok((events, counts))
    }

    async fn count(&self, tx: &mut Tx<'_>, done: &Stepped) -> Result<(), Failed> {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let last = self.page.last;
        let state = if last {
            BroadcastState::Finished
        } else {
            BroadcastState::Running
        };
        on_tx!(tx, conn => sqlx::query(
            "UPDATE broadcasts SET reached = reached + $2, skipped = skipped + $3,
                 missing = missing + $4, state = $5, finished_at = $6 WHERE id = $1")
            .bind(self.id).bind(number(done.events.len() as u64)).bind(number(done.skipped))
            .bind(number(done.missing)).bind(state.as_str()).bind(last.then_some(self.now))
            .execute(conn).await?.rows_affected());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    proptest! {
        /// However long the pages are, everybody who is meant is met once.
        #[test]
        fn pages_meet_everybody_once(
            all in prop::collection::btree_map(1_u128..500, any::<bool>(), 0..60),
            limit in 1_u32..20,
            scan in 20_u32..30,
        ) {
            let meant: Vec<_> = all.iter().filter(|it| *it.1).map(|it| user(*it.0)).collect();
            for is_named in [true, false] {
                let (mut met, mut at) = (Vec::new(), user(0));
                loop {
                    let next = if is_named {
                        named(&meant, at, limit)
                    } else {
                        let rows: Vec<_> = all.iter().map(|(n, is)| (user(*n), *is))
                            .filter(|(it, _)| *it > at).take(scan as usize).collect();
                        page(&rows, scan, limit, at)
                    };
                    prop_assert!(next.users.len() <= limit as usize);
                    prop_assert!(next.last || next.to > at);
                    met.extend(next.users);
                    at = next.to;
                    if next.last {
                        break;
                    }
                }
                prop_assert_eq!(&met, &meant);
            }
        }
    }
}
