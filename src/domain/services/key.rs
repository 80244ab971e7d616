//! Keys of other services: their text, what each may do, and the snapshot that requests are checked
//! against.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::domain::{
    clock::{EntropyError, World},
    identity::Secrets,
    ids::ApiKeyId,
    text::{checked_text, named_enum},
};

named_enum! {
    /// What a key opens.
    Scope {
        /// Append events to a user's log.
        EventsAppend = "events:append",
        /// Append an event to many users' logs.
        EventsBroadcast = "events:broadcast",
        /// Read what devices have not acknowledged.
        OfflineRead = "offline:read",
    }
}

checked_text! {
    /// What people call a key.
    #[derive(Debug)]
    KeyName, "1 to 64 characters without control characters", |s| {
        (1..=64).contains(&s.chars().count()) && !s.chars().any(char::is_control) && s.trim() == s
    }
}

/// A key, without what makes it one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The server's id, a part of its text.
    pub id: ApiKeyId,
    /// What people call it.
    pub name: KeyName,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// Events of a user and hour; none: what the settings say.
    pub events_per_hour: Option<i64>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Since when it opens nothing any more.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Whether it opens this.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// What it is.
    pub key: ApiKey,
    /// SHA-256 of its text.
    pub hash: String,
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredKey({})", self.key.id)
    }
}

/// The text of a key: `lsk_<id>_<secret>`, the secret being base64url of 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(String);

impl KeyText {
    const PREFIX: &'static str = "lsk_";
    /// The longest that is looked at.
    const MOST: usize = 128;

    /// A new one.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn make(id: ApiKeyId, world: &World) -> Result<Self, EntropyError> {
        let secret = URL_SAFE_NO_PAD.encode(world.bytes::<32>()?);
        Ok(Self(format!("{}{}_{secret}", Self::PREFIX, id.0.simple())))
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> String {
        Secrets::sha256(&self.0)
    }

    /// The text itself, to be shown once.
    #[must_use]
    pub fn expose(self) -> String {
        self.0
    }

    /// The id that a presented text names.
    fn id_in(text: &str) -> Option<ApiKeyId> {
        let rest = text.get(..Self::MOST.min(text.len()))?;
        let (id, _) = rest.strip_prefix(Self::PREFIX)?.split_once('_')?;
        let is_simple = id.len() == 32 && !id.bytes().any(|b| b.is_ascii_uppercase());
        Uuid::try_parse(id).ok().filter(|_| is_simple).map(ApiKeyId)
    }
}

impl std::fmt::Debug for KeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyText(***)")
    }
}

/// Why a presented key opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefusal {
    /// There is no such key, or it was revoked.
    Invalid,
    /// What is known of keys is too old to be believed.
    Stale,
}

/// The keys in force: a snapshot that requests are checked against. It holds for less than a second,
/// so that a revoked key opens nothing for longer, also where the database does not answer.
#[derive(Debug, Default)]
pub struct KeyRing(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<ApiKeyId, (Arc<ApiKey>, String)>,
    /// When they were asked for.
    as_of: Option<Instant>,
}

impl KeyRing {
    /// For how long a read is believed.
    pub const HOLDS: Duration = Duration::from_millis(900);

