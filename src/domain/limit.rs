//! How often one caller may ask, over all nodes: what a node may let through on its own, and when it has
//! to ask the bucket that all nodes share.
//!
//! A request never waits for that bucket. A node takes tokens from it in small blocks, and lets
//! through what has a token. A request without one is let through on credit and makes the node ask: the
//! bucket charges the credit together with the next block, so that over time no more passes than the rate
//! allows; for the moment of one question and its answer a burst may be exceeded, by what each node's own
//! limiter still lets in.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::ids::UserId;

/// Whose bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// Requests of an address.
    Ip(IpAddr),
    /// Calls of `/v1/auth/` of an address.
    Auth(IpAddr),
    /// Requests of a user.
    User(UserId),
}

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// One more token after so long.
    pub interval: Duration,
    /// Tokens of a full bucket.
    pub burst: u32,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes; so many more would, as far as is known.
    Pass(u32),
    /// It does not, nor does any other for so long.
    Refuse(Duration),
}

/// What a node wants of the shared bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Requests that passed on credit: charged whether there is room or not.
    pub owed: u32,
    /// Tokens beyond that, as far as there is room.
    pub block: u32,
}

/// What the shared bucket gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Tokens; not more than the block.
    pub tokens: u32,
    /// What is left in the bucket.
    pub room: u32,
    /// When there is room again, if there is none.
    pub wait: Duration,
}

/// What one node may let through of one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    tokens: u32,
    /// Tokens are given back to nobody: what is not used by then is lost.
    until: Instant,
    room: u32,
    refused_until: Instant,
    owed: u32,
    asking: bool,
    block: u32,
    asked_at: Option<Instant>,
    used_at: Instant,
}

impl Allowance {
    /// How long a block holds, and how soon a node must ask again to be given a larger one.
    const LIFE: Duration = Duration::from_secs(1);
    /// The largest block.
    const MOST: u32 = 50;

    /// Of a caller who was not heard of lately.
    #[must_use]
    pub const fn new(now: Instant, rate: Rate) -> Self {
        Self {
            tokens: 0,
            until: now,
            room: rate.burst,
            refused_until: now,
            owed: 0,
            asking: false,
            block: 0,
            asked_at: None,
            used_at: now,
        }
    }

    /// A request of so many tokens that the node's own limiter let in; with what the bucket must be asked
    /// now, if anything.
    pub fn take(&mut self, now: Instant, rate: Rate, cost: u32) -> (Verdict, Option<Want>) {
        self.used_at = now;
        if now < self.refused_until {
            return (Verdict::Refuse(self.refused_until - now), None);
        }
        if self.until <= now {
            self.tokens = 0;
        }
        let missing = cost.saturating_sub(self.tokens);
        self.tokens = self.tokens.saturating_sub(cost);
        if missing == 0 {
            return (Verdict::Pass(self.room.saturating_add(self.tokens)), None);
        }
        self.owed = self.owed.saturating_add(missing);
        self.room = self.room.saturating_sub(missing);
        let pass = Verdict::Pass(self.room);
        if std::mem::replace(&mut self.asking, true) {
            return (pass, None);
        }
        // Only who asks often needs more than what was used: a block that is not used is lost to all.
        let often = self
            .asked_at
            .replace(now)
            .is_some_and(|at| now.saturating_duration_since(at) < Self::LIFE);
        let most = (rate.burst / 20).min(Self::MOST);
        self.block = if often { (self.block * 2).max(1) } else { 0 }.min(most);
        let owed = std::mem::take(&mut self.owed);
        let block = self.block;
        (pass, Some(Want { owed, block }))
    }

    /// The bucket answered.
    pub fn granted(&mut self, now: Instant, grant: Grant) {
        self.asking = false;
        // What passed on credit meanwhile has its token.
        let covered = self.owed.min(grant.tokens);
        self.owed -= covered;
        self.tokens = grant.tokens - covered;
        self.until = now + Self::LIFE;
        self.room = grant.room;
        if grant.tokens == 0 && grant.room == 0 {
            self.refused_until = now + grant.wait;
        }
    }

    /// The bucket did not answer: the node's own limiter decides alone.
    pub const fn unanswered(&mut self) {
        self.asking = false;
        self.owed = 0;
    }

