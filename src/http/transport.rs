//! The bytes below HTTP and below sockets: TCP, or TLS on it.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use actix_codec::{AsyncRead, AsyncWrite, ReadBuf};
use actix_rt::net::TcpStream;
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// What connections are encrypted with from now on; clones share it. Those that are open keep what
/// they began with.
#[derive(Debug, Clone)]
pub struct Encryption(Arc<RwLock<Arc<ServerConfig>>>);

impl Encryption {
    /// Begins with `config`.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// Goes on with `config`. Sessions of before are not resumed: they would go on without having
    /// seen the new certificate.
    pub fn replace(&self, config: ServerConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// What makes the next handshake.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }
}

/// An open connection.
pub enum Transport {
    /// Plain.
    Tcp(TcpStream),
    /// Encrypted; boxed because it is much larger.
    Tls(Box<TlsStream<TcpStream>>),
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
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(task, buf),
            Self::Tls(io) => Pin::new(io).poll_read(task, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(task, bytes),
            Self::Tls(io) => Pin::new(io).poll_write(task, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(task),
            Self::Tls(io) => Pin::new(io).poll_flush(task),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(task),
            Self::Tls(io) => Pin::new(io).poll_shutdown(task),
        }
    }
}
