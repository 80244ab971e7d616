//! Hints between nodes by Redis: "this user's log has grown to here", "this device attached here".
//!
//! Owns the connection to Redis and what this node listens for, one channel a user. A text on it is
//! the ends of the log, or begins with a word that says what it is and in which version; one that a
//! node does not know it passes over, so that nodes of two releases may share a Redis. Each names the
//! epoch of the user's log: another deployment that shares the Redis, such as the drill of a restore,
//! has another. A hint may be lost, and often is when Redis is away: the head watcher finds by itself
//! what no hint told. Nothing here is truth, and nobody waits for it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    Superseded,
    metrics::{HintMetrics, Lost},
};
use crate::domain::{
    ids::{DeviceId, Epoch, UserId},
    sync::{LogHead, Told},
};
use dashmap::DashMap;
use redis::{
    Client, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    time::MissedTickBehavior,
};

/// What a node hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A user's log has these ends.
    Head(UserId, LogHead),
    /// A device of a user, whose log has this epoch, attached, here or elsewhere, and its newest
    /// connection is this one.
    Attached(UserId, Epoch, Superseded),
    /// What a node told about a user's devices, this one's own words too.
    Told(UserId, Box<Told>),
    /// From now on hints for this user arrive; what came before has to be looked up.
    Listening(UserId),
}

/// The URL of Redis cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("redis.url cannot be used: {0}")]
pub struct HintsError(String);

/// What is to be published for a user, and its kind.
type Text = (UserId, &'static str, String);

/// For whom hints are wanted. It is changed at once and needs no room in a queue, so that nothing of
/// it is ever lost; the worker brings Redis after it.
#[derive(Debug, Default)]
struct Wanted {
    /// Each with the number of its last wish, so that a new one is seen also where the one before was
    /// never withdrawn at Redis. Numbers begin at 1.
    users: DashMap<UserId, u64>,
    wishes: AtomicU64,
    changed: Notify,
}

/// Sends hints, and says for whom this node listens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hints {
    texts: mpsc::Sender<Text>,
    up: Arc<AtomicBool>,
    wanted: Arc<Wanted>,
    metrics: HintMetrics,
}

/// Hints that may wait, each way; more are dropped, as any hint may be.
const ROOM: usize = 8192;
/// Texts or channels that one call to Redis names.
const BATCH: usize = 256;
/// How long Redis may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often Redis is asked whether it lives.
const PROBE: Duration = Duration::from_secs(1);
const CHANNEL: &str = "listen-stream:log:";
/// Begins the text of [`Hint::Attached`].
const ATTACHED: &str = "attached/2";
/// Begins the text of [`Hint::Told`], before JSON.
const TOLD: &str = "told/2";

impl Hints {
    /// Connects in the background, now and whenever the connection is lost.
    ///
    /// # Errors
    /// [`HintsError`] when the URL is none. That Redis is away is no error.
    pub fn start(
        url: &str,
        rt: &Handle,
        metrics: HintMetrics,
    ) -> Result<(Self, mpsc::Receiver<Hint>), HintsError> {
        // The error of a URL may quote it, with its password.
        let unusable = |_: RedisError| HintsError("not the URL of a Redis".to_owned());
        let info = url.into_connection_info().map_err(unusable)?;
        // Hints and answers share one connection only over RESP3.
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(unusable)?;
        let (texts, todo) = mpsc::channel(ROOM);
        let (heard, hints) = mpsc::channel(ROOM);
        let up = Arc::new(AtomicBool::new(false));
        let (pushed, state, counted) = (heard.clone(), Arc::clone(&up), metrics.clone());
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_max_delay(PROBE)
            .set_automatic_resubscription()
            .set_push_sender(move |info: PushInfo| {
                hear(&info, &pushed, &state, &counted);
                Ok::<(), std::convert::Infallible>(())
            });
        let entered = rt.enter();
        let manager = ConnectionManager::new_lazy_with_config(client, config).map_err(unusable)?;
        drop(entered);
        let wanted = Arc::<Wanted>::default();
        let worker = Worker {
            manager,
            heard,
            up: Arc::clone(&up),
            wanted: Arc::clone(&wanted),
            subscribed: HashMap::new(),
            metrics: metrics.clone(),
        };
        rt.spawn(worker.run(todo));
        let it = Self {
            texts,
            up,
            wanted,
            metrics,
        };
        Ok((it, hints))
    }

    /// Tells the other nodes where a user's log ends.
    pub fn publish(&self, user: UserId, log: LogHead) {
        self.send(user, "head", write_head(log));
    }

