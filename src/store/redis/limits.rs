//! The buckets of rate limits that all nodes share.
//!
//! Owns what this node may let through of each caller (`domain/limit.rs` has the rules) and the task that
//! asks Redis for more: one call of one script for each question, many questions in one round trip. Time is
//! Redis's own, so that no two clocks are compared. A request waits for none of it. While Redis does not
//! answer, or does not run the script, the node's own limiters decide alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use prometheus_client::registry::Registry;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

use super::{
    link::{Link, State},
    mode,
};
use crate::{
    domain::{
        clock::World,
        limit::{Allowance, Grant, LimitKey, Rate, Verdict, Want},
    },
    telemetry::metrics::Counters,
};

/// Takes from a bucket, which is stored as the time at which it is full again, in microseconds: what was
/// let through already, whether there is room or not, and then as many of the wanted tokens as there are.
/// Answers how many those are, how many are left, and when there is one again.
const SCRIPT: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, full = tonumber(ARGV[1]), ARGV[1] * ARGV[2]
local at = tonumber(redis.call('GET', KEYS[1])) or now
at = math.max(now, math.min(at, now + 2 * full)) + interval * ARGV[3]
local room = math.max(0, math.floor((now + full - at) / interval))
local tokens = math.min(room, tonumber(ARGV[4]))
at = at + interval * tokens
redis.call('SET', KEYS[1], string.format('%.0f', at), 'PX', math.ceil((at - now) / 1000) + 1000)
return {tokens, room - tokens, math.max(0, math.ceil(at + interval - now - full))}";

/// Questions that may wait; a caller whose question finds no room is the node's own business.
const ROOM: usize = 8192;
/// Questions of one round trip.
const BATCH: usize = 256;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(200);
/// A Redis that did not do it is left in peace for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// So many callers may be taken up before those who left are forgotten.
const SWEEP_EVERY: u32 = 65_536;

/// What is counted of the shared limits.
#[derive(Debug, Clone)]
pub struct LimitMetrics {
    asked: Counters,
}

impl LimitMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let asked = Counters::register(
            registry,
            "redis_limit_asks",
            "Questions to the buckets of rate limits that all nodes share",
            "result",
            ["granted", "refused", "failed"],
        );
        Self { asked }
    }
}

#[derive(Debug)]
struct Shared {
    link: Arc<State>,
    /// Redis answers, and does what it is asked.
    works: AtomicBool,
    callers: DashMap<LimitKey, Allowance>,
    taken_up: AtomicU32,
    world: World,
    metrics: LimitMetrics,
}

type Question = (LimitKey, Rate, Want);

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedLimits {
    shared: Arc<Shared>,
    questions: mpsc::Sender<Question>,
}

impl SharedLimits {
    pub(super) fn start(link: Link, rt: &Handle, world: &World, metrics: LimitMetrics) -> Self {
        let (questions, todo) = mpsc::channel(ROOM);
        let shared = Arc::new(Shared {
            link: Arc::clone(&link.state),
            works: AtomicBool::new(true),
            callers: DashMap::new(),
            taken_up: AtomicU32::new(0),
            world: world.clone(),
            metrics,
        });
        let asker = Asker {
            link,
            shared: Arc::clone(&shared),
            script: None,
        };
        rt.spawn(asker.run(todo));
        Self { shared, questions }
    }

    /// What becomes of a request of so many tokens that the node's own limiter let in; none while limits
    /// count per node.
    #[must_use]
    pub fn take(&self, key: LimitKey, rate: Rate, cost: u32) -> Option<Verdict> {
        if !self.are_shared() {
            return None;
        }
        let now = self.shared.world.instant();
        let (verdict, want) = {
            let mut caller = self.shared.callers.entry(key).or_insert_with(|| {
                self.shared.taken_up.fetch_add(1, Relaxed);
                Allowance::new(now, rate)
            });
            caller.take(now, rate, cost)
        };
        if let Some(want) = want
            && self.questions.try_send((key, rate, want)).is_err()
        {
            self.shared.unanswered(&[(key, rate, want)]);
        }
        if self.shared.taken_up.load(Relaxed) >= SWEEP_EVERY {
            self.sweep();
        }
        Some(verdict)
    }

    /// Whether limits count over all nodes at present.
    #[must_use]
    pub fn are_shared(&self) -> bool {
        self.shared.link.is_up() && self.shared.works.load(Relaxed)
    }

    /// Forgets callers who were not heard of lately.
    pub fn sweep(&self) {
        self.shared.taken_up.store(0, Relaxed);
        let now = self.shared.world.instant();
        self.shared.callers.retain(|_, it| !it.is_idle(now));
        self.shared.callers.shrink_to_fit();
    }
}