    /// Puts in force what a read that began at `as_of` found; an older read than the last changes
    /// nothing.
    pub fn publish(&self, stored: Vec<StoredKey>, as_of: Instant) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.as_of.is_some_and(|newest| newest > as_of) {
            return;
        }
        let in_force = stored.into_iter().filter(|it| it.key.revoked_at.is_none());
        known.keys = in_force
            .map(|StoredKey { key, hash }| (key.id, (Arc::new(key), hash)))
            .collect();
        known.as_of = Some(as_of);
    }

    /// The key that `text` is.
    ///
    /// # Errors
    /// [`KeyRefusal`].
    pub fn check(&self, text: &str, now: Instant) -> Result<Arc<ApiKey>, KeyRefusal> {
        let id = KeyText::id_in(text).ok_or(KeyRefusal::Invalid)?;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let age = known.as_of.map(|at| now.saturating_duration_since(at));
        if age.is_none_or(|age| age > Self::HOLDS) {
            return Err(KeyRefusal::Stale);
        }
        let (key, hash) = known.keys.get(&id).ok_or(KeyRefusal::Invalid)?;
        // Digests have one length, and tell nothing of what they are of.
        let same = Secrets::sha256(text).as_bytes().ct_eq(hash.as_bytes());
        if bool::from(same) {
            Ok(Arc::clone(key))
        } else {
            Err(KeyRefusal::Invalid)
        }
    }

    /// How many are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.keys.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made() -> (KeyText, StoredKey) {
        let world = World::system();
        let id = ApiKeyId(world.uuid().unwrap());
        let text = KeyText::make(id, &world).unwrap();
        let key = ApiKey {
            id,
            name: KeyName::parse("billing").unwrap(),
            scopes: vec![Scope::EventsAppend],
            events_per_hour: None,
            created_at: world.now(),
            revoked_at: None,
        };
        let hash = text.hash();
        (text, StoredKey { key, hash })
    }

    #[test]
    fn a_key_opens_what_it_is_and_no_other_text_does() {
        let now = World::system().instant();
        let ((one, stored), (two, other)) = (made(), made());
        let ring = KeyRing::default();
        ring.publish(vec![stored.clone(), other], now);
        let (one, two) = (one.expose(), two.expose());
        assert_eq!(*ring.check(&one, now).unwrap(), stored.key);
        assert_eq!(one.len(), 4 + 32 + 1 + 43);
        // The id of one with the secret of the other.
        let (mixed, cut) = (
            format!("{}{}", &one[..37], &two[37..]),
            &one[..one.len() - 1],
        );
        let (longer, upper) = (format!("{one}x"), one.replace("lsk_", "LSK_"));
        for wrong in [
            mixed.as_str(),
            cut,
            &longer,
            &upper,
            "",
            "lsk_",
            "lsk__",
            &"lsk_é".repeat(40),
        ] {
            assert_eq!(
                ring.check(wrong, now).unwrap_err(),
                KeyRefusal::Invalid,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_revoked_key_and_an_old_snapshot_open_nothing() {
        let now = World::system().instant();
        let (text, mut stored) = made();
        let text = text.expose();
        let ring = KeyRing::default();
        assert_eq!(ring.check(&text, now).unwrap_err(), KeyRefusal::Stale);
        ring.publish(vec![stored.clone()], now);
        assert!(ring.check(&text, now + KeyRing::HOLDS).is_ok());
        let late = now + KeyRing::HOLDS + Duration::from_millis(1);
        assert_eq!(ring.check(&text, late).unwrap_err(), KeyRefusal::Stale);
        let revoked = {
            stored.key.revoked_at = Some(stored.key.created_at);
            stored.clone()
        };
        ring.publish(vec![revoked], late);
        assert_eq!(ring.check(&text, late).unwrap_err(), KeyRefusal::Invalid);
        // A read that was slow does not bring it back.
        stored.key.revoked_at = None;
        ring.publish(vec![stored], now);
        assert_eq!(ring.check(&text, late).unwrap_err(), KeyRefusal::Invalid);
        assert!(ring.is_empty());
    }

    #[test]
    fn keys_do_not_show_themselves() {
        let (text, stored) = made();
        let shown = format!("{text:?} {stored:?}");
        assert!(
            !shown.contains(&stored.hash) && !shown.contains(&text.expose()),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_checked_without_harm(text in "(lsk_)?\\PC{0,140}|lsk_[0-9a-f]{30,34}_\\PC{0,4}") {
            let now = World::system().instant();
            let ring = KeyRing::default();
            ring.publish(vec![made().1], now);
            prop_assert_eq!(ring.check(&text, now).unwrap_err(), KeyRefusal::Invalid);
        }
    }
}