    /// Tells the other nodes that a device's newest connection is on this one.
    pub fn attached(&self, user: UserId, epoch: Epoch, device: DeviceId, attach_epoch: i64) {
        let text = write_attached(epoch, device, attach_epoch);
        self.send(user, "attached", text);
    }

    /// Tells the other nodes something about a user's devices that is not kept.
    pub fn tell(&self, user: UserId, told: &Told) {
        // Maps with string keys and plain values always serialise.
        let told = serde_json::to_string(told).unwrap_or_default();
        self.send(user, "told", format!("{TOLD} {told}"));
    }

    /// Hints for this user are wanted. [`Hint::Listening`] follows each such wish, sooner or later.
    pub fn listen(&self, user: UserId) {
        let wish = self.wanted.wishes.fetch_add(1, Relaxed) + 1;
        self.wanted.users.insert(user, wish);
        self.wanted.changed.notify_one();
    }

    /// Hints for this user are not wanted any more.
    pub fn unlisten(&self, user: UserId) {
        self.wanted.users.remove(&user);
        self.wanted.changed.notify_one();
    }

    /// Whether Redis answered when it was last asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    fn send(&self, user: UserId, kind: &'static str, text: String) {
        // When there is no room the hint is lost, which the head watcher makes good.
        if self.texts.try_send((user, kind, text)).is_err() {
            self.metrics.lost(kind, Lost::SendQueueFull, 1);
        }
    }
}

fn channel(user: UserId) -> String {
    format!("{CHANNEL}{user}")
}

/// Takes what Redis pushes. Runs on the connection's own task: it must not wait.
fn hear(info: &PushInfo, heard: &mpsc::Sender<Hint>, up: &AtomicBool, metrics: &HintMetrics) {
    match info.kind {
        PushKind::Disconnection => up.store(false, Relaxed),
        PushKind::Message => {
            if let [Value::BulkString(channel), Value::BulkString(text)] = info.data.as_slice() {
                let Some(hint) = read(channel, text) else {
                    return metrics.lost("unknown", Lost::Unreadable, 1);
                };
                let kind = hint.kind();
                metrics.received.inc(kind);
                if heard.try_send(hint).is_err() {
                    metrics.lost(kind, Lost::ReceiveQueueFull, 1);
                }
            }
        }
        _ => {}
    }
}

impl Hint {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Head(..) => "head",
            Self::Attached(..) => "attached",
            Self::Told(..) => "told",
            Self::Listening(_) => "listening",
        }
    }
}

fn write_head(log: LogHead) -> String {
    format!("{} {} {}", log.epoch, log.head_seq, log.floor_seq)
}

fn write_attached(epoch: Epoch, device: DeviceId, attach_epoch: i64) -> String {
    format!("{ATTACHED} {epoch} {device} {attach_epoch}")
}

fn read(channel: &[u8], text: &[u8]) -> Option<Hint> {
    let user = std::str::from_utf8(channel)
        .ok()?
        .strip_prefix(CHANNEL)?
        .parse()
        .ok()?;
    let text = std::str::from_utf8(text).ok()?;
    if let Some((TOLD, told)) = text.split_once(' ') {
        return Some(Hint::Told(user, serde_json::from_str(told).ok()?));
    }
    let words: Vec<&str> = text.splitn(5, ' ').collect();
    match words.as_slice() {
        [ATTACHED, epoch, device, attach_epoch] => Some(Hint::Attached(
            user,
            epoch.parse().ok()?,
            Superseded {
                device: device.parse().ok()?,
                attach_epoch: attach_epoch.parse().ok()?,
            },
        )),
        [epoch, head_seq, floor_seq] => Some(Hint::Head(
            user,
            LogHead {
                epoch: epoch.parse().ok()?,
                head_seq: head_seq.parse().ok()?,
                floor_seq: floor_seq.parse().ok()?,
            },
        )),
        _ => None,
    }
}

struct Worker {
    manager: ConnectionManager,
    heard: mpsc::Sender<Hint>,
    up: Arc<AtomicBool>,
    wanted: Arc<Wanted>,
    /// Whose channels Redis may have been asked for, each with the wish that was answered; 0 where none was on
    /// this connection.
    subscribed: HashMap<UserId, u64>,
    metrics: HintMetrics,
}

