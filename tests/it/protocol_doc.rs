//! `docs/protocol.md` cannot lie: its examples are one scenario, played against a real server.
//!
//! An example is a comment `<!-- example: … -->` with a fenced block right below it:
//!
//! | comment | block |
//! |---|---|
//! | `request` | a method and a path, headers, an empty line, a JSON body |
//! | `answer` | what must come back for the request or the upgrade above it: status, headers, body |
//! | `socket.open NAME` | an upgrade; if it succeeds, the socket is called NAME |
//! | `socket.TYPE send NAME` | a frame of that type, or any text for the type `text` |
//! | `socket.TYPE receive NAME` | the next frame on that socket, which must be of that type |
//! | `socket.close receive NAME` | the close that must come next: code and reason |
//! | `login DEVICE_ID as NAME` | no block: the user logs in on another device, `<jwt:NAME>` is its token |
//! | `newcomer DEVICE_ID as NAME` | the same of another user |
//! | `server restarts` | no block |
//!
//! `<form:name>` in what comes back is taken down the first time and must be the same from then on;
//! in what is sent it is filled in. `<phone>` and `<code>` are the test's own.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::LazyLock};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use listen_stream::domain::{
    error::ErrorCode,
    sync::{CloseCode, FrameErrorCode},
};
use regex::Regex;
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Answer, Engine, Incoming, Server, Socket, client::send, phone, shape, socket::PROTOCOL,
};

const PAGE: &str = include_str!("../../docs/protocol.md");

static MARK: LazyLock<Regex> = LazyLock::new(|| Regex::new("<([a-z]+)(?::[a-z0-9_]+)?>").unwrap());

both_engines! {
    async fn the_examples_are_what_happens(engine) {
        replay(engine, PAGE.to_owned()).await;
    }
}

/// Every kind of check, on a page that is wrong in one place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_example_is_noticed() {
    let wrongs = [
        ("\"window\": 256", "\"window\": 255"),
        ("\"acked_seq\": 2}", "\"acked_seq\": 3}"),
        ("201 Created\nSync-Seq: 1", "201 Created\nSync-Seq: 2"),
        ("HTTP/1.1 410 Gone", "HTTP/1.1 409 Conflict"),
        ("\"platform\": \"desktop\",\n", ""),
        ("\"current\": true", "\"current\": true, \"last\": null"),
        (
            "<refresh:phone_2>\",\n  \"token_type\"",
            "<refresh:phone>\",\n  \"token_type\"",
        ),
        (
            "\"ref\": \"p-1\"}\n```\n\nThe",
            "\"ref\": \"p-2\"}\n```\n\nThe",
        ),
        ("\"code\": \"unknown_type\"", "\"code\": \"unknown\""),
        ("\"reason\": \"epoch_changed\"", "\"reason\": \"compacted\""),
        ("4001 replaced\n", "4002 no_heartbeat\n"),
        ("4006 bad_frame\n", "4006 replaced\n"),
        ("\"reason\": \"going_away\"", "\"reason\": \"restart\""),
    ];
    let plays = wrongs.map(|(right, wrong)| async move {
        assert!(PAGE.contains(right), "the page has no {right:?}");
        let page = PAGE.replacen(right, wrong, 1);
        let played = AssertUnwindSafe(replay(Engine::Sqlite, page));
        let noticed = played.catch_unwind().await.is_err();
        assert!(noticed, "not noticed: {wrong:?} for {right:?}");
    });
    let mut plays = Box::pin(stream::iter(plays).buffer_unordered(4));
    while plays.next().await.is_some() {}
}

#[test]
fn every_block_is_an_example() {
    assert!(parse(PAGE).len() > 60);
    let loose = "text\n```json\n{}\n```\n";
    assert!(std::panic::catch_unwind(|| parse(loose)).is_err());
}

