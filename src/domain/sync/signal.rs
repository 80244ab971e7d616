//! What devices of a user tell each other beside the log: signals, which nobody stores, and who is
//! there.

use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::domain::{
    identity::ClientDeviceId,
    ids::Epoch,
    text::{checked_text, is_token},
};

checked_text!(
    /// What a signal is about, such as `volume.set`.
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

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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

/// What a node tells the others about one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Who tells.
    pub node: String,
    /// The epoch of the user's log, as the node knows it: another deployment has another.
    pub epoch: Epoch,
    /// What.
    pub news: NodeNews,
}

/// See [`Told`]. Tagged from outside: raw JSON can be read in no other form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeNews {
    /// A device that is attached to the node sent a signal.
    Signal {
        /// The device, by its own id.
        from: ClientDeviceId,
        /// What it sent.
        signal: Signal,
    },
    /// These devices are attached to the node.
    Present {
        /// By their own ids.
        devices: Vec<ClientDeviceId>,
        /// The others are to tell the same of themselves.
        answer: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn what_nodes_tell_comes_back_as_it_was() {
        let data = raw("{\"n\": 9007199254740993.0, \"n\": [ ]}");
        let signal = |to: &str| Signal::parse(to.into(), "volume.up".into(), Some(&data)).unwrap();
        let id = |s: &str| ClientDeviceId::parse(s).unwrap();
        for news in [
            NodeNews::Signal {
                from: id("a"),
                signal: signal("all"),
            },
            NodeNews::Signal {
                from: id("a"),
                signal: signal("b"),
            },
            NodeNews::Present {
                devices: vec![id("a"), id("b")],
                answer: true,
            },
        ] {
            let told = Told {
                node: "n1".into(),
                epoch: Epoch(uuid::Uuid::from_u128(7)),
                news,
            };
            let text = serde_json::to_string(&told).unwrap();
            assert_eq!(serde_json::from_str::<Told>(&text).unwrap(), told);
        }
    }

    #[test]
    fn data_is_bounded() {
        let fits = format!("\"{}\"", "x".repeat(SignalData::MAX_BYTES - 2));
        let parse = |text: &str| Signal::parse("all".into(), "n".into(), Some(&raw(text)));
        assert!(parse(&fits).is_ok());
        assert!(
            parse(&format!(" {fits}")).is_ok(),
            "white space does not count"
        );
        assert!(parse(&format!("[{fits}]")).is_err());
    }
}
