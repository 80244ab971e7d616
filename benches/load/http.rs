//! A client of HTTP/1.1 that costs little: one connection, one request at a time, no copies that
//! are not needed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::Res;

/// One kept connection.
pub struct Http {
    io: TcpStream,
    buffer: Vec<u8>,
    /// Where the last answer ended; what is behind it was read too early.
    taken: usize,
}

/// An answer, as long as the connection is not used again.
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// The address from which the `n`th client comes: so that no address runs out of ports.
pub fn source(n: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, 2 + (n % 50) as u8).into()
}

/// Opens a connection from [`source`].
pub async fn connect(to: SocketAddr, n: usize) -> Res<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source(n), 0))?;
    let io = socket.connect(to).await?;
    io.set_nodelay(true)?;
    Ok(io)
}

impl Http {
    /// Connects as the `n`th client.
    pub async fn connect(to: SocketAddr, n: usize) -> Res<Self> {
        Ok(Self {
            io: connect(to, n).await?,
            buffer: Vec::with_capacity(2048),
            taken: 0,
        })
    }

    /// Sends a whole request and reads its answer, which must have a length.
    pub async fn call(&mut self, request: &[u8]) -> Res<Answer<'_>> {
        self.io.write_all(request).await?;
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let (status, length) = parse(&self.buffer[..head])?;
        self.taken = head + length;
        while self.buffer.len() < self.taken {
            self.more().await?;
        }
        Ok(Answer {
            status,
            body: &self.buffer[head..self.taken],
        })
    }

    /// Sends a whole request, and reads an answer that comes in chunks: its status and its body.
    pub async fn stream(&mut self, request: &[u8]) -> Res<(u16, Vec<u8>)> {
        self.io.write_all(request).await?;
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let head = self.until(0, b"\r\n\r\n").await?;
        let (status, _) = parse(&self.buffer[..head])?;
        let (mut body, mut at) = (Vec::new(), head);
        loop {
            let begin = self.until(at, b"\r\n").await?;
            let size = std::str::from_utf8(&self.buffer[at..begin - 2])?;
            let size = usize::from_str_radix(size, 16)?;
            at = begin + size + 2;
            while self.buffer.len() < at {
                self.more().await?;
            }
            if size == 0 {
                self.taken = at;
                return Ok((status, body));
            }
            body.extend_from_slice(&self.buffer[begin..begin + size]);
        }
    }

    /// Reads until `what` was read, and says where it ends.
    async fn until(&mut self, from: usize, what: &[u8]) -> Res<usize> {
        loop {
            let unread = self.buffer.get(from..).unwrap_or_default();
            if let Some(end) = find(unread, what) {
                return Ok(from + end + what.len());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Res<()> {
        if self.io.read_buf(&mut self.buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }
}

/// Where `what` begins in `text`.
pub fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The status and the length of the body.
pub fn parse(head: &[u8]) -> Res<(u16, usize)> {
    let text = std::str::from_utf8(head)?;
    let status = text.get(9..12).ok_or("no status")?.parse()?;
    let mut length = 0;
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    Ok((status, length))
}

/// A request without a body.
pub fn request(method: &str, path: &str, token: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n")
        .into_bytes()
}

/// A request with a JSON body.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The same, of somebody.
pub fn post_as(token: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
