//! A connection byte by byte, for what no well-behaved client would send.

use std::{fmt::Write as _, net::SocketAddr};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    PATIENCE,
    client::Device,
    server::Server,
    socket::{PROTOCOL, Socket},
};

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
/// The mask that [`frame`] uses.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The bytes below a connection, encrypted or not.
pub trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// One connection.
pub struct Raw {
    stream: Box<dyn Bytes>,
    buf: Vec<u8>,
}

/// What the server sent.
#[derive(Debug, PartialEq)]
pub enum Got {
    Text(Value),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame, with its code and reason.
    Close(Option<(u16, String)>),
    /// The end of the stream.
    End,
    /// The connection was reset.
    Reset,
}

/// A masked frame; `first` is its first byte.
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut out = head(first, payload.len());
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// Only the head of a frame with so long a payload.
pub fn head(first: u8, length: usize) -> Vec<u8> {
    let mut out = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(n @ ..126), _) => out.push(0x80 | n),
        (_, Ok(n)) => {
            out.push(0xfe);
            out.extend(n.to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out
}

/// The text of a ping of the subprotocol, `length` bytes long.
pub fn ping_of(length: usize) -> String {
    let around = r#"{"type":"ping","ref":"r","pad":""}"#.len();
    format!(
        r#"{{"type":"ping","ref":"r","pad":"{}"}}"#,
        "x".repeat(length - around)
    )
}

/// Settings with which the clients of a test may send as fast as they like.
pub const NO_LIMITS: [(&str, &str); 3] = [
    ("sync.frames_per_second", "10000"),
    ("sync.frames_burst", "100000"),
    ("sync.signals_per_second", "1000"),
];

/// Sends signals of 16 KiB to the user's other devices, and waits until they are on their way.
pub async fn shout(from: &mut Socket, times: usize) {
    let data = "x".repeat(16 * 1024 - 2);
    for _ in 0..times {
        let signal = json!({"type": "signal", "to": "all", "name": "shout", "data": data});
        from.send(signal).await;
    }
    from.ping().await;
}

/// The head of an upgrade to `path` with these headers more.
pub fn upgrade_head(address: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    );
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head.push_str("\r\n");
    head
}

