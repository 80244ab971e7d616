//! Stands in for parts that are not there yet.

/// Starting the server and the migrations.
pub(super) mod boot {
    use std::{io::Write as _, process::ExitCode};

    use crate::settings::Settings;

    pub fn serve(settings: Settings) -> ExitCode {
        not_built(settings)
    }

    pub fn migrate(settings: Settings) -> ExitCode {
        not_built(settings)
    }

    fn not_built(settings: Settings) -> ExitCode {
        drop(settings);
        let _ = writeln!(std::io::stderr(), "not built yet");
        ExitCode::from(super::super::FAILURE)
    }
}

/// Watching events.
pub(super) mod tail {
    use std::{future, path::PathBuf};

    #[derive(Debug, clap::Args)]
    pub struct TailArgs {
        /// Where the server is
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
        pub server: String,
        /// The phone to sign in with, such as +8613800138000
        #[arg(long, value_name = "PHONE")]
        pub phone: Option<String>,
        /// The code that was sent to it
        #[arg(long, value_name = "CODE")]
        pub code: Option<String>,
        /// The device to sign in as
        #[arg(long, value_name = "ID")]
        pub device_id: Option<String>,
        /// The device's name
        #[arg(long, value_name = "NAME")]
        pub name: Option<String>,
        /// A file that keeps the tokens and the position
        #[arg(long, value_name = "FILE")]
        pub state: Option<PathBuf>,
        /// Print each event as a line of JSON
        #[arg(long)]
        pub json: bool,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("not built yet")]
    pub struct TailError;

    pub fn run(args: TailArgs) -> impl Future<Output = Result<(), TailError>> {
        drop(args);
        future::ready(Err(TailError))
    }
}
