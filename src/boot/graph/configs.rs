//! What the actors are told of the settings.

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    actors::identity::{LoginConfig, Trust},
    domain::{
        clock::World,
        services::Quotas,
        sync::{Retention, SessionConfig, Window},
    },
    settings::{RevocationsUnknown, Settings},
};

/// Frames that a connection may have left unread before signals to it are dropped.
const SIDE_FRAMES: usize = 64;

pub(super) fn session_config(settings: &Settings, node: String) -> SessionConfig {
    let sync = &settings.sync;
    SessionConfig {
        node,
        window: Window {
            events: sync.window_events,
            bytes: sync.window_bytes,
        },
        heartbeat: Duration::from_secs(sync.heartbeat_secs),
        heartbeat_timeout: Duration::from_secs(sync.heartbeat_timeout_secs),
        progress_timeout: Duration::from_secs(sync.progress_timeout_secs),
        signals_per_second: sync.signals_per_second,
        side_frames: SIDE_FRAMES,
    }
}

pub(super) fn retention(settings: &Settings) -> Retention {
    let sync = &settings.sync;
    Retention {
        max_age: TimeDelta::days(sync.retention_days.into()),
        min_age: TimeDelta::hours(sync.retention_min_hours.into()),
        max_events: sync.retention_max_events.into(),
        min_events: sync.retention_min_events.into(),
    }
}

/// Everything that is revoked has just been read.
pub(super) fn trust(settings: &Settings, world: &World) -> Trust {
    let closed = settings.auth.revocations_unknown == RevocationsUnknown::Closed;
    Trust::new(world.instant(), closed)
}

pub(super) fn quotas(settings: &Settings) -> Quotas {
    Quotas {
        of_key: settings.services.events_per_hour.into(),
        of_user: settings.services.user_events_per_hour.into(),
        of_log: (i64::from(settings.sync.retention_max_events)
            * i64::from(settings.services.log_share_percent)
            / 100)
            .max(1),
    }
}

pub(super) fn login_config(settings: &Settings) -> LoginConfig {
    let auth = &settings.auth;
    LoginConfig {
        code_life: seconds(auth.sms_code_secs),
        code_tries: i64::from(auth.sms_tries),
        resend: seconds(settings.sms.resend_secs),
        codes_per_hour: i64::from(settings.sms.codes_per_hour),
        access_life: seconds(auth.access_token_secs),
        max_devices: auth.max_devices as usize,
    }
}

pub(in crate::boot) fn seconds(n: u64) -> TimeDelta {
    i64::try_from(n)
        .ok()
        .and_then(TimeDelta::try_seconds)
        .unwrap_or(TimeDelta::MAX)
}
