//! The composition root: settings → store → actor graph → listeners, and the drain in reverse.
//!
//! Owns the order of starting and stopping, and the threads: the store has a runtime of its own;
//! actors that the whole node needs live on the main thread's arbiter; a user's session starts on
//! the HTTP worker where the user arrived, its sockets beside it.

mod backup;
mod certificate;
mod check;
mod command;
mod control;
#[cfg(feature = "faults")]
mod faults;
mod files;
mod graph;
mod listener;
mod listeners;
mod patience;
mod samples;
mod tls;
mod unclean;

pub use backup::{backup, renew_epochs, restore};
pub use check::{check, check_strictly};
pub use command::{Command, command};

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
    pin::pin,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tracing::field;

use crate::{
    actors::{Graph, nodes::Leave, session::Drain, sync::Flush},
    domain::{
        clock::{EntropyError, World},
        error::FieldError,
    },
    settings::{self, Finding, Settings, Synchronous},
    store::{
        BackupError, DataLock, Database, KeysError, LockError, MasterKey, OpenError, RedisUrlError,
        Store, StoreConfig, StoreError, StoreMetrics,
    },
    telemetry::metrics::Metrics,
};
use files::Files;
use patience::patiently;
use tls::Tls;
use unclean::Unclean;

/// Why the server did not start, or stopped with an error.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The data folder is in use, or cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A backup was not made, or not restored.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] RedisUrlError),
    /// The store did not answer.
    #[error("the store does not answer: {0}")]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// A command was refused, here or by a running server.
    #[error("{0}")]
    Command(String),
    /// A setting that only shows itself here.
    #[error("{0}")]
    Setting(#[from] FieldError),
    /// What the settings ask for cannot be had from this machine and its files.
    #[error("{}", sentence(.0, "; "))]
    Findings(Vec<Finding>),
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The setting's value.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A file, thread or signal cannot be had.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// All that was found, in one text.
fn sentence(found: &[Finding], between: &str) -> String {
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    found.join(between)
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> BootError {
    move |source| BootError::Io { what, source }
}

/// Serves until told to stop.
#[must_use]
pub fn serve(settings: &Settings) -> ExitCode {
    keep_files_private();
    finish(with_store_runtime(|runtime| {
        let files = Files::plan(settings).map_err(|it| BootError::Findings(vec![it]))?;
        let run = run(settings, files, runtime.handle().clone());
        actix_rt::System::new().block_on(run)
    }))
}

/// Brings the schema up to date.
#[must_use]
pub fn migrate(settings: &Settings) -> ExitCode {
    keep_files_private();
    finish(with_store_runtime(|runtime| {
        runtime.block_on(async {
            let _lock = DataLock::acquire(&settings.data_dir)?;
            let (world, metrics) = (World::system(), Metrics::new());
            open_store(settings, &world, runtime.handle(), &metrics)
                .await?
                .close()
                .await;
            say("the schema is up to date\n");
            Ok(())
        })
    }))
}

fn with_store_runtime(
    work: impl FnOnce(&Runtime) -> Result<(), BootError>,
) -> Result<(), BootError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("store")
        .enable_all()
        .build()
        .map_err(io_error("cannot start the store's threads"))?;
    let result = work(&runtime);
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

fn finish(result: Result<(), BootError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when standard error is gone as well.
            let _ = writeln!(io::stderr(), "listen-stream: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints for a person, which must not fail the server when nobody listens.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whatever this process makes is for its owner only, also in a data folder that others may enter:
/// the database holds phone numbers.
fn keep_files_private() {
    use rustix::{fs::Mode, process::umask};
    umask(Mode::from_bits_truncate(0o077));
}

fn database(settings: &Settings) -> Database {
    match &settings.database.url {
        Some(url) => Database::Postgres(url.expose().to_owned()),
        None => Database::Sqlite(settings.sqlite_path()),
    }
}

async fn open_store(
    settings: &Settings,
    world: &World,
    runtime: &tokio::runtime::Handle,
    metrics: &Metrics,
) -> Result<Store, OpenError> {
    let config = StoreConfig {
        database: database(settings),
        max_connections: settings.database.max_connections,
        read_connections: settings.database.read_connections,
        write_timeout: Duration::from_millis(settings.database.write_timeout_ms),
        read_timeout: Duration::from_millis(settings.database.read_timeout_ms),
        synchronous_full: settings.database.synchronous == Synchronous::Full,
    };
    let metrics = metrics.register(StoreMetrics::register);
    Store::open(config, world.clone(), runtime.clone(), metrics).await
}

/// The master key. One is made only where it can open everything that is there: nothing yet.
async fn master_key(
    settings: &Settings,
    world: &World,
    store: &Store,
) -> Result<MasterKey, BootError> {
    match &settings.keys.master_key {
        settings::MasterKey::Given(key) => Ok(MasterKey::from_base64(key.expose())?),
        settings::MasterKey::DataFolder(path) if path.exists() => Ok(MasterKey::from_file(path)?),
        settings::MasterKey::DataFolder(path) => {
            let exist = async |by| Ok(store.keys_exist(by).await?);
            if patiently(world, exist).await? {
                return Err(KeysError::NoMasterKey(path.clone()).into());
            }
            Ok(MasterKey::create_file(path, world)?)
        }
    }
}

#[cfg(not(feature = "faults"))]
fn world(_: &Settings) -> World {
    World::system()
}

#[cfg(feature = "faults")]
fn world(settings: &Settings) -> World {
    faults::world(&settings.data_dir)
}

async fn run(
    settings: &Settings,
    files: Files,
    runtime: tokio::runtime::Handle,
) -> Result<(), BootError> {
    let _lock = DataLock::acquire(&settings.data_dir)?;
    let (world, metrics) = (world(settings), Metrics::new());
    metrics.register_process(world.now().timestamp_micros());
    let unclean = Unclean::of(settings);
    if let Some(unclean) = &unclean {
        unclean.make_good(&world).await?;
    }
    let store = open_store(settings, &world, &runtime, &metrics).await?;
    let result = match unclean.as_ref().map_or(Ok(()), Unclean::begin) {
        Ok(()) => serve_store(settings, files, &world, &metrics, &store, &runtime).await,
        Err(e) => Err(e),
    };
    store.close().await;
    if let Some(unclean) = &unclean {
        unclean.end();
    }
    result
}

async fn serve_store(
    settings: &Settings,
    files: Files,
    world: &World,
    metrics: &Metrics,
    store: &Store,
    runtime: &tokio::runtime::Handle,
) -> Result<(), BootError> {
    let master = master_key(settings, world, store).await?;
    let load = async |by| Ok(store.secrets_load(by, &master).await?);
    let secrets = patiently(world, load)
        .await?
        .with_access_life(graph::seconds(settings.auth.access_token_secs));
    let secrets = Arc::new(secrets);
    let tls = Tls::open(&settings.server, world, metrics, runtime).await?;
    let graph = graph::start(settings, world, metrics, store, secrets, runtime).await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io_error("cannot hear SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io_error("cannot hear SIGINT"))?;
    let hangup = signal(SignalKind::hangup()).map_err(io_error("cannot hear SIGHUP"))?;
    let encryption = tls.as_ref().map(|tls| &tls.encryption);
    let mut listeners = listeners::bind(settings, world, metrics, &graph, files, encryption)?;
    announce(settings, &listeners)?;
    let mut certificate = pin!(tls::keep(tls, hangup));
    let mut controlled = pin!(command::serve(settings, store, &graph));

    let stopped = tokio::select! {
        result = listeners.serve() => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        never = &mut certificate => match never {},
        never = &mut controlled => match never {},
    };
    // A second signal ends the wait.
    tokio::select! {
        // The rest is for the cursors, which are stored last.
        () = drain(&graph, listeners, Duration::from_secs(settings.server.shutdown_secs) * 3 / 4) => {}
        _ = terminate.recv() => tracing::warn!("stopped without finishing the drain"),
        _ = interrupt.recv() => tracing::warn!("stopped without finishing the drain"),
        never = &mut certificate => match never {},
        never = &mut controlled => match never {},
    }
    // It says where a server listens; none does any more.
    let _ = fs::remove_file(settings.data_dir.join(LISTEN_FILE));
    stopped
}

/// How long the last cursors may take on their way to the store, after the drain's own time.
const FLUSH_BUDGET: Duration = Duration::from_secs(5);
/// Says where the server that holds the data folder listens.
const LISTEN_FILE: &str = "listen.json";

fn announce(settings: &Settings, listeners: &listeners::Listeners) -> Result<(), BootError> {
    let server = &settings.server;
    let (public, admin) = (listeners.public, listeners.admin);
    let scheme = |has_tls| if has_tls { "https" } else { "http" };
    let mut addresses = serde_json::json!({ "listen": public, "admin_listen": admin });
    if let Some(internal) = listeners.internal {
        addresses["internal_listen"] = serde_json::json!(internal);
    }
    write_whole(&settings.data_dir.join(LISTEN_FILE), &addresses.to_string())
        .map_err(io_error("cannot write listen.json"))?;
    tracing::info!(%public, %admin, internal = listeners.internal.map(field::display), "ready");
    let api = scheme(server.tls_cert_file.is_some());
    let mut text = format!(
        "listen-stream is ready\n  API      {api}://{public}   (browse it: {api}://{public}/v1/docs/)\n  \
         metrics  {}://{admin}/metrics\n",
        scheme(server.admin_tls)
    );
    // Writing to a String cannot fail.
    if let Some(internal) = listeners.internal {
        let _ = writeln!(
            text,
            "  internal {}://{internal}",
            scheme(server.internal_tls)
        );
    }
    let _ = writeln!(text, "  data     {}", settings.data_dir.display());
    if settings.sms.provider == settings::SmsProvider::Console {
        let log = graph::sms_log(settings);
        let _ = writeln!(
            text,
            "  codes    {} (the development SMS provider)",
            log.display()
        );
    }
    say(&text);
    Ok(())
}

/// So that a reader never sees half of it.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, text)?;
    fs::rename(part, path)
}

/// Turns the node away: readiness first, then the requests in progress, every socket with a goodbye,
/// and last the cursors.
async fn drain(graph: &Graph, listeners: listeners::Listeners, patience: Duration) {
    tracing::info!("draining");
    graph.draining.store(true, Ordering::Relaxed);
    let deadline = graph.world.instant() + patience;
    // Sessions end with the workers that they live on: first what they have in hand.
    while !graph.is_idle() && graph.world.instant() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (_, session) in graph.sessions.all() {
        // A session that is not up has no socket.
        let _ = session.tell(Drain);
    }
    // Sockets end with the workers that they live on: first the goodbyes and their answers.
    while listeners.gate.open() > 0 && graph.world.instant() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if tokio::time::timeout_at(deadline.into(), listeners.stop())
        .await
        .is_err()
    {
        tracing::warn!("some connections did not end in time");
    }
    // However long that took: without it every device would be sent its last events again.
    let deadline = graph.world.instant() + FLUSH_BUDGET;
    if graph.cursors.ask(Flush, deadline).await.is_err() {
        tracing::warn!("the last cursors were not stored: some events will be sent again");
    }
    if graph.nodes.ask(Leave, deadline).await.is_err() {
        tracing::warn!("other nodes will notice only by their lease that this one is gone");
    }
    tracing::info!("stopped");
}
