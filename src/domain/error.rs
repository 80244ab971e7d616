//! The closed table of error codes that clients may rely on.
//!
//! A code's name and status are public contract: they change only on purpose, and a test prints
//! the whole table.

use serde::Serialize;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $code:literal, $title:literal;)+) => {
        /// What went wrong, as a client sees it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name),+ }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable name, `snake_case`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),+ }
            }

            /// One line for people, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    MalformedJson = 400, "malformed_json", "The body is not valid JSON";
    /// A header has a value that it cannot have.
    InvalidHeader = 400, "invalid_header", "A header has an invalid value";
    /// A field is missing, unknown, of the wrong type or out of range.
    InvalidRequest = 422, "invalid_request", "The request has invalid fields";
    /// No such path.
    NotFound = 404, "not_found", "There is nothing at this path";
    /// The path exists, the method does not.
    MethodNotAllowed = 405, "method_not_allowed", "This path does not take this method";
    /// The body is larger than 1 MiB.
    BodyTooLarge = 413, "body_too_large", "The body is too large";
    /// The body is not declared as JSON.
    UnsupportedMediaType = 415, "unsupported_media_type", "The body must be application/json";
    /// No token was sent.
    Unauthenticated = 401, "unauthenticated", "An access token is needed";
    /// The token is not one of ours.
    TokenInvalid = 401, "token_invalid", "The access token is not valid";
    /// The token's time is over.
    TokenExpired = 401, "token_expired", "The access token has expired";
    /// The token's device or user was revoked.
    TokenRevoked = 401, "token_revoked", "The access token was revoked";
    /// No such code is in force for the phone.
    SmsCodeInvalid = 401, "sms_code_invalid", "The code is wrong, used or expired";
    /// Every try was used up.
    SmsCodeExhausted = 429, "sms_code_exhausted", "Too many wrong tries for this code";
    /// The phone asked for a code too soon.
    SmsCooldown = 429, "sms_cooldown", "A code was sent a moment ago";
    /// No provider took the message.
    SmsUnavailable = 503, "sms_unavailable", "The code could not be sent";
    /// Not a refresh token in force.
    RefreshTokenInvalid = 401, "refresh_token_invalid", "The refresh token is not valid";
    /// A refresh token came twice: its device was signed out.
    RefreshTokenReused = 401, "refresh_token_reused", "The refresh token was used before";
    /// Not a ticket in force.
    TicketInvalid = 401, "ticket_invalid", "The ticket is wrong, used or expired";
    /// The page's origin is not on the list.
    OriginNotAllowed = 403, "origin_not_allowed", "This origin may not connect";
    /// The user has as many devices as allowed.
    DeviceLimitReached = 409, "device_limit_reached", "The user has no room for another device";
    /// No such device of this user.
    DeviceNotFound = 404, "device_not_found", "The user has no such device";
    /// Never was a favorite of this user.
    FavoriteNotFound = 404, "favorite_not_found", "The user never had this favorite";
    /// Never was in this user's history, or long ago.
    PlayNotFound = 404, "play_not_found", "The user's history has no such play";
    /// No such playlist of this user, or it is not public.
    PlaylistNotFound = 404, "playlist_not_found", "There is no such playlist";
    /// The playlist has no such entry.
    EntryNotFound = 404, "entry_not_found", "The playlist has no such entry";
    /// The user has as many playlists as allowed.
    PlaylistLimitReached = 409, "playlist_limit_reached", "The user has no room for another playlist";
    /// The playlist would have more songs than allowed.
    PlaylistFull = 409, "playlist_full", "The playlist has no room for so many songs";
    /// An order of a playlist names not every entry.
    OrderIncomplete = 409, "order_incomplete", "The new order leaves out entries of the playlist";
    /// A newer snapshot of the user was asked for before this one began.
    SnapshotReplaced = 409, "snapshot_replaced", "Another snapshot of this user was asked for";
    /// `If-Match` names another version.
    PreconditionFailed = 412, "precondition_failed", "The playlist has another version than expected";
    /// The same `Idempotency-Key` came with another request.
    IdempotencyKeyReused = 422, "idempotency_key_reused", "The idempotency key was used for another request";
    /// The position lies beyond the log's head.
    AckBeyondHead = 422, "ack_beyond_head", "The position is beyond the head of the log";
    /// The log no longer holds what was asked for.
    LogCompacted = 410, "log_compacted", "The log no longer reaches back that far";
    /// The position belongs to another life of the log.
    EpochChanged = 410, "epoch_changed", "The position belongs to another epoch of the log";
    /// No admin token is set, so that nobody can present it.
    AdminOff = 403, "admin_off", "The admin API is off";
    /// The admin token is missing or is another one.
    AdminTokenInvalid = 401, "admin_token_invalid", "The admin token is missing or wrong";
    /// No such actor lives on this node.
    ActorNotFound = 404, "actor_not_found", "There is no such actor";
    /// The node needs the actor.
    ActorNotStoppable = 409, "actor_not_stoppable", "Actors of this kind cannot be stopped";
    /// The server cannot make the actor anew.
    ActorNotRestartable = 409, "actor_not_restartable", "Actors of this kind cannot be restarted";
    /// No key of a service was sent, or one that opens nothing.
    ApiKeyInvalid = 401, "api_key_invalid", "The API key is missing, wrong or revoked";
    /// The key does not open this.
    ScopeMissing = 403, "scope_missing", "The API key does not have the scope for this";
    /// No such user.
    UserNotFound = 404, "user_not_found", "There is no such user";
    /// A service asked for more events than the user's log may get in an hour.
    QuotaExceeded = 429, "quota_exceeded", "The quota of events for this user and hour is used up";
    /// The key began no such broadcast.
    BroadcastNotFound = 404, "broadcast_not_found", "There is no such broadcast of this API key";
    /// The key has as many unfinished broadcasts as it may.
    BroadcastLimitReached = 409, "broadcast_limit_reached", "The API key has too many unfinished broadcasts";
    /// The caller is over its rate.
    RateLimited = 429, "rate_limited", "Too many requests";
    /// The part that should answer is full.
    Overloaded = 503, "overloaded", "Too much work is waiting";
    /// The node holds as many sockets as it may.
    ConnectionLimitReached = 503, "connection_limit_reached", "The server holds as many sockets as it can";
    /// No answer within the deadline.
    Timeout = 504, "timeout", "No answer in time";
    /// The user's session failed too often and rests.
    SessionQuarantined = 503, "session_quarantined", "The user's session is quarantined";
    /// The user's session failed while it held the request.
    SessionRestarting = 503, "session_restarting", "The user's session restarted";
    /// The store refused, or is away; nothing was changed.
    StoreUnavailable = 503, "store_unavailable", "The store is unavailable";
    /// The store failed at the commit: the change may have happened.
    OutcomeUnknown = 503, "outcome_unknown", "Whether the change was stored is unknown";
    /// The path speaks WebSocket only.
    UpgradeRequired = 426, "upgrade_required", "This path takes WebSocket upgrades only";
    /// The server is going away.
    ShuttingDown = 503, "shutting_down", "The server is shutting down";
    /// A fault of ours; the log has it under the request's id.
    Internal = 500, "internal", "Something went wrong on our side";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.code())
    }
}

