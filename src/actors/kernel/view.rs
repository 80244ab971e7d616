//! What actors show of themselves, and what of it people may see.
//!
//! Every field of a view says by its type who may see it: [`Public`], [`Masked`] or [`Secret`]. A view
//! is made by the macro [`view`], which takes no field of another type: forgetting the choice does
//! not compile.
//!
//! ```
//! use listen_stream::actors::kernel::Public;
//! listen_stream::actors::kernel::view! {
//!     /// What a till shows.
//!     pub struct TillView {
//!         /// Sales so far.
//!         sales: Public<u64>,
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! ```compile_fail
//! use listen_stream::actors::kernel::Public;
//! listen_stream::actors::kernel::view! {
//!     /// What a till shows.
//!     pub struct TillView {
//!         /// Sales so far.
//!         sales: Public<u64>,
//!         /// Nobody said who may see it.
//!         cashier: String,
//!     }
//! }
//! # fn main() {}
//! ```

use std::{marker::PhantomData, time::Instant};

use serde::{Serialize, Serializer};

use super::{
    Ask, Class,
    envelope::{Cx, Reply, Serve, Unit},
};
use crate::domain::mask;

/// Shown as it is: counts, times, ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Public<T>(pub T);

/// Shown in part: what identifies a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked(String);

/// Never shown; only that it is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<T>(PhantomData<T>);

impl Masked {
    /// A phone number.
    #[must_use]
    pub fn phone(number: &str) -> Self {
        Self(mask::phone(number))
    }

    /// A token, or another opaque text.
    #[must_use]
    pub fn token(token: &str) -> Self {
        Self(mask::token(token))
    }

    /// An email address.
    #[must_use]
    pub fn email(address: &str) -> Self {
        Self(mask::email(address))
    }
}

impl<T> Secret<T> {
    /// Stands for `_value`, which is not kept.
    #[must_use]
    pub const fn of(_value: &T) -> Self {
        Self(PhantomData)
    }
}

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl<T: Serialize> Serialize for Public<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl Serialize for Masked {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<T> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("***")
    }
}

/// What a view may hold. Sealed: it is for the types of this file and for views.
pub trait Shown: Serialize + sealed::Sealed {}

/// What an actor shows. Made by [`view`] only.
pub trait View: Shown {}

#[doc(hidden)]
pub mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for Masked {}
impl Shown for Masked {}
impl<F: Shown> sealed::Sealed for Option<F> {}
impl<F: Shown> Shown for Option<F> {}
impl<F: Shown> sealed::Sealed for Vec<F> {}
impl<F: Shown> Shown for Vec<F> {}
impl<T> sealed::Sealed for Public<T> {}
impl<T: Serialize> Shown for Public<T> {}
impl<T> sealed::Sealed for Secret<T> {}
impl<T> Shown for Secret<T> {}

/// Makes a view: a struct each of whose fields is [`Public`], [`Masked`], [`Secret`], another view, or
/// an `Option` or `Vec` of these.
#[doc(hidden)]
#[macro_export]
macro_rules! __actor_view {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$doc:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
    })+) => {$(
        const _: () = {
            const fn is_shown<T: $crate::actors::kernel::Shown>() {}
            $(is_shown::<$type>();)*
        };

        $(#[$meta])*
        #[derive(Debug, $crate::actors::kernel::Serialize)]
        #[serde(crate = "::serde")]
        $vis struct $name {
            $($(#[$doc])* $field_vis $field: $type),*
        }

        impl $crate::actors::kernel::sealed::Sealed for $name {}
        impl $crate::actors::kernel::Shown for $name {}
        impl $crate::actors::kernel::View for $name {}
    )+};
}

#[doc(inline)]
pub use __actor_view as view;

/// Asks any actor for a view of its state.
#[derive(Debug)]
pub struct Observe;

impl Ask for Observe {
    type Reply = Option<serde_json::Value>;
    const CLASS: Class = Class::Control;
}

impl<A: Unit> Serve<Observe> for A {
    fn serve(
        &mut self,
        _: Observe,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Option<serde_json::Value>> {
        let now = cx.world.instant();
        Reply::Now(serde_json::to_value(self.view(now)).ok())
    }
}

/// Whole milliseconds from `since` to `now`, as views show times.
#[must_use]
pub fn millis_since(since: Instant, now: Instant) -> Public<u64> {
    let millis = now.saturating_duration_since(since).as_millis();
    Public(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    view! {
        /// All that there is.
        struct Whole {
            number: Public<u64>,
            phone: Masked,
            token: Secret<String>,
            parts: Vec<Part>,
            none: Option<Masked>,
        }

        /// A view in a view.
        struct Part {
            email: Masked,
            opaque: Masked,
        }
    }

    #[test]
    fn a_field_is_shown_as_its_type_says() {
        let token = "hunter2-hunter2-hunter2".to_owned();
        let whole = Whole {
            number: Public(7),
            phone: Masked::phone("+8613800138000"),
            token: Secret::of(&token),
            parts: vec![Part {
                email: Masked::email("user@example.com"),
                opaque: Masked::token(&token),
            }],
            none: None,
        };
        let shown = json!({
            "number": 7,
            "phone": "+86138****8000",
            "token": "***",
            "parts": [{"email": "u***@example.com", "opaque": "hunter2-****-hunter2"}],
            "none": null,
        });
        assert_eq!(serde_json::to_value(&whole).unwrap(), shown);
        let debug = format!("{whole:?}");
        assert!(
            !debug.contains("13800138") && !debug.contains(&token),
            "{debug}"
        );
    }
}
