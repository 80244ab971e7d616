//! The arguments of `backup`, `restore` and `renew-epochs`.

use std::path::PathBuf;

use clap::Args;

use super::PlaceArgs;

pub(super) const BACKUP: &str = "\
Writes everything that the server has stored into one file, while the server goes on serving. The \
file holds one moment: every write that was answered before is in it. It can be restored into SQLite \
and into PostgreSQL, wherever it came from.\n\n\
The server's keys are in the file as they are stored, sealed. The master key, which opens them, is \
not: keep it too, and keep it apart. The file holds phone numbers, and is made for its owner only.";

pub(super) const BACKUP_EXAMPLES: &str = "\
Examples:
  listen-stream backup /backups/$(date +%F).lsb --data /var/lib/listen-stream
  listen-stream backup --force latest.lsb
  listen-stream backup - | age -r age1… > backup.lsb.age";

pub(super) const RESTORE: &str = "\
Puts the state of a backup in the place of what is stored here. The server must be stopped. A file \
that was cut short or changed is refused, and then nothing was changed; a restore that was \
interrupted leaves either the old or the new state whole.\n\n\
SQLite: the database that was there is kept beside the new one. PostgreSQL: a database with users \
is refused without --replace, and is not kept.\n\n\
The clients may be ahead of the restored state. So every log gets a new epoch, and every client \
loads its data anew, once. Devices that renewed their tokens after the backup log in again.";

pub(super) const RESTORE_EXAMPLES: &str = "\
Examples:
  listen-stream restore /backups/2026-11-21.lsb --data /var/lib/listen-stream
  listen-stream restore --sign-out-everyone latest.lsb
  LISTEN_STREAM__DATABASE__URL_FILE=/run/secrets/database \\
  LISTEN_STREAM__KEYS__MASTER_KEY_FILE=data/master.key listen-stream restore from-sqlite.lsb";

pub(super) const RENEW: &str = "\
For a database that was brought back to an older state by other means than restore, such as \
PostgreSQL's own: gives every log a new epoch, so that clients that are ahead of it load their data \
anew instead of missing changes. Everything else that restore does beside bringing rows back is \
done too.\n\n\
SQLite: the server must be stopped. PostgreSQL: servers may be running, and tell their clients \
within seconds; best is before they start.";

pub(super) const RENEW_EXAMPLES: &str = "\
Examples:
  listen-stream renew-epochs --config /etc/listen-stream.toml
  listen-stream renew-epochs --sign-out-everyone";

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The file to write; - for standard output
    pub(super) file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The file that backup made
    pub(super) file: PathBuf,
    /// PostgreSQL: replace a database that has users
    #[arg(long)]
    pub(super) replace: bool,
    #[command(flatten)]
    pub(super) sessions: SessionArgs,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    pub(super) sessions: SessionArgs,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(super) struct SessionArgs {
    /// End every session, also those that were open in that state: every device logs in again
    #[arg(long)]
    pub(super) sign_out_everyone: bool,
}
