//! The walk-through of `README.md` works as written, and shows what really comes out.
//!
//! Every `sh` block of the section "In ten minutes" is run, in order and in one shell, and the
//! `text` block below it is compared with what it prints. The server runs already, and `tail` is
//! this build's; both are put in the place of what the page names. In what is shown, `…` stands
//! for anything; times, ids, codes and addresses are compared by their form.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use listen_stream::domain::clock::World;
use regex::Regex;
use tokio::time::Instant;

use crate::support::{Engine, PATIENCE, Server, eventually};

const README: &str = include_str!("../../README.md");
const TAIL: &str = "./target/release/listen-stream tail ";
const PHONE: &str = "+8613800138000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_through_works_as_written() {
    let server = Server::start(Engine::Sqlite).await;
    let mut shell = Program::start(&server, Command::new("bash"));
    let mut tail: Option<Program> = None;
    let mut ran = 0;
    for step in steps() {
        eprintln!("README.md:{}", step.line);
        match step.what {
            What::Run("make run\n") => {
                let printed = server.output();
                let printed = printed.replace(&*server.data().to_string_lossy(), "./data");
                compare(&printed, &pattern(step.shown.unwrap()));
            }
            What::Run(command) if command.starts_with(TAIL) => {
                let logs_in = step.shown.unwrap().contains("Code: ");
                if logs_in {
                    // A reader is slower than the pause between two codes; the test is not.
                    let last = last_code_at(&server);
                    eventually("the phone may have another code", async || {
                        World::system().now() > last + RESEND
                    })
                    .await;
                }
                let mut program = Program::start(&server, follow(&server, command));
                if logs_in {
                    program.until("Code: $").await;
                    let codes = server.api().codes(PHONE);
                    program.say(&format!("{}\n", codes.last().unwrap()));
                }
                program.expect(step.shown.unwrap()).await;
                tail = Some(program);
            }
            What::Run(commands) => {
                shell.say(&local(commands, &server));
                shell.expect(step.shown.unwrap_or_default()).await;
            }
            What::TailPrints => {
                let tail = tail.as_mut().unwrap();
                tail.expect(step.shown.unwrap()).await;
            }
            What::TailStops => tail.take().unwrap().interrupt(),
        }
        ran += 1;
    }
    assert_eq!(ran, 9, "steps of the walk-through");
    // Exactly what was shown: nothing more comes.
    tail.unwrap().interrupt();
}

/// What the development provider asks of a phone between two codes.
const RESEND: TimeDelta = TimeDelta::seconds(1);

/// When the newest code was sent, as the provider's file says.
fn last_code_at(server: &Server) -> DateTime<Utc> {
    let log = std::fs::read_to_string(server.data().join("dev-sms.log")).unwrap();
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

fn steps() -> Vec<Step> {
    let blocks =
        Regex::new(r"(?m)^```sh\n([^`]*)```\n(?:```text\n([^`]*)```)?|^<!-- output of tail -->\n```text\n([^`]*)```|^<!-- tail stops -->$")
            .unwrap();
    let end = README.find("\n## Settings").unwrap();
    blocks
        .captures_iter(&README[..end])
        .map(|found| {
            let text = |group| found.get(group).map(|found| found.as_str());
            let start = found.get_match().start();
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

/// The page's commands, for this server.
fn local(commands: &str, server: &Server) -> String {
    commands.replace("127.0.0.1:8080", server.listen())
}

/// The command line of `tail`, for this build and this server.
fn follow(server: &Server, command: &str) -> Command {
    let mut tail = Command::new(env!("CARGO_BIN_EXE_listen-stream"));
    tail.args(["tail", "--server", &format!("http://{}", server.listen())])
        .args(command[TAIL.len()..].split_whitespace());
    tail
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
        (r"127\\\.0\\\.0\\\.1:808[01]", r"127\.0\.0\.1:\d+"),
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
    /// Starts it where the page's reader would stand: `data` is the server's.
    fn start(server: &Server, mut command: Command) -> Self {
        let data = server.data();
        let folder: &Path = data.parent().unwrap();
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
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
        assert_eq!(self.unseen(), "");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
