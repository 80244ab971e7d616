//! Rules between settings: what each may be alone, but not together.

use std::net::SocketAddr;

use super::{
    Settings,
    error::{Origin, ProblemKind},
    reader::Reader,
    sections::{MasterKey, SmsProvider},
};

/// Notes everything in `settings` that does not go together.
pub(super) fn check(settings: &Settings, to: &mut Reader) {
    listeners(settings, to);
    sms(settings, to);
    heartbeat(settings, to);
    send_queue(settings, to);
    retention(settings, to);
    master_key(settings, to);
}

fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn listeners(settings: &Settings, to: &mut Reader) {
    let server = &settings.server;
    let tls = (&server.tls_cert_file, &server.tls_key_file);
    let allow = "a loopback address, or server.allow_plain_http_beyond_loopback = true";
    let certify = "a loopback address, server.tls_cert_file and server.tls_key_file, or \
                   server.allow_plain_http_beyond_loopback = true";
    let plain = tls == (&None, &None);
    for (key, address, plain, expected) in [
        ("server.listen", server.listen, plain, certify),
        ("server.admin_listen", server.admin_listen, true, allow),
    ] {
        if plain && !is_local(address) && !server.allow_plain_http_beyond_loopback {
            to.refuse(
                key,
                ProblemKind::Conflict,
                format!("{address}, which other machines may reach over plain HTTP"),
                expected,
            );
        }
    }
    for (key, missing, other) in [
        (
            "server.tls_cert_file",
            tls.0.is_none() && tls.1.is_some(),
            "server.tls_key_file",
        ),
        (
            "server.tls_key_file",
            tls.0.is_some() && tls.1.is_none(),
            "server.tls_cert_file",
        ),
    ] {
        if missing {
            let expected = format!("the path of a PEM file, because {other} is set");
            to.refuse(key, ProblemKind::Missing, "nothing", expected);
        }
    }
    if server.listen == server.admin_listen && server.listen.port() != 0 {
        to.refuse(
            "server.admin_listen",
            ProblemKind::Conflict,
            format!("{}, which is server.listen too", server.admin_listen),
            "another port",
        );
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
