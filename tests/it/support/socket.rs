//! A device's WebSocket, strict about what comes next.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message, client::IntoClientRequest as _, http::HeaderValue, http::header::HeaderName,
    },
};

use super::{
    PATIENCE,
    answer::Answer,
    client::{Api, Device},
};

mod attempt;
pub use attempt::Unopened;

/// The one protocol that the server speaks.
pub const PROTOCOL: &str = "listen-stream.v1";

/// What a socket yields.
#[derive(Debug)]
pub enum Incoming {
    Frame(Value),
    /// The server closed with this code.
    Close(u16),
    /// The connection ended without a close frame.
    Gone,
}

/// A connected device. Pings of the protocol below are answered while it is read.
pub struct Socket {
    stream: WebSocketStream<Mute>,
    muted: Arc<AtomicBool>,
    pings: u64,
    hears_presence: bool,
    pub welcome: Value,
}

impl Socket {
    /// Connects with the access token and reads the welcome.
    pub async fn open(device: &Device) -> Self {
        Self::open_with(device, "").await
    }

    /// The same with a query, such as `?since=3&epoch=…`.
    pub async fn open_with(device: &Device, query: &str) -> Self {
        let bearer = format!("Bearer {}", device.access);
        let headers = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", PROTOCOL),
        ];
        Self::handshake(&device.api, query, &headers)
            .await
            .unwrap_or_else(|answer| panic!("the upgrade was refused: {answer:#?}"))
            .welcomed()
            .await
    }

    /// Offers the ticket as a subprotocol, as a browser does.
    pub async fn with_ticket(api: &Api, ticket: &str) -> Result<Self, Answer> {
        let offer = format!("{PROTOCOL}, ticket.{ticket}");
        Self::handshake(api, "", &[("sec-websocket-protocol", &offer)]).await
    }

    /// Upgrades with exactly these headers; the answer if it was refused.
    pub async fn handshake(
        api: &Api,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Answer> {
        let url = format!("ws://{}/v1/sync{query}", api.address());
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let stream = TcpStream::connect(api.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let muted = Arc::new(AtomicBool::new(false));
        let stream = Mute {
            stream,
            muted: muted.clone(),
        };
        let done = timeout(PATIENCE, client_async(request, stream))
            .await
            .expect("the upgrade is answered in time");
        match done {
            Ok((stream, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                assert_eq!(
                    protocol.map(HeaderValue::as_bytes),
                    Some(PROTOCOL.as_bytes())
                );
                Ok(Self {
                    stream,
                    muted,
                    pings: 0,
                    hears_presence: false,
                    welcome: Value::Null,
                })
            }
            Err(Error::Http(response)) => {
                let (parts, body) = response.into_parts();
                let body = body.unwrap_or_default();
                Err(Answer::new(parts.status.as_u16(), parts.headers, &body))
            }
            Err(error) => panic!("the upgrade failed: {error}"),
        }
    }

    /// Reads the welcome, which comes first.
    pub async fn welcomed(mut self) -> Self {
        self.welcome = self.next_frame("welcome").await;
        self
    }

    /// Whether frames of presence are shown from now on; else they are passed over.
    pub const fn hear_presence(&mut self, yes: bool) {
        self.hears_presence = yes;
    }

    /// The next frame, which must say that exactly these devices are there.
    pub async fn expect_presence(&mut self, ids: &[&str]) {
        let devices: Vec<_> = ids.iter().map(|id| json!({"device_id": id})).collect();
        let frame = self.next_frame("presence").await;
        assert_eq!(frame, json!({"type": "presence", "devices": devices}));
    }

    /// The epoch of the user's log.
    pub fn epoch(&self) -> String {
        self.welcome["epoch"].as_str().unwrap().to_owned()
    }

    /// What comes next, within [`PATIENCE`].
    pub async fn next(&mut self) -> Incoming {
        timeout(PATIENCE, self.read())
            .await
            .expect("something comes in time")
    }

    async fn read(&mut self) -> Incoming {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text)
                        .unwrap_or_else(|_| panic!("not a JSON frame: {text}"));
                    // It comes whenever another device comes or goes.
                    if frame["type"] == "presence" && !self.hears_presence {
                        continue;
                    }
                    return Incoming::Frame(frame);
                }
                Some(Ok(Message::Close(frame))) => {
                    return frame.map_or(Incoming::Gone, |frame| {
                        Incoming::Close(u16::from(frame.code))
                    });
                }
                Some(Ok(Message::Binary(_))) => panic!("a binary frame"),
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return Incoming::Gone,
            }
        }
    }

    /// The next frame, which must be of this type.
    pub async fn next_frame(&mut self, kind: &str) -> Value {
        match self.next().await {
            Incoming::Frame(frame) if frame["type"] == kind => frame,
            other => panic!("expected {kind}, got {other:#?}"),
        }
    }

    /// The next frame, which must be the event at this position.
    pub async fn expect_event(&mut self, seq: u64) -> Value {
        let event = self.next_frame("event").await;
        assert_eq!(event["seq"], seq, "{event:#}");
        event
    }

    /// The events `first..=last`, in order and with nothing between.
    pub async fn expect_events(&mut self, first: u64, last: u64) -> Vec<Value> {
        let mut events = Vec::new();
        for seq in first..=last {
            events.push(self.expect_event(seq).await);
        }
        events
    }

    /// The next frame, which must be an error of this code for the frame `reference`.
    pub async fn expect_error(&mut self, code: &str, reference: &str) {
        let error = self.next_frame("error").await;
        super::assert_shape(
            &error,
            json!({"type": "error", "code": code, "detail": "<string>", "ref": reference}),
        );
    }

    /// Nothing but the close with this code comes.
    pub async fn expect_close(&mut self, code: u16) {
        match self.next().await {
            Incoming::Close(got) => assert_eq!(got, code),
            other => panic!("expected close {code}, got {other:#?}"),
        }
    }

    /// Nothing comes for this long.
    pub async fn expect_quiet(&mut self, time: Duration) {
        if let Ok(got) = timeout(time, self.read()).await {
            panic!("expected silence, got {got:#?}");
        }
    }

    pub async fn send(&mut self, frame: Value) {
        self.send_message(Message::text(frame.to_string())).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        timeout(PATIENCE, self.stream.send(message))
            .await
            .expect("the socket takes frames in time")
            .unwrap();
    }

    /// Acknowledges an event, and with it all before it.
    pub async fn ack(&mut self, event: &Value) {
        self.send(json!({"type": "ack", "ack_token": event["ack_token"]}))
            .await;
    }

    /// Acknowledges by position.
    pub async fn ack_up_to(&mut self, seq: u64, epoch: &str) {
        self.send(json!({"type": "ack", "up_to": seq, "epoch": epoch}))
            .await;
    }

    /// Sends a ping; the pong must be what comes next.
    pub async fn ping(&mut self) {
        self.ping_within(PATIENCE).await;
    }

    pub async fn ping_within(&mut self, limit: Duration) {
        self.pings += 1;
        let reference = format!("ping-{}", self.pings);
        self.send(json!({"type": "ping", "ref": reference})).await;
        let pong = timeout(limit, self.next_frame("pong"))
            .await
            .unwrap_or_else(|_| panic!("no pong within {limit:?}"));
        super::assert_shape(&pong, json!({"type": "pong", "ref": reference}));
    }

    /// From now on nothing reaches the server, not even answers to its pings.
    pub fn mute(&self) {
        self.muted.store(true, Ordering::SeqCst);
    }

    /// Closes and waits for the server to close as well.
    pub async fn close(mut self) {
        timeout(PATIENCE, async {
            self.stream.close(None).await.unwrap();
            while let Some(Ok(_)) = self.stream.next().await {}
        })
        .await
        .expect("the server closes in time");
    }
}

