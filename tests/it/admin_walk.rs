//! The walk "Which session is slow, and why" of `docs/operations.md`, with its own commands, on a server
//! whose store is held.
//!
//! Of each answer the page shows a part: what it shows must be there. `…` stands for anything, and a
//! time that is shown means that the time is long.

use std::{process::Command, time::Duration};

use regex::Regex;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    slow_store::Held,
    support::{
        Device, Server,
        admin::{Admin, TOKEN, WITH_TOKEN, session_id},
        eventually,
    },
};

const PAGE: &str = include_str!("../../docs/operations.md");
/// No time of a command that was not held is so long.
const LONG: f64 = 300.0;

both_engines! {
    async fn the_walk_finds_the_slow_session_and_says_why(engine) {
        let server = Server::with(engine, &[WITH_TOKEN, ("database.write_timeout_ms", "20000")]).await;
        let admin = Admin::of(&server);
        let me = server.api().newcomer("slow").await;
        server.api().newcomer("quick").await.me().await.ok(200);
        me.put("song", "a").await.ok(201);
        // Logins were slower than nothing; they are not slower than what is held.
        let held = Held::take(&server, &me).await;
        let writes = ["b", "c"].map(|target| {
            let me = me.clone();
            tokio::spawn(async move { me.put("song", target).await })
        });
        eventually("one waits for the other", async || {
            admin.session(&me).await["view"]["commands_waiting"] == 1
        }).await;
        sleep(Duration::from_millis(1200)).await;

        let steps = steps();
        assert_eq!(steps.len(), 3, "steps of the walk");
        let (before, after) = steps.split_at(2);
        for step in before {
            step.play(&server, &me).await;
        }
        held.release().await;
        for write in writes {
            write.await.unwrap().ok(201);
        }
        after[0].play(&server, &me).await;
        let id = session_id(&me);
        let found = admin.list("kind=user_session&sort=slowest&limit=1").await;
        assert_eq!(found[0]["id"], Value::from(id), "also after it");
    }
}

struct Step {
    command: &'static str,
    shown: Value,
}

fn steps() -> Vec<Step> {
    let blocks = Regex::new(r"<!-- walk(?:: later)? -->\n```sh\n([^`]+)```\n```json\n([^`]+)```");
    let blocks = blocks.unwrap();
    let found = blocks.captures_iter(PAGE).map(|found| Step {
        command: found.get(1).unwrap().as_str(),
        shown: serde_json::from_str(&found[2]).unwrap(),
    });
    found.collect()
}

/// What the page tells an operator to set first.
fn prelude(server: &Server) -> String {
    let block = Regex::new(r"```sh\n(TOKEN=[^`]+)```").unwrap();
    let text = block.captures(PAGE).unwrap()[1].to_owned();
    assert!(
        text.contains("cat /etc/listen-stream/admin-token"),
        "{text}"
    );
    assert!(text.contains("127.0.0.1:8081"), "{text}");
    text.replace(
        "cat /etc/listen-stream/admin-token",
        &format!("echo {TOKEN}"),
    )
    .replace("127.0.0.1:8081", server.admin().address())
}

impl Step {
    async fn play(&self, server: &Server, me: &Device) {
        let script = format!(
            "USER_ID={}\n{}{}",
            me.user_id,
            prelude(server),
            self.command
        );
        let ran = tokio::task::spawn_blocking(move || {
            Command::new("bash").args(["-c", &script]).output().unwrap()
        });
        let ran = ran.await.unwrap();
        let printed = String::from_utf8_lossy(&ran.stdout);
        let answer: Value = serde_json::from_str(&printed)
            .unwrap_or_else(|e| panic!("{e}: {printed}\n{}", String::from_utf8_lossy(&ran.stderr)));
        compare(&self.shown, &answer, "");
    }
}

/// Fails unless all that is shown is in the answer.
fn compare(shown: &Value, answer: &Value, path: &str) {
    match (shown, answer) {
        (Value::Object(fields), Value::Object(_)) => {
            for (name, shown) in fields {
                compare(shown, &answer[name], &format!("{path}.{name}"));
            }
        }
        (Value::Array(items), Value::Array(all)) => {
            assert!(all.len() >= items.len(), "{path}: {answer:#}");
            for (n, shown) in items.iter().enumerate() {
                compare(shown, &all[n], &format!("{path}[{n}]"));
            }
        }
        (Value::Number(_), Value::Number(time)) if path.ends_with("ms") => {
            assert!(time.as_f64().unwrap() >= LONG, "{path}: {time} is not long");
        }
        (Value::String(text), Value::String(is)) if text.ends_with('…') => {
            assert!(is.starts_with(text.trim_end_matches('…')), "{path}: {is}");
        }
        _ => assert_eq!(shown, answer, "{path}"),
    }
}

#[test]
fn what_is_not_there_is_noticed() {
    let answer = serde_json::json!({"a": [{"b_ms": 5, "c": "store"}], "d": null});
    for wrong in [
        serde_json::json!({"a": [{"b_ms": 1000}]}),
        serde_json::json!({"a": [{"c": "turn"}]}),
        serde_json::json!({"a": [{}, {}]}),
        serde_json::json!({"d": 1}),
        serde_json::json!({"e": {}}),
    ] {
        let compared = std::panic::catch_unwind(|| compare(&wrong, &answer, ""));
        assert!(compared.is_err(), "{wrong}");
    }
    compare(
        &serde_json::json!({"a": [{"c": "st…"}], "d": null}),
        &answer,
        "",
    );
}
