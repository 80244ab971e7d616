//! Places in lists that are sorted by time and id, as text for whoever carries them from page to page.
//!
//! Each list has a type of its own for its places; here is how all of them are written.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// 32 characters of base64url.
#[must_use]
pub fn encode(at: DateTime<Utc>, id: Uuid) -> String {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&at.timestamp_micros().to_be_bytes());
    bytes[8..].copy_from_slice(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads what [`encode`] made; `None` for anything else.
#[must_use]
pub fn decode(text: &str) -> Option<(DateTime<Utc>, Uuid)> {
    if text.len() != 32 {
        return None;
    }
    let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    // Nothing is older; before the year -4713 the database would fail.
    let micros = i64::from_be_bytes(bytes[..8].try_into().ok()?);
    if micros < 0 {
        return None;
    }
    let at = DateTime::from_timestamp_micros(micros)?;
    Some((at, Uuid::from_slice(&bytes[8..]).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients hold cursors while servers are replaced.
    #[test]
    fn the_format_stays() {
        let at = DateTime::from_timestamp_micros(1_795_215_600_120_000).unwrap();
        let id = Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
        let text = "AAZgvTQj8MABI0VniatN74EjRWeJq83v";
        assert_eq!(encode(at, id), text);
        assert_eq!(decode(text), Some((at, id)));
        assert_eq!(decode(&text[..31]), None);
        let long_ago = DateTime::from_timestamp_micros(-1).unwrap();
        assert_eq!(decode(&encode(long_ago, id)), None);
    }
}
