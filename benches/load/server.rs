//! The processes that are measured: the server itself, and references of this program.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Res,
    machine::{self, Cores},
};

/// Settings that no line measures: limits of callers, who all are this one program, and lives of tokens.
const SETTINGS: &[(&str, &str)] = &[
    ("LIMITS__IP_PER_SECOND", "1000000"),
    ("LIMITS__IP_BURST", "1000000"),
    ("LIMITS__USER_PER_SECOND", "1000000"),
    ("LIMITS__USER_BURST", "1000000"),
    ("LIMITS__AUTH_PER_MINUTE", "1000000"),
    ("LIMITS__AUTH_BURST", "1000000"),
    ("LIMITS__IP_CONNECTIONS", "100000"),
    ("AUTH__ACCESS_TOKEN_SECS", "86400"),
    ("SYNC__SIGNALS_PER_SECOND", "1000"),
    ("SYNC__FRAMES_PER_SECOND", "10000"),
    ("SYNC__FRAMES_BURST", "100000"),
    ("LOG__LEVEL", "warn"),
];

/// A running `listen-stream serve`.
pub struct Server {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where operators do.
    pub admin: SocketAddr,
    /// Where other services do, if there is such a listener.
    pub internal: Option<SocketAddr>,
    /// Its data folder.
    pub data: PathBuf,
    /// From the start of the process until `/ready` said so.
    pub start: Duration,
}

impl Server {
    /// Starts it on a data folder, with settings beside [`SETTINGS`].
    pub async fn start(data: &Path, settings: &[(&str, &str)], cores: Cores) -> Res<Self> {
        let told = data.join("listen.json");
        let _ = fs::remove_file(&told);
        fs::create_dir_all(data)?;
        let log = File::create(data.with_extension("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_listen-stream"));
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (key, value) in SETTINGS.iter().chain(settings) {
            command.env(format!("LISTEN_STREAM__{key}"), value);
        }
        // What is started inherits the cores of its starter.
        machine::pin(None, cores)?;
        let begun = Instant::now();
        let child = command.spawn();
        machine::pin(None, Cores::All)?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            child: child?,
            address: nowhere,
            admin: nowhere,
            internal: None,
            data: data.to_owned(),
            start: Duration::ZERO,
        };
        loop {
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(data.with_extension("log"))?;
                return Err(format!("the server ended at its start, {status}: {log}").into());
            }
            if let Ok(text) = fs::read(&told)
                && let Ok(Value::Object(told)) = serde_json::from_slice(&text)
                && let Some(address) = listener(&told, "listen")?
            {
                server.address = address;
                server.admin = listener(&told, "admin_listen")?.ok_or("no admin listener")?;
                server.internal = listener(&told, "internal_listen")?;
                if ready(server.address).await.unwrap_or(false) {
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.start = begun.elapsed();
        Ok(server)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// One of its metrics.
    pub async fn metric(&self, name: &str) -> Res<f64> {
        let mut http = super::http::Http::connect(self.admin, 0).await?;
        let request = super::http::request("GET", "/metrics", "");
        let text = String::from_utf8(http.call(&request).await?.body.to_vec())?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.map_or(Ok(0.0), |value| value.trim().parse())?)
    }

    /// Stops it in order.
    pub async fn stop(mut self) -> Res<()> {
        if let Some(process) = rustix::process::Pid::from_raw(self.id().cast_signed()) {
            rustix::process::kill_process(process, rustix::process::Signal::TERM)?;
        }
        while self.child.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn listener(told: &serde_json::Map<String, Value>, name: &str) -> Res<Option<SocketAddr>> {
    let address = told.get(name).and_then(Value::as_str);
    let address = address.map(|text| text.trim_start_matches("http://").parse());
    Ok(address.transpose()?)
}

/// Has the command line make a key for another service.
pub fn create_key(data: &Path, settings: &[(&str, &str)], scope: &str) -> Res<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_listen-stream"));
    command.args(["keys", "create", "--name", "bench", "--scope", scope]);
    command.arg("--data").arg(data);
    for (key, value) in settings {
        command.env(format!("LISTEN_STREAM__{key}"), value);
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn ready(address: SocketAddr) -> Res<bool> {
    let mut http = super::http::Http::connect(address, 0).await?;
    let answer = http
        .call(&super::http::request("GET", "/ready", ""))
        .await?;
    Ok(answer.status == 200)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process of this program that serves as a reference.
pub struct Reference {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Reference {
    /// Starts `--reference` with arguments.
    pub fn start(arguments: &[&str], cores: Cores) -> Res<Self> {
        machine::pin(None, cores)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("--reference")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        machine::pin(None, Cores::All)?;
        let mut child = child?;
        let to = child.stdin.take().ok_or("no way in")?;
        let from = BufReader::new(child.stdout.take().ok_or("no way out")?);
        Ok(Self { child, to, from })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Says a line, and hears one. Waits as long as it takes.
    pub fn ask(&mut self, line: &str) -> Res<String> {
        writeln!(self.to, "{line}")?;
        self.hear()
    }

    /// Hears a line.
    pub fn hear(&mut self) -> Res<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err("a reference ended".into());
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies a data folder of a server that is stopped.
pub fn copy(from: &Path, to: &Path) -> Res<PathBuf> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(to.to_owned())
}
