//! Black-box tests: the real process, over real HTTP and WebSocket, on both engines.
//!
//! Each test starts a server of its own, with its own data folder and, on `PostgreSQL`, its own
//! database. Nothing here reaches behind the wire, except where a test must hold the store still.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[macro_use]
mod support;

mod admin;
mod admin_lives;
mod admin_walk;
mod auth;
mod auth_input;
mod auth_refresh;
mod backup;
#[cfg(feature = "faults")]
mod clock_set;
mod disk_full;
mod drain;
mod durability;
#[cfg(feature = "faults")]
mod faults;
mod favorites;
mod harm;
mod harm_flood;
mod history;
#[cfg(feature = "faults")]
mod history_cleanup;
mod kill_rounds;
mod listeners;
mod metrics;
mod never_reads;
mod nodes;
mod nodes_redis;
mod nodes_trust;
mod places;
mod player;
mod playlists;
mod power_loss;
mod protocol_doc;
mod protocol_schemas;
mod proxies;
mod public_playlists;
mod readme;
mod replacement;
mod retention;
mod rfc6455;
mod rfc6455_utf8;
mod services;
mod services_broadcast;
mod services_doc;
mod services_keys;
mod signals;
mod slow_store;
mod snapshot;
mod start;
mod store_gone;
mod surface;
mod sync_races;
mod sync_rest;
mod sync_ws;
mod sync_ws_life;
mod tls;
mod tls_reload;
mod two_nodes;
mod unclean_stop;
mod upgrade;
