//! What devices of a user tell each other beside the log: signals, which nobody stores, and who is
//! there.

use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::domain::{
    identity::ClientDeviceId,
    text::{checked_text, is_token},
};

checked_text!(
    /// What a signal is about, such as `player.pause`.
    SignalName,
    "1 to 128 of letters, digits, '.', '_', ':' and '-'",
    |s| is_token(s, b"._:-")
);

impl std::fmt::Debug for SignalName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Any JSON value, as its sender wrote it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SignalData(ByteString);

impl SignalData {
    /// Bytes that the data of a signal may have.
    pub const MAX_BYTES: usize = 16 * 1024;

    fn new(raw: &RawValue) -> Self {
        Self(raw.get().into())
    }
}

impl Serialize for SignalData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SignalData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self::new(&raw))
    }
}

impl std::fmt::Debug for SignalData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// For whom a signal is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalTo {
    /// All other devices of the user.
    All,
    /// One device, by its own id.
    Device(ClientDeviceId),
}

/// Something for other devices of the user, now or never.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signal {
    /// For whom.
    pub to: SignalTo,
    /// What it is about.
    pub name: SignalName,
    /// Whatever the sender put there.
    pub data: SignalData,
}

impl Signal {
    /// Takes what a client sent.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn parse(
        to: String,
        name: String,
        data: Option<&RawValue>,
    ) -> Result<Self, &'static str> {
        let to = match to.as_str() {
            "all" => SignalTo::All,
            _ => SignalTo::Device(
                ClientDeviceId::parse(to).map_err(|_| "to: a device_id, or \"all\"")?,
            ),
        };
        let name = SignalName::parse(name)
            .map_err(|_| "name: 1 to 128 of letters, digits, '.', '_', ':' and '-'")?;
        let data = data.unwrap_or(RawValue::NULL);
        if data.get().len() > SignalData::MAX_BYTES {
            return Err("data: at most 16 KiB");
        }
        Ok(Self {
            to,
            name,
            data: SignalData::new(data),
        })
    }
}

/// A device that is connected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
pub struct PresentDevice {
    /// The device, by its own id.
    pub device_id: ClientDeviceId,
}
