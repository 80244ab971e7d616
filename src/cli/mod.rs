//! The command line: what can be asked of the program, and what it answers with.
//!
//! Owns arguments, exit codes and what is printed before logging starts. Commands do their work in
//! other modules; nothing here outlives the parsing but the call.

mod backup;
mod config;
mod keys;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    boot,
    settings::{self, LogFormat, Overrides, Settings, SettingsError},
    tail,
    telemetry::{self, Lines},
};

/// Something failed while it ran.
const FAILURE: u8 = 1;
/// The settings or the arguments cannot be used; also what clap exits with.
const USAGE: u8 = 2;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed while it ran
  2  the settings or the arguments cannot be used";

/// Pushes what users change on one device to all their other devices
#[derive(Debug, Parser)]
#[command(
    name = "listen-stream",
    version,
    long_about = "A server that keeps the devices of a user in step: what is changed on one is \
        stored, and pushed to all others over WebSocket. Needs nothing but this program: without \
        settings it serves this machine from ./data.",
    after_help = EXIT_CODES,
    after_long_help = format!("\
Examples:
  listen-stream serve                              serve on 127.0.0.1:8080 from ./data
  listen-stream tail --phone +8613800138000        sign in and watch events arrive
  listen-stream config check                       show the settings in force
  listen-stream backup today.lsb                   save everything, while it serves

{EXIT_CODES}")
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(
        long_about = "Runs the server until it gets SIGTERM or SIGINT, then lets work in progress \
            finish.\n\n\
            The first start makes the data folder, and in it listen-stream.toml (every setting, \
            commented out), and, unless the settings say otherwise, master.key (back it up) and \
            listen-stream.db.",
        after_long_help = "\
Examples:
  listen-stream serve
  listen-stream serve --data /var/lib/listen-stream --config /etc/listen-stream.toml
  LISTEN_STREAM__LOG__FORMAT=json listen-stream serve --listen 127.0.0.1:9000"
    )]
    Serve(ServeArgs),
    /// Bring the database's schema up to date, then exit
    #[command(
        long_about = "Brings the database's schema up to date, then exits. serve does the same at \
            its start; use this to do it apart, such as before several servers are started.",
        after_long_help = "\
Examples:
  listen-stream migrate --data /var/lib/listen-stream
  LISTEN_STREAM__DATABASE__URL_FILE=/run/secrets/database listen-stream migrate"
    )]
    Migrate(PlaceArgs),
    /// Save everything that is stored in one file, while the server serves
    #[command(long_about = backup::BACKUP, after_long_help = backup::BACKUP_EXAMPLES)]
    Backup(backup::BackupArgs),
    /// Bring the state of a backup back
    #[command(long_about = backup::RESTORE, after_long_help = backup::RESTORE_EXAMPLES)]
    Restore(backup::RestoreArgs),
    /// Tell every client to load its data anew, after a database was brought back by other means
    #[command(long_about = backup::RENEW, after_long_help = backup::RENEW_EXAMPLES)]
    RenewEpochs(backup::RenewArgs),
    /// Make, list and revoke the keys with which other services call
    #[command(subcommand, long_about = keys::KEYS, after_long_help = keys::EXAMPLES)]
    Keys(keys::KeysCommand),
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Sign in as a device, and print the user's events as they arrive
    #[command(after_long_help = "\
Examples:
  listen-stream tail --phone +8613800138000
  listen-stream tail --phone +8613800138000 --state me.json --json | jq .event_type")]
    Tail(tail::TailArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check all settings, and show what is in force
    #[command(
        long_about = "Checks all settings as serve would, with the same flags and environment, and \
            changes nothing. Prints every setting in force and who set it: the default, a line of \
            the file, an environment variable or a flag. Secrets are shown as ***. Everything \
            that is wrong is printed at once, also in what they name: the files of the certificate, \
            whether it holds today, and whether the system allows so many open files.",
        after_long_help = "\
Examples:
  listen-stream config check
  listen-stream config check --config new.toml && systemctl restart listen-stream"
    )]
    Check(ServeArgs),
}

/// Where the settings and everything else are.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// The folder with everything that the server keeps on disk
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data: PathBuf,
    /// The settings file, instead of listen-stream.toml of the data folder; it must be there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[arg(
        long,
        value_name = "ADDR",
        help = "Where clients connect [setting: server.listen]"
    )]
    listen: Option<SocketAddr>,
    #[arg(
        long,
        value_name = "ADDR",
        help = "Where metrics are read [setting: server.admin_listen]"
    )]
    admin_listen: Option<SocketAddr>,
}

impl PlaceArgs {
    fn overrides(self, env: Vec<(OsString, OsString)>) -> Overrides {
        Overrides {
            config: self.config,
            env,
            ..Overrides::new(self.data)
        }
    }
}

