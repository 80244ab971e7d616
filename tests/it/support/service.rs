//! Another service: a key, and calls of the internal listener with it.

use std::{io::Read as _, process::Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Api, Device, Server, client::send};

/// The setting of servers that serve other services.
pub const INTERNAL: (&str, &str) = ("server.internal_listen", "127.0.0.1:0");

/// A service with its key.
#[derive(Clone)]
pub struct Service {
    pub api: Api,
    pub key: String,
}

/// Has the command line make a key: all that it prints on standard output, without the line's end.
pub async fn create_key(server: &Server, arguments: &[&str]) -> String {
    let arguments = [&["keys", "create"], arguments].concat();
    let mut child = server.spawn(&arguments, Stdio::piped());
    let printed = tokio::task::spawn_blocking(move || {
        let mut printed = String::new();
        let mut out = child.stdout.take().unwrap();
        out.read_to_string(&mut printed).unwrap();
        assert!(child.wait().unwrap().success(), "{printed}");
        printed
    });
    let printed = printed.await.unwrap();
    let key = printed.strip_suffix('\n').unwrap();
    assert!(key.starts_with("lsk_") && !key.contains('\n'), "{printed}");
    key.to_owned()
}

impl Service {
    /// One whose key has these scopes.
    pub async fn with(server: &Server, scopes: &[&str]) -> Self {
        Self::made(server, scopes, &[]).await
    }

    /// The same with more arguments to `keys create`.
    pub async fn made(server: &Server, scopes: &[&str], more: &[&str]) -> Self {
        let mut arguments = vec!["--name", "test"];
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        arguments.extend(more);
        let key = create_key(server, &arguments).await;
        let it = Self {
            api: server.internal(),
            key,
        };
        // When it is printed it is in force.
        assert!([200, 403].contains(&it.get("/broadcasts").await.status));
        it
    }

    /// The same service, calling another node.
    pub fn at(&self, server: &Server) -> Self {
        Self {
            api: server.internal(),
            key: self.key.clone(),
        }
    }

    /// The id of its key.
    pub fn key_id(&self) -> &str {
        self.key.split('_').nth(1).unwrap()
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let path = format!("/internal/v1{path}");
        self.api.request(method, &path).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    /// Appends an event to the user's log.
    pub async fn append(&self, user: &Device, event_type: &str, data: Value) -> Answer {
        let path = format!("/users/{}/events", user.user_id);
        self.post(&path, &json!({"event_type": event_type, "data": data}))
            .await
    }

    /// Begins a broadcast; its id.
    pub async fn broadcast(&self, body: &Value) -> String {
        let body = self.post("/events:broadcast", body).await.ok(202);
        body["id"].as_str().unwrap().to_owned()
    }

    /// How far a broadcast is.
    pub async fn shown(&self, id: &str) -> Value {
        self.get(&format!("/broadcasts/{id}")).await.ok(200)
    }

    pub async fn cancel(&self, id: &str) -> Answer {
        send(self.request(Method::POST, &format!("/broadcasts/{id}:cancel"))).await
    }

    /// Waits for the broadcast's end, and shows it then.
    pub async fn finished(&self, id: &str) -> Value {
        super::within(
            std::time::Duration::from_mins(1),
            "it is finished",
            async || self.shown(id).await["state"] == "finished",
        )
        .await;
        self.shown(id).await
    }

    /// `GET /users/{id}/offline` with this query.
    pub async fn offline(&self, user: &Device, query: &str) -> Answer {
        self.get(&format!("/users/{}/offline{query}", user.user_id))
            .await
    }
}
