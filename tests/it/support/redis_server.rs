//! A Redis of a test's own, to be stopped and started.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

/// Ends with this value.
pub struct RedisServer {
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
    folder: TempDir,
}

impl RedisServer {
    /// A standalone one.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// One with these arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        let mut server = Self::new(arguments);
        server.launch().await;
        server
    }

    /// One that watches over others.
    pub async fn sentinel() -> Self {
        let mut server = Self::new(Vec::new());
        let config = server.folder.path().join("sentinel.conf");
        std::fs::write(&config, "sentinel monitor mymaster 127.0.0.1 1 1\n").unwrap();
        let config = config.to_str().unwrap().to_owned();
        server.arguments = vec![config, "--sentinel".to_owned()];
        server.launch().await;
        server
    }

    fn new(arguments: Vec<String>) -> Self {
        Self {
            port: super::port(),
            arguments,
            child: None,
            folder: TempDir::new().unwrap(),
        }
    }

    /// Starts it, or starts it again where it was.
    pub async fn launch(&mut self) {
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", ""])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.child = Some(child);
        super::eventually("Redis listens", async || {
            TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
        })
        .await;
    }

    /// Kills it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}
