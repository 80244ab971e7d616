//! One listener: bound, and what stands between its connections and its application.
//!
//! Owns what all listeners have in common: the queue of the system, encryption, and the bounds on
//! connections in number and in time. What is served there is given to it.

use std::{
    fmt::Debug,
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_http::{HttpServiceBuilder, Request, Response, body::BoxBody, error::DispatchError};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder, ServerHandle};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, apply_fn_factory,
    fn_service, map_config,
};
use actix_web::{
    Error,
    body::MessageBody,
    dev::{AppConfig, ServiceResponse},
};
use futures_util::future::{Fuse, FutureExt as _};

use super::{BootError, io_error};
use crate::http::connection::{self, Accepted, Door, Incoming};

/// Connections that the system holds for a server that is busy accepting: a thousand clients that
/// come back at once must not lose a SYN.
const BACKLOG: i32 = 4096;

/// How one listener serves.
pub(super) struct Plan {
    /// Which one it is.
    pub name: &'static str,
    /// Threads.
    pub workers: usize,
    /// Connections at a time.
    pub connections: usize,
    /// How they come in.
    pub door: Door,
    /// How long one may stay that asks for nothing.
    pub idle: Duration,
    /// How long a stop waits for requests in progress, in seconds.
    pub shutdown_secs: u64,
}

/// A listener that accepts.
pub(super) struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// Stops it.
    pub handle: ServerHandle,
    /// Ends with it.
    pub server: Fuse<Server>,
}

/// What the HTTP of each worker is made of.
#[derive(Clone)]
pub(super) struct Http {
    stopping: GracefulShutdownSignal,
    address: SocketAddr,
}

/// Binds `address`. The system ends connections there whose peers have taken nothing of what waits
/// for them for `silence`: the server itself cannot, because it hears of such a socket only when
/// there is room to write.
pub(super) fn open(address: SocketAddr, silence: Duration) -> Result<TcpListener, BootError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        // It listens already; this is how the number is changed.
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(listener)
    };
    let listener = bind().map_err(|source| BootError::Bind { address, source })?;
    let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    // What is accepted takes over the listener's options.
    rustix::net::sockopt::set_tcp_user_timeout(&listener, millis)
        .map_err(io::Error::from)
        .map_err(io_error("cannot set TCP_USER_TIMEOUT"))?;
    Ok(listener)
}

impl Plan {
    /// Accepts at `listener`, and serves with what `http` makes for each worker.
    pub(super) fn serve<S>(
        self,
        listener: TcpListener,
        http: impl Fn(&Http) -> S + Clone + Send + 'static,
    ) -> Result<Listener, BootError>
    where
        S: ServiceFactory<
                Incoming,
                Config = (),
                Response = (),
                Error = DispatchError,
                InitError = (),
            > + 'static,
    {
        let address = listener
            .local_addr()
            .map_err(io_error("cannot tell an address"))?;
        let builder = ServerBuilder::default();
        let base = Http {
            stopping: builder.graceful_shutdown_signal(),
            address,
        };
        let (door, idle) = (self.door, self.idle);
        // Each has room for one at least.
        let workers = self.workers.min(self.connections).max(1);
        let server = builder
            .workers(workers)
            .disable_signals()
            .max_concurrent_connections((self.connections / workers).max(1))
            .shutdown_timeout(self.shutdown_secs)
            .listen(self.name, listener, move || {
                let http =
                    apply_fn_factory(http(&base), move |incoming: Incoming, http: &S::Service| {
                        // Both are made before the connection goes into one of them.
                        let watch = incoming.0.watcher();
                        watch.drive(http.call(incoming), idle)
                    });
                let door = door.clone();
                fn_service(move |io| connection::accept(io, door.clone())).and_then(http)
            })
            .map_err(|source| BootError::Bind { address, source })?
            .run();
        Ok(Listener {
            address,
            handle: server.handle(),
            server: server.fuse(),
        })
    }
}

impl Http {
    /// The bounds of HTTP itself, which are the same everywhere.
    pub(super) fn builder<S>(&self) -> HttpServiceBuilder<Accepted, S>
    where
        S: ServiceFactory<Request, Config = ()>,
        S::Error: Into<Response<BoxBody>> + 'static,
        S::InitError: Debug,
        <S::Service as Service<Request>>::Future: 'static,
    {
        let stopping = self.stopping.clone();
        HttpServiceBuilder::default()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .client_disconnect_timeout(Duration::from_secs(1))
            .local_addr(self.address)
            .on_connect_ext(Accepted::on_connect)
    }
}

/// An application as the HTTP below takes it.
pub(super) fn service<I, F, B>(
    app: I,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = ServiceResponse<B>,
    Error = actix_web::HttpResponse,
    InitError = (),
>
where
    I: IntoServiceFactory<F, Request>,
    F: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse<B>,
            Error = Error,
            InitError = (),
        > + 'static,
    F::Service: 'static,
    F::Future: 'static,
    B: MessageBody + 'static,
{
    let app = app.into_factory().map_err(|e: Error| e.error_response());
    map_config(app, |()| AppConfig::default())
}

#[cfg(test)]
mod tests;
