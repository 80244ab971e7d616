//! What the person at the terminal sees: events on standard output, everything else on standard
//! error. Nothing that the server sent reaches the terminal as a control character.

use std::{
    fmt::Write as _,
    io::{self, Write},
    sync::Arc,
};

use chrono::{DateTime, Local};

use super::{error::TailError, wire::Event};

/// Asks for a line; nothing when the input has ended.
type Ask = Arc<dyn Fn() -> io::Result<Option<String>> + Send + Sync>;

/// The terminal, or what a test puts in its place.
pub(super) struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    ask: Ask,
    json: bool,
}

impl Console {
    pub(super) fn system(json: bool) -> Self {
        let ask = || {
            let mut line = String::new();
            let read = io::stdin().read_line(&mut line)?;
            Ok((read > 0).then(|| line.trim().to_owned()))
        };
        Self::new(
            Box::new(io::stdout()),
            Box::new(io::stderr()),
            Arc::new(ask),
            json,
        )
    }

    pub(super) fn new(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        ask: Ask,
        json: bool,
    ) -> Self {
        Self {
            out,
            err,
            ask,
            json,
        }
    }

    /// Writes one event. When this returns, it has left the process.
    pub(super) fn event(&mut self, event: &Event) -> Result<(), TailError> {
        let mut line = if self.json {
            clean(&one_line(&event.raw))
        } else {
            human(event)
        };
        line.push('\n');
        self.out
            .write_all(line.as_bytes())
            .and_then(|()| self.out.flush())
            .map_err(TailError::Output)
    }

    /// Tells how things are. A closed standard error is no reason to stop.
    pub(super) fn say(&mut self, text: &str) {
        let _ = writeln!(self.err, "{}", clean(text));
    }

    /// Shows `question` and waits for a line.
    ///
    /// Reading happens on another thread, so that the runtime goes on.
    pub(super) async fn ask(&mut self, question: &str) -> Result<Option<String>, TailError> {
        let _ = write!(self.err, "{question}: ");
        let _ = self.err.flush();
        let ask = Arc::clone(&self.ask);
        tokio::task::spawn_blocking(move || ask())
            .await
            .map_err(io::Error::other)
            .and_then(|line| line)
            .map_err(TailError::Terminal)
    }
}

fn human(event: &Event) -> String {
    let time = DateTime::parse_from_rfc3339(&event.timestamp).map_or_else(
        |_| event.timestamp.clone(),
        |time| time.with_timezone(&Local).format("%H:%M:%S").to_string(),
    );
    let origin = event.origin_device_id.as_deref().unwrap_or("the server");
    clean(&format!(
        "{time}  seq {}  {}  {}  from {origin}",
        event.seq,
        event.kind,
        one_line(event.data.get()),
    ))
}

/// Writes control characters as JSON would, so that they cannot steer the terminal.
fn clean(text: &str) -> String {
    text.chars().fold(String::new(), |mut text, c| {
        if c.is_control() {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
        text
    })
}

/// JSON without the line breaks and tabs that may stand between its tokens. Inside strings JSON
/// has none.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r', '\t'], "")
}

#[cfg(test)]
mod tests {
    use super::{super::wire::ServerFrame, *};

    fn event(text: &str) -> Event {
        match ServerFrame::parse(text).unwrap() {
            ServerFrame::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_event_is_one_clean_line() {
        let event = event(
            "{\"type\":\"event\",\"seq\":3,\"event_type\":\"favorite.added\\u001b[2J\",\
             \"data\":{\n\"a\":\"\u{9b}\"},\"origin_device_id\":\"phone\",\"ack_token\":\"t\",\
             \"timestamp\":\"2026-11-20T10:00:01.000000Z\"}",
        );
        let local = DateTime::parse_from_rfc3339(&event.timestamp)
            .unwrap()
            .with_timezone(&Local)
            .format("%H:%M:%S");
        assert_eq!(
            human(&event),
            format!("{local}  seq 3  favorite.added\\u001b[2J  {{\"a\":\"\\u009b\"}}  from phone")
        );
        assert!(!one_line(&event.raw).contains('\n'));
    }
}
