//! What kind of Redis answers. Only a standalone one can be used: Cluster spreads keys and Pub/Sub over
//! its nodes, and a Sentinel only tells where the others are.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::domain::clock::World;

/// How long the look at a start may take: a Redis that is away stops nobody.
const LOOK: Duration = Duration::from_secs(1);

/// What a Redis says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By itself, with replicas or without.
    Standalone,
    /// A node of a Redis Cluster.
    Cluster,
    /// A Sentinel.
    Sentinel,
}

impl Mode {
    /// By the answer to `INFO server`. One that does not say is taken for standalone.
    pub(super) fn read(info: &str) -> Self {
        let line = info
            .lines()
            .find_map(|line| line.trim().strip_prefix("redis_mode:"));
        match line {
            Some("cluster") => Self::Cluster,
            Some("sentinel") => Self::Sentinel,
            _ => Self::Standalone,
        }
    }

    /// The name to show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Cluster => "a node of a Redis Cluster",
            Self::Sentinel => "a Redis Sentinel",
        }
    }
}

/// Redis answered, and did not do it: it is not away.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(kind) if !matches!(
        kind,
        ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown
    )) || matches!(error.kind(), ErrorKind::Extension)
}

/// What kind of Redis the URL leads to, if one answers there within a second. Changes nothing.
#[must_use]
pub fn mode(url: &str) -> Option<Mode> {
    let client = super::client(url).ok()?;
    let (told, answer) = mpsc::channel();
    // To find an address may take as long as it likes.
    let asking = thread::Builder::new().spawn(move || {
        let _ = told.send(ask(&client));
    });
    asking.ok()?;
    answer.recv_timeout(LOOK).ok()?
}

fn ask(client: &redis::Client) -> Option<Mode> {
    let until = World::system().instant() + LOOK;
    let left = |until: Instant| {
        let left = until.saturating_duration_since(World::system().instant());
        Some(left).filter(|left| !left.is_zero())
    };
    let mut connection = client.get_connection_with_timeout(left(until)?).ok()?;
    connection.set_read_timeout(left(until)).ok()?;
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query(&mut connection)
        .ok()?;
    Some(Mode::read(&info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_redis_says_of_itself_is_read() {
        for (mode, expected) in [
            ("standalone", Mode::Standalone),
            ("cluster", Mode::Cluster),
            ("sentinel", Mode::Sentinel),
            ("new", Mode::Standalone),
        ] {
            let info = format!("# Server\r\nredis_version:7.0.15\r\nredis_mode:{mode}\r\nos:x\r\n");
            assert_eq!(Mode::read(&info), expected);
        }
        assert_eq!(Mode::read(""), Mode::Standalone);
    }
}
