//! Who a caller is: users, devices, codes and tokens, and the rules that judge them.

mod device;
mod phone;
mod revocation;
mod rotation;
mod secrets;
mod token;
mod verified;

use chrono::{DateTime, Utc};
pub use device::{ClientDeviceId, Device, DeviceName, Fingerprint, NewDevice, Platform};
pub use phone::{Phone, SmsCode};
pub use revocation::{Refusal, Revocation, RevocationSet};
pub use rotation::{Presented, RotationState, Verdict, judge};
pub use secrets::{KeyMaterial, Secrets};
use serde::Serialize;
pub use token::{Caller, Claims, RefreshToken, Ticket, TokenError, TokenPair};
pub use verified::VerifiedTokens;

use super::{ids::UserId, text::named_enum};

named_enum! {
    /// What a user may do.
    Role {
        /// An ordinary user.
        User = "USER",
        /// Runs the system.
        Admin = "ADMIN",
        /// Runs the administrators.
        SuperAdmin = "SUPER_ADMIN",
    }
}

/// A person with a phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct User {
    /// The server's id.
    pub id: UserId,
    /// Unique, E.164.
    pub phone: Phone,
    /// What the user may do.
    pub role: Role,
    /// When the first login made the user.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub created_at: DateTime<Utc>,
}