#[test]
fn the_tables_are_those_of_the_code() {
    let closes = [
        CloseCode::Normal,
        CloseCode::GoingAway,
        CloseCode::ProtocolError,
        CloseCode::InvalidUtf8,
        CloseCode::TooBig,
        CloseCode::TryAgainLater,
        CloseCode::Replaced,
        CloseCode::NoHeartbeat,
        CloseCode::TokenOver,
        CloseCode::NotAcking,
        CloseCode::DeviceRemoved,
        CloseCode::BadFrame,
    ];
    let closes = closes.map(|code| (code.number().to_string(), code.reason().to_owned()));
    assert_eq!(table("### Closing"), closes);
    let errors: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|code| (code.code().to_owned(), code.status().to_string()))
        .collect();
    assert_eq!(table("## Error codes"), errors);
    let frames = table("### Frames").into_iter().map(|(code, _)| code);
    let known = FrameErrorCode::ALL.iter().map(|code| code.as_str());
    assert!(frames.eq(known));
}

/// The first two columns of the first table below a heading.
fn table(heading: &str) -> Vec<(String, String)> {
    PAGE.lines()
        .skip_while(|line| *line != heading)
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            let (first, second) = (cells.nth(1).unwrap(), cells.next().unwrap());
            (first.to_owned(), second.to_owned())
        })
        .collect()
}

/// One example: where it stands, what its comment says, and its block.
struct Example<'p> {
    line: usize,
    words: Vec<&'p str>,
    block: String,
}

/// The examples of a page. Fails on a block of JSON or HTTP that is none.
fn parse(page: &str) -> Vec<Example<'_>> {
    let mut examples: Vec<Example<'_>> = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut above = None;
    while let Some((index, line)) = lines.next() {
        let line_number = index + 1;
        if let Some(comment) = line.strip_prefix("<!-- example: ") {
            let words: Vec<_> = comment.trim_end_matches(" -->").split(' ').collect();
            above = Some(line_number);
            let block = String::new();
            examples.push(Example {
                line: line_number,
                words,
                block,
            });
        } else if let Some(kind) = line.strip_prefix("```") {
            let block = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| *line != "```")
                .fold(String::new(), |block, line| block + line + "\n");
            match examples.last_mut() {
                Some(example) if above == Some(line_number - 1) => example.block = block,
                _ => assert!(
                    !matches!(kind, "json" | "http" | "text"),
                    "docs/protocol.md:{line_number}: a block that is no example"
                ),
            }
        }
    }
    examples
}

/// A request or an answer as it stands in a block.
struct Http<'b> {
    first: &'b str,
    headers: Vec<(&'b str, &'b str)>,
    body: Option<Value>,
}

impl<'b> Http<'b> {
    fn parse(block: &'b str) -> Self {
        let (head, body) = block.split_once("\n\n").unwrap_or((block, ""));
        let mut lines = head.lines();
        Self {
            first: lines.next().unwrap(),
            headers: lines.map(|line| line.split_once(": ").unwrap()).collect(),
            body: (!body.is_empty()).then(|| serde_json::from_str(body).unwrap()),
        }
    }
}

/// Plays the page's examples one after another; panics where one is not what happens.
async fn replay(engine: Engine, page: String) {
    let mut stage = Stage {
        server: Server::start(engine).await,
        values: HashMap::from([("<phone>".to_owned(), phone())]),
        sockets: HashMap::new(),
        answer: None,
    };
    for example in parse(&page) {
        // Shown with the panic of a step that fails.
        eprintln!(
            "docs/protocol.md:{}: {}",
            example.line,
            example.words.join(" ")
        );
        Box::pin(stage.play(&example)).await;
    }
    assert!(stage.answer.is_none(), "the last answer is not shown");
}

/// The server and what is remembered of the examples so far.
struct Stage {
    server: Server,
    values: HashMap<String, String>,
    sockets: HashMap<String, Socket>,
    /// What came back and is still to be shown.
    answer: Option<Answer>,
}

