//! The task that says what is to be said, listens for whom it is wanted, and asks whether Redis lives.

use std::{collections::HashMap, sync::Arc};

use redis::RedisError;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::{
    hints::{Hint, Text, Wanted},
    link::{Link, PROBE, bounded},
    words,
};
use crate::{
    domain::ids::UserId,
    store::metrics::{HintMetrics, Lost},
};

/// Texts or channels that one call to Redis names.
const BATCH: usize = 256;

pub(super) struct Worker {
    link: Link,
    heard: mpsc::Sender<Hint>,
    wanted: Arc<Wanted>,
    /// Whose channels Redis may have been asked for, each with the wish that was answered; 0 where none was on
    /// this connection.
    subscribed: HashMap<UserId, u64>,
    /// Whether this connection has been asked for the channel of all nodes.
    in_common: bool,
    metrics: HintMetrics,
}

impl Worker {
    pub(super) fn new(
        link: Link,
        heard: mpsc::Sender<Hint>,
        wanted: Arc<Wanted>,
        metrics: HintMetrics,
    ) -> Self {
        Self {
            link,
            heard,
            wanted,
            subscribed: HashMap::new(),
            in_common: false,
            metrics,
        }
    }

    pub(super) async fn run(mut self, mut todo: mpsc::Receiver<Text>) {
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
                    if self.link.probe().await {
                        self.anew();
                    }
                    self.listen().await;
                }
            }
        }
    }

    async fn publish(&mut self, texts: &mut Vec<Text>) {
        let mut publish = redis::pipe();
        let mut kinds = Vec::with_capacity(texts.len());
        for (channel, kind, text) in texts.drain(..) {
            kinds.push(kind);
            publish.publish(channel, text).ignore();
        }
        let lost = |reason| {
            for kind in &kinds {
                self.metrics.lost(kind, reason, 1);
            }
        };
        // While Redis is away each call would wait in vain; it is asked again by the probe.
        if !self.link.is_up() {
            return lost(Lost::Away);
        }
        let mut manager = self.link.manager();
        let result = bounded(publish.exec_async(&mut manager)).await;
        match result {
            Ok(()) => kinds.iter().for_each(|kind| self.metrics.sent.inc(kind)),
            Err(_) => lost(Lost::Failed),
        }
        self.judge(result);
    }

    /// Brings Redis after what is wanted. What fails is done again when Redis is found to be back.
    async fn listen(&mut self) {
        if self.link.is_up() {
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
            let channels: Vec<String> = some.iter().copied().map(words::channel).collect();
            bounded(self.link.manager().unsubscribe(channels)).await?;
            for user in some {
                self.subscribed.remove(user);
            }
        }
        Ok(())
    }

    async fn subscribe(&mut self) -> Result<(), RedisError> {
        if !self.in_common {
            bounded(self.link.manager().subscribe(words::REVOKED_CHANNEL)).await?;
            self.in_common = true;
            // What was said before has to be looked up, which the next poll does too.
            let _ = self.heard.try_send(Hint::Revoked);
        }
        let wanted = self.wanted.users.iter().map(|it| (*it.key(), *it.value()));
        let users: Vec<(UserId, u64)> = wanted
            .filter(|(user, wish)| self.subscribed.get(user) != Some(wish))
            .collect();
        for some in users.chunks(BATCH) {
            for (user, _) in some {
                // Redis may do what fails here, and then has to be told when it is not wanted.
                self.subscribed.entry(*user).or_default();
            }
            let channels: Vec<String> =
                some.iter().map(|(user, _)| words::channel(*user)).collect();
            bounded(self.link.manager().subscribe(channels)).await?;
            for (user, wish) in some {
                // Where there is no room for the hint, the next probe asks once more.
                if self.heard.try_send(Hint::Listening(*user)).is_ok() {
                    self.subscribed.insert(*user, *wish);
                }
            }
        }
        Ok(())
    }

    fn judge(&mut self, result: Result<(), RedisError>) {
        if self.link.judge(result) {
            self.anew();
        }
    }

    /// Redis is back: listens anew for everybody who is wanted. The manager by itself would listen again
    /// for whoever was when Redis went.
    fn anew(&mut self) {
        for wish in self.subscribed.values_mut() {
            *wish = 0;
        }
        self.in_common = false;
        self.wanted.changed.notify_one();
    }
}
