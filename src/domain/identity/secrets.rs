//! The server's keys, and what is made with them.
//!
//! Owns key material in memory; never shows it. The store hands it over at start.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Phone, SmsCode};
use crate::domain::{
    ids::PlaylistId,
    library::{Edition, VersionTag},
};

type HmacSha256 = Hmac<Sha256>;

/// One key as it is stored, unsealed.
#[derive(Clone)]
pub struct KeyMaterial {
    /// The key's id, shown in token headers.
    pub kid: String,
    /// 32 random bytes.
    pub bytes: [u8; 32],
}

impl std::fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyMaterial({}, ***)", self.kid)
    }
}

/// Every key that the server works with.
#[derive(Clone)]
pub struct Secrets {
    /// Keys that sign access tokens, the newest first; older ones only check.
    pub(super) access: Vec<KeyMaterial>,
    /// No access token is taken that is older, whatever it says of itself.
    pub(super) access_life: TimeDelta,
    refresh: [u8; 32],
    ticket: [u8; 32],
    sms_code: [u8; 32],
    edition: [u8; 32],
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(***)")
    }
}

/// HMAC-SHA-256 of the parts, each preceded by its length so that no two lists collide.
fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key of 32 bytes is always taken: HMAC takes keys of any length.
    let Ok(mut mac) = HmacSha256::new_from_slice(key) else {
        return [0; 32];
    };
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
            // Writing to a String cannot fail.
            let _ = write!(s, "{b:02x}");
            s
        })
}

impl Secrets {
    /// From the keys that sign access tokens (newest first) and the root of all derived keys.
    #[must_use]
    pub fn new(access: Vec<KeyMaterial>, root: &[u8; 32]) -> Self {
        Self {
            access,
            access_life: Self::LONGEST_ACCESS,
            refresh: mac(root, &[b"refresh-token"]),
            ticket: mac(root, &[b"sync-ticket"]),
            sms_code: mac(root, &[b"sms-code"]),
            edition: mac(root, &[b"playlist-edition"]),
        }
    }

    /// The longest that an access token can hold, by the bounds of its setting.
    pub const LONGEST_ACCESS: TimeDelta = TimeDelta::days(1);

    /// Takes no access token that is older than `life`: once the life is lowered, tokens that were made
    /// before do not outlive the revocations that are written from then on.
    #[must_use]
    pub fn with_access_life(mut self, life: TimeDelta) -> Self {
        self.access_life = life;
        self
    }

    /// What is stored of a code: useless without the key, unlike a plain hash of six digits.
    #[must_use]
    pub fn hash_code(&self, phone: &Phone, code: &SmsCode) -> String {
        hex(&mac(
            &self.sms_code,
            &[phone.as_str().as_bytes(), code.as_str().as_bytes()],
        ))
    }

    /// What cursors call one version of a playlist.
    #[must_use]
    pub fn edition(&self, playlist: PlaylistId, tag: VersionTag) -> Edition {
        let VersionTag { version, epoch } = tag;
        let id = playlist.0.as_bytes();
        let parts: [&[u8]; 3] = [id, &version.to_be_bytes(), &epoch.to_be_bytes()];
        let whole = mac(&self.edition, &parts);
        std::array::from_fn(|n| whole[n])
    }

    /// SHA-256 in hexadecimal, for what is long and random enough to need no key.
    #[must_use]
    pub fn sha256(text: &str) -> String {
        Self::sha256_of(&[text.as_bytes()])
    }

    /// SHA-256 in hexadecimal of `parts`, one behind the other.
    #[must_use]
    pub fn sha256_of(parts: &[&[u8]]) -> String {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part);
        }
        hex(&digest.finalize())
    }

    pub(super) fn seal_refresh(&self, body: &[u8]) -> String {
        seal("lsr_", &self.refresh, body)
    }

    pub(super) fn open_refresh(&self, text: &str) -> Option<Vec<u8>> {
        open("lsr_", &self.refresh, text)
    }

    pub(super) fn seal_ticket(&self, body: &[u8]) -> String {
        seal("lst_", &self.ticket, body)
    }

    pub(super) fn open_ticket(&self, text: &str) -> Option<Vec<u8>> {
        open("lst_", &self.ticket, text)
    }
}

/// `prefix` and base64url of `body ‖ mac(body)`.
fn seal(prefix: &str, key: &[u8; 32], body: &[u8]) -> String {
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&mac(key, &[body]));
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The body of what [`seal`] made with the same key.
fn open(prefix: &str, key: &[u8; 32], text: &str) -> Option<Vec<u8>> {
    if text.len() > 512 {
        return None;
    }
    let mut bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(prefix)?).ok()?;
    let body_len = bytes.len().checked_sub(32)?;
    let (body, tag) = bytes.split_at(body_len);
    if !bool::from(mac(key, &[body]).ct_eq(tag)) {
        return None;
    }
    bytes.truncate(body_len);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(root: u8) -> Secrets {
        let key = KeyMaterial {
            kid: "k".into(),
            bytes: [7; 32],
        };
        Secrets::new(vec![key], &[root; 32])
    }

    #[test]
    fn macs_are_those_of_the_standard() {
        // Made elsewhere: HMAC-SHA-256 of the length, 8 bytes big-endian, and the text.
        assert_eq!(
            hex(&mac(&[0; 32], &[b"abc"])),
            "8983e9940a134698bc589074bba9bca2d4465a24c585145e9f7996bbf379c7d7"
        );
        assert_eq!(
            Secrets::sha256("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn no_two_lists_of_parts_have_the_same_mac() {
        let lists: [&[&[u8]]; 5] = [&[b"ab"], &[b"a", b"b"], &[b"", b"ab"], &[b"ab", b""], &[]];
        for (i, a) in lists.iter().enumerate() {
            for b in &lists[i + 1..] {
                assert_ne!(mac(&[0; 32], a), mac(&[0; 32], b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_code_is_bound_to_its_phone_and_to_the_key() {
        let phone = |text| Phone::parse(text).unwrap();
        let code = SmsCode::from_number(123_456);
        let hash = secrets(1).hash_code(&phone("+8613800138000"), &code);
        assert_eq!(hash, secrets(1).hash_code(&phone("+8613800138000"), &code));
        assert_ne!(hash, secrets(1).hash_code(&phone("+8613800138001"), &code));
        assert_ne!(hash, secrets(2).hash_code(&phone("+8613800138000"), &code));
        let other = SmsCode::from_number(123_457);
        assert_ne!(hash, secrets(1).hash_code(&phone("+8613800138000"), &other));
    }

    #[test]
    fn keys_do_not_show_themselves() {
        let shown = format!("{:?} {:?}", secrets(1), secrets(1).access[0]);
        assert_eq!(shown, "Secrets(***) KeyMaterial(k, ***)");
    }
}
