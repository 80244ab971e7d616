//! `config check`: would they serve, and what is in force?

use std::{io::Write, process::ExitCode};

use crate::{
    boot,
    settings::{Overrides, Settings},
};

use super::{FAILURE, USAGE};

/// Prints `ok` and the settings in force to `out`, or all that is wrong with them to `err`.
pub(super) fn check(overrides: &Overrides, out: &mut impl Write, err: &mut impl Write) -> ExitCode {
    let (written, code) = match Settings::load_and(overrides, boot::check_strictly) {
        Ok(settings) => (
            write!(out, "ok\n\n{}", settings.render()),
            ExitCode::SUCCESS,
        ),
        Err(error) => (writeln!(err, "{error}"), ExitCode::from(USAGE)),
    };
    // A reader that stops early, such as `head`, is no reason for a panic; but neither is it `ok`.
    written.map_or(ExitCode::from(FAILURE), |()| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(env: &[(&str, &str)]) -> (ExitCode, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let mut overrides = Overrides::new(dir.path());
        overrides.env = env.iter().map(|(n, v)| (n.into(), v.into())).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check(&overrides, &mut out, &mut err);
        assert_eq!(
            std::fs::read_dir(&dir).unwrap().count(),
            0,
            "it made a file"
        );
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code, text(out), text(err))
    }

    #[test]
    fn good_settings_are_shown() {
        let (code, out, err) = checked(&[("LISTEN_STREAM__REDIS__URL", "redis://:hunter2@h")]);
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
        assert!(out.starts_with("ok\n\nserver.listen = \"127.0.0.1:8080\" "));
        assert!(out.contains("redis.url = \"***\""));
        assert!(!out.contains("hunter2"));
    }

    #[test]
    fn bad_settings_are_named() {
        let (code, out, err) = checked(&[("LISTEN_STREAM__SYNC__IDLE_SECS", "0")]);
        assert_eq!((code, out.as_str()), (ExitCode::from(USAGE), ""));
        assert_eq!(
            err,
            "sync.idle_secs: found \"0\", expected a whole number from 1 to 86400 (environment \
             variable LISTEN_STREAM__SYNC__IDLE_SECS)\n"
        );
    }
}