impl Stage {
    async fn play(&mut self, example: &Example<'_>) {
        let asks = matches!(example.words[..], ["request"] | ["socket.open", _]);
        assert!(!asks || self.answer.is_none(), "an answer is not shown");
        match example.words[..] {
            ["request"] => self.answer = Some(self.request(&example.block).await),
            ["socket.open", name] => self.open(name, &example.block).await,
            ["answer"] => self.check_answer(&example.block),
            ["login", device_id, "as", name] => self.log_in(device_id, name).await,
            ["newcomer", device_id, "as", name] => {
                let device = self.server.api().newcomer(device_id).await;
                self.values.insert(format!("<jwt:{name}>"), device.access);
            }
            ["server", "restarts"] => {
                self.server.stop().await;
                self.server.restart().await;
            }
            ["socket.close", "receive", name] => self.check_close(name, &example.block).await,
            ["socket.text", "send", name] => {
                let text = Message::text(example.block.trim_end());
                self.socket(name).send_message(text).await;
            }
            [kind, "send", name] => {
                let frame: Value = serde_json::from_str(&self.fill(&example.block)).unwrap();
                assert_eq!(Some(kind), kind_of(&frame).as_deref());
                self.socket(name).send(frame).await;
            }
            [kind, "receive", name] => {
                let pattern: Value = serde_json::from_str(&example.block).unwrap();
                assert_eq!(Some(kind), kind_of(&pattern).as_deref());
                let socket = self.socket(name);
                socket.hear_presence(kind == "socket.presence");
                match socket.next().await {
                    Incoming::Frame(frame) => self.compare("", &frame, &pattern),
                    other => panic!("expected {pattern:#}, got {other:?}"),
                }
            }
            ref other => panic!("no such example: {other:?}"),
        }
    }

    fn socket(&mut self, name: &str) -> &mut Socket {
        self.sockets.get_mut(name).expect("the socket is open")
    }

