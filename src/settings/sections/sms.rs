//! `[sms]`: who sends the codes.

use crate::settings::reader::Reader;

/// Who sends the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmsProvider {
    /// Nobody: codes are written to `dev-sms.log` in the data folder.
    Console,
}

impl SmsProvider {
    /// Seconds between two codes to a phone, when the settings leave it to the provider.
    #[must_use]
    pub const fn own_resend_secs(self) -> u64 {
        match self {
            Self::Console => 1,
        }
    }

    /// Codes that a phone may be sent within an hour, when the settings leave it to the provider.
    /// One that sends real messages allows a handful: each code can be guessed at anew.
    #[must_use]
    pub const fn own_codes_per_hour(self) -> u32 {
        match self {
            // No limit beside the time between two codes.
            Self::Console => 3600,
        }
    }
}

/// Text messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sms {
    /// Who sends the codes.
    pub provider: SmsProvider,
    /// Seconds between two codes to a phone, already decided: never the 0 of the file.
    pub resend_secs: u64,
    /// Codes that a phone may be sent within an hour, already decided.
    pub codes_per_hour: u32,
    /// Let the console provider serve clients of other machines.
    pub allow_console_beyond_loopback: bool,
}

impl Sms {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        let provider = from.choice(
            "sms.provider",
            SmsProvider::Console,
            &[("console", SmsProvider::Console)],
        );
        let resend_secs = match from.number("sms.resend_secs", 0, &(0..=3600)) {
            0 => provider.own_resend_secs(),
            secs => secs,
        };
        let codes_per_hour = match from.number("sms.codes_per_hour", 0, &(0..=3600)) {
            0 => provider.own_codes_per_hour(),
            codes => codes,
        };
        Self {
            provider,
            resend_secs,
            codes_per_hour,
            allow_console_beyond_loopback: from.flag("sms.allow_console_beyond_loopback", false),
        }
    }
}
