//! The harness: servers as processes, clients as devices, sockets, and shapes of answers.

pub mod admin;
pub mod answer;
pub mod certificate;
pub mod client;
pub mod database;
pub mod dice;
pub mod disk;
pub mod follower;
pub mod postgres_server;
pub mod proxy;
pub mod raw;
pub mod redis_server;
pub mod rows;
pub mod server;
pub mod service;
pub mod shape;
pub mod socket;

use std::time::Duration;

use listen_stream::domain::clock::World;
use tokio::time::Instant;

pub use answer::Answer;
pub use client::{Api, Device};
pub use database::{Engine, redis};
pub use raw::{Got, Raw};
pub use server::{Cluster, Server};
pub use service::Service;
pub use shape::assert_shape;
pub use socket::{Incoming, Socket};

/// The longest that a test waits for anything that should happen by itself.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Makes `name::sqlite` and `name::postgres` of one test.
macro_rules! both_engines {
    ($($(#[$meta:meta])* async fn $name:ident($engine:ident) $body:block)+) => {$(
        $(#[$meta])*
        async fn $name($engine: $crate::support::Engine) $body

        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                Box::pin(super::$name($crate::support::Engine::Sqlite)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                Box::pin(super::$name($crate::support::Engine::Postgres)).await;
            }
        }
    )+};
}

/// Random hexadecimal digits, for names that no other test has.
pub fn unique() -> String {
    use std::fmt::Write as _;
    let bytes: [u8; 8] = World::system().bytes().unwrap();
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A port that nobody has, to be left and taken again: beyond those that the system gives to outgoing
/// connections.
pub fn port() -> u16 {
    loop {
        let port = 20_000 + u16::try_from(World::system().below(12_000).unwrap()).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A phone number that no other test has.
pub fn phone() -> String {
    format!("+86138{:08}", World::system().below(100_000_000).unwrap())
}

/// Asks again and again until `check` holds; fails after [`PATIENCE`].
#[track_caller]
pub fn eventually<F: AsyncFn() -> bool>(what: &str, check: F) -> impl Future<Output = ()> {
    within(PATIENCE, what, check)
}

/// Asks again and again until `check` holds; fails after `limit`.
pub async fn within<F: AsyncFn() -> bool>(limit: Duration, what: &str, check: F) {
    let deadline = Instant::now() + limit;
    while !check().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
