//! Whole bodies compared at once, with marks where the value is the server's choice.

use serde_json::{Value, json};
use uuid::Uuid;

/// Fails unless `actual` has exactly the fields of `pattern`, with these values.
///
/// Marks: `<uuid>` (version 7, hyphenated, lower case), `<time>` (RFC 3339 UTC, microseconds),
/// `<string>` (not empty), `<hex>` (8 digits), `<number>` (whole, not negative), `<jwt>`, `<refresh>`, `<ticket>`,
/// `<object>`.
#[track_caller]
#[expect(
    clippy::needless_pass_by_value,
    reason = "patterns are written in place"
)]
pub fn assert_shape(actual: &Value, pattern: Value) {
    if let Err(why) = compare("", actual, &pattern) {
        panic!("{why}\nin {actual:#}");
    }
}

fn compare(at: &str, actual: &Value, pattern: &Value) -> Result<(), String> {
    match (actual, pattern) {
        (Value::Object(actual), Value::Object(pattern)) => {
            for (key, value) in pattern {
                let there = actual
                    .get(key)
                    .ok_or_else(|| format!("{at}.{key} is missing"))?;
                compare(&format!("{at}.{key}"), there, value)?;
            }
            match actual.keys().find(|key| !pattern.contains_key(*key)) {
                Some(key) => Err(format!("{at}.{key} should not be there")),
                None => Ok(()),
            }
        }
        (Value::Array(actual), Value::Array(pattern)) => {
            if actual.len() != pattern.len() {
                return Err(format!(
                    "{at} has {} items, not {}",
                    actual.len(),
                    pattern.len()
                ));
            }
            let pairs = actual.iter().zip(pattern).enumerate();
            for (index, (actual, pattern)) in pairs {
                compare(&format!("{at}[{index}]"), actual, pattern)?;
            }
            Ok(())
        }
        (actual, Value::String(mark)) if mark.starts_with('<') => {
            if is(actual, mark) {
                Ok(())
            } else {
                Err(format!("{at} is {actual}, not {mark}"))
            }
        }
        (actual, pattern) if actual == pattern => Ok(()),
        (actual, pattern) => Err(format!("{at} is {actual}, not {pattern}")),
    }
}

/// Whether the value has the form that the mark names.
pub fn is(value: &Value, mark: &str) -> bool {
    match (mark, value) {
        ("<uuid>", Value::String(text)) => Uuid::parse_str(text).is_ok_and(|id| {
            id.get_version_num() == 7 && id.hyphenated().to_string() == text.as_str()
        }),
        ("<time>", Value::String(text)) => is_time(text),
        ("<string>", Value::String(text)) => !text.is_empty(),
        ("<hex>", Value::String(text)) => {
            text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        }
        ("<number>", value) => value.is_u64(),
        ("<jwt>", Value::String(text)) => {
            let parts: Vec<_> = text.split('.').collect();
            parts.len() == 3 && parts.iter().all(|part| is_base64url(part))
        }
        ("<refresh>", Value::String(text)) => text.strip_prefix("lsr_").is_some_and(is_base64url),
        ("<ticket>", Value::String(text)) => text.strip_prefix("lst_").is_some_and(is_base64url),
        ("<object>", value) => value.is_object(),
        _ => false,
    }
}

fn is_time(text: &str) -> bool {
    chrono::DateTime::parse_from_rfc3339(text).is_ok_and(|time| {
        time.to_utc()
            .format("%Y-%m-%dT%H:%M:%S%.6fZ")
            .to_string()
            .as_str()
            == text
    })
}

fn is_base64url(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[test]
fn shapes_take_what_they_name_and_nothing_else() {
    let actual = json!({
        "id": "0193a0f2-5b7c-7c3e-8a1b-0123456789ab",
        "at": "2026-11-20T10:00:00.123456Z",
        "list": [{"n": 1}],
        "token": "lsr_a-b_c",
    });
    let pattern = json!({
        "id": "<uuid>", "at": "<time>", "list": [{"n": "<number>"}], "token": "<refresh>",
    });
    assert_eq!(compare("", &actual, &pattern), Ok(()));

    let wrong = |path: &str, value: Value| {
        let mut actual = actual.clone();
        match actual.pointer_mut(path) {
            Some(there) => *there = value,
            None => actual[path] = value,
        }
        compare("", &actual, &pattern).unwrap_err()
    };
    assert_eq!(wrong("extra", json!(1)), ".extra should not be there");
    assert_eq!(wrong("/list", json!([])), ".list has 0 items, not 1");
    assert_eq!(
        wrong("/list/0/n", json!(-1)),
        ".list[0].n is -1, not <number>"
    );
    wrong("/id", json!("0193a0f2-5b7c-4c3e-8a1b-0123456789ab"));
    wrong("/id", json!("0193A0F2-5B7C-7C3E-8A1B-0123456789AB"));
    wrong("/at", json!("2026-11-20T10:00:00Z"));
    wrong("/at", json!("2026-11-20T10:00:00.123456+00:00"));
    wrong("/token", json!("lst_abc"));
    assert_eq!(
        compare("", &json!({}), &json!({"a": 1})),
        Err(".a is missing".to_owned())
    );
}
