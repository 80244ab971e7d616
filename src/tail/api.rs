//! The calls to the server's REST API: codes, login, renewal; and where the socket is.
//!
//! Makes each call once. Whether to try again is for the caller to say.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use reqwest::{Client, RequestBuilder, Url, header};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};

use super::{
    error::{TailError, chain},
    state::Tokens,
    steps::Position,
    wire::Secret,
};
use crate::domain::clock::World;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Beyond this the arithmetic of clocks might overflow; no access token lives so long.
const LONGEST_TOKEN_SECS: u32 = 30 * 24 * 3600;

/// Reads `--server`: an address without path, query or user.
pub(super) fn parse_server(text: &str) -> Result<Url, TailError> {
    let url = Url::parse(text)
        .map_err(|_| TailError::Server("takes an address such as http://127.0.0.1:8080"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(TailError::Server(
            "takes an address with http:// or https://",
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TailError::Server("takes no user name and no password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(TailError::Server("takes no path: the API is under /v1"));
    }
    Ok(url)
}

/// The server's REST API.
#[derive(Debug, Clone)]
pub(super) struct Api {
    http: Client,
    server: Url,
    /// The socket trusts the same certificates as the REST calls.
    pub(super) tls: Arc<ClientConfig>,
}

/// Who logs in, and from what.
#[derive(Serialize)]
pub(super) struct Login<'a> {
    pub(super) phone: &'a str,
    pub(super) code: &'a str,
    pub(super) device: Device<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replace_device_id: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct Device<'a> {
    #[serde(rename = "device_id")]
    pub(super) id: &'a str,
    pub(super) platform: &'static str,
    pub(super) name: &'a str,
}

/// A pair of tokens, fresh from the server.
#[derive(Debug, Deserialize)]
pub(super) struct Grant {
    access_token: Secret,
    refresh_token: Secret,
    expires_in: u32,
}

impl Grant {
    pub(super) fn into_tokens(self, world: &World) -> Tokens {
        let life = TimeDelta::seconds(self.expires_in.min(LONGEST_TOKEN_SECS).into());
        Tokens {
            refresh: self.refresh_token,
            access: self.access_token,
            access_expires_at: world.now() + life,
        }
    }
}

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// There was no answer, or none that could be read: the call may have had its effect.
    #[error("{0}")]
    Unanswered(String),
    #[error("{} {}: {}", .0.status, .0.code, .0.detail)]
    Refused(Box<Problem>),
}

/// The server's refusal (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    #[serde(skip)]
    pub(super) status: u16,
    #[serde(skip)]
    pub(super) retry_after: Option<Duration>,
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) devices: Vec<Registered>,
}

/// A device that the user has already.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Registered {
    pub(super) device_id: String,
    pub(super) platform: String,
    pub(super) name: String,
    pub(super) last_active_at: Option<String>,
}

impl ApiError {
    /// The same for one who gives up.
    pub(super) fn into_tail(self, server: &str) -> TailError {
        match self {
            Self::Unanswered(why) => TailError::Unreachable {
                server: server.to_owned(),
                why,
            },
            Self::Refused(problem) => TailError::Refused {
                status: problem.status,
                code: problem.code,
                detail: problem.detail,
            },
        }
    }
}

impl Api {
    pub(super) fn new(server: Url) -> Result<Self, TailError> {
        let tls = tls(&server)?;
        let http = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            // Calls are minutes apart: a kept connection would be one that the server closed.
            .pool_max_idle_per_host(0)
            // The socket takes no proxy either.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| TailError::Tls(chain(&e)))?;
        Ok(Self {
            http,
            server,
            tls: Arc::new(tls),
        })
    }

    /// Asks for a code to be sent to `phone`.
    pub(super) async fn send_code(&self, phone: &str) -> Result<(), ApiError> {
        let body = serde_json::json!({ "phone": phone });
        let request = self.post("/v1/auth/sms-codes").json(&body);
        fetch(request).await.map(|_| ())
    }

