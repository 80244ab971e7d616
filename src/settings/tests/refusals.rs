//! Every class of error, and the words that the operator reads.

use std::fs;

use super::{super::*, KEY, case};

#[test]
fn a_value_out_of_range_is_refused_with_its_line() {
    assert_eq!(
        case("[sync]\n\nheartbeat_secs = 0\n", &[]).message(),
        "sync.heartbeat_secs: found 0, expected a whole number from 1 to 3600 \
         (DATA/listen-stream.toml:3)"
    );
    let env = [("AUTH__MAX_DEVICES", "-1")];
    assert_eq!(
        case("", &env).message(),
        "auth.max_devices: found \"-1\", expected a whole number from 1 to 100 \
         (environment variable LISTEN_STREAM__AUTH__MAX_DEVICES)"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    let file = "[server]\nworkers = \"two\"\nlisten = 8080\nallowed_origins = \"x\"\n\
        [auth]\nsms_tries = 1.5\nmax_devices = [5]\n[database]\nsynchronous = true\n\
        [sms]\nallow_console_beyond_loopback = 1\nprovider = {}\n";
    let case = case(file, &[("LIMITS__IP_BURST", "many")]);
    assert!(
        case.kinds()
            .iter()
            .all(|(_, k)| *k == ProblemKind::WrongType)
    );
    assert_eq!(case.kinds().len(), 9);
    assert!(case.message().contains(
        "server.listen: found 8080, expected an IP address and a port, such as 127.0.0.1:8080 \
         (DATA/listen-stream.toml:3)"
    ));
}

#[test]
fn bad_words_addresses_and_urls_are_refused() {
    for (name, value) in [
        ("SERVER__LISTEN", "localhost"),
        ("SERVER__ADMIN_LISTEN", "127.0.0.1"),
        ("SERVER__INTERNAL_LISTEN", "8082"),
        ("SERVER__ALLOWED_ORIGINS", "*"),
        ("SERVER__TRUSTED_PROXIES", "10.0.0.1/8"),
        ("SERVER__TRUSTED_PROXIES", "10.0.0.7, 0.0.0.0/0"),
        ("SERVER__FORWARDED_HEADER", "x-real-ip"),
        ("SERVER__TLS_CHECK_MS", "99"),
        ("DATABASE__SYNCHRONOUS", "off"),
        ("DATABASE__URL", "mysql://db/x"),
        ("DATABASE__URL", "postgres:"),
        ("REDIS__URL", "http://cache"),
        ("KEYS__MASTER_KEY", "c2hvcnQ="),
        ("SMS__PROVIDER", "pigeon"),
        ("LOG__FORMAT", "xml"),
        ("LOG__LEVEL", "inof"),
        ("SYNC__IDLE_SECS", "99999999999999999999"),
    ] {
        let kinds = case("", &[(name, value)]).kinds();
        assert_eq!(kinds.len(), 1, "{name}={value}: {kinds:?}");
        assert_eq!(kinds[0].1, ProblemKind::BadValue, "{name}={value}");
    }
}

#[test]
fn unknown_names_are_refused_without_their_values() {
    let file =
        "listen = \"x\"\n[redis]\nurll = \"redis://:hunter2@h\"\n[rediss]\nurl = \"hunter2\"\n";
    let case = case(
        file,
        &[
            ("AUTH__MAX_DEVICE", "hunter2"),
            ("", "hunter2"),
            ("LOG", "hunter2"),
        ],
    );
    assert_eq!(
        case.message(),
        "listen: found an unknown setting, expected a setting of one of the sections server, \
         database, keys, auth, sms, sync, history, limits, log, redis, admin or services (DATA/listen-stream.toml:1)\n\
         redis.urll: found an unknown setting, expected one of url, url_file \
         (DATA/listen-stream.toml:3)\n\
         rediss: found an unknown setting, expected a setting of one of the sections server, \
         database, keys, auth, sms, sync, history, limits, log, redis, admin or services (DATA/listen-stream.toml:4)\n\
         auth.max_device: found an unknown setting, expected one of access_token_secs, \
         sms_code_secs, sms_tries, max_devices, revocations_unknown \
         (environment variable LISTEN_STREAM__AUTH__MAX_DEVICE)\n\
         : found an unknown setting, expected a setting of one of the sections server, database, \
         keys, auth, sms, sync, history, limits, log, redis, admin or services (environment variable LISTEN_STREAM__)\n\
         log: found text, expected a section, [log], with format or level \
         (environment variable LISTEN_STREAM__LOG)"
    );
}

#[test]
fn a_variable_that_is_not_ours_is_left_alone() {
    let mut case = case("", &[]);
    case.overrides.env = vec![
        ("LISTEN_STREAM_X".into(), "1".into()),
        ("PATH".into(), "/".into()),
    ];
    case.load();
}

#[test]
fn a_variable_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let mut case = case("", &[]);
    let value = OsString::from_vec(vec![0xff]);
    case.overrides.env = vec![("LISTEN_STREAM__REDIS__URL".into(), value)];
    assert_eq!(
        case.kinds(),
        [("redis.url".to_owned(), ProblemKind::WrongType)]
    );
}