/// A stream that can be made to swallow what is written to it.
struct Mute {
    stream: TcpStream,
    muted: Arc<AtomicBool>,
}

impl AsyncRead for Mute {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Mute {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.muted.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A server of one connection: a welcome, the protocol's ping, what comes in told as an event,
/// and the end.
async fn pretend(listener: tokio::net::TcpListener) -> Vec<Message> {
    use tokio_tungstenite::tungstenite::{
        handshake::server::{Request, Response},
        protocol::CloseFrame,
    };
    let (stream, _) = listener.accept().await.unwrap();
    #[expect(clippy::result_large_err, reason = "the library's own signature")]
    let protocol = |_: &Request, mut response: Response| {
        let headers = response.headers_mut();
        headers.insert("sec-websocket-protocol", HeaderValue::from_static(PROTOCOL));
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, protocol)
        .await
        .unwrap();
    let welcome = Message::text(r#"{"type":"welcome","epoch":"e"}"#);
    socket.send(welcome).await.unwrap();
    socket.send(Message::Ping("p".into())).await.unwrap();
    let event = Message::text(r#"{"type":"event","seq":1}"#);
    socket.send(event).await.unwrap();
    let mut heard = Vec::new();
    while let Ok(Some(Ok(message))) = timeout(Duration::from_millis(300), socket.next()).await {
        heard.push(message);
    }
    let close = CloseFrame {
        code: 4002.into(),
        reason: "".into(),
    };
    socket.send(Message::Close(Some(close))).await.unwrap();
    heard
}

#[tokio::test]
async fn sockets_read_what_comes_and_fall_silent_when_muted() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(pretend(listener));
    let api = Api::new(&address, std::path::PathBuf::new());
    let headers = [("sec-websocket-protocol", PROTOCOL)];
    let socket = Socket::handshake(&api, "", &headers).await.unwrap();
    let mut socket = socket.welcomed().await;
    assert_eq!(socket.epoch(), "e");
    socket.expect_event(1).await;
    socket.send(json!({"type": "heard"})).await;
    socket.mute();
    socket.send(json!({"type": "unheard"})).await;
    socket.expect_quiet(Duration::from_millis(100)).await;
    socket.expect_close(4002).await;
    let heard = server.await.unwrap();
    let expected = [
        Message::Pong("p".into()),
        Message::text(r#"{"type":"heard"}"#),
    ];
    assert_eq!(heard, expected);
}
