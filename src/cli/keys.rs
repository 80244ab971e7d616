//! The arguments of `keys`.

use clap::{Args, Subcommand};

use super::PlaceArgs;
use crate::{
    boot::Command,
    domain::{
        ids::ApiKeyId,
        services::{KeyName, Scope},
    },
};

pub(super) const KEYS: &str = "\
Other services of yours call the internal listener (server.internal_listen) with a key. It may have \
the scopes events:append (append events to a user's log), events:broadcast (append an event to many \
users' logs) and offline:read (read what devices have not acknowledged).\n\n\
With SQLite a running server is reached through control.sock in its data folder; without one the \
command takes its place. With PostgreSQL it works at the database, whichever servers run, and like \
serve it brings the schema up to date.";

pub(super) const EXAMPLES: &str = "\
Examples:
  listen-stream keys create --name billing --scope events:append > billing.key
  listen-stream keys create --name news --scope events:broadcast --scope offline:read
  listen-stream keys list --data /var/lib/listen-stream
  listen-stream keys revoke 01a1fb6a-3e04-754f-8aca-b1ab9eff8f0f";

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make a key, and print it: this once, it is stored nowhere
    Create(CreateArgs),
    /// Show all keys, also revoked ones, but not what makes them keys
    List(PlaceArgs),
    /// End a key: within a second it is refused everywhere, and its broadcasts end
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// What to call it
    #[arg(long, value_parser = name)]
    name: KeyName,
    /// What it opens; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = scope)]
    scopes: Vec<Scope>,
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        help = "Events that it may append to a user's log in an hour [default: services.events_per_hour]"
    )]
    events_per_hour: Option<u32>,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The key's id, as list shows it
    id: ApiKeyId,
    #[command(flatten)]
    place: PlaceArgs,
}

fn name(text: &str) -> Result<KeyName, &'static str> {
    KeyName::parse(text)
}

fn scope(text: &str) -> Result<Scope, &'static str> {
    text.parse()
}

impl KeysCommand {
    /// What is asked for, and where.
    pub(super) fn parts(self) -> (Command, PlaceArgs) {
        match self {
            Self::Create(it) => {
                let command = Command::CreateKey {
                    name: it.name,
                    scopes: it.scopes,
                    events_per_hour: it.events_per_hour,
                };
                (command, it.place)
            }
            Self::List(place) => (Command::ListKeys, place),
            Self::Revoke(it) => (Command::RevokeKey { id: it.id }, it.place),
        }
    }
}