#[test]
fn a_secret_and_its_file_are_one_too_many() {
    let file = format!("[keys]\nmaster_key = \"{KEY}\"\n");
    assert_eq!(
        case(&file, &[("KEYS__MASTER_KEY_FILE", "/some/file")]).message(),
        "keys.master_key_file: found keys.master_key set as well (DATA/listen-stream.toml:2), \
         expected only one of the two (environment variable LISTEN_STREAM__KEYS__MASTER_KEY_FILE)"
    );
}

#[test]
fn a_secret_file_that_cannot_be_used_is_refused() {
    assert_eq!(
        case("[redis]\nurl_file = \"/nowhere/x\"\n", &[]).message(),
        "redis.url_file: found /nowhere/x, which cannot be read: No such file or directory (os \
         error 2), expected a readable file that holds the secret (DATA/listen-stream.toml:2)"
    );
    for content in ["", "hunter2"] {
        let mut case = case("", &[]);
        let path = case.dir.path().join("url");
        fs::write(&path, content).unwrap();
        case.overrides.env = vec![("LISTEN_STREAM__DATABASE__URL_FILE".into(), path.into())];
        assert_eq!(
            case.kinds(),
            [("database.url_file".to_owned(), ProblemKind::BadValue)]
        );
        assert!(!case.message().contains("hunter2"));
    }
}

