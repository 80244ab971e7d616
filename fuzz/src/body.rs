//! Bodies of calls, read as the server reads them.

use actix_web::{FromRequest, HttpRequest, dev::Payload, rt::Runtime, test::TestRequest};
use listen_stream::{
    domain::error::ErrorCode,
    http::{error::ApiError, json::Json},
};
use serde_json::{Map, Value};

thread_local! {
    static RUNTIME: Runtime = Runtime::new().expect("a runtime");
}

/// The most characters of a refusal: what it quotes of the input is shortened.
const MAX_REFUSAL: usize = 8 * 1024;

/// The members of the body, if it can be taken as `T`. A refusal says of which field it is.
pub fn taken<T>(data: &[u8]) -> Option<Map<String, Value>>
where
    Json<T>: FromRequest<Error = ApiError>,
{
    let (request, mut payload): (HttpRequest, Payload) = TestRequest::default()
        .insert_header(("content-type", "application/json"))
        .set_payload(data.to_vec())
        .to_http_parts();
    let read = Json::<T>::from_request(&request, &mut payload);
    match RUNTIME.with(|runtime| runtime.block_on(read)) {
        Ok(_) => match serde_json::from_slice(data) {
            Ok(Value::Object(members)) => Some(members),
            other => panic!("no object was taken: {other:?}"),
        },
        Err(refusal) => {
            refused(&refusal, data);
            None
        }
    }
}

fn refused(refusal: &ApiError, data: &[u8]) {
    let text = refusal.body(None);
    assert!(text.len() <= MAX_REFUSAL, "{} bytes of refusal", text.len());
    let problem: Value = serde_json::from_str(&text).expect("a problem is JSON");
    match refusal.code() {
        ErrorCode::InvalidRequest => {
            let error = &problem["errors"][0];
            assert_ne!(error["field"].as_str().expect("it names a field"), "");
            assert_ne!(error["detail"].as_str().expect("it says why"), "");
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(data);
            assert!(json.is_ok(), "no JSON: no field is to blame");
        }
        ErrorCode::MalformedJson => {
            assert!(problem["line"].is_u64() && problem["column"].is_u64());
        }
        code => panic!("{code}"),
    }
}

/// Whether it is a text of 1 to 128 letters, digits and a few more.
pub fn is_token(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        let good = |c: char| c.is_ascii_alphanumeric() || ":_-.".contains(c);
        (1..=128).contains(&text.len()) && text.chars().all(good)
    })
}

/// Whether it is a text of so many characters that a line can show.
pub fn is_line(value: &Value, chars: std::ops::RangeInclusive<usize>) -> bool {
    value.as_str().is_some_and(|text| {
        chars.contains(&text.chars().count()) && !text.chars().any(char::is_control)
    })
}

/// An id in the one spelling that the server uses; ids are read in others too.
pub fn plain_id(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    // In small letters or large ones.
    let lower = text.to_ascii_lowercase();
    let text = lower.strip_prefix("urn:uuid:").unwrap_or(&lower);
    let text = text.trim_start_matches('{').trim_end_matches('}');
    let mut hex = text.replace('-', "");
    assert_eq!(hex.len(), 32, "{text}");
    for at in [20, 16, 12, 8] {
        hex.insert(at, '-');
    }
    Some(hex)
}
