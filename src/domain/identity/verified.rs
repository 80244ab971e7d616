//! Access tokens that were checked lately, so that their signature is not worked out again.
//!
//! Owns the texts of these tokens: never shows one. Only a token that was found good comes in, and
//! it goes with its time, or with the keys. What may change between two requests, the time and the
//! revocations, is checked each time as if the token were new.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use subtle::ConstantTimeEq;

use super::{Caller, Secrets, TokenError};

/// Tokens found good by one set of keys. A table in which each token has a few places that it may
/// take: who comes later pushes another out of one of them.
pub struct VerifiedTokens {
    /// Whose judgment these are.
    keys: Option<Arc<Secrets>>,
    places: Box<[Option<Verified>]>,
    /// Nobody can choose tokens that take each other's place.
    hasher: RandomState,
    /// The place that is looked at next for a token that is over.
    next: usize,
}

/// One token.
struct Verified {
    token: Box<str>,
    caller: Arc<Caller>,
}

impl std::fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VerifiedTokens(***)")
    }
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self::new()
    }
}

impl VerifiedTokens {
    /// How many are kept.
    pub const PLACES: usize = 4096;
    /// The longest that is kept, in bytes.
    pub const LONGEST: usize = 1024;
    /// How many places a token may take.
    const WAYS: usize = 4;

    /// None yet, and no memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys: None,
            places: Box::default(),
            hasher: RandomState::new(),
            next: 0,
        }
    }

    /// What [`Secrets::check`] says of `token`.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn check(
        &mut self,
        secrets: &Arc<Secrets>,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Arc<Caller>, TokenError> {
        if !self
            .keys
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, secrets))
        {
            self.keys = Some(Arc::clone(secrets));
            self.places = std::iter::repeat_with(|| None).take(Self::PLACES).collect();
        }
        self.forget_one(now);
        let turn = self.next % Self::WAYS;
        let Some(ways) = self.ways(token) else {
            return secrets.check(token, now).map(Arc::new);
        };
        let known = ways
            .iter_mut()
            .find(|it| it.as_ref().is_some_and(|it| it.is(token)));
        if let Some(place) = known {
            if let Some(known) = place.as_ref().filter(|it| it.caller.expires_at > now) {
                return Ok(Arc::clone(&known.caller));
            }
            *place = None;
            return Err(TokenError::Expired);
        }
        let caller = Arc::new(secrets.check(token, now)?);
        if token.len() <= Self::LONGEST {
            let place = ways.iter().position(Option::is_none);
            if let Some(place) = ways.get_mut(place.unwrap_or(turn)) {
                *place = Some(Verified {
                    token: token.into(),
                    caller: Arc::clone(&caller),
                });
            }
        }
        Ok(caller)
    }

    /// The places that `token` may take.
    fn ways(&mut self, token: &str) -> Option<&mut [Option<Verified>]> {
        let (_, signature) = token.rsplit_once('.')?;
        let hash = self.hasher.hash_one(signature);
        let sets = u64::try_from(self.places.len() / Self::WAYS).ok()?;
        let set = usize::try_from(hash.checked_rem(sets)?).ok()?;
        self.places
            .get_mut(set * Self::WAYS..(set + 1) * Self::WAYS)
    }

    /// Every place has its turn, so that tokens do not stay because nobody shows them again.
    fn forget_one(&mut self, now: DateTime<Utc>) {
        self.next = (self.next + 1) % self.places.len().max(1);
        if let Some(place) = self.places.get_mut(self.next)
            && place.as_ref().is_some_and(|it| it.caller.expires_at <= now)
        {
            *place = None;
        }
    }
}

impl Verified {
    /// Whether it is this very text. The signature, which is all that cannot be known, is compared
    /// in constant time.
    fn is(&self, token: &str) -> bool {
        let split = |token: &str| token.rfind('.').unwrap_or(0);
        let (ours, theirs) = (split(&self.token), split(token));
        let (said, seal) = self.token.as_bytes().split_at(ours);
        let (their_said, their_seal) = token.as_bytes().split_at(theirs);
        said == their_said && bool::from(seal.ct_eq(their_seal))
    }
}

#[cfg(test)]
mod tests;
