//! The way by which commands of the command line reach a running server: a Unix socket in its data
//! folder, for the server's own user only.
//!
//! A line of JSON is a command, a line of JSON is its answer: `{"ok":…}` or `{"error":"…"}`. What a
//! command does is in `command.rs`; here is only how it gets there. One who connects and says nothing is
//! let go after a while, and keeps nobody waiting.

use std::{
    convert::Infallible,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::command::{Command, Reply};

/// The socket's name in the data folder.
const SOCKET: &str = "control.sock";
/// The longest line.
const MOST: u64 = 1 << 20;
/// How long a line may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a command may take, for whoever waits for its answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// Connections at once.
const CONNECTIONS: usize = 8;

/// Where the socket of a data folder is.
pub(super) fn place(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

/// What came of a command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Reply),
    Error(String),
}

/// The server's end. The socket is removed with it.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens in `data_dir`, whose lock the caller holds: what a server that died left there is
    /// removed.
    pub(super) fn bind(data_dir: &Path) -> io::Result<Self> {
        let path = place(data_dir);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // The process makes whatever it makes for its owner only.
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Serves for ever: `perform` does what a command asks for.
    pub(super) async fn serve(
        self,
        perform: impl AsyncFn(Command) -> Result<Reply, String>,
    ) -> Infallible {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if open.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => open.push(converse(stream, &perform)),
                    Err(e) => {
                        tracing::warn!(cause = %e, "the control socket does not accept");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
                Some(()) = open.next(), if !open.is_empty() => {}
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // The next start removes what is left.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers one command.
async fn converse(stream: UnixStream, perform: &impl AsyncFn(Command) -> Result<Reply, String>) {
    let mut stream = BufReader::new(stream);
    let Ok(Ok(line)) = timeout(PATIENCE, read_line(&mut stream)).await else {
        return;
    };
    let answer = match serde_json::from_str(&line) {
        Ok(command) => match perform(command).await {
            Ok(reply) => Answer::Ok(reply),
            Err(error) => Answer::Error(error),
        },
        // What was sent is not repeated.
        Err(_) => Answer::Error("the server does not know this command".to_owned()),
    };
    // One who has left needs no answer.
    let _ = timeout(PATIENCE, write_line(&mut stream, &answer)).await;
}

async fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.take(MOST).read_line(&mut line).await?;
    if line.ends_with('\n') {
        Ok(line)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

async fn write_line(
    stream: &mut BufReader<UnixStream>,
    what: &(impl Serialize + Sync),
) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

/// Why a running server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    /// There is no way to it.
    #[error("cannot reach the server by {}: {reason}", .path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It refused or failed.
    #[error("{0}")]
    Refused(String),
}

/// Has the server that holds `data_dir` perform a command.
pub(super) async fn ask(data_dir: &Path, command: &Command) -> Result<Reply, ControlError> {
    let path = place(data_dir);
    let exchange = async {
        let mut stream = BufReader::new(UnixStream::connect(&path).await?);
        write_line(&mut stream, command).await?;
        let line = read_line(&mut stream).await?;
        Ok::<Answer, io::Error>(serde_json::from_str(&line)?)
    };
    let answered = timeout(ANSWERED_WITHIN, exchange).await;
    match answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(Answer::Ok(reply)) => Ok(reply),
        Ok(Answer::Error(error)) => Err(ControlError::Refused(error)),
        Err(reason) => Err(ControlError::Unreachable { path, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ApiKeyId;

    async fn perform(command: Command) -> Result<Reply, String> {
        match command {
            Command::ListKeys => Ok(Reply::Keys(Vec::new())),
            _ => Err("no".to_owned()),
        }
    }

    #[tokio::test]
    async fn commands_are_answered_and_the_socket_is_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        // What a server that died left.
        drop(std::os::unix::net::UnixListener::bind(place(dir.path())).unwrap());
        let control = Control::bind(dir.path()).unwrap();
        let mode = fs::metadata(place(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let client = async {
            // Those who say nothing keep nobody waiting.
            let mut mute = Vec::new();
            for _ in 0..CONNECTIONS - 1 {
                mute.push(UnixStream::connect(place(dir.path())).await.unwrap());
            }
            let listed = ask(dir.path(), &Command::ListKeys).await.unwrap();
            assert!(matches!(listed, Reply::Keys(keys) if keys.is_empty()));
            let id = ApiKeyId(uuid::Uuid::nil());
            let refused = ask(dir.path(), &Command::RevokeKey { id })
                .await
                .unwrap_err();
            assert_eq!(refused.to_string(), "no");
            for (sent, said) in [
                ("{\"command\":\"dance\"}\n", "does not know"),
                ("nonsense\n", "does not know"),
            ] {
                let mut raw = BufReader::new(UnixStream::connect(place(dir.path())).await.unwrap());
                raw.write_all(sent.as_bytes()).await.unwrap();
                let line = read_line(&mut raw).await.unwrap();
                assert!(
                    line.starts_with("{\"error\":") && line.contains(said),
                    "{line}"
                );
            }
        };
        tokio::select! {
            () = client => {}
            never = control.serve(perform) => match never {},
        }
        assert!(!place(dir.path()).exists());
        let gone = ask(dir.path(), &Command::ListKeys).await.unwrap_err();
        assert!(matches!(gone, ControlError::Unreachable { .. }), "{gone}");
    }
}
