//! What is masked, what is left alone, and that no surroundings help a phone or token through.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

static TEXT: LazyLock<Masker> = LazyLock::new(|| Masker::new(Lines::Text).unwrap());
static JSON: LazyLock<Masker> = LazyLock::new(|| Masker::new(Lines::Json).unwrap());

fn text(line: &str) -> String {
    TEXT.mask(line).into_owned()
}

fn json_line(line: &str) -> String {
    JSON.mask(line).into_owned()
}

const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P";

#[test]
fn everything_personal_is_masked() {
    for (line, masked) in [
        ("to +8613800138000 sent", "to +86138****8000 sent"),
        ("to +14155550123.", "to +141****0123."),
        ("phone=%2B8613800138000&x", "phone=+86138****8000&x"),
        ("13800138000", "138****8000"),
        ("13800138000,19912345678;", "138****8000,199****5678;"),
        ("手机13800138000已发送", "手机138****8000已发送"),
        ("8613800138000 013800138000", "86138****8000 0138****8000"),
        ("phone_13800138000", "phone_138****8000"),
        ("user@example.com wrote", "u***@example.com wrote"),
        ("13800138000@163.com", "1***@163.com"),
        ("lsk_AbCdEfGh0123456789", "lsk_AbCd****23456789"),
        ("lsr_AbCdEfGh0123456789", "lsr_AbCd****23456789"),
        ("lst_AbCdEfGh0123456789x", "lst_AbCd****3456789x"),
        (
            "Authorization: Bearer abc.def~ghi+jkl/mno==",
            "Authorization: Bearer abc.def~****kl/mno==",
        ),
        ("bearer  x", "bearer  ****"),
        ("Bearer abcdefghijkl.me@b.cn", "Bearer ****"),
        ("me@x.lst_AbCdEfGh0123456789", "m***@x.lst_AbCd****23456789"),
        ("me@13800138000.cn", "m***@138****8000.cn"),
        (
            "\x1b[3mphone\x1b[0m\x1b[2m=\x1b[0m13800138000",
            "\x1b[3mphone\x1b[0m\x1b[2m=\x1b[0m138****8000",
        ),
        ("\x1b[0mme@example.com", "\x1b[0mm***@example.com"),
        (r#""a\n13800138000""#, r#""a\n138****8000""#),
    ] {
        assert_eq!(text(line), masked);
    }
    assert_eq!(text(&format!("t={JWT}")), "t=eyJhbGci****gL0n3I9P");
}

#[test]
fn ids_times_and_counters_are_left_alone() {
    for line in [
        "01890a5d-ac96-774b-bcce-b302099a8057 00000000-0000-7000-8000-013800138000",
        "2026-11-20T10:00:00.123456Z 2026-11-20T10:00:00.123456+08:00",
        "seq=4294967296 head=18446744073709551615 ms=1795168800123 secs=1795168800",
        "a 13800138000a a13800138000 138001380001 12800138000",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c13800138000",
        "listen-stream.v1 127.0.0.1:8080 GET /v1/me/devices 204 @ a@b",
    ] {
        assert!(
            matches!(
                TEXT.mask(line),
                Cow::Borrowed(same) if same == line
            ),
            "{line}: {}",
            text(line)
        );
        assert_eq!(json_line(line), line);
    }
}

#[test]
fn json_stays_json() {
    for (line, masked) in [
        (r#"{"a":"\n13800138000"}"#, r#"{"a":"\n138****8000"}"#),
        (
            r#"{"a":"\u000113800138000"}"#,
            r#"{"a":"\u0001138****8000"}"#,
        ),
        (r#"{"a":"\\n13800138000"}"#, r#"{"a":"\\n138****8000"}"#),
        (
            r#"{"a":"\"+8613800138000\""}"#,
            r#"{"a":"\"+86138****8000\""}"#,
        ),
        (
            r#"{"a":13800138000,"b":[13800138000]}"#,
            r#"{"a":"138****8000","b":["138****8000"]}"#,
        ),
        (
            r#"{"a":0.13800138000,"b":-13800138000}"#,
            r#"{"a":0.13800138000,"b":-13800138000}"#,
        ),
        (
            r#"{"a":13800138000.5,"b":1.5e+13800138000}"#,
            r#"{"a":13800138000.5,"b":1.5e+13800138000}"#,
        ),
    ] {
        assert_eq!(json_line(line), masked);
    }
}

/// A line of JSON with `message` in it, masked; gives back the message.
fn through_json(message: &str) -> String {
    let line = json!({ "level": "INFO", "fields": { "message": message }, "seq": 7 }).to_string();
    let masked = json_line(&line);
    let value: Value = serde_json::from_str(&masked).unwrap();
    assert_eq!(value["seq"], 7);
    value["fields"]["message"].as_str().unwrap().to_owned()
}

fn surroundings() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r"[ -~]{0,12}",
        r#"[\\ntru0-9"'{}:,.+@\-_%\[m]{0,8}"#,
    ]
}

fn secret() -> impl Strategy<Value = String> {
    prop_oneof![
        r"\+[1-9][0-9]{7,14}",
        "ls[rt]_[A-Za-z0-9_-]{43}",
        r"eyJ[A-Za-z0-9_-]{10,60}\.[A-Za-z0-9_-]{10,80}\.[A-Za-z0-9_-]{43}",
        "Bearer [A-Za-z0-9_-]{20,40}",
        "[a-z0-9]{2,10}@[a-z]{2,10}\\.(com|cn|co\\.uk)",
    ]
}

proptest! {
    #[test]
    fn no_secret_survives_in_any_text(a in surroundings(), s in secret(), b in surroundings()) {
        let line = format!("{a}{s}{b}");
        prop_assert!(!text(&line).contains(&s), "{line:?} -> {:?}", text(&line));
        let message = through_json(&line);
        prop_assert!(!message.contains(&s), "{line:?} -> {message:?}");
        let debug = format!("{line:?}");
        prop_assert!(!text(&debug).contains(&s), "{debug} -> {:?}", text(&debug));
    }

    #[test]
    fn no_mainland_number_survives_as_a_word(
        a in surroundings(), s in "1[3-9][0-9]{9}", b in surroundings(),
    ) {
        let a = a.trim_end_matches(is_letter_or_digit);
        let b = b.trim_start_matches(is_letter_or_digit);
        let line = format!("{a}{s}{b}");
        prop_assert!(!text(&line).contains(&s), "{line:?} -> {:?}", text(&line));
        let message = through_json(&line);
        prop_assert!(!message.contains(&s), "{line:?} -> {message:?}");
    }

    #[test]
    fn uuids_and_times_come_through_whole(
        id in any::<u128>(), digits in "[0-9]{32}", seconds in 0_i64..4_000_000_000, seq in 0_u32..,
    ) {
        let random = uuid::Uuid::from_u128(id);
        let numeric: uuid::Uuid = digits.parse().unwrap();
        let time = chrono::DateTime::from_timestamp(seconds, 123_456_000).unwrap().to_rfc3339();
        let line = json!({"id": random, "other": numeric, "time": time, "seq": seq}).to_string();
        prop_assert_eq!(&json_line(&line), &line);
        prop_assert_eq!(&text(&line), &line);
    }

    #[test]
    fn any_json_stays_json(message in surroundings(), n in any::<u64>(), x in any::<f64>(), s in secret()) {
        let line = json!({"m": message, "n": n, "p": 13_000_000_000 + n % 7_000_000_000, "x": x, s: 1});
        let masked = json_line(&line.to_string());
        prop_assert!(serde_json::from_str::<Value>(&masked).is_ok(), "{masked}");
    }
}
