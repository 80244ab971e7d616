//! What an operator sets: typed, checked as a whole, with an account of who set what.
//!
//! Owns reading defaults, the TOML file, `LISTEN_STREAM__SECTION__KEY` variables and flags, in that
//! order: later ones win. Loaded once, before anything starts; whatever is wrong is found here and
//! said by key, never later and never by falling back to a default. Never shows a secret.

mod error;
mod reader;
mod rules;
mod secret;
mod sections;
mod source;
#[cfg(test)]
mod tests;
mod wording;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

pub use error::{Finding, Origin, Problem, ProblemKind, SettingsError};
pub use reader::Effective;
pub use secret::Secret;
pub use sections::{
    Admin, Auth, Database, History, Keys, Limits, Log, LogFormat, MasterKey, Redis,
    RevocationsUnknown, Server, Services, Sms, SmsProvider, Sync, Synchronous,
};
pub use source::default_file;

use reader::Reader;
use source::{Layers, Value};

/// The settings file as the first start writes it: every setting, commented out, with its default.
pub const TEMPLATE: &str = include_str!("default.toml");

/// What the command line and the process bring in.
#[derive(Debug, Clone)]
pub struct Overrides {
    /// The data folder.
    pub data_dir: PathBuf,
    /// A settings file that must be there, instead of the data folder's, which may be missing.
    pub config: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--admin-listen`.
    pub admin_listen: Option<SocketAddr>,
    /// The environment; an argument, so that tests need not touch the process's.
    pub env: Vec<(OsString, OsString)>,
}

impl Overrides {
    /// Nothing but a data folder: no flags, no environment.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            config: None,
            listen: None,
            admin_listen: None,
            env: Vec::new(),
        }
    }
}

/// Everything an operator can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder with everything that this server keeps on disk.
    pub data_dir: PathBuf,
    /// The listeners.
    pub server: Server,
    /// The database.
    pub database: Database,
    /// The keys.
    pub keys: Keys,
    /// Tokens, codes and devices.
    pub auth: Auth,
    /// Who sends the codes.
    pub sms: Sms,
    /// Sessions and sockets.
    pub sync: Sync,
    /// What users played.
    pub history: History,
    /// How much one caller may ask for.
    pub limits: Limits,
    /// The log.
    pub log: Log,
    /// Redis.
    pub redis: Redis,
    /// The admin API.
    pub admin: Admin,
    /// Other services.
    pub services: Services,
    effective: Vec<Effective>,
}

impl Settings {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// [`SettingsError`] with everything that is wrong, or the first thing when the file cannot be
    /// read at all.
    pub fn load(overrides: &Overrides) -> Result<Self, SettingsError> {
        Self::load_and(overrides, |_| Vec::new())
    }

    /// The same, with what `look` finds beyond the settings themselves, such as in the files that
    /// they name, among what is wrong. Where a setting cannot be taken, `look` is shown its default,
    /// and what it finds there is passed over.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_and(
        overrides: &Overrides,
        look: impl FnOnce(&Self) -> Vec<Finding>,
    ) -> Result<Self, SettingsError> {
        let Overrides {
            data_dir,
            config,
            listen,
            admin_listen,
            env,
        } = overrides;
        let mut layers = Layers::default();
        let file = config.clone().unwrap_or_else(|| default_file(data_dir));
        if let Some(text) = source::read_file(&file, config.is_none())? {
            layers.add_file(&file, &text)?;
        }
        layers.add_env(env);
        for (key, flag, address) in [
            ("server.listen", "--listen", listen),
            ("server.admin_listen", "--admin-listen", admin_listen),
        ] {
            if let Some(address) = address {
                let value = Value::Text(address.to_string());
                layers.put(key.to_owned(), value, Origin::Flag(flag));
            }
        }
        Self::from_layers(layers, data_dir, look)
    }

    fn from_layers(
        layers: Layers,
        data_dir: &Path,
        look: impl FnOnce(&Self) -> Vec<Finding>,
    ) -> Result<Self, SettingsError> {
        let mut reader = Reader::new(layers);
        let from = &mut reader;
        let mut settings = Self {
            data_dir: data_dir.to_owned(),
            server: Server::read(from),
            database: Database::read(from),
            keys: Keys::read(from, data_dir),
            auth: Auth::read(from),
            sms: Sms::read(from),
            sync: Sync::read(from),
            history: History::read(from),
            limits: Limits::read(from),
            log: Log::read(from),
            redis: Redis::read(from),
            admin: Admin::read(from),
            services: Services::read(from),
            effective: Vec::new(),
        };
        reader.refuse_unknown();
        rules::check(&settings, &mut reader);
        for it in look(&settings) {
            if reader.problems.iter().all(|problem| problem.key != it.key) {
                reader.refuse(it.key, it.kind, it.found, it.expected);
            }
        }
        if reader.problems.is_empty() {
            settings.effective = reader.effective;
            Ok(settings)
        } else {
            Err(SettingsError::Problems(reader.problems))
        }
    }

    /// Every setting in force with who set it; secrets show as `***`.
    #[must_use]
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// [`Settings::effective`] as lines to read.
    #[must_use]
    pub fn render(&self) -> String {
        let lines = self.effective.iter().map(|e| {
            let assignment = format!("{} = {}", e.key, e.value);
            format!("{assignment:<52} # {}\n", e.origin)
        });
        lines.collect()
    }

    /// The database file that serves when no URL is set.
    #[must_use]
    pub fn sqlite_path(&self) -> PathBuf {
        self.data_dir.join("listen-stream.db")
    }
}

/// Makes the data folder and its settings file, unless they are there. Returns a file that is new.
///
/// # Errors
/// [`SettingsError::UnwritableFile`] when either cannot be made.
pub fn create_if_missing(data_dir: &Path) -> Result<Option<PathBuf>, SettingsError> {
    let path = default_file(data_dir);
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .and_then(|()| {
            if path.exists() {
                Err(io::ErrorKind::AlreadyExists.into())
            } else {
                write_template(&path)
            }
        });
    match made {
        Ok(()) => Ok(Some(path)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.exists() => Ok(None),
        Err(cause) => Err(SettingsError::UnwritableFile { path, cause }),
    }
}

/// Writes the settings file whole and on disk, or not at all: after a loss of power half a file would
/// stop every later start.
fn write_template(path: &Path) -> io::Result<()> {
    let part = path.with_extension("part");
    // For the owner only: an operator may write passwords into it.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(TEMPLATE.as_bytes())?;
    file.sync_all()?;
    // Unlike a rename this keeps what is there.
    let linked = fs::hard_link(&part, path);
    fs::remove_file(&part)?;
    linked
}
