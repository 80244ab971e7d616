//! Servers that are one system.

use super::{Engine, Server};

/// Several processes on one `PostgreSQL` database, each with a data folder of its own.
pub struct Cluster {
    pub a: Server,
    pub b: Server,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With `("section.key", "value")` settings for all.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let a = Server::with(Engine::Postgres, settings).await;
        let mut b = Server::on(a.database.clone());
        b.settings.clone_from(&a.settings);
        b.launch().await;
        Self { a, b }
    }

    /// One more server of the same system.
    pub async fn another(&self) -> Server {
        let mut server = Server::on(self.a.database.clone());
        server.settings.clone_from(&self.a.settings);
        server.launch().await;
        server
    }
}
