//! Runs `tail` in a test, and the words that the scripts of its server are written in.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    TailArgs, TailError, prepare,
    print::Console,
    shell::Interrupt,
    stub::{Script, Stub, Turn},
};
use crate::domain::clock::World;

const PHONE: &str = "+8613800138000";

/// What was written to one of the two outputs.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// How a run of `tail` went.
pub(super) struct Ran {
    pub(super) result: Result<(), TailError>,
    pub(super) out: String,
    pub(super) err: String,
    pub(super) saved: Value,
    pub(super) heard: Vec<String>,
}

impl Ran {
    /// The numbers of the printed events.
    pub(super) fn seqs(&self) -> Vec<u64> {
        let lines = self.out.lines();
        lines
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["seq"]
                    .as_u64()
                    .unwrap()
            })
            .collect()
    }
}

fn args(stub: &Stub, state: &Path) -> TailArgs {
    TailArgs {
        server: stub.address.clone(),
        phone: Some(PHONE.to_owned()),
        code: Some("123456".to_owned()),
        device_id: None,
        name: "tail".to_owned(),
        replace: None,
        state: Some(state.to_owned()),
        json: true,
    }
}

/// A run of `tail` that is about to start.
pub(super) struct Trial {
    pub(super) args: TailArgs,
    /// Ctrl-C comes when so many events are printed; else when the scripts are played.
    pub(super) stop_after: usize,
    /// No Ctrl-C comes: the run has to end by itself.
    pub(super) ends_by_itself: bool,
}

/// Runs `tail` on `state` against a server that plays `scripts`. The code that is typed is 654321.
pub(super) async fn run(
    scripts: Vec<Script>,
    state: &Path,
    change: impl FnOnce(&mut Trial),
) -> Ran {
    let stub = Stub::start(scripts).await;
    let mut trial = Trial {
        args: args(&stub, state),
        stop_after: usize::MAX,
        ends_by_itself: false,
    };
    change(&mut trial);
    if let Ok(bytes) = fs::read(state) {
        // Each stub has a port of its own; the state is to take this one for the first.
        let mut saved: Value = serde_json::from_slice(&bytes).unwrap();
        saved["server"] = json!(stub.address);
        fs::write(state, saved.to_string()).unwrap();
    }
    let Trial {
        args,
        stop_after,
        ends_by_itself,
    } = trial;
    let (out, err) = (Paper::default(), Paper::default());
    let console = Console::new(
        Box::new(out.clone()),
        Box::new(err.clone()),
        Arc::new(|| Ok(Some("654321".to_owned()))),
        args.json,
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let printed = out.clone();
    let interrupt: Interrupt = Box::pin(async move {
        let enough = async {
            while printed.text().lines().count() < stop_after {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            Ok(()) = stopped => {}
            () = enough => {}
        }
    });
    let tail = async {
        let shell = prepare(&args, World::system(), console).await?;
        shell.follow(interrupt).await
    };
    let play = async {
        stub.task.await.unwrap();
        if !ends_by_itself {
            let _ = stop.send(());
        }
    };
    let both = Box::pin(async { tokio::join!(tail, play) });
    let (result, ()) = timeout(Duration::from_secs(20), both)
        .await
        .expect("both come to an end");
    let heard = stub.heard.lock().unwrap().clone();
    let ran = Ran {
        result,
        out: out.text(),
        err: err.text(),
        saved: serde_json::from_slice(&fs::read(state).unwrap()).unwrap(),
        heard,
    };
    for secret in ["access-", "lsr_"] {
        assert!(!ran.out.contains(secret) && !ran.err.contains(secret));
        assert!(!format!("{:?}", ran.result).contains(secret));
    }
    ran
}

pub(super) fn grant(n: u32) -> Value {
    json!({
        "access_token": format!("access-{n}"), "refresh_token": format!("lsr_{n}"),
        "token_type": "Bearer", "expires_in": 900,
        "user": { "id": "u", "phone": PHONE, "role": "user", "created_at": "" },
        "device": { "id": "d", "device_id": "me", "platform": "desktop", "name": "tail" },
    })
}

pub(super) fn http(expects: &'static str, status: u16, body: Value) -> Script {
    Script::Http {
        expects,
        status,
        headers: "",
        body,
    }
}

pub(super) fn login() -> Script {
    http("POST /v1/auth/sessions", 201, grant(1))
}

pub(super) fn renewal(n: u32) -> Script {
    http("POST /v1/auth/tokens", 200, grant(n))
}

pub(super) fn socket(query: &'static str, turns: Vec<Turn>) -> Script {
    Script::Socket { query, turns }
}

pub(super) fn welcome(epoch: &str, head: u64, acked: u64) -> Turn {
    Turn::Say(json!({
        "type": "welcome", "conn_id": "c", "user_id": "u", "device_id": "me", "node": "n",
        "epoch": epoch, "head_seq": head, "acked_seq": acked, "window": 256, "heartbeat_secs": 30,
    }))
}

pub(super) fn event(seq: u64) -> Turn {
    Turn::Say(json!({
        "type": "event", "id": "i", "seq": seq, "event_type": "favorite.added", "user_id": "u",
        "data": { "target_id": "song-1" }, "origin_device_id": "phone",
        "ack_token": format!("k{seq}"), "timestamp": "2026-11-20T10:00:01.000000Z",
    }))
}

pub(super) fn ack(seq: u64) -> Turn {
    Turn::Hear(json!({ "type": "ack", "ack_token": format!("k{seq}") }))
}
