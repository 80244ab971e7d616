//! Redis, which nodes share where there are several: hints between them, and the buckets of rate limits.
//!
//! Owns the one connection (`link.rs`), over RESP3 and with subscriptions that come back by themselves;
//! what this node listens for and says (`hints.rs`, `worker.rs`, texts in `words.rs`); and the shared
//! limits (`limits.rs`). One standalone Redis: Cluster and Sentinel are refused (`mode.rs`). Nothing here
//! is truth, and nobody waits for it: without Redis changes of other nodes are found by looking, and
//! limits count per node.

mod hints;
mod limits;
mod link;
mod mode;
mod words;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use redis::{Client, IntoConnectionInfo, ProtocolVersion, RedisError};
use tokio::{runtime::Handle, sync::mpsc};

pub use hints::{Hint, Hints};
pub use limits::{LimitMetrics, SharedLimits};
pub use mode::{Mode, mode};

use self::link::Link;
use super::{Superseded, metrics::HintMetrics};
use crate::domain::clock::World;

/// The URL of Redis cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("redis.url cannot be used: {0}")]
pub struct RedisUrlError(&'static str);

/// The way to Redis and from it. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Redis {
    /// What is said to other nodes, and for whom this one listens.
    pub hints: Hints,
    /// The buckets that all nodes share.
    pub limits: SharedLimits,
}

impl Redis {
    /// Connects in the background, now and whenever the connection is lost; with what is heard.
    ///
    /// # Errors
    /// [`RedisUrlError`] when the URL is none. That Redis is away is no error.
    pub fn start(
        url: &str,
        rt: &Handle,
        world: &World,
        metrics: (HintMetrics, LimitMetrics),
    ) -> Result<(Self, mpsc::Receiver<Hint>), RedisUrlError> {
        let client = client(url)?;
        let (of_hints, of_limits) = metrics;
        let (heard, arriving) = mpsc::channel(hints::ROOM);
        let link = Arc::<link::State>::default();
        let config = {
            let (heard, link, metrics) = (heard.clone(), Arc::clone(&link), of_hints.clone());
            link::config(move |info| hints::hear(info, &heard, &link, &metrics))
        };
        let entered = rt.enter();
        let link = Link::new(client, config, link).map_err(unusable)?;
        drop(entered);
        let limits = SharedLimits::start(link.clone(), rt, world, of_limits);
        let hints = Hints::start(link, rt, heard, of_hints);
        Ok((Self { hints, limits }, arriving))
    }
}

/// The error of a URL may quote it, with its password.
fn unusable(_: RedisError) -> RedisUrlError {
    RedisUrlError("not the URL of a Redis")
}

fn client(url: &str) -> Result<Client, RedisUrlError> {
    let info = url.into_connection_info().map_err(unusable)?;
    // Hints and answers share one connection only over RESP3.
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings)).map_err(unusable)
}
