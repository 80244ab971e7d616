//! `listen-stream tail`: a small client that logs in as a device and prints the user's events.
//!
//! Owns its own state file and nothing of the server. The pure half (`rules.rs`) says what to do
//! upon each frame, close and timer; `shell.rs` does it. Tokens are never printed.

mod api;
mod backoff;
mod error;
mod login;
mod print;
mod rules;
#[cfg(test)]
mod rules_tests;
mod shell;
mod socket;
mod state;
mod steps;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial;
mod wire;

use std::path::PathBuf;

pub use error::TailError;
use reqwest::Url;

use self::{api::Api, print::Console, shell::Shell, state::Store};
use crate::domain::{clock::World, mask};

/// Prints a user's events as they happen.
///
/// The first run logs in with a code that is sent to the phone; a development server writes it
/// to dev-sms.log in its data folder. Later runs need no code: the login and the last event that
/// was printed are kept in a state file, so nothing is left out. Killed in the very moment of printing,
/// it may print that event again.
#[derive(Clone, clap::Args)]
pub struct TailArgs {
    /// Where the server listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: String,
    /// The user's phone number, such as +8613800138000; needed unless --state has a login
    #[arg(long, value_name = "NUMBER")]
    pub phone: Option<String>,
    /// The code that was sent to the phone, instead of asking for a new one
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// How this device is known to the server; made up at the first run and kept
    #[arg(long, value_name = "DEVICE_ID")]
    pub device_id: Option<String>,
    /// How this device is shown in the user's list of devices
    #[arg(long, value_name = "NAME", default_value = "tail")]
    pub name: String,
    /// Signs this device of the user out and takes its place, when there is no room for another
    #[arg(long, value_name = "DEVICE_ID")]
    pub replace: Option<String>,
    /// Keeps the login and the position in this file, instead of one in
    /// ~/.local/state/listen-stream for each server and phone
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Prints each event as the JSON that came, one a line, instead of for people
    #[arg(long)]
    pub json: bool,
}

impl std::fmt::Debug for TailArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TailArgs")
            .field("server", &self.server)
            .field("phone", &self.phone.as_deref().map(mask::phone))
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Logs in if need be, and prints events until the user stops it.
///
/// # Errors
/// [`TailError`] says why it ended otherwise.
pub async fn run(args: TailArgs) -> Result<(), TailError> {
    let console = Console::system(args.json);
    let shell = Box::pin(prepare(&args, World::system(), console)).await?;
    // From here on a signal means: save and say goodbye. Until here it ends the process, also
    // while that waits for a code to be typed.
    let interrupt = shell::signals().map_err(TailError::Terminal)?;
    Box::pin(shell.follow(interrupt)).await
}

/// Opens the state and sees to it that there is a login.
async fn prepare(args: &TailArgs, world: World, mut console: Console) -> Result<Shell, TailError> {
    let url = api::parse_server(&args.server)?;
    let server = url.origin().ascii_serialization();
    let phone = args.phone.as_deref().map(parse_phone).transpose()?;
    let path = match (&args.state, &phone) {
        (Some(path), _) => path.clone(),
        (None, Some(phone)) => state::default_path(
            std::env::var_os("XDG_STATE_HOME"),
            std::env::var_os("HOME"),
            &server,
            phone,
        )?,
        (None, None) => return Err(TailError::PhoneNeeded),
    };
    if sends_in_clear(&url) {
        console.say("warning: without https others on the network can read along");
    }
    let api = Api::new(url)?;
    let device_id = match &args.device_id {
        Some(device_id) => device_id.clone(),
        None => world.uuid()?.to_string(),
    };
    let mut store = Store::open(path, &server, device_id)?;
    if store.saved.tokens.is_none() {
        if let Some(device_id) = &args.device_id {
            store.saved.device_id.clone_from(device_id);
        }
        let phone = phone.ok_or(TailError::PhoneNeeded)?;
        login::log_in(args, &phone, &api, &mut store, &mut console, &world).await?;
    } else if args
        .device_id
        .as_ref()
        .is_some_and(|id| *id != store.saved.device_id)
    {
        return Err(TailError::OtherDevice(store.saved.device_id));
    }
    Ok(Shell::new(api, store, console, world))
}

/// Reads a phone number as people write it, with spaces and hyphens.
fn parse_phone(text: &str) -> Result<String, TailError> {
    let phone: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let digits = phone.strip_prefix('+').ok_or(TailError::Phone)?;
    let good = (8..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    good.then_some(phone).ok_or(TailError::Phone)
}

fn sends_in_clear(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let local = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "http" && !local
}
