//! The settings as a whole: precedence, the template, and what is shown of them.

mod refusals;

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

use super::*;

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A data folder with `file` as its settings (if any), and variables of ours.
struct Case {
    dir: TempDir,
    overrides: Overrides,
}

fn case(file: &str, env: &[(&str, &str)]) -> Case {
    let dir = tempfile::tempdir().unwrap();
    if !file.is_empty() {
        fs::write(default_file(dir.path()), file).unwrap();
    }
    let mut overrides = Overrides::new(dir.path());
    overrides.env = env
        .iter()
        .map(|(name, value)| (format!("LISTEN_STREAM__{name}").into(), value.into()))
        .collect();
    Case { dir, overrides }
}

impl Case {
    fn load(&self) -> Settings {
        Settings::load(&self.overrides).unwrap()
    }

    fn problems(&self) -> Vec<Problem> {
        match Settings::load(&self.overrides) {
            Err(SettingsError::Problems(problems)) => problems,
            other => panic!("expected problems, got {other:?}"),
        }
    }

    fn kinds(&self) -> Vec<(String, ProblemKind)> {
        let problems = self.problems().into_iter();
        problems.map(|p| (p.key, p.kind)).collect()
    }

    /// What the operator reads, with the data folder as `DATA`.
    fn message(&self) -> String {
        let error = Settings::load(&self.overrides).unwrap_err().to_string();
        error.replace(self.dir.path().to_str().unwrap(), "DATA")
    }
}

fn without_origins(mut settings: Settings) -> Settings {
    settings.data_dir = PathBuf::new();
    settings.keys.master_key = match settings.keys.master_key {
        MasterKey::DataFolder(path) => MasterKey::DataFolder(path.file_name().unwrap().into()),
        given @ MasterKey::Given(_) => given,
    };
    settings.effective = Vec::new();
    settings
}

fn uncommented_template() -> String {
    let is_setting = |line: &str| {
        line.split_once(" = ").is_some_and(|(key, _)| {
            !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        })
    };
    let lines = TEMPLATE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if is_setting(rest) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn the_template_holds_every_setting_with_its_default() {
    let defaults = case("", &[]).load();
    let untouched = case(TEMPLATE, &[]).load();
    let full = case(&uncommented_template(), &[]).load();

    assert_eq!(untouched.effective(), defaults.effective());
    for (given, default) in full.effective().iter().zip(defaults.effective()) {
        assert_eq!((given.key, &given.value), (default.key, &default.value));
        assert!(
            matches!(given.origin, Origin::File { .. }),
            "{} is not in the template",
            given.key
        );
    }
    assert_eq!(without_origins(full), without_origins(defaults));
}

#[test]
fn the_template_holds_nothing_twice_and_no_live_setting() {
    let names: Vec<_> = TEMPLATE.lines().filter(|l| l.starts_with('[')).collect();
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
    let live = |line: &&str| !line.is_empty() && !line.starts_with(['#', '[']);
    assert_eq!(TEMPLATE.lines().find(live), None);
}

#[test]
fn later_layers_win() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\n[sync]\nheartbeat_secs = 10\nidle_secs = 5\n";
    let env = [
        ("SYNC__HEARTBEAT_SECS", "20"),
        ("SERVER__LISTEN", "127.0.0.1:2"),
    ];
    let mut case = case(file, &env);
    let settings = case.load();
    assert_eq!(settings.server.listen.port(), 2);
    assert_eq!(settings.server.admin_listen.port(), 8081);
    assert_eq!(settings.sync.heartbeat_secs, 20);
    assert_eq!(settings.sync.idle_secs, 5);

    case.overrides.listen = Some(([127, 0, 0, 1], 3).into());
    case.overrides.admin_listen = Some(([127, 0, 0, 1], 4).into());
    let settings = case.load();
    assert_eq!(settings.server.listen.port(), 3);
    assert_eq!(settings.server.admin_listen.port(), 4);
}

