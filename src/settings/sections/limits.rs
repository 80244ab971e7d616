//! `[limits]`: how much one caller may ask for.

use std::num::NonZeroU32;

use crate::settings::reader::Reader;

/// Rates and bursts; a burst is what may come at once after a quiet time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests a second from one address.
    pub ip_per_second: NonZeroU32,
    /// Requests at once from one address.
    pub ip_burst: NonZeroU32,
    /// Requests a second of one user.
    pub user_per_second: NonZeroU32,
    /// Requests at once of one user.
    pub user_burst: NonZeroU32,
    /// Calls of `/v1/auth` a minute from one address.
    pub auth_per_minute: NonZeroU32,
    /// Calls of `/v1/auth` at once from one address.
    pub auth_burst: NonZeroU32,
    /// Connections at once of one address, until they become sockets.
    pub ip_connections: usize,
}

impl Limits {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        let mut rate = |key, default| {
            let number = from.number(key, default, &(1..=1_000_000_u32));
            NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
        };
        Self {
            ip_per_second: rate("limits.ip_per_second", 500),
            ip_burst: rate("limits.ip_burst", 1000),
            user_per_second: rate("limits.user_per_second", 200),
            user_burst: rate("limits.user_burst", 400),
            auth_per_minute: rate("limits.auth_per_minute", 120),
            auth_burst: rate("limits.auth_burst", 60),
            ip_connections: from.number("limits.ip_connections", 1000, &(1..=1_000_000)),
        }
    }
}
