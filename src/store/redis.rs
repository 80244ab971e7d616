//! Hints between nodes by Redis: "this user's log has grown to here", "this device attached here".
//!
//! Owns the connection to Redis and what this node listens for, one channel a user. A text on it is
//! the ends of the log, or begins with a word that says what it is and in which version; one that a
//! node does not know it passes over, so that nodes of two releases may share a Redis. A hint may be lost, and often is
//! when Redis is away: the head watcher finds by itself what no hint told. Nothing here is truth,
//! and nobody waits for it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::domain::{
    ids::{DeviceId, UserId},
    sync::{LogHead, Told},
};
use redis::{
    Client, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{runtime::Handle, sync::mpsc, time::MissedTickBehavior};

/// What a node hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A user's log has these ends.
    Head(UserId, LogHead),
    /// A device of a user attached, here or elsewhere, and its newest connection is this one.
    Attached(UserId, DeviceId, i64),
    /// What a node told about a user's devices, this one's own words too.
    Told(UserId, Box<Told>),
    /// From now on hints for this user arrive; what came before has to be looked up.
    Listening(UserId),
}

/// The URL of Redis cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("redis.url cannot be used: {0}")]
pub struct HintsError(String);

#[derive(Debug)]
enum Order {
    Publish(UserId, String),
    Listen(UserId),
    Unlisten(UserId),
}

/// Sends hints, and says for whom this node listens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hints {
    orders: mpsc::Sender<Order>,
    up: Arc<AtomicBool>,
}

/// Orders and hints that may wait; more are dropped, as any hint may be.
const ROOM: usize = 8192;
/// Orders carried out at once.
const BATCH: usize = 256;
/// How long Redis may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often Redis is asked whether it lives.
const PROBE: Duration = Duration::from_secs(1);
const CHANNEL: &str = "listen-stream:log:";
/// Begins the text of [`Hint::Attached`].
const ATTACHED: &str = "attached/1";
/// Begins the text of [`Hint::Told`], before JSON.
const TOLD: &str = "told/1";

impl Hints {
    /// Connects in the background, now and whenever the connection is lost.
    ///
    /// # Errors
    /// [`HintsError`] when the URL is none. That Redis is away is no error.
    pub fn start(url: &str, rt: &Handle) -> Result<(Self, mpsc::Receiver<Hint>), HintsError> {
        // The error of a URL may quote it, with its password.
        let unusable = |_: RedisError| HintsError("not the URL of a Redis".to_owned());
        let info = url.into_connection_info().map_err(unusable)?;
        // Hints and answers share one connection only over RESP3.
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(unusable)?;
        let (orders, todo) = mpsc::channel(ROOM);
        let (heard, hints) = mpsc::channel(ROOM);
        let up = Arc::new(AtomicBool::new(false));
        let (pushed, state) = (heard.clone(), Arc::clone(&up));
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_max_delay(PROBE)
            .set_automatic_resubscription()
            .set_push_sender(move |info: PushInfo| {
                hear(&info, &pushed, &state);
                Ok::<(), std::convert::Infallible>(())
            });
        let entered = rt.enter();
        let manager = ConnectionManager::new_lazy_with_config(client, config).map_err(unusable)?;
        drop(entered);
        let worker = Worker {
            manager,
            heard,
            up: Arc::clone(&up),
            wanted: HashSet::new(),
            unwanted: HashSet::new(),
        };
        rt.spawn(worker.run(todo));
        Ok((Self { orders, up }, hints))
    }

    /// Tells the other nodes where a user's log ends.
    pub fn publish(&self, user: UserId, log: LogHead) {
        self.order(Order::Publish(user, write_head(log)));
    }

    /// Tells the other nodes that a device's newest connection is on this one.
    pub fn attached(&self, user: UserId, device: DeviceId, attach_epoch: i64) {
        self.order(Order::Publish(user, write_attached(device, attach_epoch)));
    }

    /// Tells the other nodes something about a user's devices that is not kept.
    pub fn tell(&self, user: UserId, told: &Told) {
        // Maps with string keys and plain values always serialise.
        let told = serde_json::to_string(told).unwrap_or_default();
        self.order(Order::Publish(user, format!("{TOLD} {told}")));
    }

    /// Hints for this user are wanted.
    pub fn listen(&self, user: UserId) {
        self.order(Order::Listen(user));
    }

    /// Hints for this user are not wanted any more.
    pub fn unlisten(&self, user: UserId) {
        self.order(Order::Unlisten(user));
    }

    /// Whether Redis answered when it was last asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    fn order(&self, order: Order) {
        // When there is no room the hint is lost, which the head watcher makes good.
        let _ = self.orders.try_send(order);
    }
}

fn channel(user: UserId) -> String {
    format!("{CHANNEL}{user}")
}

/// Takes what Redis pushes. Runs on the connection's own task: it must not wait.
fn hear(info: &PushInfo, heard: &mpsc::Sender<Hint>, up: &AtomicBool) {
    match info.kind {
        PushKind::Disconnection => up.store(false, Relaxed),
        PushKind::Message => {
            if let [Value::BulkString(channel), Value::BulkString(text)] = info.data.as_slice()
                && let Some(hint) = read(channel, text)
            {
                let _ = heard.try_send(hint);
            }
        }
        _ => {}
    }
}

