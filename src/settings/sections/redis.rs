//! `[redis]`: what nodes share, when there are several.

use url::Url;

use crate::settings::{reader::Reader, secret::Secret};

/// Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// A `redis://` or `rediss://` URL, from `url` or `url_file`; `None` to do without.
    pub url: Option<Secret>,
}

impl Redis {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        Self {
            url: from.secret("redis.url", "redis.url_file", EXPECTED, |text| {
                // What is refused later, by its own name.
                is_redis_url(text) || many(text).is_some()
            }),
        }
    }
}

const EXPECTED: &str = "a URL that starts with redis:// or rediss:// and names a host, or nothing";

fn is_redis_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "redis" | "rediss")
            && url.host_str().is_some_and(|host| !host.is_empty())
    })
}

/// What a URL leads to that is more than one standalone Redis.
pub(in crate::settings) fn many(text: &str) -> Option<&'static str> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let is_ours = scheme.contains("redis") || scheme.contains("valkey");
    if is_ours && scheme.contains("cluster") {
        return Some("the URL of a Redis Cluster");
    }
    if scheme.contains("sentinel") {
        return Some("the URL of Redis Sentinels");
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (place, query) = rest.split_at(end);
    // A password may have a comma in it.
    let hosts = place.rsplit_once('@').map_or(place, |(_, hosts)| hosts);
    if is_ours && hosts.contains(',') {
        return Some("a URL with several hosts, as Redis Cluster and Sentinel have them");
    }
    let query = query.to_ascii_lowercase();
    let asks_for =
        |what: &str| query.contains(&format!("?{what}")) || query.contains(&format!("&{what}"));
    if is_ours && asks_for("sentinel") {
        return Some("the URL of Redis Sentinels");
    }
    (is_ours && asks_for("cluster")).then_some("the URL of a Redis Cluster")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_one_redis_is_told_from_one() {
        for (url, word) in [
            ("redis-cluster://a:7000", "Cluster"),
            ("rediss-cluster://a:7000", "Cluster"),
            ("redis+cluster://a", "Cluster"),
            ("redis+sentinel://a:26379/mymaster", "Sentinel"),
            ("rediss+sentinel://a", "Sentinel"),
            ("redis-sentinel://a", "Sentinel"),
            ("redis://a:6379,b:6379", "several hosts"),
            ("rediss://user:p@a,b/0", "several hosts"),
            ("redis://a/0?sentinelMasterId=mymaster", "Sentinel"),
            ("redis://a/0?db=1&cluster=true", "Cluster"),
        ] {
            assert!(many(url).is_some_and(|it| it.contains(word)), "{url}");
        }
        for url in [
            "redis://a:6379",
            "rediss://user:a,b@host:6379/1",
            "redis://cluster.example.com/0?protocol=resp3",
            "redis://sentinel@host",
            "https://cluster.example.com",
            "",
        ] {
            assert_eq!(many(url), None, "{url}");
        }
    }
}