/// A field of the input that cannot be taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error, utoipa::ToSchema)]
#[error("{field}: {detail}")]
pub struct FieldError {
    /// Path of the field, such as `device.platform`.
    pub field: String,
    /// What was expected.
    pub detail: String,
}

impl FieldError {
    /// An error of `field`.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fmt::Write};

    use super::*;

    /// Public contract: a line changes only on purpose.
    const TABLE: &str = "\
400 malformed_json The body is not valid JSON
400 invalid_header A header has an invalid value
422 invalid_request The request has invalid fields
404 not_found There is nothing at this path
405 method_not_allowed This path does not take this method
413 body_too_large The body is too large
415 unsupported_media_type The body must be application/json
401 unauthenticated An access token is needed
401 token_invalid The access token is not valid
401 token_expired The access token has expired
401 token_revoked The access token was revoked
401 sms_code_invalid The code is wrong, used or expired
429 sms_code_exhausted Too many wrong tries for this code
429 sms_cooldown A code was sent a moment ago
503 sms_unavailable The code could not be sent
401 refresh_token_invalid The refresh token is not valid
401 refresh_token_reused The refresh token was used before
401 ticket_invalid The ticket is wrong, used or expired
403 origin_not_allowed This origin may not connect
409 device_limit_reached The user has no room for another device
404 device_not_found The user has no such device
404 favorite_not_found The user never had this favorite
404 play_not_found The user's history has no such play
404 playlist_not_found There is no such playlist
404 entry_not_found The playlist has no such entry
409 playlist_limit_reached The user has no room for another playlist
409 playlist_full The playlist has no room for so many songs
409 order_incomplete The new order leaves out entries of the playlist
409 snapshot_replaced Another snapshot of this user was asked for
412 precondition_failed The playlist has another version than expected
422 idempotency_key_reused The idempotency key was used for another request
422 ack_beyond_head The position is beyond the head of the log
410 log_compacted The log no longer reaches back that far
410 epoch_changed The position belongs to another epoch of the log
403 admin_off The admin API is off
401 admin_token_invalid The admin token is missing or wrong
404 actor_not_found There is no such actor
409 actor_not_stoppable Actors of this kind cannot be stopped
409 actor_not_restartable Actors of this kind cannot be restarted
401 api_key_invalid The API key is missing, wrong or revoked
403 scope_missing The API key does not have the scope for this
404 user_not_found There is no such user
429 quota_exceeded The quota of events for this user and hour is used up
404 broadcast_not_found There is no such broadcast of this API key
409 broadcast_limit_reached The API key has too many unfinished broadcasts
429 rate_limited Too many requests
503 overloaded Too much work is waiting
503 connection_limit_reached The server holds as many sockets as it can
504 timeout No answer in time
503 session_quarantined The user's session is quarantined
503 session_restarting The user's session restarted
503 store_unavailable The store is unavailable
503 outcome_unknown Whether the change was stored is unknown
426 upgrade_required This path takes WebSocket upgrades only
503 shutting_down The server is shutting down
500 internal Something went wrong on our side
";

    #[test]
    fn the_table_is_the_contract() {
        let mut table = String::new();
        for code in ErrorCode::ALL {
            writeln!(table, "{} {code} {}", code.status(), code.title()).unwrap();
        }
        assert_eq!(table, TABLE, "is now:\n{table}");
    }

    #[test]
    fn codes_are_names_and_no_two_are_the_same() {
        let mut seen = HashSet::new();
        for code in ErrorCode::ALL {
            let name = code.code();
            assert!(seen.insert(name), "{name} is there twice");
            let snake = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                && !name.starts_with('_')
                && !name.ends_with('_')
                && !name.contains("__");
            assert!(snake, "{name}");
            assert!((400..600).contains(&code.status()), "{name}");
            assert!(
                !code.title().is_empty() && !code.title().ends_with('.'),
                "{name}"
            );
            assert_eq!(serde_json::to_value(code).unwrap(), name);
        }
    }
}
