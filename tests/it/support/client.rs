//! Clients: a method for each endpoint, and a device that is logged in.

use std::{
    path::PathBuf,
    sync::{Arc, Once},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{PATIENCE, answer::Answer, assert_shape, phone, server::Server};

/// A caller of one listener.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    sms_log: Arc<PathBuf>,
}

impl Api {
    pub fn new(address: &str, sms_log: PathBuf) -> Self {
        static PROVIDER: Once = Once::new();
        // reqwest wants a provider even where nothing is encrypted.
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider()
                .install_default()
                .unwrap();
        });
        Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(30))
                .tcp_nodelay(true)
                .build()
                .unwrap(),
            base: format!("http://{address}"),
            sms_log: Arc::new(sms_log),
        }
    }

    /// The same over TLS, whatever certificate the listener has.
    pub fn over_tls(self) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .tls_danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        let base = self.base.replace("http://", "https://");
        Self { http, base, ..self }
    }

    /// The listener's `host:port`.
    pub fn address(&self) -> &str {
        self.base.rsplit('/').next().unwrap()
    }

    /// A request to be finished by hand.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn is_ready(&self) -> bool {
        try_send(self.request(Method::GET, "/ready"))
            .await
            .is_ok_and(|answer| answer.status == 200)
    }

    pub async fn ask_code(&self, phone: &str) -> Answer {
        self.post("/v1/auth/sms-codes", &json!({"phone": phone}))
            .await
    }

    /// Codes that were sent to the phone, the newest last.
    pub fn codes(&self, phone: &str) -> Vec<String> {
        let text = std::fs::read_to_string(&*self.sms_log).unwrap_or_default();
        // A line that is still being written has no end yet.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (_time, to, code) = (words.next()?, words.next()?, words.next()?);
                (to == phone).then(|| code.to_owned())
            })
            .collect()
    }

    /// Has a code sent and reads it; sits out the phone's cool-down.
    pub async fn new_code(&self, phone: &str) -> String {
        let before = self.codes(phone).len();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask_code(phone).await;
            if answer.code() != "sms_cooldown" {
                answer.ok(202);
                break;
            }
            assert!(Instant::now() < deadline, "the cool-down does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        super::eventually("the code is in dev-sms.log", async || {
            self.codes(phone).len() > before
        })
        .await;
        self.codes(phone).pop().unwrap()
    }

    pub async fn sign_in(&self, body: &Value) -> Answer {
        self.post("/v1/auth/sessions", body).await
    }

    /// Logs the phone in on a device, from code to tokens.
    pub async fn login(&self, phone: &str, device_id: &str) -> Device {
        let code = self.new_code(phone).await;
        let body = self.sign_in(&login_body(phone, &code, device_id)).await;
        Device::new(self, &body.ok(201))
    }

    /// A new user on one device.
    pub async fn newcomer(&self, device_id: &str) -> Device {
        self.login(&phone(), device_id).await
    }

    pub async fn rotate(&self, refresh_token: &str, key: Option<&str>) -> Answer {
        let mut request = self
            .request(Method::POST, "/v1/auth/tokens")
            .json(&json!({"refresh_token": refresh_token}));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        send(request).await
    }

    /// `GET /v1/me` with this `Authorization` header.
    pub async fn me_with(&self, authorization: &str) -> Answer {
        let request = self.request(Method::GET, "/v1/me");
        send(request.header("Authorization", authorization)).await
    }
}

/// The body of a login.
pub fn login_body(phone: &str, code: &str, device_id: &str) -> Value {
    json!({
        "phone": phone,
        "code": code,
        "device": {"device_id": device_id, "platform": "ios", "name": format!("{device_id}'s")},
    })
}

/// A code that is not this one.
pub fn wrong_code(code: &str, step: u32) -> String {
    let code: u32 = code.parse().unwrap();
    format!("{:06}", (code + step) % 1_000_000)
}

/// A device that is logged in.
#[derive(Clone)]
#[expect(
    clippy::struct_field_names,
    reason = "the wire calls the client-made id so"
)]
pub struct Device {
    pub api: Api,
    pub access: String,
    pub refresh: String,
    /// The server's id of the device.
    pub id: String,
    /// The client's own.
    pub device_id: String,
    pub user_id: String,
    pub phone: String,
}

impl Device {
    /// Takes the answer of a login or of a rotation.
    pub fn new(api: &Api, body: &Value) -> Self {
        let text = |path: &str| {
            body.pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_else(|| panic!("no {path} in {body:#}"))
                .to_owned()
        };
        Self {
            api: api.clone(),
            access: text("/access_token"),
            refresh: text("/refresh_token"),
            id: text("/device/id"),
            device_id: text("/device/device_id"),
            user_id: text("/user/id"),
            phone: text("/user/phone"),
        }
    }

    /// The same device, calling another process, or the same one after its restart.
    #[must_use]
    pub fn at(&self, server: &Server) -> Self {
        self.with(&server.api())
    }

