//! The lines of the table, each with what it runs and what it should reach.

mod broadcast;
mod cluster;
mod deliver;
mod idle;
pub mod kernel;
mod library;
mod offline;
mod rest;
mod start;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::Executor as _;
use tempfile::TempDir;

use super::{
    Plan, Res,
    machine::{self, Cores},
    people::{self, People},
    report::Line,
    server::{self, Reference, Server},
};

/// Users of the server on SQLite: as many as there are idle sockets.
const USERS: usize = 10_000;
/// Of them, users with [`DEVICES`] devices.
const WITH_MORE: usize = 1_000;
/// Users of lines that need few of them, one of whom only the snapshot is for.
const FEW: usize = WITH_MORE + 1;
/// See [`WITH_MORE`].
const DEVICES: usize = 5;
/// HTTP clients at a time.
const CLIENTS: usize = 128;

/// A data folder with users in it, that each line starts a server on a copy of.
struct Stage {
    folder: TempDir,
    people: People,
    copies: std::cell::Cell<u32>,
    database: Option<(String, String)>,
}

impl Stage {
    async fn new(
        database: Option<(String, String)>,
        (users, with_more): (usize, usize),
    ) -> Res<Self> {
        let folder = TempDir::new()?;
        let data = folder.path().join("data");
        let stage = Self {
            people: People::default(),
            copies: 0.into(),
            database,
            folder,
        };
        let server = Server::start(&data, &stage.settings(&[]), Cores::All).await?;
        let people = people::log_in(server.address, &data, users, with_more, DEVICES).await?;
        server.stop().await?;
        Ok(Self { people, ..stage })
    }

    /// The settings with those of the database.
    fn settings<'s>(&'s self, more: &[(&'s str, &'s str)]) -> Vec<(&'s str, &'s str)> {
        let mut settings = more.to_vec();
        if let Some((url, key)) = &self.database {
            settings.push(("DATABASE__URL", url));
            settings.push(("KEYS__MASTER_KEY", key));
        }
        settings
    }

    fn copy(&self) -> Res<PathBuf> {
        self.copies.set(self.copies.get() + 1);
        let name = format!("copy-{}", self.copies.get());
        server::copy(
            &self.folder.path().join("data"),
            &self.folder.path().join(name),
        )
    }

    /// A server on data of its own (with PostgreSQL: on the database).
    async fn server(&self, cores: Cores) -> Res<Server> {
        Server::start(&self.copy()?, &self.settings(&[]), cores).await
    }

    /// Where the database is, if it is not in the data folder.
    fn url(&self) -> Option<&str> {
        self.database.as_ref().map(|(url, _)| url.as_str())
    }

    /// The store's own code on data of its own, ready to run what is named.
    fn store(&self, what: &str, cores: Cores) -> Res<Reference> {
        let ids = self.folder.path().join("users");
        let users: Vec<_> = self
            .people
            .iter()
            .take(WITH_MORE)
            .map(|of| of[0].user.as_str())
            .collect();
        std::fs::write(&ids, users.join("\n"))?;
        let database = match &self.database {
            Some((url, _)) => url.clone(),
            None => path(&self.copy()?.join("listen-stream.db")),
        };
        let mut store = Reference::start(&["store", what, &database, &path(&ids)], cores)?;
        store.hear()?;
        Ok(store)
    }
}

fn path(of: &Path) -> String {
    of.to_string_lossy().into_owned()
}

/// A reference that is an HTTP server, and where it listens.
fn listening(kind: &str, cores: Cores) -> Res<(Reference, SocketAddr)> {
    listening_with(&[kind], cores)
}

/// The same with what it needs to know.
fn listening_with(arguments: &[&str], cores: Cores) -> Res<(Reference, SocketAddr)> {
    let mut reference = Reference::start(arguments, cores)?;
    let address = reference.hear()?.parse()?;
    Ok((reference, address))
}

/// Lets what a line left behind settle: closed connections, caches written.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// Runs the lines that are wanted, and prints the table as it grows.
pub fn run(plan: &Plan) -> Res<()> {
    raise_file_limit()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(machine::cores())
        .enable_all()
        .build()?;
    runtime.block_on(all(plan))
}

fn raise_file_limit() -> Res<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

fn print(line: &Line) {
    println!("{}", line.row());
}

