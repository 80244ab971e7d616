//! The texts of hints: what a node says to the others on a channel, and how it is read.
//!
//! A text on a user's channel is the ends of the log, or begins with a word that says what it is and in
//! which version; one that a node does not know it passes over, so that nodes of two releases may share a
//! Redis.

use super::{Hint, Superseded};
use crate::domain::{
    ids::{DeviceId, Epoch, UserId},
    sync::{LogHead, Told},
};

/// Begins the name of a user's channel.
const CHANNEL: &str = "listen-stream:log:";
/// The channel of all nodes.
pub(super) const REVOKED_CHANNEL: &str = "listen-stream:revoked";
/// The text of [`Hint::Revoked`].
pub(super) const REVOKED: &str = "revoked/1";
/// Begins the text of [`Hint::Attached`].
const ATTACHED: &str = "attached/2";
/// Begins the text of [`Hint::Told`], before JSON.
const TOLD: &str = "told/2";

pub(super) fn channel(user: UserId) -> String {
    format!("{CHANNEL}{user}")
}

pub(super) fn write_told(told: &Told) -> String {
    // Maps with string keys and plain values always serialise.
    let told = serde_json::to_string(told).unwrap_or_default();
    format!("{TOLD} {told}")
}

pub(super) fn write_head(log: LogHead) -> String {
    format!("{} {} {}", log.epoch, log.head_seq, log.floor_seq)
}

pub(super) fn write_attached(epoch: Epoch, device: DeviceId, attach_epoch: i64) -> String {
    format!("{ATTACHED} {epoch} {device} {attach_epoch}")
}

pub(super) fn read(channel: &[u8], text: &[u8]) -> Option<Hint> {
    if channel == REVOKED_CHANNEL.as_bytes() {
        return (text == REVOKED.as_bytes()).then_some(Hint::Revoked);
    }
    let user = std::str::from_utf8(channel)
        .ok()?
        .strip_prefix(CHANNEL)?
        .parse()
        .ok()?;
    let text = std::str::from_utf8(text).ok()?;
    if let Some((TOLD, told)) = text.split_once(' ') {
        return Some(Hint::Told(user, serde_json::from_str(told).ok()?));
    }
    let words: Vec<&str> = text.splitn(5, ' ').collect();
    match words.as_slice() {
        [ATTACHED, epoch, device, attach_epoch] => Some(Hint::Attached(
            user,
            epoch.parse().ok()?,
            Superseded {
                device: device.parse().ok()?,
                attach_epoch: attach_epoch.parse().ok()?,
            },
        )),
        [epoch, head_seq, floor_seq] => Some(Hint::Head(
            user,
            LogHead {
                epoch: epoch.parse().ok()?,
                head_seq: head_seq.parse().ok()?,
                floor_seq: floor_seq.parse().ok()?,
            },
        )),
        _ => None,
    }
}
