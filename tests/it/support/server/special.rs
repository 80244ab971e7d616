//! Servers that are started in a special way: through another program, or with their database out of
//! reach; and what can be seen of their process.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::{Database, Engine, Server};
use crate::support::proxy::Proxy;

impl Server {
    /// Starts the server through another program, which starts it or becomes it: `program… binary …`.
    pub async fn through(engine: Engine, settings: &[(&str, &str)], program: Vec<String>) -> Self {
        let mut server = Self::prepare(engine, settings).await;
        server.program = program;
        server.launch().await;
        server
    }

    /// A server on a data folder with a copy of these files.
    pub async fn on_files(folder: &Path) -> Self {
        let mut server = Self::prepare(Engine::Sqlite, &[]).await;
        std::fs::create_dir(server.data()).unwrap();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, server.data().join(path.file_name().unwrap())).unwrap();
        }
        server.launch().await;
        server
    }

    /// A server whose data folder has room for so many bytes. `None` where this machine lets the tests
    /// mount nothing.
    pub async fn in_small_room(bytes: u64) -> Option<Self> {
        let alone = ["unshare", "--mount"].as_slice();
        let as_root = ["unshare", "--user", "--map-root-user", "--mount"].as_slice();
        let can_mount = |words: &&[&str]| {
            let mut mount = Command::new(words[0]);
            mount
                .args(&words[1..])
                .args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
            mount
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        let words = [alone, as_root].into_iter().find(can_mount)?;
        let mut server = Self::prepare(Engine::Sqlite, &[]).await;
        let data = server.data();
        std::fs::create_dir(&data).unwrap();
        let mount = format!(
            "mount -t tmpfs -o size={bytes},mode=700 tmpfs {} && exec \"$@\"",
            data.display()
        );
        server.program = words.iter().map(|word| (*word).to_owned()).collect();
        server
            .program
            .extend(["sh", "-c", &mount, "sh"].map(str::to_owned));
        server.inside = true;
        server.launch().await;
        Some(server)
    }

    /// No file of the server's can grow beyond so many bytes from now on; none: as before. The server
    /// must have been started by [`Self::deaf_to_limits`].
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Some(self.pid()), Resource::Fsize, limit).unwrap();
    }

    /// A server that is told of a file that may not grow by an error and not by a signal.
    pub async fn deaf_to_limits() -> Self {
        let program = ["sh", "-c", "trap '' XFSZ && exec \"$@\"", "sh"];
        Self::through(Engine::Sqlite, &[], program.map(str::to_owned).to_vec()).await
    }

    /// A server on a new `PostgreSQL` database that it reaches through a proxy.
    pub async fn behind_proxy(settings: &[(&str, &str)]) -> (Self, Proxy) {
        let database = Arc::new(Database::create().await);
        let mut url = reqwest::Url::parse(&database.url).unwrap();
        let address = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let proxy = Proxy::start(&address).await;
        url.set_port(Some(proxy.port())).unwrap();
        let mut server = Self::prepare_on(Some(database), settings);
        server.set("database.url", url.as_str());
        server.launch().await;
        (server, proxy)
    }

    /// A server on stores that the test keeps itself, named by settings.
    pub async fn on_stores(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepare_on(None, settings);
        server.launch().await;
        server
    }

    /// The server's process: the one that was started, or what that one started.
    pub fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("the server runs").id();
        let of = |id: u32| Pid::from_raw(id.try_into().unwrap()).unwrap();
        let children = std::fs::read_to_string(format!("/proc/{child}/task/{child}/children"));
        let first = children.ok().and_then(|text| {
            let first = text.split_whitespace().next()?;
            first.parse().ok()
        });
        // The server itself starts no process.
        of(first.unwrap_or(child))
    }

    /// Sends the server's process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills the server's own process, as far as it can: what it was started through may only let
    /// go of it.
    pub(super) fn end(&self) {
        let _ = kill_process(self.pid(), Signal::KILL);
    }

    /// What the process has taken of the processors so far.
    #[cfg(feature = "faults")]
    pub fn processor_time(&self) -> std::time::Duration {
        let path = format!("/proc/{}/stat", self.pid().as_raw_nonzero());
        let stat = std::fs::read_to_string(path).unwrap();
        // The name may hold anything; user and system time are the 14th and 15th field.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks: u64 = fields[11..=12]
            .iter()
            .map(|it| it.parse::<u64>().unwrap())
            .sum();
        // Linux tells programs of hundredths of a second, whatever it counts in itself.
        std::time::Duration::from_millis(ticks * 10)
    }

    /// Bytes of memory that the process holds now.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap() * 1024
    }
}
