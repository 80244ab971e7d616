//! The server as a process: started, stopped, killed and started again on the same data.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use base64::Engine as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use super::{
    client::Api,
    database::{Database, Engine},
};

mod cluster;
mod special;

pub use cluster::Cluster;

/// The longest that a start may take on a busy machine.
const START: Duration = Duration::from_secs(20);
/// The longest that a stop may take: `server.shutdown_secs` and some.
const STOP: Duration = Duration::from_secs(30);

/// Limits that no test meets unless it sets them itself.
const RELAXED: &[(&str, &str)] = &[
    ("limits.ip_per_second", "100000"),
    ("limits.ip_burst", "100000"),
    ("limits.user_per_second", "100000"),
    ("limits.user_burst", "100000"),
    ("limits.auth_per_minute", "100000"),
    ("limits.auth_burst", "100000"),
];

/// One `listen-stream serve` and the folder that it owns.
pub struct Server {
    child: Option<Child>,
    settings: Vec<(String, String)>,
    config: Option<PathBuf>,
    /// What the server is started through, if anything.
    program: Vec<String>,
    /// The data folder is a file system that only the process sees.
    inside: bool,
    addresses: Option<(String, String)>,
    /// `data` is the server's own; its output is kept beside it.
    folder: TempDir,
    /// The last to go: dropped once every process on it has ended.
    database: Option<Arc<Database>>,
}

impl Server {
    /// Starts a server with relaxed limits and otherwise its defaults.
    pub async fn start(engine: Engine) -> Self {
        Self::with(engine, &[]).await
    }

    /// Starts a server with `("section.key", "value")` settings.
    pub async fn with(engine: Engine, settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare(engine, settings).await;
        server.launch().await;
        server
    }

    /// Starts a server with a configuration file of this text.
    pub async fn with_config(engine: Engine, toml: &str) -> Self {
        let mut server = Self::prepare(engine, &[]).await;
        let path = server.folder.path().join("config.toml");
        std::fs::write(&path, toml).unwrap();
        server.config = Some(path);
        server.launch().await;
        server
    }

