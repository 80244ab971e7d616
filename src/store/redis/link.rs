//! The connection, and whether Redis answers.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{
    Client, PushInfo, RedisError, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;

use super::mode::{self, Mode};

/// How long Redis may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_millis(400);
/// How often Redis is asked whether it lives.
pub(super) const PROBE: Duration = Duration::from_millis(500);

/// After so many probes without an answer another connection is tried.
const SILENT: u32 = 3;

/// Whether Redis answers, for whoever uses the connection.
#[derive(Debug, Default)]
pub(super) struct State {
    up: AtomicBool,
    /// It was said that it is none that can be used.
    refused: AtomicBool,
    /// Probes without an answer, one after another.
    silent: AtomicU32,
}

impl State {
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// The connection was lost.
    pub(super) fn lost(&self) {
        self.up.store(false, Relaxed);
    }
}

/// One connection that is shared, and made anew whenever it is lost.
#[derive(Clone)]
pub(super) struct Link {
    client: Client,
    config: ConnectionManagerConfig,
    manager: Arc<RwLock<ConnectionManager>>,
    pub(super) state: Arc<State>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({:?})", self.state)
    }
}

/// How the connection is kept: what is pushed goes to `hear`, on the connection's own task.
pub(super) fn config(hear: impl Fn(&PushInfo) + Send + Sync + 'static) -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        .set_max_delay(PROBE)
        .set_automatic_resubscription()
        .set_push_sender(move |info: PushInfo| {
            hear(&info);
            Ok::<(), Infallible>(())
        })
}

/// Waits for no longer than [`PATIENCE`]: a call on a connection that is being made anew waits for that,
/// however often it is tried.
pub(super) async fn bounded<T>(call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let late = || RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
    timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| Err(late()))
}

impl Link {
    /// Connects when it is first used.
    pub(super) fn new(
        client: Client,
        config: ConnectionManagerConfig,
        state: Arc<State>,
    ) -> RedisResult<Self> {
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        let manager = Arc::new(RwLock::new(manager));
        Ok(Self {
            client,
            config,
            manager,
            state,
        })
    }

    /// The connection that is in use.
    pub(super) fn manager(&self) -> ConnectionManager {
        let manager = self.manager.read();
        manager.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives up a connection on which nothing comes any more and that nobody has ended, as where a
    /// firewall forgets: the system would wait for it for a quarter of an hour.
    fn renew(&self) {
        let new = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone());
        if let Ok(new) = new {
            *self.manager.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.is_up()
    }

    /// Asks whether Redis lives; one that was away is looked at before it counts as back. Says whether it
    /// has come back.
    pub(super) async fn probe(&self) -> bool {
        let (ping, mut manager) = (redis::cmd("PING"), self.manager());
        let mut answer = bounded(ping.exec_async(&mut manager)).await;
        let silent = &self.state.silent;
        if answer.is_ok() {
            silent.store(0, Relaxed);
        } else if silent.fetch_add(1, Relaxed) % SILENT == SILENT - 1 {
            self.renew();
        }
        if answer.is_ok() && !self.is_up() {
            match self.mode().await {
                Ok(Mode::Standalone) => {}
                Ok(other) => return self.refuse(other),
                Err(error) => answer = Err(error),
            }
        }
        self.judge(answer)
    }

    async fn mode(&self) -> RedisResult<Mode> {
        let (mut info, mut manager) = (redis::cmd("INFO"), self.manager());
        let answer: RedisResult<String> =
            bounded(info.arg("server").query_async(&mut manager)).await;
        match answer {
            Ok(text) => Ok(Mode::read(&text)),
            // Who may not ask cannot tell.
            Err(error) if mode::is_refusal(&error) => Ok(Mode::Standalone),
            Err(error) => Err(error),
        }
    }

    fn refuse(&self, mode: Mode) -> bool {
        self.state.lost();
        if !self.state.refused.swap(true, Relaxed) {
            tracing::error!(
                mode = mode.name(),
                "redis.url leads to a Redis that cannot be used: it must be a standalone one"
            );
        }
        false
    }

    /// Notes whether Redis answers; says whether it has come back.
    pub(super) fn judge(&self, result: Result<(), RedisError>) -> bool {
        let was = self.state.up.swap(result.is_ok(), Relaxed);
        match result {
            Err(error) if was => {
                tracing::warn!(kind = ?error.kind(), "Redis is away: changes of other nodes come later");
            }
            Ok(()) if !was => {
                tracing::info!("Redis answers");
                return true;
            }
            _ => {}
        }
        false
    }
}
