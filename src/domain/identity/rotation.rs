//! How a refresh token that comes in is judged.
//!
//! A token family descends from one login; each rotation raises its counter. Only the newest token
//! opens anything. One that was rotated away came twice: either its answer was lost, which the
//! retry key proves, or it was stolen, and then the whole family ends.

use crate::domain::ids::TokenFamily;

/// What the store holds of a device's refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationState {
    /// The family of the newest login.
    pub family: TokenFamily,
    /// Rotations since that login.
    pub counter: i64,
    /// SHA-256 of the newest token, hexadecimal; none when the device is signed out.
    pub token_hash: Option<String>,
    /// SHA-256 of the `Idempotency-Key` of the last rotation.
    pub retry_key_hash: Option<String>,
}

/// What a client presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The family within the token.
    pub family: TokenFamily,
    /// The counter within the token.
    pub counter: i64,
    /// SHA-256 of the token, hexadecimal.
    pub token_hash: String,
    /// SHA-256 of the `Idempotency-Key`, if one came along.
    pub retry_key_hash: Option<String>,
}

/// What to do with a presented token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the newest: raise the counter and hand out the next pair.
    Rotate,
    /// Its answer was lost: hand out the pair of that rotation again.
    Repeat,
    /// It was used before: sign the device out.
    Reused,
    /// It belongs to an older login or a signed-out device, or it is newer than what is stored.
    Invalid,
}

/// Judges a token whose signature was found good.
#[must_use]
pub fn judge(stored: &RotationState, presented: &Presented) -> Verdict {
    let Some(newest) = &stored.token_hash else {
        return Verdict::Invalid;
    };
    if stored.family != presented.family || presented.counter > stored.counter {
        // Newer than what is stored: made after the state that a restore brought back. That is
        // nobody's theft, and whoever holds the stored one may be another; so neither gets in by it
        // nor is signed out.
        Verdict::Invalid
    } else if *newest == presented.token_hash {
        Verdict::Rotate
    } else if presented.counter.checked_add(1) == Some(stored.counter)
        && presented.retry_key_hash.is_some()
        && presented.retry_key_hash == stored.retry_key_hash
    {
        Verdict::Repeat
    } else {
        Verdict::Reused
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn family(n: u128) -> TokenFamily {
        TokenFamily(Uuid::from_u128(n))
    }

    fn stored() -> RotationState {
        RotationState {
            family: family(1),
            counter: 5,
            token_hash: Some("t5".into()),
            retry_key_hash: Some("k".into()),
        }
    }

    fn presented(counter: i64, key: Option<&str>) -> Presented {
        Presented {
            family: family(1),
            counter,
            token_hash: format!("t{counter}"),
            retry_key_hash: key.map(Into::into),
        }
    }

    #[test]
    fn each_case() {
        let cases = [
            (presented(5, None), Verdict::Rotate),
            (presented(5, Some("k")), Verdict::Rotate),
            (presented(4, Some("k")), Verdict::Repeat),
            (presented(4, Some("other")), Verdict::Reused),
            (presented(4, None), Verdict::Reused),
            (presented(3, Some("k")), Verdict::Reused),
            (presented(6, None), Verdict::Invalid),
            (presented(6, Some("k")), Verdict::Invalid),
            (presented(i64::MAX, Some("k")), Verdict::Invalid),
            (
                Presented {
                    family: family(2),
                    ..presented(5, None)
                },
                Verdict::Invalid,
            ),
        ];
        for (p, verdict) in cases {
            assert_eq!(judge(&stored(), &p), verdict, "{p:?}");
        }
    }

    #[test]
    fn no_retry_key_never_equals_no_retry_key() {
        let stored = RotationState {
            retry_key_hash: None,
            ..stored()
        };
        assert_eq!(judge(&stored, &presented(4, None)), Verdict::Reused);
    }

    #[test]
    fn nothing_opens_a_signed_out_device() {
        let stored = RotationState {
            token_hash: None,
            ..stored()
        };
        assert_eq!(judge(&stored, &presented(5, None)), Verdict::Invalid);
        assert_eq!(judge(&stored, &presented(4, Some("k"))), Verdict::Invalid);
    }
}
