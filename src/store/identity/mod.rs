//! Users, devices, codes, tokens' places, tickets and revocations.

mod codes;
mod devices;
mod login;
mod refresh;
mod rows;
mod tickets;

pub use codes::{NewSmsCode, SmsCodePut};
pub use login::{Login, LoginIds, LoginOutcome, Session};
pub use refresh::{Rotate, RotateOutcome};
pub use tickets::NewTicket;