impl ServeArgs {
    fn overrides(self, env: Vec<(OsString, OsString)>) -> Overrides {
        Overrides {
            listen: self.listen,
            admin_listen: self.admin_listen,
            ..self.place.overrides(env)
        }
    }
}

/// Does what `cli` asks for, with the process's environment.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let env = std::env::vars_os().collect();
    match cli.command {
        Command::Serve(args) => serve(&args.overrides(env)),
        Command::Migrate(args) => with_settings(&args.overrides(env), boot::migrate),
        Command::Backup(args) => with_settings(&args.place.overrides(env), |settings| {
            boot::backup(settings, &args.file, args.force)
        }),
        Command::Restore(args) => with_settings(&args.place.overrides(env), |settings| {
            let sign_out = args.sessions.sign_out_everyone;
            boot::restore(settings, &args.file, args.replace, sign_out)
        }),
        Command::RenewEpochs(args) => with_settings(&args.place.overrides(env), |settings| {
            boot::renew_epochs(settings, args.sessions.sign_out_everyone)
        }),
        Command::Keys(keys) => {
            let (command, place) = keys.parts();
            with_settings(&place.overrides(env), |settings| {
                boot::command(settings, &command)
            })
        }
        Command::Config(ConfigCommand::Check(args)) => config::check(
            &args.overrides(env),
            &mut io::stdout().lock(),
            &mut io::stderr().lock(),
        ),
        Command::Tail(args) => follow(args),
    }
}

fn serve(overrides: &Overrides) -> ExitCode {
    // A file that was named is the operator's own; only the data folder's is made here.
    if overrides.config.is_none()
        && let Err(error) = settings::create_if_missing(&overrides.data_dir)
    {
        return complain(FAILURE, &error);
    }
    with(Settings::load_and(overrides, boot::check), boot::serve)
}

/// Loads the settings, which every command of the server needs first.
fn with_settings(overrides: &Overrides, work: impl FnOnce(&Settings) -> ExitCode) -> ExitCode {
    with(Settings::load(overrides), work)
}

/// Starts logging, and works.
fn with(
    settings: Result<Settings, SettingsError>,
    work: impl FnOnce(&Settings) -> ExitCode,
) -> ExitCode {
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return complain(USAGE, &error),
    };
    let lines = match settings.log.format {
        LogFormat::Pretty => Lines::Text,
        LogFormat::Json => Lines::Json,
    };
    match telemetry::init(lines, &settings.log.level) {
        Ok(()) => work(&settings),
        Err(error) => complain(FAILURE, &error),
    }
}

fn follow(args: tail::TailArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Err(error) => complain(FAILURE, &error),
        Ok(runtime) => match runtime.block_on(tail::run(args)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(FAILURE, &error),
        },
    }
}

fn complain(code: u8, error: &dyn std::error::Error) -> ExitCode {
    // Several problems stand in lines of their own.
    let text = error.to_string();
    let between = if text.contains('\n') { "\n" } else { " " };
    // Nothing is left to do when standard error is gone as well.
    let _ = writeln!(io::stderr(), "listen-stream:{between}{text}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_overrides() {
        let line =
            "listen-stream serve --data d --config f --listen 127.0.0.1:1 --admin-listen [::1]:2";
        let Command::Serve(args) = parse(line).unwrap().command else {
            panic!("not serve");
        };
        let overrides = args.overrides(vec![("A".into(), "b".into())]);
        assert_eq!(overrides.data_dir, PathBuf::from("d"));
        assert_eq!(overrides.config, Some("f".into()));
        assert_eq!(overrides.listen.unwrap().port(), 1);
        assert_eq!(overrides.admin_listen.unwrap().port(), 2);
        assert_eq!(overrides.env.len(), 1);
    }

    #[test]
    fn the_data_folder_has_a_default() {
        let Command::Migrate(args) = parse("listen-stream migrate").unwrap().command else {
            panic!("not migrate");
        };
        assert_eq!(args.data, PathBuf::from("./data"));
    }

    #[test]
    fn bad_usage_exits_with_2() {
        for line in [
            "listen-stream sing",
            "listen-stream serve --listen nowhere",
            "listen-stream migrate --listen 127.0.0.1:1",
            "listen-stream config",
            "listen-stream backup",
            "listen-stream restore --force x",
        ] {
            assert_eq!(
                parse(line).unwrap_err().exit_code(),
                i32::from(USAGE),
                "{line}"
            );
        }
    }

    #[test]
    fn every_command_has_help_with_examples() {
        let commands = ["", "serve", "migrate", "config check", "tail"];
        for line in commands
            .into_iter()
            .chain(["backup", "restore", "renew-epochs"])
        {
            let help = parse(&format!("listen-stream {line} --help")).unwrap_err();
            assert!(help.to_string().contains("Examples:\n"), "{line}");
        }
    }
}
