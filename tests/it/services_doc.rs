//! The examples of `docs/services.md`, played in their order on one server.
//!
//! Of each answer the page shows a part: what it shows must be there; `…` stands for anything. An example
//! that is marked `soon` is asked until it is so.

use std::process::Command;

use regex::Regex;
use serde_json::{Value, json};

use crate::support::{Device, Engine, Server, eventually, service::INTERNAL};

const PAGE: &str = include_str!("../../docs/services.md");

struct Step {
    soon: bool,
    command: &'static str,
    shown: &'static str,
}

fn steps() -> Vec<Step> {
    let blocks =
        Regex::new(r"<!-- example(: soon)? -->\n```sh\n([^`]+)```\n```(?:json|text)\n([^`]+)```");
    let blocks = blocks.unwrap();
    let found = blocks.captures_iter(PAGE).map(|found| Step {
        soon: found.get(1).is_some(),
        command: found.get(2).unwrap().as_str(),
        shown: found.get(3).unwrap().as_str().trim_end(),
    });
    found.collect()
}

/// What the page has a service set first, for this server; the key is set by whoever plays.
fn prelude(server: &Server) -> String {
    let block = Regex::new(r"```sh\n(SERVICES=[^`]+)```").unwrap();
    let text = block.captures(PAGE).unwrap()[1].to_owned();
    assert!(text.contains("KEY=$(cat billing.key)\n"), "{text}");
    assert!(text.contains("127.0.0.1:8082"), "{text}");
    let program = env!("CARGO_BIN_EXE_listen-stream");
    let data = server.data();
    text.replace("KEY=$(cat billing.key)\n", "")
        .replace("127.0.0.1:8082", server.internal().address())
        + &format!(
            "listen-stream() {{ {program} \"$@\" --data {}; }}\n",
            data.display()
        )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_work_as_written() {
    let server = Server::with(Engine::Sqlite, &[INTERNAL]).await;
    let me = server.api().newcomer("my-phone").await;
    server.api().newcomer("other").await;
    let steps = steps();
    assert_eq!(steps.len(), 8, "examples");
    let mut known = vec![("USER_ID", me.user_id.clone()), ("DEVICE", me.id.clone())];
    for step in &steps {
        let printed = step.played(&server, &known).await;
        if step.command.contains("keys create") {
            assert!(
                printed.starts_with("lsk_") && step.shown == "lsk_…",
                "{printed}"
            );
            known.push(("KEY_ID", printed.split('_').nth(1).unwrap().to_owned()));
            known.push(("KEY", printed));
        } else if step.command.contains("events:broadcast") {
            let answer: Value = serde_json::from_str(&printed).unwrap();
            known.push(("BROADCAST", answer["id"].as_str().unwrap().to_owned()));
        }
    }
    looks_the_same_to_devices(&me).await;
}

impl Step {
    async fn played(&self, server: &Server, known: &[(&str, String)]) -> String {
        if self.soon {
            eventually(self.command, async || {
                let printed = self.ran(server, known).await;
                self.fits(&printed).is_ok()
            })
            .await;
        }
        let printed = self.ran(server, known).await;
        self.fits(&printed)
            .unwrap_or_else(|why| panic!("{}{why}:\n{printed}", self.command));
        printed
    }

    async fn ran(&self, server: &Server, known: &[(&str, String)]) -> String {
        let set = known
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"));
        let script = format!(
            "{}{}{}",
            set.collect::<String>(),
            prelude(server),
            self.command
        );
        let ran = tokio::task::spawn_blocking(move || {
            Command::new("bash").args(["-c", &script]).output().unwrap()
        });
        let printed = ran.await.unwrap().stdout;
        String::from_utf8(printed).unwrap().trim_end().to_owned()
    }

    fn fits(&self, printed: &str) -> Result<(), String> {
        match serde_json::from_str(self.shown) {
            Ok(shown) => {
                let answer = serde_json::from_str(printed).map_err(|e| e.to_string())?;
                compare(&shown, &answer, "")
            }
            Err(_) if printed.starts_with(self.shown.trim_end_matches('…')) => Ok(()),
            Err(_) => Err(format!("it is not {}", self.shown)),
        }
    }
}

/// Whether all that is shown is in the answer.
fn compare(shown: &Value, answer: &Value, path: &str) -> Result<(), String> {
    match (shown, answer) {
        (Value::Object(fields), Value::Object(_)) => fields
            .iter()
            .try_for_each(|(name, shown)| compare(shown, &answer[name], &format!("{path}.{name}"))),
        (Value::Array(items), Value::Array(all)) if items.len() == all.len() => items
            .iter()
            .zip(all)
            .try_for_each(|(shown, answer)| compare(shown, answer, path)),
        (Value::String(text), Value::String(is))
            if text.ends_with('…') && is.starts_with(text.trim_end_matches('…')) =>
        {
            Ok(())
        }
        _ if shown == answer => Ok(()),
        _ => Err(format!("{path} is {answer}, not {shown}")),
    }
}

async fn looks_the_same_to_devices(me: &Device) {
    let log = me.log().await;
    let told: Vec<_> = log
        .iter()
        .map(|event| (&event["event_type"], &event["data"]))
        .collect();
    assert_eq!(
        told,
        [
            (
                &json!("billing.invoice_paid"),
                &json!({"invoice": "4711", "amount": "9.90"})
            ),
            (&json!("news.published"), &json!({"title": "Hello"})),
        ]
    );
}

/// The words that the page names are those that are reserved.
#[test]
fn the_reserved_words_are_told() {
    use listen_stream::domain::services::EventType;
    let part = PAGE
        .split("must not be one of the server's own:")
        .nth(1)
        .unwrap();
    let part = part.split("Take your").next().unwrap();
    let told: Vec<_> = part.split('`').skip(1).step_by(2).collect();
    assert!(told.len() > 10, "{told:?}");
    for word in &told {
        assert!(EventType::parse(format!("{word}.x")).is_err(), "{word}");
        assert!(EventType::EXPECTED.contains(word), "{word}");
    }
    let list = EventType::EXPECTED.rsplit('(').next().unwrap();
    assert_eq!(
        list.trim_end_matches(')').split(", ").collect::<Vec<_>>(),
        told
    );
}
