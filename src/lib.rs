//! Listen Stream: a real-time server in which every user session and device connection is an actor.
//!
//! Layers, one way only: `http → actors → {store, upstream} → domain`. `ARCHITECTURE.md` is the map.

pub mod actors;
pub mod boot;
pub mod cli;
pub mod domain;
pub mod http;
pub mod settings;
pub mod store;
pub mod tail;
pub mod telemetry;
pub mod upstream;
