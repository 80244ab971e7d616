//! Phone numbers and the codes sent to them. Neither shows itself in `Debug`.

use crate::domain::{mask, text::checked_text};

checked_text! {
    /// A phone number in E.164 form: `+` and 8 to 15 digits.
    Phone, "a phone number such as +8613800138000: + and 8 to 15 digits", |s| {
        s.strip_prefix('+').is_some_and(|d| {
            (8..=15).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_digit()) && !d.starts_with('0')
        })
    }
}

impl std::fmt::Debug for Phone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&mask::phone(self.as_str()))
    }
}

checked_text! {
    /// A code of six digits.
    SmsCode, "a code of 6 digits", |s| s.len() == 6 && s.bytes().all(|b| b.is_ascii_digit())
}

impl std::fmt::Debug for SmsCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("******")
    }
}

impl SmsCode {
    /// The code that shows `n` modulo a million.
    #[must_use]
    pub fn from_number(n: u64) -> Self {
        Self(format!("{:06}", n % 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_are_e164_and_masked() {
        for good in ["+8613800138000", "+12025550123", "+12345678"] {
            assert!(Phone::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "13800138000",
            "+0123456789",
            "+1234567",
            "+1234567890123456",
            "+86 138",
        ] {
            assert!(Phone::parse(bad).is_err(), "{bad}");
        }
        let phone = Phone::parse("+8613800138000").unwrap();
        assert_eq!(format!("{phone:?}"), "+86138****8000");
    }

    #[test]
    fn codes_keep_their_leading_zeros() {
        assert_eq!(SmsCode::from_number(42).as_str(), "000042");
        assert!(SmsCode::parse("12345").is_err());
        assert!(SmsCode::parse("12345a").is_err());
    }
}