impl Worker {
    async fn run(mut self, mut todo: mpsc::Receiver<Text>) {
        let mut probe = tokio::time::interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wanted = Arc::clone(&self.wanted);
        let mut texts = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                n = todo.recv_many(&mut texts, BATCH) => {
                    if n == 0 {
                        return;
                    }
                    self.publish(&mut texts).await;
                }
                () = wanted.changed.notified() => self.listen().await,
                _ = probe.tick() => {
                    let alive = redis::cmd("PING").exec_async(&mut self.manager).await;
                    self.judge(alive);
                    self.listen().await;
                }
            }
        }
    }

    async fn publish(&mut self, texts: &mut Vec<Text>) {
        let mut publish = redis::pipe();
        let mut kinds = Vec::with_capacity(texts.len());
        for (user, kind, text) in texts.drain(..) {
            kinds.push(kind);
            publish.publish(channel(user), text).ignore();
        }
        let lost = |reason| {
            for kind in &kinds {
                self.metrics.lost(kind, reason, 1);
            }
        };
        // While Redis is away each call would wait in vain; it is asked again by the probe.
        if !self.up.load(Relaxed) {
            return lost(Lost::Away);
        }
        let result = publish.exec_async(&mut self.manager).await;
        match result {
            Ok(()) => kinds.iter().for_each(|kind| self.metrics.sent.inc(kind)),
            Err(_) => lost(Lost::Failed),
        }
        self.judge(result);
    }

    /// Brings Redis after what is wanted. What fails is done again when Redis is found to be back.
    async fn listen(&mut self) {
        if self.up.load(Relaxed) {
            let mut result = self.unsubscribe().await;
            if result.is_ok() {
                result = self.subscribe().await;
            }
            self.judge(result);
        }
    }

    async fn unsubscribe(&mut self) -> Result<(), RedisError> {
        let known = self.subscribed.keys().copied();
        let users: Vec<UserId> = known
            .filter(|user| !self.wanted.users.contains_key(user))
            .collect();
        for some in users.chunks(BATCH) {
            let channels: Vec<String> = some.iter().copied().map(channel).collect();
            self.manager.unsubscribe(channels).await?;
            for user in some {
                self.subscribed.remove(user);
            }
        }
        Ok(())
    }

    async fn subscribe(&mut self) -> Result<(), RedisError> {
        let wanted = self.wanted.users.iter().map(|it| (*it.key(), *it.value()));
        let users: Vec<(UserId, u64)> = wanted
            .filter(|(user, wish)| self.subscribed.get(user) != Some(wish))
            .collect();
        for some in users.chunks(BATCH) {
            for (user, _) in some {
                // Redis may do what fails here, and then has to be told when it is not wanted.
                self.subscribed.entry(*user).or_default();
            }
            let channels: Vec<String> = some.iter().map(|(user, _)| channel(*user)).collect();
            self.manager.subscribe(channels).await?;
            for (user, wish) in some {
                // Where there is no room for the hint, the next probe asks once more.
                if self.heard.try_send(Hint::Listening(*user)).is_ok() {
                    self.subscribed.insert(*user, *wish);
                }
            }
        }
        Ok(())
    }

    /// Notes whether Redis answers; when it is back, listens anew for everybody who is wanted. The
    /// manager by itself would listen again for whoever was when Redis went.
    fn judge(&mut self, result: Result<(), RedisError>) {
        let was = self.up.swap(result.is_ok(), Relaxed);
        match result {
            Err(error) if was => {
                tracing::warn!(kind = ?error.kind(), "Redis is away: changes of other nodes come later");
            }
            Ok(()) if !was => {
                tracing::info!("Redis answers");
                for wish in self.subscribed.values_mut() {
                    *wish = 0;
                }
                self.wanted.changed.notify_one();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use uuid::Uuid;

    use super::*;

    fn metrics() -> HintMetrics {
        HintMetrics::register(&mut prometheus_client::registry::Registry::default())
    }

    proptest! {
        #[test]
        fn a_hint_is_read_as_it_was_written(user: u128, id: u128, head in 0..i64::MAX, floor in 0..i64::MAX) {
            let user = UserId(Uuid::from_u128(user));
            let channel = channel(user);
            let log = LogHead { epoch: Epoch(Uuid::from_u128(id)), head_seq: head, floor_seq: floor };
            let hint = read(channel.as_bytes(), write_head(log).as_bytes());
            prop_assert_eq!(hint, Some(Hint::Head(user, log)));
            let superseded = Superseded { device: DeviceId(Uuid::from_u128(!id)), attach_epoch: head };
            let text = write_attached(log.epoch, superseded.device, head);
            let hint = read(channel.as_bytes(), text.as_bytes());
            prop_assert_eq!(hint, Some(Hint::Attached(user, log.epoch, superseded)));
        }

        #[test]
        fn any_text_is_read_without_harm(channel: Vec<u8>, text: Vec<u8>) {
            let _ = read(&channel, &text);
        }
    }

    #[test]
    fn what_another_release_says_is_passed_over() {
        let user = channel(UserId(Uuid::from_u128(7)));
        let id = Uuid::from_u128(9);
        for text in [
            format!("attached/1 {id} 4"),
            format!("attached/3 {id} {id} 4"),
            format!("attached/2 {id} {id} 4 more"),
            format!("attached/2 {id} {id}"),
            "told/1 {\"node\":\"n\",\"news\":{\"present\":{\"devices\":[],\"answer\":true}}}"
                .to_owned(),
            format!("{id} 4 3 2"),
            "dance/1 now".to_owned(),
        ] {
            assert_eq!(read(user.as_bytes(), text.as_bytes()), None, "{text}");
        }
    }

    /// Waits until a channel has so many subscribers.
    async fn eventually(client: &Client, channel: &str, subscribers: i64) {
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        for _ in 0..500 {
            let (_, now): (String, i64) = redis::cmd("PUBSUB")
                .arg("NUMSUB")
                .arg(channel)
                .query_async(&mut connection)
                .await
                .unwrap();
            if now == subscribers {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{channel} never had {subscribers} subscribers");
    }

    #[tokio::test]
    async fn who_is_unwanted_while_redis_is_away_is_not_listened_for_after() {
        let url = std::env::var("LISTEN_STREAM_TEST_REDIS_URL")
            .expect("LISTEN_STREAM_TEST_REDIS_URL: run through scripts/servers.sh or make test");
        let client = Client::open(url.as_str()).unwrap();
        let (hints, _heard) = Hints::start(&url, &Handle::current(), metrics()).unwrap();
        let user = UserId(Uuid::from_u128(u128::from(std::process::id()) << 64 | 7));
        hints.listen(user);
        eventually(&client, &channel(user), 1).await;
        // As if the connection had been lost; the next probe finds Redis again.
        hints.up.store(false, Relaxed);
        hints.unlisten(user);
        eventually(&client, &channel(user), 0).await;
    }

    #[tokio::test]
    async fn who_is_wanted_is_never_lost_however_much_waits() {
        let url = std::env::var("LISTEN_STREAM_TEST_REDIS_URL")
            .expect("LISTEN_STREAM_TEST_REDIS_URL: run through scripts/servers.sh or make test");
        let client = Client::open(url.as_str()).unwrap();
        let (hints, mut heard) = Hints::start(&url, &Handle::current(), metrics()).unwrap();
        let user = |n: u128| UserId(Uuid::from_u128(u128::from(std::process::id()) << 64 | n));
        // The worker shares this thread: it takes nothing before the test waits.
        let log = LogHead {
            epoch: Epoch(Uuid::from_u128(8)),
            head_seq: 1,
            floor_seq: 0,
        };
        let fill = || {
            for _ in 0..=ROOM {
                hints.publish(user(8), log);
            }
            assert_eq!(hints.texts.capacity(), 0);
        };
        fill();
        hints.listen(user(9));
        eventually(&client, &channel(user(9)), 1).await;
        assert_eq!(heard.recv().await, Some(Hint::Listening(user(9))));
        // A wish that takes the place of another is answered as well.
        fill();
        hints.unlisten(user(9));
        hints.listen(user(9));
        let answer = tokio::time::timeout(Duration::from_secs(10), heard.recv());
        assert_eq!(answer.await.unwrap(), Some(Hint::Listening(user(9))));
        fill();
        hints.unlisten(user(9));
        eventually(&client, &channel(user(9)), 0).await;
    }

    #[tokio::test]
    async fn a_hint_that_redis_is_not_there_to_take_is_counted_as_lost() {
        let url = std::env::var("LISTEN_STREAM_TEST_REDIS_URL")
            .expect("LISTEN_STREAM_TEST_REDIS_URL: run through scripts/servers.sh or make test");
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = HintMetrics::register(&mut registry);
        let (hints, _heard) = Hints::start(&url, &Handle::current(), metrics).unwrap();
        let counted = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            !text.contains("redis_hints_lost_total{kind=\"head\",reason=\"away\"} 0\n")
        };
        assert!(!counted());
        let log = LogHead {
            epoch: Epoch(Uuid::from_u128(8)),
            head_seq: 1,
            floor_seq: 0,
        };
        // Redis is found to be there once a second, and then takes one.
        for _ in 0..500 {
            hints.up.store(false, Relaxed);
            hints.publish(UserId(Uuid::from_u128(7)), log);
            tokio::time::sleep(Duration::from_millis(20)).await;
            if counted() {
                return;
            }
        }
        panic!("no hint was counted as lost");
    }

    #[test]
    fn an_unusable_url_is_not_shown() {
        let rt = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = Hints::start("redis://:secret@", rt.handle(), metrics()).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
