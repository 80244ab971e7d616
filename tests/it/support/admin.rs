//! A client of the admin API.

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use super::{Answer, Api, Device, PATIENCE, Server, client::send};

/// The token of servers that have one.
pub const TOKEN: &str = "the-admin-token-of-the-tests-0123456789";
/// The setting that has it.
pub const WITH_TOKEN: (&str, &str) = ("admin.token", TOKEN);

/// Whoever has the admin token.
pub struct Admin(Api);

impl Admin {
    pub fn of(server: &Server) -> Self {
        Self(server.admin())
    }

    async fn call(&self, method: Method, path: &str) -> Answer {
        let path = format!("/admin/v1{path}");
        send(self.0.request(method, &path).bearer_auth(TOKEN)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        self.call(Method::POST, path).await
    }

    /// The kind of this name, as the list of kinds shows it.
    pub async fn kind(&self, name: &str) -> Value {
        let kinds = self.get("/actors").await.ok(200);
        let found = kinds["kinds"].as_array().unwrap().iter();
        let found = found.clone().find(|kind| kind["kind"] == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {kinds:#}"))
            .clone()
    }

    /// The user's session.
    pub async fn session(&self, device: &Device) -> Value {
        self.get(&format!("/actors/{}", session_id(device)))
            .await
            .ok(200)
    }

    /// A page of a list.
    pub async fn list(&self, query: &str) -> Vec<Value> {
        let page = self.get(&format!("/actors?{query}")).await.ok(200);
        page["items"].as_array().unwrap().clone()
    }

    /// Follows the live feed; the answer if it was refused.
    pub async fn watch(&self) -> Result<Feed, Answer> {
        let url = format!("ws://{}/admin/v1/live", self.0.address());
        let mut request = url.into_client_request().unwrap();
        let bearer = format!("Bearer {TOKEN}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        let stream = TcpStream::connect(self.0.address()).await.unwrap();
        match client_async(request, stream).await {
            Ok((stream, _)) => Ok(Feed(stream)),
            Err(Error::Http(response)) => {
                let (parts, body) = response.into_parts();
                let body = body.unwrap_or_default();
                Err(Answer::new(parts.status.as_u16(), parts.headers, &body))
            }
            Err(error) => panic!("the upgrade failed: {error}"),
        }
    }
}

/// The id of the user's session.
pub fn session_id(device: &Device) -> String {
    format!("user_session:{}", device.user_id)
}

/// The live feed.
pub struct Feed(WebSocketStream<TcpStream>);

impl Feed {
    /// The next frame; none at its end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let next = timeout(PATIENCE, self.0.next()).await;
            match next.expect("a frame comes in time") {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return None,
            }
        }
    }
}
