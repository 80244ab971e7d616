//! Logs: one subscriber for the process, writing masked lines to standard error.
//!
//! Owns the subscriber and the panic hook, both set once at start. Whatever is logged passes
//! `masking.rs` last, so that no call site can put a phone or a token into the log by mistake.

mod masking;
pub mod metrics;

use std::{
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
    thread,
};

use tracing_subscriber::{EnvFilter, filter::ParseError, util::SubscriberInitExt as _};

pub use masking::{Lines, Masked, Masker};

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log.level: {0}")]
    Level(#[from] ParseError),
    /// The pattern of what is masked does not compile.
    #[error("the pattern of what is masked does not compile")]
    Pattern(#[source] regex::Error),
    /// Somebody set a subscriber before.
    #[error("logging was set up twice")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging to standard error, and logs panics from then on.
///
/// # Errors
/// [`TelemetryError`] when `level` is no filter, or logging was set up before.
pub fn init(lines: Lines, level: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(level)?;
    let masker = Masker::new(lines).map_err(TelemetryError::Pattern)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(lines == Lines::Text && io::stderr().is_terminal())
        // A line that cannot be written is lost. Said on standard error, which is where it could not
        // be written, it would be a panic for each line: a full disk would end every request.
        .log_internal_errors(false)
        .with_writer(Masked::new(masker, io::stderr));
    match lines {
        Lines::Text => builder.finish().try_init(),
        Lines::Json => builder.json().with_span_list(false).finish().try_init(),
    }
    .map_err(TelemetryError::Twice)?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Where it happened, and not what it said: a formatted message may carry a user's data. Text that
/// was written in the program cannot, and is kept.
fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string);
    let thread = thread::current();
    tracing::error!(
        location = place.as_deref().unwrap_or("unknown"),
        thread = thread.name().unwrap_or("unnamed"),
        said = info
            .payload()
            .downcast_ref::<&'static str>()
            .unwrap_or(&"(not shown)"),
        "panic"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(buf)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `work` logs as JSON.
    fn logged(work: impl FnOnce()) -> Vec<serde_json::Value> {
        let log = Log::default();
        let (masker, to) = (Masker::new(Lines::Json).unwrap(), log.clone());
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_span_list(false)
            .with_writer(Masked::new(masker, move || to.clone()))
            .finish();
        // While only one subscriber is known, a call site that another thread reaches first is decided
        // by what that thread has: none, and it stays mute for all.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines();
        lines.map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn fields_messages_and_spans_are_masked() {
        let lines = logged(|| {
            let span = tracing::info_span!("login", phone = "+8613800138000");
            let _entered = span.enter();
            let number = 13_800_138_000_u64;
            tracing::info!(number, seq = 7, "to\n13800138000 \"me@example.com\"");
        });
        assert_eq!(lines.len(), 1);
        let fields = &lines[0]["fields"];
        assert_eq!(fields["message"], "to\n138****8000 \"m***@example.com\"");
        assert_eq!(fields["number"], "138****8000");
        assert_eq!(fields["seq"], 7);
        assert_eq!(lines[0]["span"]["phone"], "+86138****8000");
    }

    #[test]
    fn a_panic_is_logged_without_what_it_may_carry() {
        let former = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        let lines = logged(|| {
            for name in ["hunter2", ""] {
                let caught = panic::catch_unwind(|| {
                    assert!(name.is_empty(), "no {name}");
                    panic!("the table is empty");
                });
                assert!(caught.is_err());
            }
        });
        panic::set_hook(former);
        let said: Vec<_> = lines.iter().map(|l| &l["fields"]["said"]).collect();
        assert_eq!(said, ["(not shown)", "the table is empty"]);
        for line in &lines {
            let place = line["fields"]["location"].as_str().unwrap();
            assert!(place.starts_with("src/telemetry/mod.rs:"), "{place}");
            assert_eq!(line["level"], "ERROR");
        }
    }
}