    /// The text with what is known in place of its marks.
    fn fill(&self, text: &str) -> String {
        let value = |found: &regex::Captures<'_>| match &found[0] {
            "<code>" => {
                let codes = self.server.api().codes(&self.values["<phone>"]);
                codes.last().expect("a code was sent").clone()
            }
            mark => self.values.get(mark).expect(mark).clone(),
        };
        MARK.replace_all(text, value).into_owned()
    }

    async fn request(&self, block: &str) -> Answer {
        let block = self.fill(block);
        let it = Http::parse(&block);
        let (method, path) = it.first.split_once(' ').unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.server.api().request(method, path);
        for (name, value) in it.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &it.body {
            request = request.json(body);
        }
        send(request).await
    }

    async fn open(&mut self, name: &str, block: &str) {
        let block = self.fill(block);
        let it = Http::parse(&block);
        let query = it.first.strip_prefix("GET /v1/sync").expect("an upgrade");
        let opened = Socket::handshake(&self.server.api(), query, &it.headers).await;
        self.answer = Some(match opened {
            Ok(socket) => {
                self.sockets.insert(name.to_owned(), socket);
                // The handshake has looked at it.
                let protocol = HeaderName::from_static("sec-websocket-protocol");
                let headers =
                    HeaderMap::from_iter([(protocol, HeaderValue::from_static(PROTOCOL))]);
                Answer::new(101, headers, b"")
            }
            Err(answer) => answer,
        });
    }

    fn check_answer(&mut self, block: &str) {
        let it = Http::parse(block);
        let answer = self.answer.take().expect("something was asked");
        let status = StatusCode::from_u16(answer.status).unwrap();
        assert_eq!(it.first, format!("HTTP/1.1 {status}"), "{:#}", answer.body);
        // The body first: a header may name what is in it.
        self.compare("", &answer.body, &it.body.unwrap_or(Value::Null));
        for (name, value) in it.headers {
            let actual = answer.header(name).expect(name).to_owned();
            self.compare_text(name, &actual, value);
        }
    }

    async fn log_in(&mut self, device_id: &str, name: &str) {
        let (api, phone) = (self.server.api(), &self.values["<phone>"]);
        let body = json!({
            "phone": phone,
            "code": api.new_code(phone).await,
            "device": {"device_id": device_id, "platform": "desktop"},
        });
        let body = api.sign_in(&body).await.ok(201);
        let token = body["access_token"].as_str().unwrap().to_owned();
        self.values.insert(format!("<jwt:{name}>"), token);
    }

    async fn check_close(&mut self, name: &str, block: &str) {
        let (code, reason) = block.trim_end().split_once(' ').unwrap();
        let row = (code.to_owned(), reason.to_owned());
        assert!(
            table("### Closing").contains(&row),
            "{row:?} is not in the table"
        );
        self.socket(name).expect_close(code.parse().unwrap()).await;
        self.sockets.remove(name);
    }

    /// Fails unless `actual` is what `pattern` says; takes down what its marks stand for.
    fn compare(&mut self, at: &str, actual: &Value, pattern: &Value) {
        match (actual, pattern) {
            (Value::Object(actual), Value::Object(pattern)) => {
                assert!(
                    actual.keys().eq(pattern.keys()) || same_keys(actual, pattern),
                    "{at} has other fields: {actual:#?}"
                );
                for (key, value) in pattern {
                    self.compare(&format!("{at}.{key}"), &actual[key], value);
                }
            }
            (Value::Array(actual), Value::Array(pattern)) => {
                assert_eq!(actual.len(), pattern.len(), "{at} has another length");
                for (actual, pattern) in actual.iter().zip(pattern) {
                    self.compare(&format!("{at}[]"), actual, pattern);
                }
            }
            (actual, Value::String(mark)) if mark.starts_with('<') => {
                self.compare_mark(at, actual, mark);
            }
            (actual, pattern) => {
                // A second may end between the making of a token and its answer.
                let late =
                    at == ".expires_in" && actual.as_i64().map(|left| left + 1) == pattern.as_i64();
                assert!(late || actual == pattern, "{at} is {actual}, not {pattern}");
            }
        }
    }

    /// The same for a text with at most one mark that is not known yet.
    fn compare_text(&mut self, at: &str, actual: &str, pattern: &str) {
        let unknown = MARK.find_iter(pattern);
        let unknown = unknown.filter(|mark| !self.values.contains_key(mark.as_str()));
        if let Some(mark) = unknown.last() {
            let (before, after) = (&pattern[..mark.start()], &pattern[mark.end()..]);
            let found = actual.strip_prefix(&*self.fill(before));
            let found = found.and_then(|it| it.strip_suffix(&*self.fill(after)));
            let found = found.unwrap_or_else(|| panic!("{at} is {actual}, not {pattern}"));
            self.compare_mark(at, &json!(found), mark.as_str());
        } else {
            assert_eq!(actual, self.fill(pattern), "{at}");
        }
    }

    fn compare_mark(&mut self, at: &str, actual: &Value, mark: &str) {
        let form = &MARK.captures(mark).expect("a mark")[1];
        let fits = mark == "<phone>" || shape::is(actual, &format!("<{form}>"));
        assert!(fits, "{at} is {actual}, not {mark}");
        if mark == "<phone>" || mark.contains(':') {
            let text = actual.as_str().expect("a string").to_owned();
            let known = self.values.entry(mark.to_owned()).or_insert(text.clone());
            assert_eq!(*known, text, "{at} is not the {mark} of before");
        }
    }
}

fn same_keys(a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>) -> bool {
    a.len() == b.len() && a.keys().all(|key| b.contains_key(key))
}

/// What a frame is called in the comments.
fn kind_of(frame: &Value) -> Option<String> {
    Some(format!("socket.{}", frame["type"].as_str()?))
}