    /// A place for a server that is not started yet: [`Self::restart`] does.
    pub async fn prepare(engine: Engine, settings: &[(&str, &str)]) -> Self {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(Arc::new(Database::create().await)),
        };
        Self::prepare_on(database, settings)
    }

    fn prepare_on(database: Option<Arc<Database>>, settings: &[(&str, &str)]) -> Self {
        let mut server = Self::on(database);
        if server.database.is_some() {
            let key = listen_stream::domain::clock::World::system()
                .bytes::<32>()
                .unwrap();
            let key = base64::engine::general_purpose::STANDARD.encode(key);
            server.set("keys.master_key", &key);
        }
        for (key, value) in settings {
            server.set(key, value);
        }
        server
    }

    fn on(database: Option<Arc<Database>>) -> Self {
        let mut server = Self {
            child: None,
            settings: Vec::new(),
            config: None,
            program: Vec::new(),
            inside: false,
            addresses: None,
            folder: TempDir::new().unwrap(),
            database,
        };
        for (key, value) in RELAXED {
            server.set(key, value);
        }
        if let Some(url) = server
            .database
            .as_ref()
            .map(|database| database.url.clone())
        {
            server.set("database.url", &url);
            // Many tests share one PostgreSQL, which takes 100 connections in all.
            server.set("database.max_connections", "10");
        }
        server
    }

    /// Sets a setting of the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Starts the process and waits until it says that it is ready.
    async fn launch(&mut self) {
        let data = self.folder.path().join("data");
        let told = data.join("listen.json");
        // What a former process left there would be taken for this one's addresses.
        if told.exists() {
            std::fs::remove_file(&told).unwrap();
        }
        let mut command = command(&self.program, &self.settings);
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--data"])
            .arg(data);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        self.child = Some(
            command
                .stdin(Stdio::null())
                .stdout(append(&self.folder.path().join("stdout")))
                .stderr(append(&self.folder.path().join("stderr")))
                .spawn()
                .expect("the server's binary starts"),
        );
        self.addresses = None;
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                panic!(
                    "the server ended while starting: {status}\n{}",
                    self.output()
                );
            }
            if self.addresses.is_none() {
                self.addresses = addresses(&self.data().join("listen.json"));
            }
            if self.addresses.is_some() && self.api().is_ready().await {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the server was not ready in {START:?}\n{}",
                self.output()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts the stopped or killed server again on the same data.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "the server still runs");
        self.launch().await;
    }

    /// Kills the process as a power cut would.
    pub fn kill9(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        let mut child = self.child.take().expect("the server runs");
        child.wait().unwrap();
    }

    /// Runs another command of the program on the server's data folder, with its settings.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let settings: Vec<_> = self
            .settings
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let data = self.data();
        let place = ["--data", data.to_str().unwrap()];
        run(&[arguments, &place].concat(), &settings).await
    }

    /// Starts such a command, and leaves it to the caller; what it says on standard error is lost.
    pub fn spawn(&self, arguments: &[&str], stdout: Stdio) -> Child {
        command(&[], &self.settings)
            .args(arguments)
            .arg("--data")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .expect("the server's binary starts")
    }

    /// Asks the process to stop and checks that it does so in peace.
    pub async fn stop(&mut self) {
        self.terminate();
        self.stopped().await;
    }

    /// Asks the process to stop.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Waits for the process to end, which must be in peace.
    pub async fn stopped(&mut self) {
        let child = self.child.as_mut().expect("the server runs");
        let status = ended(child, STOP).await;
        self.child = None;
        assert!(
            status.is_some_and(|status| status.success()),
            "the server did not stop in peace: {status:?}\n{}",
            self.output()
        );
    }

    /// The data folder, as the tests reach it.
    pub fn data(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        if !self.inside {
            return data;
        }
        let root = format!("/proc/{}/root", self.pid().as_raw_nonzero());
        Path::new(&root).join(data.strip_prefix("/").unwrap())
    }

    /// Everything that the process has printed, over all its starts.
    pub fn output(&self) -> String {
        let read = |name| std::fs::read(self.folder.path().join(name)).unwrap_or_default();
        let (out, err) = (read("stdout"), read("stderr"));
        format!(
            "{}\n{}",
            String::from_utf8_lossy(&out),
            String::from_utf8_lossy(&err)
        )
    }

    /// The public listener's `host:port`.
    pub fn listen(&self) -> &str {
        &self.addresses.as_ref().expect("the server is up").0
    }

    /// The internal listener's `host:port`, if there is one.
    pub fn internal_listen(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.data().join("listen.json")).unwrap();
        let told: Value = serde_json::from_str(&text).unwrap();
        Some(told.get("internal_listen")?.as_str()?.to_owned())
    }

    /// A client of the public listener.
    pub fn api(&self) -> Api {
        self.client(self.listen(), |key, _| key == "server.tls_cert_file")
    }

    fn client(&self, address: &str, is_tls: impl Fn(&str, &str) -> bool) -> Api {
        let api = Api::new(address, self.data().join("dev-sms.log"));
        if self.settings.iter().any(|(key, value)| is_tls(key, value)) {
            api.over_tls()
        } else {
            api
        }
    }

    /// What a counter says, labels and all, by its name after `listen_stream_`: 0 if it is not there.
    pub async fn metric(&self, name: &str) -> u64 {
        self.gauge(name).await.map_or(0, |value| {
            assert!(value >= 0.0 && value.fract() == 0.0, "{name} is {value}");
            format!("{value:.0}").parse().unwrap()
        })
    }

    /// What a metric says, labels and all, by its name after `listen_stream_`.
    pub async fn gauge(&self, name: &str) -> Option<f64> {
        let text = self.metrics().await;
        let mut values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("listen_stream_")?;
            rest.strip_prefix(name)?.strip_prefix(' ')
        });
        values.next().map(|value| value.parse().unwrap())
    }

    /// All metrics as the admin listener shows them.
    pub async fn metrics(&self) -> String {
        let text = self.admin().get("/metrics").await.ok(200);
        text.as_str().unwrap().to_owned()
    }

    /// A client of the admin listener.
    pub fn admin(&self) -> Api {
        let (_, admin) = self.addresses.as_ref().expect("the server is up");
        self.client(admin, |key, value| {
            (key, value) == ("server.admin_tls", "true")
        })
    }

    /// A client of the internal listener, which must be there.
    pub fn internal(&self) -> Api {
        let address = self.internal_listen().expect("an internal listener");
        self.client(&address, |key, value| {
            (key, value) == ("server.internal_tls", "true")
        })
    }

    /// The `PostgreSQL` database that the server stores in.
    pub fn database_url(&self) -> Option<&str> {
        self.database.as_ref().map(|database| database.url.as_str())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server's output\n{}", self.output());
        }
        if self.child.is_some() {
            self.end();
        }
        if let Some(mut child) = self.child.take() {
            // Nothing is left to do about a process that cannot be killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How a process that ends by itself ended.
pub struct Ended {
    pub code: Option<i32>,
    pub output: String,
}

/// Runs the command line to its end, which must come within the time of a start.
pub async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
    run_through(&[], arguments, settings).await
}

