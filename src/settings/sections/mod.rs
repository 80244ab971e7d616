//! The sections of the settings: what each key means, its unit, its default and its bounds.

mod admin;
mod auth;
mod database;
mod history;
mod keys;
mod limits;
mod log;
mod redis;
mod server;
mod services;
mod sms;
mod sync;

pub use admin::Admin;
pub use auth::{Auth, RevocationsUnknown};
pub use database::{Database, Synchronous};
pub use history::History;
pub use keys::{Keys, MasterKey};
pub use limits::Limits;
pub use log::{Log, LogFormat};
pub use redis::Redis;
pub(super) use redis::many;
pub use server::Server;
pub use services::Services;
pub use sms::{Sms, SmsProvider};
pub use sync::Sync;
