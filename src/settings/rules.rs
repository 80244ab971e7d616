//! Rules between settings: what each may be alone, but not together.

use std::net::{IpAddr, SocketAddr};

use super::{
    Settings,
    error::{Origin, ProblemKind},
    reader::Reader,
    secret::Secret,
    sections::{MasterKey, SmsProvider, many},
};

/// Notes everything in `settings` that does not go together.
pub(super) fn check(settings: &Settings, to: &mut Reader) {
    listeners(settings, to);
    sms(settings, to);
    heartbeat(settings, to);
    send_queue(settings, to);
    retention(settings, to);
    quotas(settings, to);
    master_key(settings, to);
    redis(settings, to);
}

fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn listeners(settings: &Settings, to: &mut Reader) {
    encryption(settings, to);
    let server = &settings.server;
    let with_files = "server.tls_cert_file and server.tls_key_file";
    let certified = server.tls_cert_file.is_some() || server.tls_key_file.is_some();
    let admin = Some(server.admin_listen);
    for (key, address, has_tls, by) in [
        ("server.listen", Some(server.listen), certified, with_files),
        (
            "server.admin_listen",
            admin,
            server.admin_tls,
            "server.admin_tls = true",
        ),
        (
            "server.internal_listen",
            server.internal_listen,
            server.internal_tls,
            "server.internal_tls = true",
        ),
    ] {
        let Some(address) = address else { continue };
        if !has_tls && !is_local(address) && !server.allow_plain_http_beyond_loopback {
            to.refuse(
                key,
                ProblemKind::Conflict,
                format!("{address}, which other machines may reach over plain HTTP"),
                format!(
                    "a loopback address, {by}, or server.allow_plain_http_beyond_loopback = true"
                ),
            );
        }
    }
    for (key, address, other_key, other) in [
        ("server.admin_listen", admin, "server.listen", server.listen),
        (
            "server.internal_listen",
            server.internal_listen,
            "server.listen",
            server.listen,
        ),
        (
            "server.internal_listen",
            server.internal_listen,
            "server.admin_listen",
            server.admin_listen,
        ),
    ] {
        let Some(address) = address.filter(|it| collide(*it, other)) else {
            continue;
        };
        let found = if address == other {
            format!("{address}, which is {other_key} too")
        } else {
            format!("{address}, which {other_key}, {other}, takes too")
        };
        to.refuse(key, ProblemKind::Conflict, found, "another port");
    }
}

/// Whether the system lets only one of two listeners have its address.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    // All addresses of IPv6 are those of IPv4 too.
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    one.port() == other.port() && one.port() != 0 && (a == b || covers(a, b) || covers(b, a))
}

/// A certificate has its key, and who speaks TLS has a certificate.
fn encryption(settings: &Settings, to: &mut Reader) {
    let server = &settings.server;
    let (cert, key) = (&server.tls_cert_file, &server.tls_key_file);
    for (name, file, other_name, other) in [
        ("server.tls_cert_file", cert, "server.tls_key_file", key),
        ("server.tls_key_file", key, "server.tls_cert_file", cert),
    ] {
        if file.is_none() && other.is_some() {
            let expected = format!("the path of a PEM file, because {other_name} is set");
            to.refuse(name, ProblemKind::Missing, "nothing", expected);
        }
    }
    let certified = cert.is_some() || key.is_some();
    for (name, on) in [
        ("server.admin_tls", server.admin_tls),
        ("server.internal_tls", server.internal_tls),
    ] {
        if on && !certified {
            to.refuse(
                name,
                ProblemKind::Conflict,
                "true without a certificate",
                "false, or server.tls_cert_file and server.tls_key_file",
            );
        }
    }
}

fn sms(settings: &Settings, to: &mut Reader) {
    let listen = settings.server.listen;
    let console = settings.sms.provider == SmsProvider::Console;
    if console && !is_local(listen) && !settings.sms.allow_console_beyond_loopback {
        let origin = to.origin("server.listen");
        to.refuse(
            "sms.provider",
            ProblemKind::Conflict,
            format!("\"console\" with server.listen at {listen} ({origin})"),
            "a provider that sends messages, a loopback address, or \
             sms.allow_console_beyond_loopback = true",
        );
    }
}

fn heartbeat(settings: &Settings, to: &mut Reader) {
    let every = settings.sync.heartbeat_secs;
    let timeout = settings.sync.heartbeat_timeout_secs;
    if timeout > every {
        return;
    }
    // Blame the one that somebody set.
    if to.origin("sync.heartbeat_timeout_secs") == Origin::Default {
        to.refuse(
            "sync.heartbeat_secs",
            ProblemKind::Conflict,
            every.to_string(),
            format!("less than sync.heartbeat_timeout_secs, {timeout}"),
        );
    } else {
        to.refuse(
            "sync.heartbeat_timeout_secs",
            ProblemKind::Conflict,
            timeout.to_string(),
            format!("more than sync.heartbeat_secs, {every}"),
        );
    }
}

