//! Actors that deal with who a caller is, outside of one user's session.

mod login_desk;
mod revocation_keeper;

pub(in crate::actors) use login_desk::open;
pub use login_desk::{
    CodeReply, LogIn, LogInReply, LoginConfig, LoginDesk, LoginDesks, LoginParts, Opened,
    RequestCode,
};
pub use revocation_keeper::{Pulse, RevocationKeeper};
