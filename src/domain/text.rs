//! Strings that were checked where they came in, so that nothing inside checks them again.

/// Makes a newtype over `String` that exists only if `check` passed.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(
            Clone, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, sqlx::Type, utoipa::ToSchema,
        )]
        #[serde(try_from = "String")]
        #[sqlx(transparent)]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// What a value looks like, for errors.
            pub const EXPECTED: &'static str = $expected;

            /// Takes `s` if it is one.
            ///
            /// # Errors
            /// What was expected.
            pub fn parse(s: impl Into<String>) -> Result<Self, &'static str> {
                let s = s.into();
                let check: fn(&str) -> bool = $check;
                if check(&s) { Ok(Self(s)) } else { Err(Self::EXPECTED) }
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;
            fn try_from(s: String) -> Result<Self, Self::Error> {
                Self::parse(s)
            }
        }
    };
}
pub(crate) use checked_text;

/// Whether `s` has 1 to 128 bytes of letters, digits and `extra`.
pub(crate) fn is_token(s: &str, extra: &[u8]) -> bool {
    (1..=128).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

/// What a refusal quotes of the input: it goes back to who sent it, and need not be all of it.
pub(crate) fn shortened(s: &str) -> String {
    const MAX_QUOTED: usize = 200;
    match s.char_indices().nth(MAX_QUOTED) {
        Some((at, _)) => format!("{}…", &s[..at]),
        None => s.to_owned(),
    }
}

/// Whether U+0000 is anywhere in it, which JSON columns of `PostgreSQL` cannot hold.
pub(crate) fn holds_nul(map: &serde_json::Map<String, serde_json::Value>) -> bool {
    use serde_json::Value;
    fn within(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(within),
            Value::Object(map) => holds_nul(map),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    map.iter()
        .any(|(key, value)| key.contains('\0') || within(value))
}

/// Makes an enum whose variants have one name on the wire and in the store.
macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, sqlx::Type, utoipa::ToSchema,
        )]
        #[sqlx(type_name = "TEXT")]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] #[sqlx(rename = $text)] $variant),+
        }

        impl $name {
            /// Every value there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name on the wire and in the store.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        // By hand: the derived one calls a value that is no string a fault of the JSON's syntax.
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl std::str::FromStr for $name {
            type Err = &'static str;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                match s { $($text => Ok(Self::$variant),)+ _ => Err(concat!("one of", $(" ", $text),+)) }
            }
        }
    };
}
pub(crate) use named_enum;
