//! A client of the socket that costs little: reads what came in one go, and looks only at what a line
//! measures.

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    Res,
    http::{connect, find, parse},
};

/// An open WebSocket.
pub struct Socket {
    io: TcpStream,
    buffer: BytesMut,
    out: Vec<u8>,
}

impl Socket {
    /// Opens one as the `n`th client; `headers` are whole lines.
    pub async fn open(to: SocketAddr, n: usize, path: &str, headers: &str) -> Res<Self> {
        let mut io = connect(to, n).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        io.write_all(request.as_bytes()).await?;
        let mut buffer = BytesMut::with_capacity(512);
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if io.read_buf(&mut buffer).await? == 0 {
                return Err("closed before the upgrade was answered".into());
            }
        };
        let (status, _) = parse(&buffer[..head])?;
        if status != 101 {
            let said = String::from_utf8_lossy(&buffer).into_owned();
            return Err(format!("the upgrade was refused: {said}").into());
        }
        buffer.advance(head);
        Ok(Self {
            io,
            buffer,
            out: Vec::new(),
        })
    }

    /// Opens a device's.
    pub async fn of_device(to: SocketAddr, n: usize, token: &str) -> Res<Self> {
        let headers = format!(
            "Sec-WebSocket-Protocol: listen-stream.v1\r\nAuthorization: Bearer {token}\r\n"
        );
        Self::open(to, n, "/v1/sync", &headers).await
    }

    /// Waits for something to read, and hands over each whole text frame. Answers pings.
    pub async fn read(&mut self, mut each: impl FnMut(&[u8])) -> Res<()> {
        loop {
            let mut any = false;
            while let Some((kind, length, head)) = frame(&self.buffer)? {
                self.buffer.advance(head);
                let payload = self.buffer.split_to(length);
                match kind {
                    1 => {
                        any = true;
                        each(&payload);
                    }
                    8 => return Err(format!("closed: {payload:?}").into()),
                    9 => {
                        write_frame(&mut self.out, 10, &payload);
                        self.flush().await?;
                    }
                    _ => {}
                }
            }
            if any {
                return Ok(());
            }
            self.more().await?;
        }
    }

    /// Reads until a frame of this type came; what came behind it is left for [`Self::read`].
    pub async fn read_until(&mut self, kind: &str) -> Res<Vec<u8>> {
        let begin = format!("{{\"type\":\"{kind}\"").into_bytes();
        loop {
            while let Some((_, length, head)) = frame(&self.buffer)? {
                self.buffer.advance(head);
                let payload = self.buffer.split_to(length);
                if payload.starts_with(&begin) {
                    return Ok(payload.to_vec());
                }
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Res<()> {
        self.buffer.reserve(4096);
        if self.io.read_buf(&mut self.buffer).await? == 0 {
            return Err("the server closed the socket".into());
        }
        Ok(())
    }

    /// Puts a text frame in line.
    pub fn put(&mut self, text: &str) {
        write_frame(&mut self.out, 1, text.as_bytes());
    }

    /// Sends what is in line.
    pub async fn flush(&mut self) -> Res<()> {
        if !self.out.is_empty() {
            self.io.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }
}

/// The next frame, if it is whole: its opcode, the length of its payload and that of its head.
fn frame(buffer: &[u8]) -> Res<Option<(u8, usize, usize)>> {
    let [first, second, rest @ ..] = buffer else {
        return Ok(None);
    };
    let (length, head) = match (second & 127, rest) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (127, [_, _, _, _, a, b, c, d, ..]) => (u32::from_be_bytes([*a, *b, *c, *d]) as usize, 10),
        (126 | 127, _) => return Ok(None),
        (length, _) => (usize::from(length), 2),
    };
    if first & 0x80 == 0 {
        return Err("a fragmented frame".into());
    }
    Ok((buffer.len() >= head + length).then_some((first & 15, length, head)))
}

/// Writes a client's frame. Its mask is zero: masking costs the client, and is not what is measured.
fn write_frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(0x80 | kind);
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length => {
            out.push(0x80 | 0x7e);
            out.extend((length as u16).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
}

/// The number behind a key such as `"seq":`.
pub fn number(text: &[u8], key: &[u8]) -> Option<i64> {
    let at = find(text, key)? + key.len();
    let digits = text[at..].iter().take_while(|b| b.is_ascii_digit());
    Some(digits.fold(0, |n, digit| n * 10 + i64::from(digit - b'0')))
}

/// The text behind a key such as `"epoch":"`, until the next quotation mark.
pub fn text<'t>(text: &'t [u8], key: &[u8]) -> Option<&'t str> {
    let rest = &text[find(text, key)? + key.len()..];
    std::str::from_utf8(&rest[..find(rest, b"\"")?]).ok()
}
