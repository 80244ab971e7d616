//! How errors of settings speak of what was found and of what there is to choose from. Never shows
//! more of a value than its start.

use super::source::Value;

/// `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The start of `text`, if it is long.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start}…")
}

/// Words as a choice.
pub(super) fn one_of<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<T> = words.into_iter().collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// What was found, with its value.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Text(text) | Value::Env(text) => quoted(&shortened(text)),
        Value::Integer(n) => n.to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Other(text) => text.clone(),
        Value::List(_) | Value::Table | Value::NotUnicode => described(value).to_owned(),
    }
}

/// What was found, without its value.
pub(super) fn described(value: &Value) -> &'static str {
    match value {
        Value::Text(_) | Value::Env(_) => "text",
        Value::Integer(_) | Value::Other(_) => "a number or time",
        Value::Boolean(_) => "a boolean",
        Value::List(_) => "a list",
        Value::Table => "a table",
        Value::NotUnicode => "bytes that are not UTF-8",
    }
}
