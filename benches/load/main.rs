//! The load benchmark: one server in its own process, its clients in another, and beside each line a
//! reference of its own that alternates with it in the same run.
//!
//! `cargo bench --bench load` prints the table that `docs/performance.md` keeps. `--only NAME`, or just
//! words after `--`, choose lines by a part of their name; `--rounds N` and `--secs N` change how long each
//! takes. Lines with PostgreSQL need `scripts/servers.sh` around the command, and are left out without.
//!
//! The clients share the machine with the server, so absolute rates are of this machine; what holds
//! elsewhere are the ratios, and the CPU time of an operation.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures the machine's own clock, and starts actors of its own"
)]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

mod fleet;
mod http;
mod lines;
mod machine;
mod people;
mod reference;
mod report;
mod rows;
mod server;
mod socket;

use std::{process::ExitCode, time::Duration};

/// Anything may go wrong in a benchmark, and then it ends and says what.
pub type Res<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How the run was asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Lines whose names hold one of these; all when empty.
    only: Vec<String>,
    /// How often each side of a line runs.
    pub rounds: usize,
    /// How long each side runs in a round.
    pub secs: Duration,
}

impl Plan {
    /// Fewer rounds, for lines that take long.
    #[must_use]
    pub fn fewer(&self, most: usize) -> usize {
        self.rounds.min(most)
    }

    fn wants_any(&self, lines: &[&str]) -> bool {
        lines.iter().any(|line| self.wants(line))
    }

    fn wants(&self, line: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| line.contains(part))
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut plan = Plan {
        only: Vec::new(),
        rounds: 5,
        secs: Duration::from_secs(3),
    };
    let done = loop {
        match arguments.next().as_deref() {
            None => break lines::run(&plan),
            Some("--reference") => break reference::serve(&arguments.collect::<Vec<_>>()),
            Some("--bench") => {}
            Some("--only") => plan.only.extend(arguments.next()),
            Some("--rounds") => plan.rounds = number(arguments.next()),
            Some("--secs") => plan.secs = Duration::from_secs(number(arguments.next()) as u64),
            Some(part) => plan.only.push(part.to_owned()),
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("load: {e}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: Option<String>) -> usize {
    text.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}
