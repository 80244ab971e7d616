//! A connection while it is one of HTTP: accepted, encrypted or not, and bounded in time.
//!
//! The server below bounds the first head of a connection and the pause between two requests of
//! HTTP/1.1, and nothing else: a second head may dribble in for ever, and a connection of HTTP/2 need
//! not ask for anything. So each connection is looked at from outside: one that had no request for a
//! while is closed, and a network has so many at most; a trusted proxy's connections are those of many
//! callers, and are not counted. A connection that became a socket is none of this any more.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_codec::{AsyncRead, AsyncWrite, ReadBuf};
use actix_http::{Extensions, Protocol, error::DispatchError};
use actix_rt::net::TcpStream;
use actix_web::{
    dev::{ServiceRequest, ServiceResponse},
    http::StatusCode,
};
use tokio::time::timeout;

use super::{
    around::Mark,
    limit::network,
    places::{Place, Places},
    transport::{Encryption, Transport},
};
use crate::domain::forwarded::TrustedProxies;

/// How long the handshake of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What the HTTP server knows of a connection.
pub type Incoming = (Accepted, Protocol, Option<SocketAddr>);

/// A connection, and what its requests leave behind for who watches it.
#[derive(Debug)]
pub struct Accepted {
    io: Transport,
    activity: Rc<Activity>,
    /// Among the connections of its network that speak HTTP, where those are counted.
    _place: Option<Place<IpAddr>>,
}

/// How connections come in at one listener; clones share the counts.
#[derive(Debug, Clone)]
pub struct Door {
    /// With what they are encrypted, if they are.
    pub encryption: Option<Encryption>,
    /// How many each network may have, if that is bounded.
    pub places: Option<Places<IpAddr>>,
    /// Who may have more.
    pub proxies: TrustedProxies,
}

impl Door {
    /// A place for one more connection of `peer`, where they are counted.
    fn enter(&self, peer: Option<IpAddr>) -> io::Result<Option<Place<IpAddr>>> {
        let is_proxy = peer.is_some_and(|peer| self.proxies.trusts(peer));
        match &self.places {
            Some(places) if !is_proxy => match places.enter(network(peer)) {
                Some(place) => Ok(Some(place)),
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            },
            _ => Ok(None),
        }
    }
}

/// Requests of one connection.
#[derive(Debug, Default)]
pub struct Activity {
    in_progress: Cell<u64>,
    /// Those that ended, but for those that came too fast.
    served: Cell<u64>,
}

impl Activity {
    fn begin(self: &Rc<Self>) -> Busy {
        self.in_progress.set(self.in_progress.get() + 1);
        Busy {
            of: Rc::clone(self),
            too_fast: false,
        }
    }
}

/// A request is in progress.
#[derive(Debug)]
pub struct Busy {
    of: Rc<Activity>,
    too_fast: bool,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Activity {
            in_progress,
            served,
        } = &*self.of;
        in_progress.set(in_progress.get() - 1);
        if !self.too_fast {
            served.set(served.get() + 1);
        }
    }
}

/// Takes a connection over from the system, through the handshake of TLS if there is to be one.
///
/// # Errors
/// When the peer is gone, its network has all its places, or it speaks no TLS or takes too long.
pub async fn accept(io: TcpStream, door: Door) -> Result<Incoming, DispatchError> {
    let peer = io.peer_addr().ok();
    let place = door.enter(peer.map(|peer| peer.ip()))?;
    // Small pushes would wait for acknowledgements of the network.
    io.set_nodelay(true)?;
    let (io, protocol) = match door.encryption {
        None => (Transport::Tcp(io), Protocol::Http1),
        Some(encryption) => {
            let tls = encryption.acceptor();
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
    let accepted = Accepted {
        io,
        activity,
        _place: place,
    };
    Ok((accepted, protocol, peer))
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
            let served = activity.served.get();
            if served == seen && activity.in_progress.get() == 0 {
                return Ok(());
            }
            seen = served;
        }
    }
}

/// Marks the connection as in use for as long as a request is answered, unless it came too fast: such
/// requests are no reason to keep it; and for ever where it becomes something else than HTTP.
#[must_use]
pub fn busy(req: &ServiceRequest) -> Option<Busy> {
    req.conn_data::<Rc<Activity>>().map(Activity::begin)
}

impl Mark for Option<Busy> {
    fn leave<B>(self, res: &mut ServiceResponse<B>) {
        let Some(mut busy) = self else { return };
        busy.too_fast = res.status() == StatusCode::TOO_MANY_REQUESTS;
        if res.status() == StatusCode::SWITCHING_PROTOCOLS {
            // What comes next is no request: whoever speaks it bounds it.
            busy.of.in_progress.set(busy.of.in_progress.get() + 1);
        }
    }
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
