//! A connection while it is one of HTTP: accepted, encrypted or not, and bounded in time.
//!
//! The server below bounds the first head of a connection and the pause between two requests of
//! HTTP/1.1, and nothing else: a second head may dribble in for ever, and a connection of HTTP/2 need
//! not ask for anything. So each connection is looked at from outside: one that had no request for a
//! while is closed. A connection that became a device's socket is none of this any more.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_codec::{AsyncRead, AsyncWrite, ReadBuf};
use actix_http::{Extensions, Protocol, error::DispatchError};
use actix_rt::net::TcpStream;
use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::transport::Transport;

/// How long the handshake of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What the HTTP server knows of a connection.
pub type Incoming = (Accepted, Protocol, Option<SocketAddr>);

/// A connection, and what its requests leave behind for who watches it.
#[derive(Debug)]
pub struct Accepted {
    io: Transport,
    activity: Rc<Activity>,
}

/// Requests of one connection.
#[derive(Debug, Default)]
pub struct Activity {
    begun: Cell<u64>,
    ended: Cell<u64>,
}

impl Activity {
    fn begin(self: &Rc<Self>) -> Busy {
        self.begun.set(self.begun.get() + 1);
        Busy(Rc::clone(self))
    }
}

/// A request is in progress.
struct Busy(Rc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.ended.set(self.0.ended.get() + 1);
    }
}

/// Takes a connection over from the system, through the handshake of TLS if there is to be one.
///
/// # Errors
/// When the peer is gone, speaks no TLS, or takes too long.
pub async fn accept(io: TcpStream, tls: Option<TlsAcceptor>) -> Result<Incoming, DispatchError> {
    // Small pushes would wait for acknowledgements of the network.
    io.set_nodelay(true)?;
    let peer = io.peer_addr().ok();
    let (io, protocol) = match tls {
        None => (Transport::Tcp(io), Protocol::Http1),
        Some(tls) => {
            let late = |_| DispatchError::from(io::Error::from(io::ErrorKind::TimedOut));
            let io = timeout(HANDSHAKE, tls.accept(io)).await.map_err(late)??;
            let protocol = match io.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            (Transport::Tls(Box::new(io)), protocol)
        }
    };
    let activity = Rc::default();
    Ok((Accepted { io, activity }, protocol, peer))
}

impl Accepted {
    /// Where requests find what they leave traces in.
    pub fn on_connect(&self, of: &mut Extensions) {
        of.insert(Rc::clone(&self.activity));
    }

    /// Who watches it, once it went into its service.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher(Rc::clone(&self.activity))
    }
}

/// Watches one connection.
#[derive(Debug)]
pub struct Watcher(Rc<Activity>);

impl Watcher {
    /// Drives `serving`, the connection's service, until it ends or had no request for `idle` (twice
    /// that at most).
    ///
    /// # Errors
    /// What `serving` ends with.
    pub async fn drive<E>(
        self,
        serving: impl Future<Output = Result<(), E>>,
        idle: Duration,
    ) -> Result<(), E> {
        let Self(activity) = self;
        let mut serving = pin!(serving);
        let mut seen = 0;
        loop {
            if let Ok(ended) = timeout(idle, &mut serving).await {
                return ended;
            }
            let begun = activity.begun.get();
            if begun == seen && begun == activity.ended.get() {
                return Ok(());
            }
            seen = begun;
        }
    }
}

/// Marks the connection as in use for as long as a request is answered; for `middleware::from_fn`.
///
/// # Errors
/// Whatever the service behind it fails with.
pub async fn busy<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let activity = req.conn_data::<Rc<Activity>>().cloned();
    let _busy = activity.as_ref().map(Activity::begin);
    next.call(req).await
}

impl From<Accepted> for Transport {
    fn from(it: Accepted) -> Self {
        it.io
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(task, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(task, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(task)
    }
}
