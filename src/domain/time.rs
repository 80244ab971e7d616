//! How times are written on the wire: RFC 3339, UTC, always six digits of a second.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

/// Such as `2026-11-20T10:00:00.120000Z`.
#[must_use]
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// For `#[serde(serialize_with)]`.
pub(super) fn serialize<S: Serializer>(at: &DateTime<Utc>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&rfc3339(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_not_dropped() {
        let at = DateTime::from_timestamp_micros(1_795_215_600_120_000).unwrap();
        assert_eq!(rfc3339(at), "2026-11-20T23:00:00.120000Z");
    }
}
