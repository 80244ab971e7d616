//! The bytes below a socket: TCP, or TLS on it.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_rt::net::TcpStream;
use actix_tls::accept::rustls_0_23::TlsStream;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An open connection, taken over from the HTTP server.
pub enum Transport {
    /// Plain.
    Tcp(TcpStream),
    /// Encrypted; boxed because it is much larger.
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Transport {
    fn from(io: TcpStream) -> Self {
        Self::Tcp(io)
    }
}

impl From<TlsStream<TcpStream>> for Transport {
    fn from(io: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(io))
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Tls(_) => "Tls",
        })
    }
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(io) => io,
            Self::Tls(io) => io.get_ref().0,
        }
    }

    /// Bounds what the system keeps for the peer. Without it the system's own bound holds.
    pub fn set_send_buffer(&self, bytes: usize) {
        let _ = sockopt::set_socket_send_buffer_size(self.tcp().as_fd(), bytes);
    }

    /// Has the system forget what it keeps for the peer when the connection is dropped: the peer
    /// takes nothing, and would hold that memory for minutes.
    pub fn abort(&self) {
        let _ = sockopt::set_socket_linger(self.tcp().as_fd(), Some(Duration::ZERO));
    }

    /// Reads what is there; nothing at the end.
    pub fn poll_read(&mut self, task: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let done = match self {
            Self::Tcp(io) => Pin::new(io).poll_read(task, &mut buf),
            Self::Tls(io) => Pin::new(io).poll_read(task, &mut buf),
        };
        done.map_ok(|()| buf.filled().len())
    }

    /// Writes what is taken at once.
    pub fn poll_write(&mut self, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(io) => Pin::new(io).poll_write(task, bytes),
            Self::Tls(io) => Pin::new(io).poll_write(task, bytes),
        }
    }

    /// Pushes out what encryption holds back.
    pub fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(io) => Pin::new(io).poll_flush(task),
            Self::Tls(io) => Pin::new(io).poll_flush(task),
        }
    }

    /// Ends the writing half; the peer may still send.
    pub fn poll_shutdown(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(task),
            Self::Tls(io) => Pin::new(io).poll_shutdown(task),
        }
    }
}