async fn all(plan: &Plan) -> Res<()> {
    println!(
        "{}; {} rounds of {:?} a side\n",
        machine::description(),
        plan.rounds,
        plan.secs
    );
    println!("| line | Listen Stream | reference | ratio | goal |\n|---|---|---|---|---|");
    if plan.wants("kernel") {
        kernel::lines(plan)?.iter().for_each(print);
    }
    if plan.wants("start") {
        start::lines(plan).await?.iter().for_each(print);
    }
    let names = [
        "favorite sqlite",
        "presence",
        "idle",
        "push",
        "signals",
        "offline",
        "connected sqlite",
    ];
    if plan.wants_any(&names) {
        let stage = Stage::new(None, (USERS, WITH_MORE)).await?;
        if plan.wants(names[0]) {
            print(&rest::favorite(plan, &stage, SQLITE).await?);
        }
        if plan.wants(names[1]) {
            print(&rest::presence(plan, &stage).await?);
        }
        if plan.wants(names[2]) {
            idle::lines(plan, &stage).await?.iter().for_each(print);
        }
        if plan.wants(names[3]) {
            print(&deliver::push(plan, &stage).await?);
        }
        if plan.wants(names[4]) {
            print(&deliver::signals(plan, &stage).await?);
        }
        if plan.wants(names[5]) {
            offline::lines(plan, &stage).await?.iter().for_each(print);
        }
        if plan.wants(names[6]) {
            print(&broadcast::connected(plan, &stage, SQLITE).await?);
        }
    }
    let names = [
        "move sqlite",
        "history sqlite",
        "snapshot sqlite",
        "broadcast sqlite",
    ];
    if plan.wants_any(&names) {
        library(plan, names, SQLITE, &Stage::new(None, (FEW, 0)).await?).await?;
    }
    if !plan.wants_any(&[&[CONNECTED, FAVORITE, NODES][..], &IN_POSTGRES].concat()) {
        return Ok(());
    }
    let Ok(url) = std::env::var("LISTEN_STREAM_TEST_POSTGRES_URL") else {
        println!("| PostgreSQL | left out: no LISTEN_STREAM_TEST_POSTGRES_URL |");
        return Ok(());
    };
    postgres(plan, &url).await
}

const SQLITE: &str = "SQLite, `FULL`";
const POSTGRES: &str = "PostgreSQL, 20 connections";

/// Lines that there are for each engine, with few users.
async fn library(plan: &Plan, names: [&str; 4], engine: &str, stage: &Stage) -> Res<()> {
    if plan.wants(names[0]) {
        print(&library::moved(plan, stage, engine).await?);
    }
    if plan.wants(names[1]) {
        print(&library::history(plan, stage, engine).await?);
    }
    if plan.wants(names[2]) {
        print(&library::snapshot(plan, stage, engine).await?);
    }
    if plan.wants(names[3]) {
        print(&broadcast::stored(plan, stage, engine).await?);
    }
    Ok(())
}

/// Names of lines with PostgreSQL, those of the library first.
const IN_POSTGRES: [&str; 4] = [
    "move postgres",
    "history postgres",
    "snapshot postgres",
    "broadcast postgres",
];
const CONNECTED: &str = "connected postgres";
const FAVORITE: &str = "favorite postgres";
const NODES: &str = "cross-node";

async fn postgres(plan: &Plan, url: &str) -> Res<()> {
    if plan.wants(CONNECTED) {
        let stage = Stage::new(Some(make_database(url, "many").await?), (USERS, 0)).await?;
        print(&broadcast::connected(plan, &stage, POSTGRES).await?);
    }
    if !plan.wants_any(&[&[FAVORITE, NODES][..], &IN_POSTGRES].concat()) {
        return Ok(());
    }
    let stage = Stage::new(Some(make_database(url, "few").await?), (FEW, 0)).await?;
    if plan.wants(FAVORITE) {
        print(&rest::favorite(plan, &stage, POSTGRES).await?);
    }
    if plan.wants(NODES) {
        match std::env::var("LISTEN_STREAM_TEST_REDIS_URL") {
            Ok(redis) => print(&cluster::delivery(plan, &stage, &redis).await?),
            Err(_) => println!("| several nodes | left out: no LISTEN_STREAM_TEST_REDIS_URL |"),
        }
    }
    library(plan, IN_POSTGRES, POSTGRES, &stage).await
}

/// A database of its own, with a master key for it.
async fn make_database(url: &str, name: &str) -> Res<(String, String)> {
    use base64::Engine as _;
    use sqlx::Connection as _;
    let name = format!("bench_{}_{name}", std::process::id());
    let mut conn = sqlx::PgConnection::connect(url).await?;
    conn.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await?;
    let key = listen_stream::domain::clock::World::system().bytes::<32>()?;
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let (base, _) = url.rsplit_once('/').ok_or("a URL without a database")?;
    Ok((format!("{base}/{name}"), key))
}
