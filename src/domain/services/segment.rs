//! For whom a broadcast is: everybody, some by their ids, or those with certain devices.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::{identity::Platform, ids::UserId, object::Object, time};

/// The most users that can be named.
const MOST_USERS: usize = 10_000;

/// For whom a broadcast is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Object<Written>", into = "Written")]
pub enum Segment {
    /// Everybody.
    Everybody,
    /// These, in the order of their ids, none twice.
    Users(Vec<UserId>),
    /// Who has a device that is of one of these platforms (none: of any) and was last active since.
    Devices {
        /// Any where none is named.
        platforms: Vec<Platform>,
        /// Whenever it was, where none is named.
        active_since: Option<DateTime<Utc>>,
    },
}

/// As it is written. All of it left out is everybody, but only the store writes that.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Segment)]
pub(super) struct Written {
    /// At most 10,000 users. With nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_ids: Option<Vec<UserId>>,
    /// Users with a device of one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platforms: Option<Vec<Platform>>,
    /// Users with a device (of one of the platforms, if they are named) that logged in or renewed its
    /// tokens since: RFC 3339, from 1970 on.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "moment"
    )]
    active_since: Option<DateTime<Utc>>,
}

fn moment<'de, D: Deserializer<'de>>(d: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    #[derive(Deserialize)]
    struct Moment(#[serde(deserialize_with = "time::deserialize")] DateTime<Utc>);
    Ok(Option::<Moment>::deserialize(d)?.map(|Moment(at)| at))
}

impl Segment {
    /// What a caller may write: everybody is said by leaving the segment out.
    ///
    /// # Errors
    /// What was expected.
    pub fn named(self) -> Result<Self, &'static str> {
        match self {
            Self::Everybody => {
                Err("user_ids, or platforms and active_since; leave segment out to reach everybody")
            }
            named => Ok(named),
        }
    }
}

impl TryFrom<Object<Written>> for Segment {
    type Error = &'static str;

    fn try_from(Object(it): Object<Written>) -> Result<Self, Self::Error> {
        match it {
            Written {
                user_ids: Some(mut users),
                platforms: None,
                active_since: None,
            } => {
                if users.is_empty() || users.len() > MOST_USERS {
                    return Err("1 to 10000 user_ids");
                }
                users.sort_unstable();
                users.dedup();
                Ok(Self::Users(users))
            }
            Written {
                user_ids: Some(_), ..
            } => Err("user_ids without platforms and active_since"),
            Written {
                platforms: None,
                active_since: None,
                ..
            } => Ok(Self::Everybody),
            Written {
                platforms,
                active_since,
                ..
            } => {
                if platforms.as_ref().is_some_and(Vec::is_empty) {
                    return Err("at least one of platforms");
                }
                let mut platforms = platforms.unwrap_or_default();
                platforms.sort_unstable();
                platforms.dedup();
                Ok(Self::Devices {
                    platforms,
                    active_since,
                })
            }
        }
    }
}

impl From<Segment> for Written {
    fn from(it: Segment) -> Self {
        match it {
            Segment::Everybody => Self::default(),
            Segment::Users(users) => Self {
                user_ids: Some(users),
                ..Self::default()
            },
            Segment::Devices {
                platforms,
                active_since,
            } => Self {
                platforms: Some(platforms).filter(|it| !it.is_empty()),
                active_since,
                ..Self::default()
            },
        }
    }
}

impl utoipa::PartialSchema for Segment {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        Written::schema()
    }
}

impl utoipa::ToSchema for Segment {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn read(value: Value) -> Result<Segment, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn a_segment_is_one_of_few() {
        let [a, b] = [1, 2].map(|n| UserId(Uuid::from_u128(n)));
        assert_eq!(
            read(json!({"user_ids": [b, a, b]})),
            Ok(Segment::Users(vec![a, b]))
        );
        let both =
            json!({"platforms": ["web", "ios", "web"], "active_since": "2026-11-20T10:00:00Z"});
        assert!(matches!(
            read(both).unwrap(),
            Segment::Devices { platforms, active_since: Some(_) }
                if platforms == [Platform::Ios, Platform::Web]
        ));
        assert!(read(json!({"active_since": "2026-11-20T10:00:00Z"})).is_ok());
        for bad in [
            json!({"user_ids": []}),
            json!({"user_ids": vec![a; MOST_USERS + 1]}),
            json!({"user_ids": [a], "platforms": ["ios"]}),
            json!({"platforms": []}),
            json!({"platforms": ["fridge"]}),
            json!({"active_since": "yesterday"}),
            // `SQLite`, which compares texts, would find everybody active since then.
            json!({"active_since": "+12345-01-01T00:00:00Z"}),
            json!({"country": "de"}),
            json!([[a]]),
        ] {
            assert!(read(bad.clone()).is_err(), "{}", bad.to_string().len());
        }
        assert!(read(json!({})).unwrap().named().is_err());
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(
            users in prop::collection::vec(any::<u128>(), 0..5),
            platforms in prop::collection::vec(prop::sample::select(Platform::ALL), 0..4),
            since in prop::option::of(0..4_000_000_000_i64),
        ) {
            let users: Vec<UserId> = users.into_iter().map(|n| UserId(Uuid::from_u128(n))).collect();
            let since = since.and_then(|secs| DateTime::from_timestamp(secs, 0));
            let written = if users.is_empty() {
                Written { platforms: Some(platforms).filter(|it| !it.is_empty()), active_since: since, ..Written::default() }
            } else {
                Written { user_ids: Some(users), ..Written::default() }
            };
            let segment = Segment::try_from(Object(written)).unwrap();
            let stored = serde_json::to_value(&segment).unwrap();
            prop_assert!(stored.is_object());
            prop_assert_eq!(read(stored), Ok(segment));
        }
    }
}