    /// The same device, calling this listener.
    #[must_use]
    pub fn with(&self, api: &Api) -> Self {
        Self {
            api: api.clone(),
            ..self.clone()
        }
    }

    /// A request with the device's access token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.api.request(method, path).bearer_auth(&self.access)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn me(&self) -> Answer {
        self.get("/v1/me").await
    }

    pub async fn devices(&self) -> Vec<Value> {
        let body = self.get("/v1/me/devices").await.ok(200);
        assert_eq!(body["next_cursor"], Value::Null);
        body["items"].as_array().unwrap().clone()
    }

    pub async fn remove_device(&self, id: &str) -> Answer {
        send(self.request(Method::DELETE, &format!("/v1/me/devices/{id}"))).await
    }

    pub async fn logout(&self) -> Answer {
        send(self.request(Method::DELETE, "/v1/auth/sessions/current")).await
    }

    pub async fn put(&self, kind: &str, target: &str) -> Answer {
        self.try_put(kind, target).await.unwrap()
    }

    /// The same where the server may die under the call.
    pub async fn try_put(&self, kind: &str, target: &str) -> Result<Answer, reqwest::Error> {
        try_send(self.request(Method::PUT, &favorite_path(kind, target))).await
    }

    pub async fn remove(&self, kind: &str, target: &str) -> Answer {
        send(self.request(Method::DELETE, &favorite_path(kind, target))).await
    }

    pub async fn restore(&self, kind: &str, target: &str) -> Answer {
        let path = format!("{}/restore", favorite_path(kind, target));
        send(self.request(Method::POST, &path)).await
    }

    /// `GET /v1/me/favorites` with this query, such as `?limit=10`.
    pub async fn favorites(&self, query: &str) -> Answer {
        self.get(&format!("/v1/me/favorites{query}")).await
    }

    /// Every favorite, page by page.
    pub async fn all_favorites(&self, limit: usize) -> Vec<Value> {
        let mut all = Vec::new();
        let mut query = format!("?limit={limit}");
        loop {
            let body = self.favorites(&query).await.ok(200);
            let items = body["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            all.extend(items.iter().cloned());
            let Some(cursor) = body["next_cursor"].as_str() else {
                return all;
            };
            assert!(!items.is_empty(), "an empty page names a next one");
            query = format!("?limit={limit}&cursor={cursor}");
        }
    }

    /// `GET /v1/me/changes` with this query, such as `?since=0`.
    pub async fn changes(&self, query: &str) -> Answer {
        self.get(&format!("/v1/me/changes{query}")).await
    }

    /// The whole log from its beginning, checked to be without a gap.
    pub async fn log(&self) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        let mut query = "?since=0&limit=200".to_owned();
        loop {
            let body = self.changes(&query).await.ok(200);
            let events = body["events"].as_array().unwrap();
            for event in events {
                assert_eq!(event["seq"], all.len() as u64 + 1, "a gap in the log");
                all.push(event.clone());
            }
            if body["has_more"] == false {
                assert_eq!(body["head_seq"], all.len() as u64);
                return all;
            }
            assert!(!events.is_empty(), "has_more, but nothing came");
            let epoch = body["epoch"].as_str().unwrap();
            query = format!("?since={}&limit=200&epoch={epoch}", all.len());
        }
    }

    /// The log's head and its epoch.
    pub async fn head(&self) -> (u64, String) {
        let body = self.changes("?since=0&limit=1").await.ok(200);
        let epoch = body["epoch"].as_str().unwrap().to_owned();
        (body["head_seq"].as_u64().unwrap(), epoch)
    }

    /// The positions that lie after the device's stored cursor.
    pub async fn waiting(&self) -> Vec<u64> {
        let body = self.changes("").await.ok(200);
        seqs(body["events"].as_array().unwrap())
    }

    pub async fn ack(&self, up_to: u64, epoch: &str) -> Answer {
        let body = json!({"up_to": up_to, "epoch": epoch});
        self.ack_with(&body).await
    }

    pub async fn ack_with(&self, body: &Value) -> Answer {
        send(self.request(Method::POST, "/v1/me/changes/ack").json(body)).await
    }

    pub async fn ticket(&self) -> String {
        let body = send(self.request(Method::POST, "/v1/sync/tickets"))
            .await
            .ok(201);
        assert_shape(&body, json!({"ticket": "<ticket>", "expires_in": 30}));
        body["ticket"].as_str().unwrap().to_owned()
    }
}

/// The positions of events.
pub fn seqs(events: &[Value]) -> Vec<u64> {
    events
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect()
}

fn favorite_path(kind: &str, target: &str) -> String {
    format!("/v1/me/favorites/{kind}/{target}")
}

/// Sends, and fails where no answer comes.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    try_send(request).await.unwrap()
}

pub async fn try_send(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer::new(status, headers, &response.bytes().await?))
}
