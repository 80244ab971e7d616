//! Actors that deal with who a caller is, outside of one user's session.

mod login_desk;
mod opened;
mod revocation_keeper;
mod trust;

pub use login_desk::{
    CodeReply, LogIn, LogInReply, LoginConfig, LoginDesk, LoginDesks, LoginParts, RequestCode,
};
pub use opened::Opened;
pub(in crate::actors) use opened::open;
pub use revocation_keeper::{LookNow, RevocationKeeper, RevocationParts};
pub use trust::{Pulse, Trust};
