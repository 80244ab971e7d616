//! What came back for a request, and what it must look like.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::assert_shape;

/// What came back for a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// `Null` without a body, a string if it is not JSON.
    pub body: Value,
}

impl Answer {
    pub fn new(status: u16, headers: HeaderMap, body: &[u8]) -> Self {
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(body)
                .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into())
        };
        Self {
            status,
            headers,
            body,
        }
    }

    /// The header's text, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Fails on another status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:#}", self.body);
        self.body
    }

    /// The stable code of a problem; empty for anything else.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Fails unless this is the whole problem document with that code; gives it back.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status, self.code()),
            (status, code),
            "{:#}",
            self.body
        );
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{kind}");
        let mut basics = self.body.clone();
        basics.as_object_mut().unwrap().retain(|key, _| {
            let names = ["type", "title", "status", "detail", "code", "request_id"];
            names.contains(&key.as_str())
        });
        assert_shape(
            &basics,
            json!({
                "type": format!("https://listen-stream.dev/problems/{code}"),
                "title": "<string>",
                "status": status,
                "detail": "<string>",
                "code": code,
                "request_id": self.header("x-request-id"),
            }),
        );
        self.body
    }

    /// Fails unless this refuses the input and names `field`.
    #[track_caller]
    pub fn invalid(self, field: &str) {
        let body = self.problem(422, "invalid_request");
        let errors = body["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("{body:#}"));
        for error in errors {
            assert_shape(error, json!({"field": "<string>", "detail": "<string>"}));
        }
        assert!(
            errors.iter().any(|error| error["field"] == field),
            "{field} is not named: {body:#}"
        );
    }

    /// The position of the change in the user's log.
    #[track_caller]
    pub fn seq(&self) -> u64 {
        self.header("sync-seq")
            .and_then(|seq| seq.parse().ok())
            .unwrap_or_else(|| panic!("no Sync-Seq: {self:#?}"))
    }
}