fn write_head(log: LogHead) -> String {
    format!("{} {} {}", log.epoch, log.head_seq, log.floor_seq)
}

fn write_attached(device: DeviceId, attach_epoch: i64) -> String {
    format!("{ATTACHED} {device} {attach_epoch}")
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
    let words: Vec<&str> = text.splitn(4, ' ').collect();
    match words.as_slice() {
        [ATTACHED, device, attach_epoch] => Some(Hint::Attached(
            user,
            device.parse().ok()?,
            attach_epoch.parse().ok()?,
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
    wanted: HashSet<UserId>,
    /// Not wanted any more, but Redis does not know it yet.
    unwanted: HashSet<UserId>,
}

impl Worker {
    async fn run(mut self, mut todo: mpsc::Receiver<Order>) {
        let mut probe = tokio::time::interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut orders = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                n = todo.recv_many(&mut orders, BATCH) => {
                    if n == 0 {
                        return;
                    }
                    self.carry_out(&mut orders).await;
                }
                _ = probe.tick() => {
                    let alive = redis::cmd("PING").exec_async(&mut self.manager).await;
                    self.judge(alive).await;
                }
            }
        }
    }

    async fn carry_out(&mut self, orders: &mut Vec<Order>) {
        let mut publish = redis::pipe();
        let (mut more, mut any) = (HashSet::new(), false);
        for order in orders.drain(..) {
            match order {
                Order::Publish(user, text) => {
                    publish.publish(channel(user), text).ignore();
                    any = true;
                }
                Order::Listen(user) => {
                    self.unwanted.remove(&user);
                    self.wanted.insert(user);
                    more.insert(user);
                }
                Order::Unlisten(user) => {
                    more.remove(&user);
                    self.wanted.remove(&user);
                    self.unwanted.insert(user);
                }
            }
        }
        // While Redis is away each call would wait in vain; it is asked again by the probe.
        if !self.up.load(Relaxed) {
            return;
        }
        let mut result = Ok(());
        if any {
            result = publish.exec_async(&mut self.manager).await;
        }
        if result.is_ok() {
            result = self.unsubscribe().await;
        }
        if result.is_ok() && !more.is_empty() {
            result = self.subscribe(more.into_iter().collect()).await;
        }
        self.judge(result).await;
    }

    async fn unsubscribe(&mut self) -> Result<(), RedisError> {
        let users: Vec<UserId> = self.unwanted.iter().copied().collect();
        for some in users.chunks(BATCH) {
            let channels: Vec<String> = some.iter().copied().map(channel).collect();
            self.manager.unsubscribe(channels).await?;
            for user in some {
                self.unwanted.remove(user);
            }
        }
        Ok(())
    }

    async fn subscribe(&mut self, users: Vec<UserId>) -> Result<(), RedisError> {
        for some in users.chunks(BATCH) {
            let channels: Vec<String> = some.iter().copied().map(channel).collect();
            self.manager.subscribe(channels).await?;
            for user in some {
                let _ = self.heard.try_send(Hint::Listening(*user));
            }
        }
        Ok(())
    }

    /// Notes whether Redis answers; when it is back, listens anew for everybody who is wanted. The
    /// manager by itself would listen again for whoever was when Redis went.
    async fn judge(&mut self, result: Result<(), RedisError>) {
        let was = self.up.swap(result.is_ok(), Relaxed);
        match result {
            Err(error) if was => {
                tracing::warn!(kind = ?error.kind(), "Redis is away: changes of other nodes come later");
            }
            Ok(()) if !was => {
                tracing::info!("Redis answers");
                let everybody = self.wanted.iter().copied().collect();
                if self.subscribe(everybody).await.is_err() || self.unsubscribe().await.is_err() {
                    self.up.store(false, Relaxed);
                }
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
    use crate::domain::ids::Epoch;

    proptest! {
        #[test]
        fn a_hint_is_read_as_it_was_written(user: u128, id: u128, head in 0..i64::MAX, floor in 0..i64::MAX) {
            let user = UserId(Uuid::from_u128(user));
            let channel = channel(user);
            let log = LogHead { epoch: Epoch(Uuid::from_u128(id)), head_seq: head, floor_seq: floor };
            let hint = read(channel.as_bytes(), write_head(log).as_bytes());
            prop_assert_eq!(hint, Some(Hint::Head(user, log)));
            let device = DeviceId(Uuid::from_u128(id));
            let hint = read(channel.as_bytes(), write_attached(device, head).as_bytes());
            prop_assert_eq!(hint, Some(Hint::Attached(user, device, head)));
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
            format!("attached/2 {id} 4"),
            format!("attached/1 {id} 4 more"),
            format!("attached/1 {id}"),
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
        let (hints, _heard) = Hints::start(&url, &Handle::current()).unwrap();
        let user = UserId(Uuid::from_u128(u128::from(std::process::id()) << 64 | 7));
        hints.listen(user);
        eventually(&client, &channel(user), 1).await;
        // As if the connection had been lost; the next probe finds Redis again.
        hints.up.store(false, Relaxed);
        hints.unlisten(user);
        eventually(&client, &channel(user), 0).await;
    }

    #[test]
    fn an_unusable_url_is_not_shown() {
        let rt = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = Hints::start("redis://:secret@", rt.handle()).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
