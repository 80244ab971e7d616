//! The walk-throughs of `README.md` work as written, and show what really comes out.
//!
//! Every `sh` block of the sections "In ten minutes" and "Three nodes" is run, in order and in one shell, and the
//! `text` block below it is compared with what it prints. The server runs already, and `tail` is
//! this build's; both are put in the place of what the page names. In what is shown, `…` stands
//! for anything; times, ids, codes and addresses are compared by their form.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use listen_stream::domain::clock::World;
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::support::{self, Engine, PATIENCE, Server, eventually};

const README: &str = include_str!("../../README.md");
const TAIL: &str = "./target/release/listen-stream tail ";

/// Where a walk-through is played.
struct Stage {
    /// Where the page's reader would stand: `data` is below it.
    folder: PathBuf,
    /// The page's addresses, and those that there are.
    addresses: Vec<(&'static str, String)>,
    /// Where the phone's codes are, and where those of `tail` are.
    codes: [PathBuf; 2],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_through_works_as_written() {
    let server = Server::start(Engine::Sqlite).await;
    let folder = server.data().parent().unwrap().to_owned();
    let log = server.data().join("dev-sms.log");
    let stage = Stage {
        folder,
        addresses: vec![("127.0.0.1:8080", server.listen().to_owned())],
        codes: [log.clone(), log],
    };
    let printed = server.output();
    let printed = printed.replace(&*server.data().to_string_lossy(), "./data");
    let steps = steps("In ten minutes");
    compare(&printed, &pattern(steps[0].shown.unwrap()));
    stage.play(&steps[1..]).await;
    assert_eq!(steps.len(), 9, "steps of the walk-through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_work_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let (port, admin_port) = (support::port(), support::port());
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster.sh"));
    command
        .env("PORT", port.to_string())
        .env("ADMIN_PORT", admin_port.to_string())
        .env("DATA", folder.path().join("data/cluster"))
        .env("BINARY", env!("CARGO_BIN_EXE_listen-stream"));
    let mut cluster = Program::start(folder.path(), command);
    let steps = steps("Three nodes");
    cluster.expect(steps[0].shown.unwrap()).await;
    let named = ["127.0.0.1:8091", "127.0.0.1:8092", "127.0.0.1:8093"];
    let codes = |node| {
        folder
            .path()
            .join(format!("data/cluster/node-{node}/dev-sms.log"))
    };
    let stage = Stage {
        folder: folder.path().to_owned(),
        addresses: named
            .into_iter()
            .zip(port..)
            .map(|(it, port)| (it, format!("127.0.0.1:{port}")))
            .collect(),
        codes: [codes(1), codes(3)],
    };
    stage.play(&steps[1..]).await;
    assert_eq!(steps.len(), 7, "steps of the walk-through");
    let there = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(there(port + 1) && there(port + 2));
    assert_eq!(cluster.unseen(), "node 1 has ended (137)\n");
    // What Ctrl-C does.
    cluster.signal(Signal::INT);
    assert!(cluster.child.wait().is_ok());
    assert!(!there(port + 1) && !there(port + 2));
}

impl Stage {
    async fn play(&self, steps: &[Step]) {
        let mut shell = Program::start(&self.folder, Command::new("bash"));
        let mut tail: Option<Program> = None;
        for step in steps {
            eprintln!("README.md:{}", step.line);
            match step.what {
                What::Run(command) if command.starts_with(TAIL) => {
                    let logs_in = step.shown.unwrap().contains("Code: ");
                    if logs_in {
                        // A reader is slower than the pause between two codes; the test is not.
                        let last = last_code_at(&self.codes[0]);
                        eventually("the phone may have another code", async || {
                            World::system().now() > last + RESEND
                        })
                        .await;
                    }
                    let mut program = Program::start(&self.folder, self.follow(command));
                    if logs_in {
                        program.until("Code: $").await;
                        let codes = std::fs::read_to_string(&self.codes[1]).unwrap();
                        let code = codes.split_whitespace().last().unwrap();
                        program.say(&format!("{code}\n"));
                    }
                    program.expect(step.shown.unwrap()).await;
                    tail = Some(program);
                }
                What::Run(commands) => {
                    shell.say(&self.local(commands));
                    shell.expect(step.shown.unwrap_or_default()).await;
                }
                What::TailPrints => {
                    let tail = tail.as_mut().unwrap();
                    tail.expect(step.shown.unwrap()).await;
                }
                What::TailStops => tail.take().unwrap().interrupt(),
            }
        }
        // Exactly what was shown: nothing more comes.
        tail.unwrap().interrupt();
    }

    /// The page's commands, for these servers.
    fn local(&self, commands: &str) -> String {
        let mut commands = commands.to_owned();
        for (named, there) in &self.addresses {
            commands = commands.replace(named, there);
        }
        commands
    }

    /// The command line of `tail`, for this build and these servers.
    fn follow(&self, command: &str) -> Command {
        let mut tail = Command::new(env!("CARGO_BIN_EXE_listen-stream"));
        tail.arg("tail");
        if !command.contains("--server") {
            tail.args(["--server", &format!("http://{}", self.addresses[0].1)]);
        }
        tail.args(self.local(&command[TAIL.len()..]).split_whitespace());
        tail
    }
}

/// What the development provider asks of a phone between two codes.
const RESEND: TimeDelta = TimeDelta::seconds(1);

/// When the newest code was sent, as the provider's file says.
fn last_code_at(log: &Path) -> DateTime<Utc> {
    let log = std::fs::read_to_string(log).unwrap();
    let time = log.lines().last().unwrap().split(' ').next().unwrap();
    time.parse().unwrap()
}

/// One step of the walk-through.
struct Step {
    line: usize,
    what: What,
    shown: Option<&'static str>,
}

enum What {
    Run(&'static str),
    TailPrints,
    TailStops,
}

/// The steps of the section with this heading.
fn steps(section: &str) -> Vec<Step> {
    let blocks = Regex::new(
        r"(?m)^```sh\n([^`]*)```\n(?:```text\n([^`]*)```)?|^<!-- output of tail -->\n```text\n([^`]*)```|^<!-- tail stops -->$",
    )
    .unwrap();
    let begin = README.find(&format!("\n## {section}\n")).unwrap() + 1;
    let end = begin + README[begin..].find("\n## ").unwrap();
    blocks
        .captures_iter(&README[begin..end])
        .map(|found| {
            let text = |group| found.get(group).map(|found| found.as_str());
            let start = begin + found.get_match().start();
            let (what, shown) = match (text(1), text(3)) {
                (Some(commands), _) => (What::Run(commands), text(2)),
                (None, Some(shown)) => (What::TailPrints, Some(shown)),
                (None, None) => (What::TailStops, None),
            };
            let line = README[..start].lines().count() + 1;
            Step { line, what, shown }
        })
        .collect()
}

#[track_caller]
fn compare(printed: &str, shown: &str) {
    let fits = Regex::new(shown).unwrap().is_match(printed);
    assert!(fits, "{shown}\nis not\n{printed}");
}

/// What the page shows, with forms in place of what is different each time.
fn pattern(shown: &str) -> String {
    let mut text = regex::escape(shown.trim_end()).replace('…', "[^\"]+");
    for (form, any) in [
        (
            r"[0-9a-f]{8}(?:\\-[0-9a-f]{4}){3}\\-[0-9a-f]{12}",
            r"[0-9a-f-]{36}",
        ),
        (
            r"\d{4}\\-\d\d\\-\d\dT[\d:]{8}\\\.\d{6}Z",
            r"[\d-]{10}T[\d:]{8}\.\d{6}Z",
        ),
        (r"(?m)^\d\d:\d\d:\d\d  ", r"\d\d:\d\d:\d\d  "),
        (r"(?m) \d{6}$", r" \d{6}"),
        // A second may end between the making of a token and its answer.
        ("\"expires_in\":900", "\"expires_in\":(?:900|899)"),
        (r"127\\\.0\\\.0\\\.1:[89]0\d\d", r"127\.0\.0\.1:\d+"),
    ] {
        let any = regex::NoExpand(any);
        text = Regex::new(form)
            .unwrap()
            .replace_all(&text, any)
            .into_owned();
    }
    text
}

/// A program at a terminal of its own.
struct Program {
    child: Child,
    input: ChildStdin,
    printed: Arc<Mutex<String>>,
    /// How much of it was looked at.
    seen: usize,
}

impl Program {
    /// Starts it where the page's reader would stand.
    fn start(folder: &Path, mut command: Command) -> Self {
        let (mut output, writer) = std::io::pipe().unwrap();
        let mut child = command
            .current_dir(folder)
            .env("XDG_STATE_HOME", folder)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        // The command holds the pipe's other end too.
        drop(command);
        let printed = Arc::new(Mutex::new(String::new()));
        let sink = printed.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                sink.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        });
        let input = child.stdin.take().unwrap();
        Self {
            child,
            input,
            printed,
            seen: 0,
        }
    }

    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    fn unseen(&self) -> String {
        self.printed.lock().unwrap()[self.seen..].to_owned()
    }

    async fn until(&self, end: &str) {
        let end = Regex::new(end).unwrap();
        eventually(end.as_str(), async || end.is_match(&self.unseen())).await;
    }

    /// Waits for as many lines as the page shows, and fails unless they are the page's.
    async fn expect(&mut self, shown: &str) {
        let lines = shown.lines().count();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let printed = self.unseen();
            if printed.lines().count() >= lines && printed.ends_with('\n') {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let printed = self.unseen();
        compare(printed.trim_end(), &format!("^{}$", pattern(shown)));
        self.seen += printed.len();
    }

    /// What Ctrl-C does. Nothing may have been printed that the page does not show.
    fn interrupt(mut self) {
        self.signal(Signal::INT);
        assert!(self.child.wait().unwrap().success());
        assert_eq!(self.unseen(), "");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself. What it has started ends with it.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
