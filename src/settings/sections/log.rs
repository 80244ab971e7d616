//! `[log]`: what is logged, and how.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::settings::reader::Reader;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people, in colour on a terminal.
    Pretty,
    /// For machines: one JSON object a line.
    Json,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least level that is logged, and exceptions from it: a filter that is known to parse.
    pub level: String,
}

impl Log {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        Self {
            format: from.choice(
                "log.format",
                LogFormat::Pretty,
                &[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)],
            ),
            level: from.text(
                "log.level",
                "info".to_owned(),
                "a level (off, error, warn, info, debug or trace), and after commas exceptions \
                 such as sqlx=warn",
                |s| is_filter(s).then(|| s.to_owned()),
                Clone::clone,
            ),
        }
    }
}

/// A bare word that is no level would parse as a module's name and log nothing else.
fn is_filter(text: &str) -> bool {
    let plain = |part: &str| {
        let part = part.trim();
        let word = !part.contains(['=', '[', ']', '{', '}']);
        !part.is_empty() && (!word || part.parse::<LevelFilter>().is_ok())
    };
    text.split(',').all(plain) && EnvFilter::builder().parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_no_filter() {
        for good in [
            "info",
            "warn,listen_stream=debug",
            "off",
            "info,[conn{id=1}]=trace",
        ] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", " ", "inof", "info,", "listen_stream=loud", "info,sqlx"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }
}