#[test]
fn no_message_shows_a_secret() {
    let url = "mysql://root:hunter2@db/x";
    let key = "hunter2hunter2hunter2";
    for (name, value) in [
        ("DATABASE__URL", url),
        ("DATABASE__URL_FILE", url),
        ("REDIS__URL", url),
        ("REDIS__URL_FILE", url),
        ("KEYS__MASTER_KEY", key),
        ("DATABASE", url),
        ("KEYS__MASTERKEY", key),
    ] {
        let message = case("", &[(name, value)]).message();
        assert!(!message.contains("hunter2"), "{message}");
        let section = name.split("__").next().unwrap().to_lowercase();
        let file = match name.split_once("__") {
            Some((_, key)) => format!("[{section}]\n{} = \"{value}\"\n", key.to_lowercase()),
            None => format!("{section} = \"{value}\"\n"),
        };
        let message = case(&file, &[]).message();
        assert!(!message.contains("hunter2"), "{message}");
        for broken in ["", "\"", "'", "\" x", "\"\nurl = \"hunter2\""] {
            let file = file.replace("\"\n", broken);
            let message = case(&file, &[]).message();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
    let env = [("KEYS__MASTER_KEY_FILE", KEY)];
    assert!(!case("", &env).message().contains(KEY));
}

#[test]
fn plain_http_and_console_codes_stay_on_the_machine_unless_asked() {
    let mut case = case("", &[]);
    case.overrides.listen = Some(([0, 0, 0, 0], 8080).into());
    assert_eq!(
        case.message(),
        "server.listen: found 0.0.0.0:8080, which other machines may reach over plain HTTP, \
         expected a loopback address, server.tls_cert_file and server.tls_key_file, or \
         server.allow_plain_http_beyond_loopback = true (--listen)\n\
         sms.provider: found \"console\" with server.listen at 0.0.0.0:8080 (--listen), expected \
         a provider that sends messages, a loopback address, or \
         sms.allow_console_beyond_loopback = true"
    );
    case.overrides.listen = Some("[::ffff:127.0.0.1]:8080".parse().unwrap());
    case.overrides.admin_listen = Some("[::1]:8081".parse().unwrap());
    case.load();
    case.overrides.admin_listen = Some(([10, 0, 0, 1], 8081).into());
    let problem = ("server.admin_listen".to_owned(), ProblemKind::Conflict);
    assert_eq!(case.kinds(), [problem]);
}

#[test]
fn with_a_certificate_the_api_may_be_reached_by_others_and_metrics_may_not() {
    let file = "[server]\ntls_cert_file = \"crt\"\ntls_key_file = \"key\"\n\
        [sms]\nallow_console_beyond_loopback = true\n";
    let mut both = case(file, &[]);
    both.overrides.listen = Some(([0, 0, 0, 0], 8080).into());
    both.load();
    both.overrides.admin_listen = Some(([10, 0, 0, 1], 8081).into());
    let problem = ("server.admin_listen".to_owned(), ProblemKind::Conflict);
    assert_eq!(both.kinds(), [problem]);
    assert_eq!(
        case("[server]\ntls_cert_file = \"crt\"\n", &[]).message(),
        "server.tls_key_file: found nothing, expected the path of a PEM file, because \
         server.tls_cert_file is set"
    );
    let pasted = "-----BEGIN PRIVATE KEY-----hunter2";
    let env = [
        ("SERVER__TLS_CERT_FILE", "crt"),
        ("SERVER__TLS_KEY_FILE", pasted),
    ];
    let message = case("", &env).message();
    assert!(message.starts_with("server.tls_key_file: "), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn the_other_listeners_may_be_reached_by_others_over_tls_only() {
    let file = "[server]\ntls_cert_file = \"crt\"\ntls_key_file = \"key\"\n";
    let (admin, internal) = (
        ("SERVER__ADMIN_LISTEN", "10.0.0.1:8081"),
        ("SERVER__INTERNAL_LISTEN", "[2001:db8::1]:8082"),
    );
    assert_eq!(
        case(file, &[admin, internal]).message(),
        "server.admin_listen: found 10.0.0.1:8081, which other machines may reach over plain HTTP, \
         expected a loopback address, server.admin_tls = true, or \
         server.allow_plain_http_beyond_loopback = true \
         (environment variable LISTEN_STREAM__SERVER__ADMIN_LISTEN)\n\
         server.internal_listen: found [2001:db8::1]:8082, which other machines may reach over plain \
         HTTP, expected a loopback address, server.internal_tls = true, or \
         server.allow_plain_http_beyond_loopback = true \
         (environment variable LISTEN_STREAM__SERVER__INTERNAL_LISTEN)"
    );
    let tls = [
        ("SERVER__ADMIN_TLS", "true"),
        ("SERVER__INTERNAL_TLS", "true"),
    ];
    let settings = case(file, &[&tls[..], &[admin, internal]].concat()).load();
    assert_eq!(settings.server.internal_listen.unwrap().port(), 8082);
    assert_eq!(
        case("", &tls[..1]).message(),
        "server.admin_tls: found true without a certificate, expected false, or \
         server.tls_cert_file and server.tls_key_file \
         (environment variable LISTEN_STREAM__SERVER__ADMIN_TLS)"
    );
    assert_eq!(case("", &tls).kinds().len(), 2);
}

#[test]
fn each_listener_has_an_address_of_its_own() {
    let collide = |listen, admin, internal| {
        let case = case(
            "[server]\nallow_plain_http_beyond_loopback = true\n\
             [sms]\nallow_console_beyond_loopback = true\n",
            &[
                ("SERVER__LISTEN", listen),
                ("SERVER__ADMIN_LISTEN", admin),
                ("SERVER__INTERNAL_LISTEN", internal),
            ],
        );
        match Settings::load(&case.overrides) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    let (a, b, c) = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3");
    for free in [
        [a, b, c],
        [a, b, ""],
        ["127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"],
        ["0.0.0.0:0", "0.0.0.0:0", "[::]:0"],
        [a, "127.0.0.2:1", "[::1]:1"],
        ["0.0.0.0:1", "[::1]:1", ""],
    ] {
        assert_eq!(collide(free[0], free[1], free[2]), "");
    }
    for (listeners, named) in [
        (
            [a, a, c],
            "server.admin_listen: found 127.0.0.1:1, which server.listen, ",
        ),
        (
            [a, b, a],
            "server.internal_listen: found 127.0.0.1:1, which server.listen, ",
        ),
        (
            [a, b, b],
            "server.internal_listen: found 127.0.0.1:2, which server.admin_listen, ",
        ),
        (
            ["0.0.0.0:1", a, ""],
            "server.admin_listen: found 127.0.0.1:1, which server.listen, 0.0.0.0:1, takes too",
        ),
        (
            [a, b, "0.0.0.0:2"],
            "server.internal_listen: found 0.0.0.0:2, which server.admin_listen, ",
        ),
        (
            ["[::]:1", b, a],
            "server.internal_listen: found 127.0.0.1:1, which server.listen, [::]:1, takes too",
        ),
        (
            ["0.0.0.0:1", "[::]:1", ""],
            "server.admin_listen: found [::]:1, which server.listen, ",
        ),
        (
            [a, "[::ffff:127.0.0.1]:1", ""],
            "server.admin_listen: found [::ffff:127.0.0.1]:1, which server.listen, ",
        ),
    ] {
        let said = collide(listeners[0], listeners[1], listeners[2]);
        // The same address needs no second mention.
        let short = format!(
            "{} too",
            named.replace("which ", "which is ").trim_end_matches(", ")
        );
        let found = said.starts_with(named) || said.starts_with(&short);
        assert!(found && said.lines().count() == 1, "{listeners:?}: {said}");
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let narrow = [("SYNC__SEND_QUEUE_BYTES", "65536")];
    assert_eq!(
        case("", &narrow).kinds(),
        [("sync.send_queue_bytes".to_owned(), ProblemKind::Conflict)]
    );
    assert_eq!(
        case("[sync]\nwindow_bytes = 2000000\n", &[]).kinds(),
        [("sync.window_bytes".to_owned(), ProblemKind::Conflict)]
    );
    assert_eq!(
        case("[sync]\nheartbeat_timeout_secs = 30\n", &[]).message(),
        "sync.heartbeat_timeout_secs: found 30, expected more than sync.heartbeat_secs, 30 \
         (DATA/listen-stream.toml:2)"
    );
    assert_eq!(
        case("[sync]\nheartbeat_secs = 75\n", &[]).message(),
        "sync.heartbeat_secs: found 75, expected less than sync.heartbeat_timeout_secs, 75 \
         (DATA/listen-stream.toml:2)"
    );
    assert_eq!(
        case("[sync]\nretention_max_events = 999\n", &[]).message(),
        "sync.retention_max_events: found 999, expected at least sync.retention_min_events, 1000 \
         (DATA/listen-stream.toml:2)"
    );
    assert_eq!(
        case("[sync]\nretention_min_events = 10001\n", &[]).message(),
        "sync.retention_min_events: found 10001, expected at most sync.retention_max_events, 10000 \
         (DATA/listen-stream.toml:2)"
    );
    assert_eq!(
        case(
            "[sync]\nretention_min_hours = 49\nretention_days = 2\n",
            &[]
        )
        .message(),
        "sync.retention_min_hours: found 49, expected at most sync.retention_days, 2, in hours \
         (DATA/listen-stream.toml:2)"
    );
    let internal = "[server]\ninternal_listen = \"127.0.0.1:8082\"\n";
    let file = format!("{internal}[services]\nuser_events_per_hour = 201\n");
    assert_eq!(
        case(&file, &[]).message(),
        "services.user_events_per_hour: found 201, expected at most 200: in a day \
         services.log_share_percent of sync.retention_max_events (DATA/listen-stream.toml:4)"
    );
    let file = format!("{internal}[sync]\nretention_max_events = 9999\n");
    assert_eq!(
        case(&file, &[]).message(),
        "sync.retention_max_events: found 9999, expected at least 10000, because \
         services.user_events_per_hour is 200 (DATA/listen-stream.toml:4)"
    );
    let file = format!("{internal}[services]\nlog_share_percent = 10\nuser_events_per_hour = 1\n");
    assert_eq!(
        case(&file, &[]).message(),
        "services.log_share_percent: found 10, expected at least 11: more than \
         sync.retention_min_events of sync.retention_max_events (DATA/listen-stream.toml:4)"
    );
    let file = format!("{internal}[sync]\nretention_min_events = 5000\n");
    assert_eq!(
        case(&file, &[]).message(),
        "sync.retention_min_events: found 5000, expected at most 4999: less than \
         services.log_share_percent of sync.retention_max_events (DATA/listen-stream.toml:4)"
    );
    let file = format!("{internal}[sync]\nretention_max_events = 2000\n");
    assert_eq!(
        case(&file, &[]).message(),
        "sync.retention_max_events: found 2000, expected at least 2002, because \
         sync.retention_min_events is 1000 (DATA/listen-stream.toml:4)"
    );
    // Without an internal listener no service appends anything.
    case("[services]\nuser_events_per_hour = 1000000\n", &[]).load();
    assert_eq!(
        case("[server]\nadmin_listen = \"127.0.0.1:8080\"\n", &[]).message(),
        "server.admin_listen: found 127.0.0.1:8080, which is server.listen too, expected another \
         port (DATA/listen-stream.toml:2)"
    );
    assert_eq!(
        case("", &[("DATABASE__URL", "postgres://db/x")]).message(),
        "keys.master_key_file: found nothing, expected the path of a file that holds base64 of \
         32 bytes (or keys.master_key), because database.url names PostgreSQL"
    );
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let file = "[sync]\nheartbeat_secs = \"x\"\nnope = 1\n[auth]\nmax_devices = 0\n";
    assert_eq!(case(file, &[("LOG__LEVEL", "loud")]).problems().len(), 4);
}

#[test]
fn what_is_found_beyond_the_settings_is_said_among_the_rest() {
    let finding = |key| Finding {
        key,
        kind: ProblemKind::BadValue,
        found: "that".to_owned(),
        expected: "this".to_owned(),
    };
    let case = case("[server]\nworkers = 2\n[sync]\nidle_secs = 0\n", &[]);
    let look = |settings: &Settings| {
        // What cannot be taken is shown as its default.
        assert_eq!((settings.server.workers, settings.sync.idle_secs), (2, 60));
        vec![finding("server.workers"), finding("sync.idle_secs")]
    };
    let Err(SettingsError::Problems(problems)) = Settings::load_and(&case.overrides, look) else {
        panic!("no problems");
    };
    let said: Vec<_> = problems
        .iter()
        .map(|it| (it.key.as_str(), it.found.as_str()))
        .collect();
    assert_eq!(said, [("sync.idle_secs", "0"), ("server.workers", "that")]);
    assert!(matches!(problems[1].origin, Origin::File { line: 2, .. }));
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let message = case("[sync]\nheartbeat_secs = = 3\n", &[]).message();
    assert!(
        message.starts_with("DATA/listen-stream.toml:2: not valid TOML: "),
        "{message}"
    );
    let twice = case("[sync]\nidle_secs = 1\nidle_secs = 2\n", &[]).message();
    assert!(twice.starts_with("DATA/listen-stream.toml:3: "), "{twice}");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let mut case = case("", &[]);
    case.overrides.config = Some(case.dir.path().join("other.toml"));
    assert_eq!(
        case.message(),
        "cannot read the settings file DATA/other.toml: No such file or directory (os error 2)"
    );
    fs::write(
        case.dir.path().join("other.toml"),
        "[sync]\nidle_secs = 7\n",
    )
    .unwrap();
    assert_eq!(case.load().sync.idle_secs, 7);
}
