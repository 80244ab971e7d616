//! `[auth]`: tokens, codes and devices.

use crate::settings::reader::Reader;

/// What becomes of tokens while the node does not know what was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationsUnknown {
    /// They are trusted as before.
    Open,
    /// They are refused.
    Closed,
}

/// How users sign in and stay signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// How long an access token holds, in seconds.
    pub access_token_secs: u64,
    /// How long a code sent by SMS holds, in seconds.
    pub sms_code_secs: u64,
    /// Wrong tries that use up a code.
    pub sms_tries: u32,
    /// Devices that a user may have at once.
    pub max_devices: u32,
    /// What becomes of tokens when revocations could not be read for 5 s.
    pub revocations_unknown: RevocationsUnknown,
}

impl Auth {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        Self {
            access_token_secs: from.number("auth.access_token_secs", 900, &(1..=86_400)),
            sms_code_secs: from.number("auth.sms_code_secs", 300, &(1..=3600)),
            sms_tries: from.number("auth.sms_tries", 5, &(1..=100)),
            max_devices: from.number("auth.max_devices", 5, &(1..=100)),
            revocations_unknown: from.choice(
                "auth.revocations_unknown",
                RevocationsUnknown::Open,
                &[
                    ("open", RevocationsUnknown::Open),
                    ("closed", RevocationsUnknown::Closed),
                ],
            ),
        }
    }
}
