//! The buckets of one limiter, and what the answer's headers say of one.

use std::{
    hash::Hash,
    io::Write,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use actix_web::http::header::{HeaderMap, HeaderValue};
use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::{StateInformationMiddleware, StateSnapshot},
    state::keyed::DashMapStateStore,
};

use super::SWEEP_EVERY;
use crate::{
    domain::{clock::World, limit::Rate},
    http::headers::{RATE_LIMIT, RATE_LIMIT_POLICY},
};

/// What a check left of a bucket, for the headers of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub of: Policy,
    pub remaining: u32,
}

/// Which limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Ip,
    Auth,
    User,
}

impl Policy {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Auth => "auth",
            Self::User => "user",
        }
    }
}

/// The value of [`RATE_LIMIT`], put together without asking for memory but its own.
fn left(policy: Policy, remaining: u32, full_in: Duration) -> Option<HeaderValue> {
    // The longest name and both numbers at their largest need 44.
    let mut text = [0; 64];
    let mut rest = &mut text[..];
    let (policy, full_in) = (policy.name(), ceil_secs(full_in));
    write!(rest, "\"{policy}\";r={remaining};t={full_in}").ok()?;
    let unused = rest.len();
    HeaderValue::from_bytes(&text[..text.len() - unused]).ok()
}

pub(super) fn ceil_secs(d: Duration) -> u64 {
    d.as_secs() + u64::from(d.subsec_nanos() > 0)
}

#[derive(Debug, Clone)]
struct WorldClock(World);

impl Clock for WorldClock {
    type Instant = Instant;
    fn now(&self) -> Instant {
        self.0.instant()
    }
}

#[derive(Debug)]
pub(super) struct Limiter<K: Hash + Eq + Clone> {
    policy: Policy,
    quota: Quota,
    /// The same for the bucket that all nodes share.
    pub rate: Rate,
    /// The value of [`RATE_LIMIT_POLICY`].
    terms: Option<HeaderValue>,
    checks: AtomicU32,
    buckets: RateLimiter<K, DashMapStateStore<K>, WorldClock, StateInformationMiddleware>,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    pub fn new(policy: Policy, quota: Quota, world: &World) -> Self {
        let clock = WorldClock(world.clone());
        let (name, burst) = (policy.name(), quota.burst_size());
        let window = ceil_secs(quota.burst_size_replenished_in()).max(1);
        Self {
            policy,
            quota,
            rate: Rate {
                interval: quota.replenish_interval(),
                burst: burst.get(),
            },
            terms: HeaderValue::try_from(format!("\"{name}\";q={burst};w={window}")).ok(),
            checks: AtomicU32::new(0),
            buckets: RateLimiter::new(quota, DashMapStateStore::default(), clock),
        }
    }

    /// Takes `cost` from the bucket, or all that it can hold where that is less; the error says how
    /// long until there is so much.
    pub fn check(&self, key: &K, cost: NonZeroU32) -> (Snapshot, Result<(), Duration>) {
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.buckets.retain_recent();
        }
        let spare = |state: &StateSnapshot| state.remaining_burst_capacity();
        let cost = cost.min(self.quota.burst_size());
        let (remaining, outcome) = match self.buckets.check_key_n(key, cost) {
            Ok(Ok(state)) => (spare(&state), Ok(())),
            // Never more than it can hold.
            Err(_) => (0, Err(self.quota.replenish_interval())),
            Ok(Err(until)) => {
                let wait = until.wait_time_from(self.buckets.clock().now());
                (0, Err(wait))
            }
        };
        let of = self.policy;
        (Snapshot { of, remaining }, outcome)
    }

    pub fn set_headers(&self, remaining: u32, headers: &mut HeaderMap) {
        let taken = self.quota.burst_size().get().saturating_sub(remaining);
        let full_in = self.quota.replenish_interval() * taken;
        if let Some(terms) = &self.terms {
            headers.insert(RATE_LIMIT_POLICY, terms.clone());
        }
        if let Some(left) = left(self.policy, remaining, full_in) {
            headers.insert(RATE_LIMIT, left);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    pub fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}
