//! The HTTP surface: parses, checks who is calling, asks once, and maps the answer.
//!
//! Imports the domain, the actors' handles and the metrics; never the store.

pub mod admin;
pub mod around;
pub mod client;
pub mod connection;
pub mod error;
pub mod etag;
pub mod extract;
pub mod headers;
pub mod health;
pub mod history;
pub mod idempotency;
pub mod identity;
pub mod internal;
pub mod json;
pub mod library;
pub mod limit;
pub mod openapi;
pub mod page;
pub mod places;
pub mod player;
pub mod playlist_songs;
pub mod playlists;
pub mod public_playlists;
pub mod request_id;
pub mod snapshot;
pub mod socket;
pub mod stack;
pub mod sync;
pub mod transport;
mod tries;
pub mod upgrade;
pub mod ws;

#[cfg(test)]
pub(crate) mod testing;
