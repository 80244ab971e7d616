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
            url: from.secret(
                "redis.url",
                "redis.url_file",
                "a URL that starts with redis:// or rediss:// and names a host, or nothing",
                is_redis_url,
            ),
        }
    }
}

fn is_redis_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "redis" | "rediss")
            && url.host_str().is_some_and(|host| !host.is_empty())
    })
}