#[test]
fn the_rendering_names_origins_and_hides_secrets() {
    let file = format!("[keys]\nmaster_key = \"{KEY}\"\n[log]\nformat = \"json\"\n");
    let env = [("DATABASE__URL", "postgres://u:pass@db/x")];
    let mut case = case(&file, &env);
    case.overrides.listen = Some(([127, 0, 0, 1], 9).into());
    let settings = case.load();
    let shown = settings
        .render()
        .replace(case.dir.path().to_str().unwrap(), "DATA");
    let line = |start: &str| {
        let line = shown.lines().find(|l| l.starts_with(start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        line("server.listen"),
        r#"server.listen = "127.0.0.1:9" # --listen"#
    );
    assert_eq!(
        line("database.url "),
        r#"database.url = "***" # environment variable LISTEN_STREAM__DATABASE__URL"#
    );
    assert_eq!(
        line("keys.master_key "),
        r#"keys.master_key = "***" # DATA/listen-stream.toml:2"#
    );
    assert_eq!(line("redis.url "), r#"redis.url = "" # default"#);
    let debug = format!("{settings:?}{shown}");
    assert!(!debug.contains("pass") && !debug.contains(KEY), "{debug}");
}

#[test]
fn values_of_the_environment_are_read_as_the_setting_needs_them() {
    let settings = case(
        "",
        &[
            (
                "SERVER__ALLOWED_ORIGINS",
                "https://a.example, https://b.example",
            ),
            ("SMS__ALLOW_CONSOLE_BEYOND_LOOPBACK", "true"),
            ("SERVER__ALLOW_PLAIN_HTTP_BEYOND_LOOPBACK", "true"),
            ("SERVER__LISTEN", "0.0.0.0:80"),
            ("DATABASE__SYNCHRONOUS", "normal"),
            ("REDIS__URL", "redis://cache:6379"),
            ("SERVER__TRUSTED_PROXIES", "10.0.0.7,2001:db8:1::/48"),
            ("SERVER__FORWARDED_HEADER", "forwarded"),
        ],
    )
    .load();
    let shown = settings.render();
    assert!(
        shown.contains(r#"server.trusted_proxies = ["10.0.0.7/32", "2001:db8:1::/48"]"#),
        "{shown}"
    );
    assert!(shown.contains(r#"server.forwarded_header = "forwarded""#));
    assert_eq!(
        settings.server.allowed_origins,
        ["https://a.example", "https://b.example"]
    );
    assert_eq!(settings.database.synchronous, Synchronous::Normal);
    assert_eq!(settings.redis.url.unwrap().expose(), "redis://cache:6379");
}

#[test]
fn secrets_come_from_files_too() {
    let case = case("", &[]);
    let path = case.dir.path().join("key");
    fs::write(&path, format!("{KEY}\n")).unwrap();
    let mut case = case;
    let path: OsString = path.into();
    case.overrides.env = vec![("LISTEN_STREAM__KEYS__MASTER_KEY_FILE".into(), path)];
    let given = MasterKey::Given(Secret::new(KEY));
    assert_eq!(case.load().keys.master_key, given);
}

#[test]
fn a_path_that_could_be_a_token_is_a_path_and_a_token_is_none() {
    let mut case = case("", &[]);
    let token = "a/token/with/slashes/0123456789abcdef";
    let path = case.dir.path().join("a-long-name-for-the-file-of-a.token");
    fs::write(&path, token).unwrap();
    let name = "LISTEN_STREAM__ADMIN__TOKEN_FILE";
    case.overrides.env = vec![(name.into(), path.into())];
    assert_eq!(case.load().admin.token.unwrap().expose(), token);
    for token in [token, "/0123456789abcdef0123456789abcdef"] {
        case.overrides.env = vec![(name.into(), token.into())];
        assert_eq!(case.kinds()[0].1, ProblemKind::BadValue);
        assert!(!case.message().contains("0123456789"), "{token}");
    }
}

#[test]
fn the_first_start_makes_the_file_and_no_later_one_touches_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    let path = create_if_missing(&data).unwrap().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), TEMPLATE);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    fs::write(&path, "# mine\n").unwrap();
    assert_eq!(create_if_missing(&data).unwrap(), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n");

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = create_if_missing(&file).unwrap_err();
    assert!(matches!(error, SettingsError::UnwritableFile { .. }));
}
