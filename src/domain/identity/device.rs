//! Devices of a user. `id` is the server's, `device_id` is the one that the client made.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::{
    ids::{DeviceId, UserId},
    text::{checked_text, holds_nul, is_token, named_enum},
};

checked_text! {
    /// The id that a client made for itself; unique within its user.
    #[derive(Debug)]
    ClientDeviceId, "1 to 128 of letters, digits, . _ : -", |s| is_token(s, b"._:-")
}

checked_text! {
    /// What a person calls the device.
    #[derive(Debug)]
    DeviceName, "1 to 64 characters without control characters", |s| {
        (1..=64).contains(&s.chars().count()) && !s.chars().any(char::is_control) && s.trim() == s
    }
}

named_enum! {
    /// What kind of thing a device is.
    Platform {
        /// An Apple phone or tablet.
        Ios = "ios",
        /// An Android phone or tablet.
        Android = "android",
        /// A browser.
        Web = "web",
        /// A desktop program.
        Desktop = "desktop",
        /// A television.
        Tv = "tv",
    }
}

/// Traits of a device, as the client reports them: a JSON object of at most 4 KiB.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "serde_json::Map<String, serde_json::Value>")]
#[schema(value_type = Object)]
pub struct Fingerprint(serde_json::Map<String, serde_json::Value>);

impl Fingerprint {
    /// Bytes of JSON that a fingerprint may have.
    pub const MAX_BYTES: usize = 4096;

    /// As a JSON value.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::Value::Object(self.0.clone())
    }
}

impl TryFrom<serde_json::Map<String, serde_json::Value>> for Fingerprint {
    type Error = &'static str;
    fn try_from(map: serde_json::Map<String, serde_json::Value>) -> Result<Self, Self::Error> {
        match serde_json::to_vec(&map) {
            Ok(bytes) if bytes.len() <= Self::MAX_BYTES => {}
            _ => return Err("a JSON object of at most 4096 bytes"),
        }
        if holds_nul(&map) {
            return Err("a JSON object without U+0000");
        }
        Ok(Self(map))
    }
}

/// A device as its login describes it.
#[derive(Debug, Clone, PartialEq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// The id that the client made for itself.
    pub device_id: ClientDeviceId,
    /// What kind of thing it is.
    pub platform: Platform,
    /// What a person calls it; the platform's name when left out.
    pub name: Option<DeviceName>,
    /// Traits of the device.
    #[serde(default)]
    pub fingerprint: Fingerprint,
}

impl NewDevice {
    /// The given name, or the platform's.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.name
            .as_ref()
            .map_or(self.platform.as_str(), DeviceName::as_str)
    }
}

/// A registered device.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Device {
    /// The server's id.
    pub id: DeviceId,
    /// Whose it is.
    #[serde(skip)]
    pub user_id: UserId,
    /// The id that the client made for itself.
    pub device_id: ClientDeviceId,
    /// What kind of thing it is.
    pub platform: Platform,
    /// What a person calls it.
    pub name: String,
    /// When it last logged in or refreshed.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub last_active_at: DateTime<Utc>,
    /// When it was registered.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub created_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_what_both_databases_can_hold() {
        let read = |text: &str| serde_json::from_str::<Fingerprint>(text).is_ok();
        assert!(read(r#"{"a":["\\u0000",1e300,null],"b":{"c":""}}"#));
        for bad in [
            r#"{"a":"\u0000"}"#,
            r#"{"\u0000":1}"#,
            r#"{"a":[{"b":["x\u0000"]}]}"#,
            "[]",
        ] {
            assert!(!read(bad), "{bad}");
        }
        assert!(!read(&format!(r#"{{"a":"{}"}}"#, "x".repeat(4096))));
    }
}