impl Shared {
    fn unanswered(&self, questions: &[Question]) {
        for (key, _, _) in questions {
            self.metrics.asked.inc("failed");
            if let Some(mut caller) = self.callers.get_mut(key) {
                caller.unanswered();
            }
        }
    }

    fn answered(&self, now: Instant, questions: &[Question], grants: Vec<(u32, u32, u64)>) {
        for ((key, _, _), (tokens, room, micros)) in questions.iter().zip(grants) {
            let grant = Grant {
                tokens,
                room,
                wait: Duration::from_micros(micros),
            };
            let full = tokens == 0 && room == 0;
            self.metrics
                .asked
                .inc(if full { "refused" } else { "granted" });
            if let Some(mut caller) = self.callers.get_mut(key) {
                caller.granted(now, grant);
            }
        }
    }
}

struct Asker {
    link: Link,
    shared: Arc<Shared>,
    /// By what name Redis knows the script.
    script: Option<String>,
}

impl Asker {
    async fn run(mut self, mut todo: mpsc::Receiver<Question>) {
        let mut questions = Vec::with_capacity(BATCH);
        while todo.recv_many(&mut questions, BATCH).await > 0 {
            match timeout(PATIENCE, self.ask(&questions)).await {
                Ok(Ok(grants)) if grants.len() == questions.len() => {
                    let now = self.shared.world.instant();
                    self.shared.answered(now, &questions, grants);
                }
                Ok(Err(error)) => {
                    self.shared.unanswered(&questions);
                    self.failed(&error, &mut todo).await;
                }
                // Late, or not what the script says.
                Ok(Ok(_)) | Err(_) => {
                    self.shared.unanswered(&questions);
                    self.pause(&mut todo).await;
                }
            }
            questions.clear();
        }
    }

    async fn ask(&mut self, questions: &[Question]) -> RedisResult<Vec<(u32, u32, u64)>> {
        // Redis forgets scripts when it is started anew.
        let result = self.ask_once(questions).await;
        if is_unknown(&result) {
            self.script = None;
            return self.ask_once(questions).await;
        }
        result
    }

    async fn ask_once(&mut self, questions: &[Question]) -> RedisResult<Vec<(u32, u32, u64)>> {
        let script = if let Some(script) = &self.script {
            script.clone()
        } else {
            let mut load = redis::cmd("SCRIPT");
            let load = load.arg("LOAD").arg(SCRIPT);
            let script: String = load.query_async(&mut self.link.manager()).await?;
            self.script.insert(script).clone()
        };
        let mut calls = redis::pipe();
        for (key, rate, want) in questions {
            calls
                .cmd("EVALSHA")
                .arg(&script)
                .arg(1)
                .arg(name(*key, *rate))
                .arg(micros(*rate))
                .arg(rate.burst)
                .arg(want.owed)
                .arg(want.block);
        }
        calls.query_async(&mut self.link.manager()).await
    }

    async fn failed(&mut self, error: &RedisError, todo: &mut mpsc::Receiver<Question>) {
        if mode::is_refusal(error) {
            tracing::warn!(kind = ?error.kind(), "Redis does not share the limits: they count per node");
        }
        self.pause(todo).await;
    }

    /// Limits count per node for a while; who waits for an answer is not kept waiting.
    async fn pause(&mut self, todo: &mut mpsc::Receiver<Question>) {
        self.shared.works.store(false, Relaxed);
        self.script = None;
        tokio::time::sleep(PAUSE).await;
        while let Ok(question) = todo.try_recv() {
            self.shared.unanswered(&[question]);
        }
        self.shared.works.store(true, Relaxed);
    }
}

fn is_unknown<T>(result: &RedisResult<T>) -> bool {
    let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
    result.as_ref().is_err_and(|error| error.kind() == unknown)
}

/// Nodes with other settings have another bucket.
fn name(key: LimitKey, rate: Rate) -> String {
    let (burst, micros) = (rate.burst, micros(rate));
    match key {
        LimitKey::Ip(ip) => format!("listen-stream:limit:ip:{burst}:{micros}:{ip}"),
        LimitKey::Auth(ip) => format!("listen-stream:limit:auth:{burst}:{micros}:{ip}"),
        LimitKey::User(user) => format!("listen-stream:limit:user:{burst}:{micros}:{user}"),
    }
}

fn micros(rate: Rate) -> u64 {
    u64::try_from(rate.interval.as_micros())
        .unwrap_or(u64::MAX)
        .max(1)
}