    /// Registers this device.
    pub(super) async fn log_in(&self, login: &Login<'_>) -> Result<Grant, ApiError> {
        read(&fetch(self.post("/v1/auth/sessions").json(login)).await?)
    }

    /// Trades the refresh token for a new pair. The same `key` brings the same pair again.
    pub(super) async fn renew(self, refresh: Secret, key: String) -> Result<Grant, ApiError> {
        let body = serde_json::json!({ "refresh_token": refresh });
        let request = self
            .post("/v1/auth/tokens")
            .header("Idempotency-Key", key)
            .json(&body);
        read(&fetch(request).await?)
    }

    /// The address of the socket, from `position` on.
    pub(super) fn socket_url(&self, position: &Position) -> Url {
        let mut url = self.at("/v1/sync");
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        // Between these two pairs of schemes the change is always allowed.
        let _ = url.set_scheme(scheme);
        if let Some(epoch) = &position.epoch {
            url.query_pairs_mut()
                .append_pair("since", &position.last_seq.to_string())
                .append_pair("epoch", epoch);
        }
        url
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.server.clone();
        url.set_path(path);
        url
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.at(path))
    }
}

async fn fetch(request: RequestBuilder) -> Result<Vec<u8>, ApiError> {
    let unanswered = |e: reqwest::Error| ApiError::Unanswered(chain(&e.without_url()));
    let response = request.send().await.map_err(unanswered)?;
    let status = response.status();
    let retry_after = retry_after(response.headers().get(header::RETRY_AFTER));
    let body = response.bytes().await.map_err(unanswered)?;
    if status.is_success() {
        return Ok(body.into());
    }
    Err(ApiError::Refused(Box::new(problem(
        status.as_u16(),
        retry_after,
        &body,
    ))))
}

/// Reads a refusal; one that is no problem document comes from something between.
pub(super) fn problem(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Problem {
    let mut problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    problem.status = status;
    problem.retry_after = retry_after;
    if problem.code.is_empty() {
        "http_error".clone_into(&mut problem.code);
    }
    problem
}

/// Reads `Retry-After` in seconds, the form that this server uses.
pub(super) fn retry_after(value: Option<&header::HeaderValue>) -> Option<Duration> {
    let seconds = value?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn read(body: &[u8]) -> Result<Grant, ApiError> {
    // What serde says about it could hold a piece of a token.
    serde_json::from_slice(body)
        .map_err(|_| ApiError::Unanswered("the answer is not of the expected form".to_owned()))
}

/// Trusts what the machine trusts, and the usual authorities when it names none.
fn tls(server: &Url) -> Result<ClientConfig, TailError> {
    let mut roots = RootCertStore::empty();
    if server.scheme() == "https" {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TailError::Tls(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(server: &str) -> Api {
        Api::new(parse_server(server).unwrap()).unwrap()
    }

    #[test]
    fn the_socket_is_asked_to_go_on_from_a_known_position() {
        let start = Position::default();
        let known = Position {
            epoch: Some("e".to_owned()),
            last_seq: 7,
        };
        let plain = api("http://127.0.0.1:8080");
        assert_eq!(
            plain.socket_url(&start).as_str(),
            "ws://127.0.0.1:8080/v1/sync"
        );
        let secure = api("https://example.com/").socket_url(&known);
        assert_eq!(secure.as_str(), "wss://example.com/v1/sync?since=7&epoch=e");
    }

    #[test]
    fn only_a_plain_address_is_a_server() {
        for bad in [
            "127.0.0.1:8080",
            "ftp://a",
            "http://u:p@a",
            "http://a/v1",
            "http://a?b",
        ] {
            assert!(parse_server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_is_read_even_when_it_is_no_problem_document() {
        let ours = problem(
            409,
            None,
            br#"{"code":"device_limit_reached","devices":[{}]}"#,
        );
        assert_eq!(
            (ours.code.as_str(), ours.devices.len()),
            ("device_limit_reached", 1)
        );
        let proxy = problem(502, None, b"<html>");
        assert_eq!((proxy.status, proxy.code.as_str()), (502, "http_error"));
    }
}
