//! Commands that change what is stored, from the command line: they reach a running server through its
//! control socket, or work at the database themselves.
//!
//! With PostgreSQL they always do the latter. A SQLite database belongs to whoever holds the lock of the
//! data folder: a server, or the command.

use std::{
    convert::Infallible,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    BootError,
    control::{self, Control},
    database, finish, keep_files_private, open_store, with_store_runtime,
};
use crate::{
    actors::{Graph, services::RefreshKeys},
    domain::{
        clock::World,
        ids::ApiKeyId,
        services::{ApiKey, KeyName, KeyRing, KeyText, Scope, StoredKey},
        time::rfc3339,
    },
    settings::Settings,
    store::{DataLock, Engine, LockError, Store},
    telemetry::metrics::Metrics,
};

/// What can be asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command")]
pub enum Command {
    /// Make a key for another service.
    #[serde(rename = "keys.create")]
    CreateKey {
        /// What people call it.
        name: KeyName,
        /// What it opens.
        scopes: Vec<Scope>,
        /// Events of a user and hour; none: what the settings say.
        events_per_hour: Option<u32>,
    },
    /// All keys there ever were.
    #[serde(rename = "keys.list")]
    ListKeys,
    /// End a key.
    #[serde(rename = "keys.revoke")]
    RevokeKey {
        /// Which.
        id: ApiKeyId,
    },
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The key's text, which is stored nowhere.
    Created { id: ApiKeyId, key: String },
    /// The keys, the oldest first.
    Keys(Vec<ApiKey>),
    /// It opens nothing any more.
    Revoked,
}

/// How long a command may take in the store.
const BUDGET: Duration = Duration::from_secs(10);
/// How long a server that holds the lock may take to listen, or to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Performs `command` where it must be, and prints what came of it.
#[must_use]
pub fn command(settings: &Settings, command: &Command) -> ExitCode {
    keep_files_private();
    finish(with_store_runtime(|runtime| {
        runtime.block_on(async {
            let world = World::system();
            let reply = if database(settings).engine() == Engine::Postgres {
                let reply = directly(settings, &world, runtime.handle(), command).await?;
                // No server was told. After this all of them have looked, or believe nothing: what
                // is printed is in force.
                if !matches!(command, Command::ListKeys) {
                    tokio::time::sleep(KeyRing::HOLDS).await;
                }
                reply
            } else {
                reach(settings, &world, runtime.handle(), command).await?
            };
            show(reply);
            Ok(())
        })
    }))
}

/// By the server that holds the data folder, or with its lock in hand.
async fn reach(
    settings: &Settings,
    world: &World,
    runtime: &tokio::runtime::Handle,
    command: &Command,
) -> Result<Reply, BootError> {
    // A mistyped folder is not filled with a new database.
    if !settings.sqlite_path().exists() {
        return Err(BootError::Command(format!(
            "there is no database at {}: start the server once",
            settings.sqlite_path().display()
        )));
    }
    let give_up = world.instant() + PATIENCE;
    loop {
        match DataLock::acquire(&settings.data_dir) {
            Ok(_lock) => return directly(settings, world, runtime, command).await,
            Err(LockError::Taken(_)) => {}
            Err(e) => return Err(e.into()),
        }
        match control::ask(&settings.data_dir, command).await {
            Ok(reply) => return Ok(reply),
            // It is about to listen, or to be gone.
            Err(control::ControlError::Unreachable { .. }) if world.instant() < give_up => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(e) => return Err(BootError::Command(e.to_string())),
        }
    }
}

async fn directly(
    settings: &Settings,
    world: &World,
    runtime: &tokio::runtime::Handle,
    command: &Command,
) -> Result<Reply, BootError> {
    let store = open_store(settings, world, runtime, &Metrics::new()).await?;
    let reply = perform(&store, world, command).await;
    store.close().await;
    reply.map_err(BootError::Command)
}

/// Performs commands of the command line. Without a socket the server serves as well.
pub(super) async fn serve(settings: &Settings, store: &Store, graph: &Graph) -> Infallible {
    let control = match Control::bind(&settings.data_dir) {
        Ok(control) => control,
        Err(e) => {
            let path = control::place(&settings.data_dir);
            tracing::warn!(path = %path.display(), cause = %e, "commands cannot reach this server");
            return std::future::pending().await;
        }
    };
    let performed = async |command| {
        let world = &graph.world;
        let reply = perform(store, world, &command).await?;
        // In force here before it is answered; elsewhere the next look finds it.
        let soon = world.instant() + BUDGET;
        let _ = graph.services.keeper.ask(RefreshKeys, soon).await;
        Ok(reply)
    };
    control.serve(performed).await
}

/// Does what is asked in the store.
async fn perform(store: &Store, world: &World, command: &Command) -> Result<Reply, String> {
    let deadline = world.instant() + BUDGET;
    let said = |e: crate::store::StoreError| format!("the store does not answer: {e}");
    match command {
        Command::CreateKey {
            name,
            scopes,
            events_per_hour,
        } => {
            let id = ApiKeyId(world.uuid().map_err(|e| e.to_string())?);
            let text = KeyText::make(id, world).map_err(|e| e.to_string())?;
            let mut scopes = scopes.clone();
            scopes.sort_unstable();
            scopes.dedup();
            let key = ApiKey {
                id,
                name: name.clone(),
                scopes,
                events_per_hour: events_per_hour.map(i64::from),
                created_at: world.now(),
                revoked_at: None,
            };
            let hash = text.hash();
            let stored = store.api_key_create(deadline, StoredKey { key, hash });
            stored.await.map_err(said)?;
            tracing::info!(key = %id, name = name.as_str(), "an API key was made");
            let key = text.expose();
            Ok(Reply::Created { id, key })
        }
        Command::ListKeys => {
            let keys = store.api_key_list(deadline).await.map_err(said)?;
            Ok(Reply::Keys(keys.into_iter().map(|it| it.key).collect()))
        }
        Command::RevokeKey { id } => {
            let revoked = store.api_key_revoke(deadline, *id, world.now()).await;
            revoked
                .map_err(said)?
                .ok_or_else(|| format!("there is no key {id}"))?;
            tracing::info!(key = %id, "an API key was revoked");
            Ok(Reply::Revoked)
        }
    }
}

fn show(reply: Reply) {
    match reply {
        Reply::Created { id, key } => {
            // The key alone, for whoever puts it into a file.
            super::say(&format!("{key}\n"));
            let note = format!("the key {id} is shown this once, and stored nowhere\n");
            let _ = io::stderr().write_all(note.as_bytes());
        }
        Reply::Keys(keys) => super::say(&table(&keys)),
        Reply::Revoked => {}
    }
}

/// A line for each key: id, name, scopes, quota, when it was made, since when it opens nothing.
fn table(keys: &[ApiKey]) -> String {
    let line = |it: &ApiKey| {
        let scopes: Vec<_> = it.scopes.iter().map(|scope| scope.as_str()).collect();
        let quota = it.events_per_hour.map_or("-".to_owned(), |n| n.to_string());
        let revoked = it.revoked_at.map_or("-".to_owned(), rfc3339);
        format!(
            "{}\t{}\t{}\t{quota}\t{}\t{revoked}\n",
            it.id,
            it.name.as_str(),
            scopes.join(","),
            rfc3339(it.created_at),
        )
    };
    let head = "ID\tNAME\tSCOPES\tEVENTS_PER_HOUR\tCREATED\tREVOKED\n".to_owned();
    head + &keys.iter().map(line).collect::<String>()
}
