//! How times are written on the wire: RFC 3339, UTC, always six digits of a second. And how those that
//! come from outside are read: as both engines can keep and compare them.

use std::borrow::Cow;

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// Such as `2026-11-20T10:00:00.120000Z`.
#[must_use]
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// For `#[serde(serialize_with)]`.
pub(super) fn serialize<S: Serializer>(at: &DateTime<Utc>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&rfc3339(*at))
}

/// Reads RFC 3339, cut to microseconds, which is what the store keeps. None before 1970, and after 9999:
/// such years have a sign, and `SQLite` compares times as texts.
#[must_use]
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    // A leap second becomes the second after it: a cursor could not tell it from that.
    let at = DateTime::from_timestamp_micros(at.timestamp_micros())?;
    (at >= DateTime::UNIX_EPOCH && at.year() <= 9999).then_some(at)
}

/// For `#[serde(deserialize_with)]`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<DateTime<Utc>, D::Error> {
    let text = Cow::<'de, str>::deserialize(d)?;
    parse(&text).ok_or_else(|| D::Error::custom("an RFC 3339 time from 1970 on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_can_be_kept() {
        let read = |text: &str| parse(text).map(rfc3339);
        for (text, kept) in [
            (
                "2026-11-20T10:00:00.1234567+08:00",
                "2026-11-20T02:00:00.123456Z",
            ),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
            (
                "9999-12-31T23:59:59.9999999Z",
                "9999-12-31T23:59:59.999999Z",
            ),
            // Leap seconds.
            ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00.500000Z"),
            ("2026-11-20T10:00:60Z", "2026-11-20T10:01:00.000000Z"),
        ] {
            assert_eq!(read(text).as_deref(), Some(kept), "{text}");
        }
        for text in [
            "yesterday",
            "2026-11-20T10:00:00",
            "1969-12-31T23:59:59.9999999Z",
            "+12345-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
            "9999-12-31T23:59:60Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn digits_are_not_dropped() {
        let at = DateTime::from_timestamp_micros(1_795_215_600_120_000).unwrap();
        assert_eq!(rfc3339(at), "2026-11-20T23:00:00.120000Z");
    }
}