impl Raw {
    pub fn over(stream: impl Bytes + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buf: Vec::new(),
        }
    }

    /// A connection on which nothing was said yet.
    pub async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.listen()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// The same of a client whose system holds as little as it may of what comes.
    pub async fn connect_narrow(server: &Server) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address: SocketAddr = server.listen().parse().unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// An open socket of the device, its welcome read.
    pub async fn open(device: &Device) -> Self {
        Self::at(device).await.opened(device).await
    }

    /// A connection to the server of the device.
    pub async fn at(device: &Device) -> Self {
        let stream = TcpStream::connect(device.api.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Upgrades and reads the welcome.
    pub async fn opened(mut self, device: &Device) -> Self {
        let answer = self.upgrade(device).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        match self.next().await {
            Got::Text(welcome) if welcome["type"] == "welcome" => self,
            other => panic!("expected the welcome, got {other:?}"),
        }
    }

    /// Asks for an upgrade; answers the head of the answer.
    pub async fn upgrade(&mut self, device: &Device) -> String {
        let bearer = format!("Bearer {}", device.access);
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Sec-WebSocket-Protocol", PROTOCOL),
        ];
        let head = upgrade_head(device.api.address(), "/v1/sync", &headers);
        self.send(head).await;
        self.answer_head().await
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// The same where the server may have ended the connection.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        timeout(PATIENCE, sending)
            .await
            .expect("the server takes bytes in time")
    }

    /// Says that nothing more is sent.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Sends byte by byte, each in a segment of its own.
    pub async fn send_bytewise(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.try_send([*byte]).await.is_err() {
                return;
            }
        }
    }

    /// The head of an answer of HTTP.
    pub async fn answer_head(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.buf.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            let left = self.fill().await;
            assert!(left, "no answer: {}", String::from_utf8_lossy(&self.buf));
        };
        String::from_utf8(self.buf.drain(..end).collect()).unwrap()
    }

    /// An answer of HTTP with a body of known length.
    pub async fn answer(&mut self) -> (String, String) {
        let head = self.answer_head().await.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let length: usize = length.unwrap_or_else(|| panic!("no length: {head}"));
        while self.buf.len() < length {
            assert!(self.fill().await, "half a body");
        }
        let body = self.buf.drain(..length).collect();
        (head, String::from_utf8(body).unwrap())
    }

    /// Everything up to the end of the stream.
    pub async fn rest(&mut self) -> String {
        while self.fill().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buf)).into_owned()
    }

    /// More bytes, unless that was the end.
    async fn fill(&mut self) -> bool {
        self.try_fill().await.unwrap_or(false)
    }

    async fn try_fill(&mut self) -> std::io::Result<bool> {
        let mut piece = vec![0; 16 * 1024];
        let n = timeout(PATIENCE, self.stream.read(&mut piece))
            .await
            .expect("something comes in time")?;
        self.buf.extend_from_slice(&piece[..n]);
        Ok(n > 0)
    }

    /// The next frame, which must be as RFC 6455 wants those of a server. Presence is passed over.
    pub async fn next(&mut self) -> Got {
        loop {
            if let Some(got) = self.whole_frame() {
                if matches!(&got, Got::Text(frame) if frame["type"] == "presence") {
                    continue;
                }
                return got;
            }
            match self.try_fill().await {
                Ok(true) => {}
                Ok(false) if self.buf.is_empty() => return Got::End,
                Ok(false) => panic!("half a frame: {:x?}", self.buf),
                Err(_) => return Got::Reset,
            }
        }
    }

    fn whole_frame(&mut self) -> Option<Got> {
        let [first, second, rest @ ..] = &self.buf[..] else {
            return None;
        };
        assert!(second & 0x80 == 0, "a masked frame of the server");
        let (length, wide) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
            127 => (
                usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).unwrap(),
                8,
            ),
            short => (usize::from(short), 0),
        };
        let payload = rest.get(wide..wide + length)?.to_vec();
        let got = match *first {
            TEXT => {
                let text = String::from_utf8(payload).expect("text is UTF-8");
                Got::Text(serde_json::from_str(&text).unwrap())
            }
            PING => Got::Ping(payload),
            PONG => Got::Pong(payload),
            CLOSE => Got::Close(payload.split_first_chunk().map(|(code, reason)| {
                let reason = String::from_utf8(reason.to_vec()).unwrap();
                (u16::from_be_bytes(*code), reason)
            })),
            other => panic!("a frame that begins with {other:x}"),
        };
        self.buf.drain(..2 + wide + length);
        Some(got)
    }

    /// The next frame must be the answer to a ping of the subprotocol with this `ref`.
    pub async fn expect_answer(&mut self, reference: &str) {
        match self.next().await {
            Got::Text(pong) if pong["type"] == "pong" => assert_eq!(pong["ref"], reference),
            other => panic!("expected the answer to {reference:?}, got {other:?}"),
        }
    }

    /// What comes next that is neither text nor ping: sooner or later the connection ends.
    pub async fn expect_close(&mut self, code: u16) {
        loop {
            match self.next().await {
                Got::Text(_) | Got::Ping(_) => {}
                Got::Close(Some((got, _))) => return assert_eq!(got, code),
                other => panic!("expected close {code}, got {other:?}"),
            }
        }
    }

    /// Nothing but the end of the stream comes.
    pub async fn expect_end(&mut self) {
        assert_eq!(self.next().await, Got::End);
    }
}

#[test]
fn frames_have_the_shortest_length() {
    assert_eq!(
        frame(TEXT, b"ab")[..6],
        [0x81, 0x82, 0x37, 0xfa, 0x21, 0x3d]
    );
    assert_eq!(frame(TEXT, b"ab")[6..], [b'a' ^ 0x37, b'b' ^ 0xfa]);
    assert_eq!(head(PING, 126)[..4], [0x89, 0xfe, 0, 126]);
    assert_eq!(
        head(TEXT, 65_536)[..10],
        [0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]
    );
    assert_eq!(ping_of(125).len(), 125);
}
