//! Who presented a wrong secret lately.
//!
//! Where a secret of few callers opens something (the admin token, keys of services), a network with too
//! many wrong ones is told to wait until a minute is over. Whoever has a right one is let in in any case.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use actix_web::http::header::{self, HeaderMap};

/// What a caller presents as a bearer: empty where the header is there and says something else.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?;
    let value = value.to_str().unwrap_or_default();
    let parts = value.split_once(' ');
    let parts = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Some(parts.map_or("", |(_, token)| token.trim()))
}

/// Wrong tries by network: when the first of the window was, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<IpAddr, (Instant, u32)>);

impl Tries {
    /// Wrong secrets that a network may present within [`Self::WINDOW`].
    pub(super) const MOST: u32 = 10;
    /// For how long wrong tries count, from the first on.
    const WINDOW: Duration = Duration::from_mins(1);
    /// Networks that are remembered.
    const NETWORKS: usize = 1024;

    /// For how long the network is still refused.
    pub(super) fn refused_for(&self, network: IpAddr, now: Instant) -> Option<Duration> {
        let (since, count) = self.0.get(&network)?;
        let left = Self::WINDOW.checked_sub(now.saturating_duration_since(*since))?;
        (*count >= Self::MOST && !left.is_zero()).then_some(left)
    }

    /// The network presented a wrong one.
    pub(super) fn failed(&mut self, network: IpAddr, now: Instant) {
        let counts = |since: &Instant| now.saturating_duration_since(*since) < Self::WINDOW;
        if self.0.len() >= Self::NETWORKS && !self.0.contains_key(&network) {
            self.0.retain(|_, (since, _)| counts(since));
            // So many at once are guessing: the oldest give way.
            let oldest = self.0.iter().min_by_key(|(_, (since, _))| *since);
            let oldest = oldest.map(|(network, _)| *network);
            if let Some(oldest) = oldest.filter(|_| self.0.len() >= Self::NETWORKS) {
                self.0.remove(&oldest);
            }
        }
        let tries = self.0.entry(network).or_insert((now, 0));
        if !counts(&tries.0) {
            *tries = (now, 0);
        }
        tries.1 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::{Clock as _, System};

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(n).into()
    }

    #[test]
    fn whoever_guesses_is_refused_alone_until_a_minute_is_over() {
        let (now, mut tries) = (System.instant(), Tries::default());
        for _ in 0..Tries::MOST {
            assert_eq!(tries.refused_for(ip(1), now), None);
            tries.failed(ip(1), now);
        }
        let sec = Duration::from_secs(1);
        assert_eq!(tries.refused_for(ip(1), now + sec * 20), Some(sec * 40));
        assert_eq!(tries.refused_for(ip(2), now), None);
        assert_eq!(tries.refused_for(ip(1), now + sec * 60), None);
        tries.failed(ip(1), now + sec * 61);
        assert_eq!(tries.refused_for(ip(1), now + sec * 61), None);
    }

    #[test]
    fn many_who_guess_cost_no_memory() {
        let (now, mut tries) = (System.instant(), Tries::default());
        for n in 0..10_000 {
            tries.failed(ip(n), now + Duration::from_millis(n.into()));
        }
        assert_eq!(tries.0.len(), Tries::NETWORKS);
        assert!(tries.0.contains_key(&ip(9999)) && !tries.0.contains_key(&ip(0)));
    }
}