    /// Whether nothing is lost with it.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(self.used_at) > 10 * Self::LIFE;
        quiet && !self.asking && now >= self.refused_until
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate {
        interval: Duration::from_millis(10),
        burst: 100,
    };

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn start() -> Instant {
        Instant::now()
    }

    /// The bucket, as the script of the store keeps it.
    struct Bucket {
        full_at: Instant,
    }

    impl Bucket {
        fn answer(&mut self, now: Instant, rate: Rate, want: Want) -> Grant {
            let full = rate.interval * rate.burst;
            self.full_at = self.full_at.max(now) + rate.interval * want.owed;
            let room = |full_at: Instant| {
                let left = (now + full).saturating_duration_since(full_at);
                u32::try_from(left.as_nanos() / rate.interval.as_nanos()).unwrap()
            };
            let tokens = room(self.full_at).min(want.block);
            self.full_at += rate.interval * tokens;
            Grant {
                tokens,
                room: room(self.full_at),
                wait: (self.full_at + rate.interval).saturating_duration_since(now + full),
            }
        }
    }

    #[test]
    fn who_asks_seldom_is_charged_what_was_used() {
        let mut now = start();
        let mut it = Allowance::new(now, RATE);
        for _ in 0..5 {
            now += Duration::from_secs(2);
            let (verdict, want) = it.take(now, RATE, 1);
            assert!(matches!(verdict, Verdict::Pass(_)));
            assert_eq!(want, Some(Want { owed: 1, block: 0 }));
            it.granted(
                now,
                Grant {
                    tokens: 0,
                    room: 99,
                    wait: Duration::ZERO,
                },
            );
        }
    }

    #[test]
    fn who_asks_often_asks_the_bucket_ever_more_seldom() {
        let now = start();
        let mut bucket = Bucket { full_at: now };
        let mut it = Allowance::new(now, RATE);
        let mut asked = 0;
        for _ in 0..50 {
            let (verdict, want) = it.take(now, RATE, 1);
            assert!(matches!(verdict, Verdict::Pass(_)));
            if let Some(want) = want {
                asked += 1;
                assert!(want.block <= 5);
                it.granted(now, bucket.answer(now, RATE, want));
            }
        }
        assert!(asked < 15, "{asked}");
    }

    #[test]
    fn a_bucket_that_does_not_answer_refuses_nobody() {
        let now = start();
        let mut it = Allowance::new(now, RATE);
        for _ in 0..500 {
            let (verdict, want) = it.take(now, RATE, 1);
            assert!(matches!(verdict, Verdict::Pass(_)));
            if want.is_some() {
                it.unanswered();
            }
        }
    }

    proptest! {
        /// Whatever the nodes do, and however late the answers come: over time no more passes than the
        /// bucket held and the rate allows, and what each node lets through on credit while it waits for
        /// one answer.
        #[test]
        fn nodes_together_keep_the_rate(
            steps in prop::collection::vec((0_usize..3, 0_u64..30, 0_u32..4, 1_u32..8), 1..600),
        ) {
            let begun = start();
            let mut now = begun;
            let mut bucket = Bucket { full_at: now };
            let mut nodes = [Allowance::new(now, RATE); 3];
            let mut waiting: [Option<(Want, u32)>; 3] = [None; 3];
            let (mut passed, mut credit) = (0_u32, 0_u32);
            for (at, millis, late, cost) in steps {
                now += Duration::from_millis(millis);
                for (node, waits) in nodes.iter_mut().zip(&mut waiting) {
                    match waits {
                        Some((want, 0)) => {
                            node.granted(now, bucket.answer(now, RATE, *want));
                            *waits = None;
                        }
                        Some((_, late)) => *late -= 1,
                        None => {}
                    }
                }
                let (verdict, want) = nodes[at].take(now, RATE, cost);
                passed += u32::from(matches!(verdict, Verdict::Pass(_))) * cost;
                if let Some(want) = want {
                    waiting[at] = Some((want, late));
                }
                let owed = waiting[at].map_or(0, |(want, _)| want.owed) + nodes[at].owed;
                credit = credit.max(owed);
            }
            let filled = u32::try_from((now - begun).as_millis() / 10).unwrap();
            // What passed on credit was charged, or is about to be: no more is open than each of the
            // three lets through for one answer.
            let most = RATE.burst + filled + 1 + 3 * credit;
            prop_assert!(passed <= most, "{passed} of {most}, {credit} on credit");
        }
    }
}
