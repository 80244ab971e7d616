//! The command line.

use std::process::ExitCode;

use clap::Parser as _;
use listen_stream::cli;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
