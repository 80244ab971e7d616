//! Versions of what a user keeps, as clients name them in `ETag` and `If-Match`.

use crate::domain::ids::Epoch;

/// A version, in one life of the user's log: after a restore its number comes again, for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionTag {
    /// The `seq` of the event that made it.
    pub version: i64,
    /// The end of the log's epoch: its beginning is a time, which two epochs may share.
    pub epoch: u32,
}

impl VersionTag {
    /// The tag of `version` in a log of that epoch.
    #[must_use]
    pub fn new(version: i64, epoch: Epoch) -> Self {
        let [.., a, b, c, d] = *epoch.0.as_bytes();
        Self {
            version,
            epoch: u32::from_be_bytes([a, b, c, d]),
        }
    }

    /// Reads what [`std::fmt::Display`] shows; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (version, epoch) = text.split_once('-')?;
        let tag = Self {
            version: version.parse().ok()?,
            epoch: u32::from_str_radix(epoch, 16).ok()?,
        };
        // One spelling only.
        (tag.to_string() == text).then_some(tag)
    }
}

/// `17-0a1b2c3d`
impl std::fmt::Display for VersionTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{:08x}", self.version, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_tag_ends_as_the_epoch_does() {
        let epoch = "0193a0f2-5b7c-7c3e-8a1b-0123056789ab".parse().unwrap();
        assert_eq!(VersionTag::new(17, epoch).to_string(), "17-056789ab");
        for other in [
            "17",
            "17-",
            "17-56789ab",
            "17-056789AB",
            "+17-056789ab",
            "x-056789ab",
        ] {
            assert_eq!(VersionTag::parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn tags_come_back(version in 0..i64::MAX, epoch: u128, text in "\\PC{0,32}") {
            let tag = VersionTag::new(version, Epoch(Uuid::from_u128(epoch)));
            prop_assert_eq!(VersionTag::parse(&tag.to_string()), Some(tag));
            prop_assert!(VersionTag::parse(&text).is_none_or(|it| it.to_string() == text));
        }
    }
}
