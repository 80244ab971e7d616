//! A server that says what a test wrote down, over real connections: one script entry for each.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        protocol::CloseFrame,
    },
};

/// What the server does with one connection.
pub(super) enum Script {
    /// Reads a request that starts with `expects`, answers `status` and `body`.
    Http {
        expects: &'static str,
        status: u16,
        headers: &'static str,
        body: Value,
    },
    /// Reads a request and hangs up.
    HangUp { expects: &'static str },
    /// Accepts a socket asked for by `query`, and goes through the turns.
    Socket {
        query: &'static str,
        turns: Vec<Turn>,
    },
}

/// One turn of a conversation over the socket.
pub(super) enum Turn {
    Say(Value),
    /// The client must say this next.
    Hear(Value),
    /// The client must say something, which is written down.
    HearAny,
    /// Another connection comes meanwhile.
    Meanwhile(Script),
    Close(u16),
    /// The client must close with this code.
    HearClose(u16),
    Drop,
}

/// What reached the server: heads of requests and bodies.
pub(super) type Heard = Arc<Mutex<Vec<String>>>;

/// The running server. `task` ends when the scripts are done.
pub(super) struct Stub {
    pub(super) address: String,
    pub(super) heard: Heard,
    pub(super) task: JoinHandle<()>,
}

impl Stub {
    pub(super) async fn start(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let heard = Heard::default();
        let task = tokio::spawn(play(listener, scripts.into(), Arc::clone(&heard)));
        Self {
            address,
            heard,
            task,
        }
    }
}

async fn play(listener: TcpListener, mut scripts: VecDeque<Script>, heard: Heard) {
    while let Some(script) = scripts.pop_front() {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, script, &listener, &heard).await;
    }
}

async fn serve(stream: TcpStream, script: Script, listener: &TcpListener, heard: &Heard) {
    match script {
        Script::Http {
            expects,
            status,
            headers,
            body,
        } => {
            let mut stream = request(stream, expects, heard).await;
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 {status} Stub\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        Script::HangUp { expects } => drop(request(stream, expects, heard).await),
        Script::Socket { query, turns } => {
            Box::pin(converse(stream, query, turns, listener, heard)).await;
        }
    }
}

async fn request(mut stream: TcpStream, expects: &str, heard: &Heard) -> TcpStream {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.unwrap();
        bytes.extend_from_slice(&piece[..n]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((top, body)) = text.split_once("\r\n\r\n") else {
            assert_ne!(n, 0, "the request ended early: {text}");
            continue;
        };
        let length = top
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.parse().unwrap());
        if body.len() >= length {
            assert!(text.starts_with(expects), "wanted {expects}, got {text}");
            heard.lock().unwrap().push(text);
            return stream;
        }
    }
}

#[expect(clippy::result_large_err, reason = "the library's callback is made so")]
async fn converse(
    stream: TcpStream,
    query: &str,
    turns: Vec<Turn>,
    listener: &TcpListener,
    heard: &Heard,
) {
    let check = |request: &Request, mut response: Response| {
        assert_eq!(request.uri().to_string(), format!("/v1/sync{query}"));
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("sec-websocket-protocol"), "listen-stream.v1");
        heard.lock().unwrap().push(header("authorization"));
        let protocol = "listen-stream.v1".parse().unwrap();
        response
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, check).await.unwrap();
    for turn in turns {
        match turn {
            Turn::Say(frame) => socket.send(Message::text(frame.to_string())).await.unwrap(),
            Turn::Hear(frame) => assert_eq!(said(&mut socket).await, frame),
            Turn::HearAny => {
                let frame = said(&mut socket).await;
                heard.lock().unwrap().push(frame.to_string());
            }
            Turn::Meanwhile(script) => {
                let (stream, _) = listener.accept().await.unwrap();
                serve(stream, script, listener, heard).await;
            }
            Turn::Close(code) => {
                let frame = CloseFrame {
                    code: code.into(),
                    reason: "".into(),
                };
                socket.close(Some(frame)).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {}
            }
            Turn::HearClose(code) => {
                let frame = socket.next().await.unwrap().unwrap();
                let Message::Close(Some(frame)) = frame else {
                    panic!("wanted a close, got {frame:?}");
                };
                assert_eq!(u16::from(frame.code), code);
                while let Some(Ok(_)) = socket.next().await {}
            }
            Turn::Drop => return,
        }
    }
}

async fn said(socket: &mut WebSocketStream<TcpStream>) -> Value {
    match socket.next().await.unwrap().unwrap() {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("wanted a text frame, got {other:?}"),
    }
}