/// The same through another program, which is given the server's as its last words.
pub async fn run_through(
    through: &[String],
    arguments: &[&str],
    settings: &[(&str, &str)],
) -> Ended {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("output");
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut child = command(through, &settings)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(append(&path))
        .stderr(append(&path))
        .spawn()
        .expect("the server's binary starts");
    let status = ended(&mut child, START).await;
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    let status = status.unwrap_or_else(|| panic!("{arguments:?} did not end:\n{output}"));
    Ended {
        code: status.code(),
        output,
    }
}

/// The binary with these settings and none that the tests' own environment has.
fn command(through: &[String], settings: &[(String, String)]) -> Command {
    let mut words = through.iter().map(String::as_str);
    let binary = env!("CARGO_BIN_EXE_listen-stream");
    let mut command = Command::new(words.next().unwrap_or(binary));
    command.args(words);
    if !through.is_empty() {
        command.arg(binary);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LISTEN_STREAM_") {
            command.env_remove(name);
        }
    }
    for (key, value) in settings {
        command.env(variable(key), value);
    }
    command
}

/// The environment's name of a setting.
fn variable(key: &str) -> String {
    format!(
        "LISTEN_STREAM__{}",
        key.replace('.', "__").to_ascii_uppercase()
    )
}

fn append(path: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

/// The public and the admin address, once the file is there whole.
fn addresses(path: &Path) -> Option<(String, String)> {
    let text = std::fs::read_to_string(path).ok()?;
    let told: Value = serde_json::from_str(&text).ok()?;
    let address = |key: &str| Some(told.get(key)?.as_str()?.to_owned());
    Some((address("listen")?, address("admin_listen")?))
}

/// Waits for the process to end by itself.
async fn ended(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn settings_become_variables() {
    assert_eq!(
        variable("auth.access_token_secs"),
        "LISTEN_STREAM__AUTH__ACCESS_TOKEN_SECS"
    );
}

#[test]
fn addresses_are_read_only_when_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("listen.json");
    assert_eq!(addresses(&path), None);
    std::fs::write(&path, r#"{"listen":"127.0.0.1:1","admin"#).unwrap();
    assert_eq!(addresses(&path), None);
    std::fs::write(
        &path,
        r#"{"listen":"127.0.0.1:1","admin_listen":"127.0.0.1:2"}"#,
    )
    .unwrap();
    assert_eq!(
        addresses(&path),
        Some(("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()))
    );
}
