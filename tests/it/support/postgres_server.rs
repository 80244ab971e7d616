//! A `PostgreSQL` of a test's own, to be stopped and started.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::time::Instant;

/// How it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Connections are cut, what is committed is written out.
    Fast,
    /// As a crash: what is committed comes back out of its log.
    Immediate,
}

/// Ends with this value.
pub struct PostgresServer {
    port: u16,
    password: String,
    programs: PathBuf,
    child: Option<Child>,
    folder: TempDir,
}

const START: Duration = Duration::from_secs(30);

impl PostgresServer {
    pub async fn start() -> Self {
        let mut server = Self {
            port: super::port(),
            password: super::unique(),
            programs: programs(),
            child: None,
            // Where whoever runs it gets to, whatever TMPDIR says.
            folder: tempfile::Builder::new()
                .prefix("listen-stream-postgres.")
                .tempdir_in("/tmp")
                .unwrap(),
        };
        server.initialize();
        server.launch().await;
        server
    }

    fn initialize(&self) {
        let password = self.folder.path().join("password");
        std::fs::write(&password, &self.password).unwrap();
        if let Some(owner) = owner() {
            let status = Command::new("chown")
                .args(["-R", &owner])
                .arg(self.folder.path())
                .status();
            assert!(status.unwrap().success(), "the folder can be given away");
        }
        let output = self
            .command("initdb")
            .args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "--auth=scram-sha-256", "--pwfile"])
            .arg(password)
            .output()
            .expect("initdb starts");
        assert!(output.status.success(), "{output:?}");
    }

    /// A program of its, run as whoever it runs as.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match owner() {
            // It refuses to run as root.
            Some(owner) => {
                let mut command = Command::new("setpriv");
                command
                    .args([&format!("--reuid={owner}"), &format!("--regid={owner}")])
                    .args(["--clear-groups", "--"])
                    .arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .arg("-D")
            .arg(self.folder.path().join("data"));
        command
    }

    /// Starts it, or starts it again where it was; does nothing while it runs.
    pub async fn launch(&mut self) {
        if self.child.is_some() {
            return;
        }
        let log = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = self
            .command("postgres")
            .args(["-p", &self.port.to_string(), "-k"])
            .arg(self.folder.path())
            .args(["-c", "listen_addresses=127.0.0.1"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        self.child = Some(child);
        let deadline = Instant::now() + START;
        while PgConnection::connect(&self.url()).await.is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops it.
    pub async fn stop(&mut self, how: Stop) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        kill_process(Pid::from_child(&child), signal).unwrap();
        let deadline = Instant::now() + START;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "PostgreSQL does not stop");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        self.url_by(self.port)
    }

    /// Its URL by another port that leads to it.
    pub fn url_by(&self, port: u16) -> String {
        let password = &self.password;
        format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill_process(Pid::from_child(&child), Signal::QUIT);
            let _ = child.wait();
        }
    }
}

/// The newest of the distribution, else the one on the path.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let newest = versions.into_iter().flatten().filter_map(|version| {
        let version = version.ok()?;
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        let programs = version.path().join("bin");
        programs
            .join("initdb")
            .exists()
            .then_some((number, programs))
    });
    newest.max().map(|(_, path)| path).unwrap_or_default()
}

/// Whose process it is, when that is not this one's user.
fn owner() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = users.lines().any(|line| line.starts_with("postgres:"));
    // Both are users and groups; elsewhere the group of nobody has another name.
    Some(if known { "postgres" } else { "65534" }.to_owned())
}