/// The least that is kept of a log is not more than the most.
fn retention(settings: &Settings, to: &mut Reader) {
    let sync = &settings.sync;
    let (least, most) = (sync.retention_min_events, sync.retention_max_events);
    if least > most {
        // Blame the one that somebody set.
        if to.origin("sync.retention_min_events") == Origin::Default {
            to.refuse(
                "sync.retention_max_events",
                ProblemKind::Conflict,
                most.to_string(),
                format!("at least sync.retention_min_events, {least}"),
            );
        } else {
            to.refuse(
                "sync.retention_min_events",
                ProblemKind::Conflict,
                least.to_string(),
                format!("at most sync.retention_max_events, {most}"),
            );
        }
    }
    let (hours, days) = (sync.retention_min_hours, sync.retention_days);
    if hours > days * 24 {
        to.refuse(
            "sync.retention_min_hours",
            ProblemKind::Conflict,
            hours.to_string(),
            format!("at most sync.retention_days, {days}, in hours"),
        );
    }
}

/// What other services may append fits into their share of a log: no more in a day, and the share is more
/// than what is never trimmed. Else they could fill it for ever, and wait for ever until it is trimmed.
fn quotas(settings: &Settings, to: &mut Reader) {
    // A day has parts of 25 hours of the clock.
    const HOURS: u64 = 25;
    let (services, sync) = (&settings.services, &settings.sync);
    if settings.server.internal_listen.is_none() {
        return;
    }
    let (percent, log) = (
        u64::from(services.log_share_percent),
        u64::from(sync.retention_max_events),
    );
    let share = log * percent / 100;
    let least = u64::from(sync.retention_min_events) + 1;
    let an_hour = u64::from(services.user_events_per_hour);
    let most = share / HOURS;
    let is_set = |to: &Reader, key| to.origin(key) != Origin::Default;
    // Blame the one that somebody set.
    if share < least && is_set(to, "services.log_share_percent") {
        let percents = (least * 100).div_ceil(log);
        to.refuse(
            "services.log_share_percent",
            ProblemKind::Conflict,
            percent.to_string(),
            format!(
                "at least {percents}: more than sync.retention_min_events of \
                     sync.retention_max_events"
            ),
        );
    } else if share < least && is_set(to, "sync.retention_min_events") {
        let most = share.saturating_sub(1);
        to.refuse(
            "sync.retention_min_events",
            ProblemKind::Conflict,
            sync.retention_min_events.to_string(),
            format!(
                "at most {most}: less than services.log_share_percent of \
                     sync.retention_max_events"
            ),
        );
    } else if share < least {
        refuse_log(
            settings,
            to,
            (least * 100).div_ceil(percent),
            "sync.retention_min_events",
            sync.retention_min_events,
        );
    } else if an_hour > most && is_set(to, "services.user_events_per_hour") {
        to.refuse(
            "services.user_events_per_hour",
            ProblemKind::Conflict,
            an_hour.to_string(),
            format!(
                "at most {most}: in a day services.log_share_percent of sync.retention_max_events"
            ),
        );
    } else if an_hour > most {
        refuse_log(
            settings,
            to,
            (an_hour * HOURS * 100).div_ceil(percent),
            "services.user_events_per_hour",
            services.user_events_per_hour,
        );
    }
}

/// Logs are too short for what another setting says.
fn refuse_log(settings: &Settings, to: &mut Reader, least: u64, because: &str, is: u32) {
    to.refuse(
        "sync.retention_max_events",
        ProblemKind::Conflict,
        settings.sync.retention_max_events.to_string(),
        format!("at least {least}, because {because} is {is}"),
    );
}

/// A client that only reads slowly must find room for all that may be on its way to it.
fn send_queue(settings: &Settings, to: &mut Reader) {
    let (queue, window) = (settings.sync.send_queue_bytes, settings.sync.window_bytes);
    if usize::try_from(window).is_ok_and(|window| queue >= window) {
        return;
    }
    let key = if to.origin("sync.send_queue_bytes") == Origin::Default {
        "sync.window_bytes"
    } else {
        "sync.send_queue_bytes"
    };
    to.refuse(
        key,
        ProblemKind::Conflict,
        format!(
            "a window of {window} bytes, and {queue} bytes of room for a client that reads slowly"
        ),
        "sync.send_queue_bytes at least as large as sync.window_bytes",
    );
}

/// One standalone Redis is what is understood.
fn redis(settings: &Settings, to: &mut Reader) {
    let url = settings.redis.url.as_ref().map(Secret::expose);
    if let Some(found) = url.and_then(many) {
        // It may have come from either of the two.
        let key = if to.origin("redis.url") == Origin::Default {
            "redis.url_file"
        } else {
            "redis.url"
        };
        let expected =
            "the URL of one standalone Redis: Cluster and Sentinel are not supported yet";
        to.refuse(key, ProblemKind::BadValue, found, expected);
    }
}

/// With `PostgreSQL` several nodes need the same key, which none of them may make for itself.
fn master_key(settings: &Settings, to: &mut Reader) {
    let made_here = matches!(settings.keys.master_key, MasterKey::DataFolder(_));
    let tried = to
        .problems
        .iter()
        .any(|p| p.key.starts_with("keys.master_key"));
    if settings.database.url.is_some() && made_here && !tried {
        to.refuse(
            "keys.master_key_file",
            ProblemKind::Missing,
            "nothing",
            "the path of a file that holds base64 of 32 bytes (or keys.master_key), because \
             database.url names PostgreSQL",
        );
    }
}
