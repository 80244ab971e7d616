//! One value of a row: read from either engine, written as JSON, read back, bound to a statement.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use super::tables::Kind;

/// A value with its type, so that NULL has one too.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Value {
    Uuid(Option<Uuid>),
    Text(Option<String>),
    Bigint(Option<i64>),
    Boolean(Option<bool>),
    Timestamptz(Option<DateTime<Utc>>),
    /// As the engine gives it: numbers keep their digits.
    Jsonb(Option<Json<Box<RawValue>>>),
}

impl Value {
    /// Reads what was written into a backup for a column of this type.
    pub(super) fn parse(kind: Kind, text: &RawValue) -> serde_json::Result<Self> {
        let text = text.get();
        Ok(match kind {
            Kind::Uuid => Self::Uuid(serde_json::from_str(text)?),
            Kind::Text => Self::Text(serde_json::from_str(text)?),
            Kind::Bigint => Self::Bigint(serde_json::from_str(text)?),
            Kind::Boolean => Self::Boolean(serde_json::from_str(text)?),
            Kind::Timestamptz => Self::Timestamptz(serde_json::from_str(text)?),
            Kind::Jsonb => Self::Jsonb(serde_json::from_str(text)?),
        })
    }
}

/// A row's values, from a row of either engine.
macro_rules! row_values {
    ($row:expr, $columns:expr) => {{
        let row = $row;
        let read = |(at, column): (usize, &Column)| -> sqlx::Result<Value> {
            Ok(match column.1 {
                Kind::Uuid => Value::Uuid(row.try_get(at)?),
                Kind::Text => Value::Text(row.try_get(at)?),
                Kind::Bigint => Value::Bigint(row.try_get(at)?),
                Kind::Boolean => Value::Boolean(row.try_get(at)?),
                Kind::Timestamptz => Value::Timestamptz(row.try_get(at)?),
                Kind::Jsonb => Value::Jsonb(row.try_get(at)?),
            })
        };
        let values: sqlx::Result<Vec<Value>> = $columns.iter().enumerate().map(read).collect();
        values
    }};
}

/// Binds a value to a statement of either engine.
macro_rules! bind_value {
    ($query:expr, $value:expr) => {
        match $value {
            Value::Uuid(it) => $query.bind(it),
            Value::Text(it) => $query.bind(it),
            Value::Bigint(it) => $query.bind(it),
            Value::Boolean(it) => $query.bind(it),
            Value::Timestamptz(it) => $query.bind(it),
            Value::Jsonb(it) => $query.bind(it),
        }
    };
}

pub(super) use {bind_value, row_values};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_written() {
        let cases = [
            (Kind::Uuid, r#""01a1fb6a-3e04-754f-8aca-b1ab9eff8f0f""#),
            (Kind::Text, r#""é\"\\ \u0001 歌\n""#),
            (Kind::Bigint, "9223372036854775807"),
            (Kind::Bigint, "-9223372036854775808"),
            (Kind::Boolean, "true"),
            (Kind::Timestamptz, r#""2026-11-21T00:03:24.000001Z""#),
            (Kind::Timestamptz, r#""1969-12-31T23:59:59.999999Z""#),
            (
                Kind::Jsonb,
                r#"{"a":1.50,"big":123456789012345678901234567890}"#,
            ),
        ];
        for (kind, text) in cases {
            for text in [text, "null"] {
                let raw: &RawValue = serde_json::from_str(text).unwrap();
                let value = Value::parse(kind, raw).unwrap();
                assert_eq!(serde_json::to_string(&value).unwrap(), text);
            }
            let wrong: &RawValue = serde_json::from_str("[1]").unwrap();
            assert_eq!(Value::parse(kind, wrong).is_ok(), kind == Kind::Jsonb);
        }
    }
}
