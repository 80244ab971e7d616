//! The sync log as clients see it, and the rules by which a device is kept in step.
//!
//! Owns positions, events, frames and the pure cores ([`Delivery`], [`SessionCore`]) that decide
//! what is sent when. Knows no socket, no store and no clock but the times it is told.

/// Whether a bug of [`planted::Bug`] is planted; without the feature `planted-bugs` none ever is.
#[cfg(feature = "planted-bugs")]
macro_rules! planted {
    ($bug:ident) => {
        crate::domain::sync::planted::is(crate::domain::sync::planted::Bug::$bug)
    };
}
#[cfg(not(feature = "planted-bugs"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

mod close;
mod cursor;
mod delivery;
mod event;
mod flood;
mod frame;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod retention;
mod session;
mod signal;

pub use close::CloseCode;
pub use delivery::{AckError, Delivery, Load, Window};
pub use event::{AckToken, Cursor, Event, EventView, LogHead, Position, Seen, WireEvent};
pub use flood::{Flood, FloodLimit, Verdict};
pub use frame::{
    BearerText, ClientFrame, FrameError, FrameErrorCode, Ref, ResyncReason, ServerFrame,
};
pub use retention::{Ages, Retention};
pub use session::{Attachment, Effect, LinkState, Pace, PlayerAsk, SessionConfig, SessionCore};
pub use signal::{NodeNews, PresentDevice, Signal, SignalData, SignalName, SignalTo, Told};
