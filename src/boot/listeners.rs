//! The listeners: the public one with the API, the admin one with the metrics.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering},
    thread::available_parallelism,
    time::Duration,
};

use actix_http::HttpService;
use actix_server::{Server, ServerBuilder, ServerHandle};
use actix_service::{
    IntoServiceFactory as _, Service as _, ServiceFactoryExt as _, apply_fn_factory, fn_service,
    map_config,
};
use actix_web::{HttpServer, dev::AppConfig, web};
use futures_util::future::{Fuse, FusedFuture, FutureExt, join, join_all};

use super::{
    BootError,
    files::{self, Files},
    io_error, samples, tls,
};
use crate::{
    actors::{Graph, kernel::Life},
    domain::{clock::World, sync::FloodLimit},
    http::{
        connection::{self, Accepted, Incoming},
        headers::Origins,
        health::{self, CheckState, Readiness},
        identity, library,
        limit::{LimitConfig, Limits},
        openapi,
        places::Places,
        socket::{ConnectionGate, SocketParts},
        stack::{self, Surface},
        sync,
        upgrade::Upgrades,
        ws,
    },
    settings::{Limits as LimitSettings, Settings},
    telemetry::metrics::Metrics,
};

/// Connections that the system holds for a server that is busy accepting: a thousand clients that
/// come back at once must not lose a SYN.
const BACKLOG: i32 = 4096;
/// A store that did not answer for so long makes the node unready.
const STORE_SILENT: Duration = Duration::from_secs(5);
/// How often buckets of callers who left are given back.
const SWEEP: Duration = Duration::from_mins(1);

/// Both listeners, bound and accepting.
pub(super) struct Listeners {
    /// Where the public one listens.
    pub public: SocketAddr,
    /// Where the admin one listens.
    pub admin: SocketAddr,
    handles: [ServerHandle; 2],
    servers: [Fuse<Server>; 2],
    limits: Limits,
    /// The sockets that the public one holds.
    pub gate: ConnectionGate,
}

struct NodeReadiness(Graph);

impl Readiness for NodeReadiness {
    fn checks(&self) -> Vec<(&'static str, CheckState)> {
        let Self(graph) = self;
        let state = |good| {
            if good {
                CheckState::Ok
            } else {
                CheckState::Failed
            }
        };
        let silent = graph.pulse.age(graph.world.instant());
        let mut checks = vec![
            ("serving", state(!graph.draining.load(Ordering::Relaxed))),
            ("store", state(silent < STORE_SILENT)),
        ];
        let roots = graph.roots().into_iter();
        let all_up = roots
            .map(|(_, life)| life)
            .all(|life| matches!(life, Life::Up(_)));
        checks.push(("actors", state(all_up)));
        if let Some(up) = graph.hints_arrive() {
            let degraded = if up {
                CheckState::Ok
            } else {
                CheckState::Degraded
            };
            checks.push(("redis", degraded));
        }
        checks
    }
}

/// Binds both addresses and starts to accept.
pub(super) fn bind(
    settings: &Settings,
    world: &World,
    metrics: &Metrics,
    graph: &Graph,
    files: Files,
) -> Result<Listeners, BootError> {
    let server = &settings.server;
    let limits = Limits::new(&limit_config(&settings.limits), world);
    let surface = Surface {
        world: world.clone(),
        metrics: metrics.clone(),
        origins: Origins::new(&server.allowed_origins)?,
        limits: Some(limits.clone()),
    };
    let unlimited = Surface {
        limits: None,
        ..surface.clone()
    };
    let readiness: Arc<dyn Readiness> = Arc::new(NodeReadiness(graph.clone()));
    samples::of_node(metrics, Arc::clone(&readiness), server.max_connections);
    let gate = ConnectionGate::new(server.max_connections);
    let (public, admin) = (open(server.listen)?, open(server.admin_listen)?);
    let silence = Duration::from_secs(settings.sync.heartbeat_timeout_secs);
    drop_who_takes_nothing(&public, silence)?;
    let address = |l: &TcpListener| l.local_addr().map_err(io_error("cannot tell an address"));
    let (public_address, admin_address) = (address(&public)?, address(&admin)?);
    let workers = match server.workers {
        0 => available_parallelism().map_or(1, usize::from),
        n => n,
    };

    let (graph, ready) = (graph.clone(), Arc::clone(&readiness));
    let sockets = Arc::new(socket_parts(settings, &graph, metrics, gate.clone()));
    let app = move || {
        stack::app(&surface)
            .app_data(web::Data::new(graph.clone()))
            .app_data(web::Data::from(Arc::clone(&ready)))
            .app_data(web::Data::from(Arc::clone(&sockets)))
            .configure(health::routes)
            .configure(identity::routes)
            .configure(library::routes)
            .configure(sync::routes)
            .configure(ws::routes)
            .configure(openapi::routes)
    };
    let tls = tls::acceptor(server)?;
    let idle = Duration::from_secs(server.idle_connection_secs);
    let of_networks = Places::new(settings.limits.ip_connections);
    let builder = ServerBuilder::default();
    let stopping = builder.graceful_shutdown_signal();
    let public = builder
        .workers(workers)
        .disable_signals()
        .max_concurrent_connections((files.requests / workers).max(1))
        .shutdown_timeout(server.shutdown_secs)
        .listen("public", public, move || {
            let stopping = stopping.clone();
            let http = app().into_factory().map_err(|e| e.error_response());
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .client_disconnect_timeout(Duration::from_secs(1))
                .local_addr(public_address)
                .on_connect_ext(Accepted::on_connect)
                .upgrade(Upgrades::new(app()))
                .finish(map_config(http, |()| AppConfig::default()));
            let http = apply_fn_factory(http, move |incoming: Incoming, http| {
                // Both are made before the connection goes into one of them.
                let watch = incoming.0.watcher();
                watch.drive(http.call(incoming), idle)
            });
            let (tls, of_networks) = (tls.clone(), of_networks.clone());
            fn_service(move |io| connection::accept(io, tls.clone(), of_networks.clone()))
                .and_then(http)
        })
        .map_err(|source| BootError::Bind {
            address: public_address,
            source,
        })?
        .run();

    let admin = HttpServer::new(move || {
        stack::app(&unlimited)
            .app_data(web::Data::from(Arc::clone(&readiness)))
            .configure(health::routes)
            .configure(health::metrics_route)
    })
    .workers(1)
    .max_connections(files::ADMIN)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(admin)
    .map_err(|source| BootError::Bind {
        address: admin_address,
        source,
    })?
    .run();

    Ok(Listeners {
        public: public_address,
        admin: admin_address,
        handles: [public.handle(), admin.handle()],
        servers: [public.fuse(), admin.fuse()],
        limits,
        gate,
    })
}

fn open(address: SocketAddr) -> Result<TcpListener, BootError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        // It listens already; this is how the number is changed.
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(listener)
    };
    bind().map_err(|source| BootError::Bind { address, source })
}

/// Has the system end connections whose peers have taken nothing of what waits for them for so
/// long. The server itself cannot: it hears of such a socket only when there is room to write.
fn drop_who_takes_nothing(listener: &TcpListener, silence: Duration) -> Result<(), BootError> {
    let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    // What is accepted takes over the listener's options.
    rustix::net::sockopt::set_tcp_user_timeout(listener, millis)
        .map_err(io::Error::from)
        .map_err(io_error("cannot set TCP_USER_TIMEOUT"))
}

fn socket_parts(
    settings: &Settings,
    graph: &Graph,
    metrics: &Metrics,
    gate: ConnectionGate,
) -> SocketParts {
    let sync = &settings.sync;
    // Of each device the socket in use, the one that it replaces and the one that comes next; and
    // one for a device that takes another's place.
    let of_user = 3 * settings.auth.max_devices as usize + 1;
    SocketParts {
        graph: graph.clone(),
        metrics: metrics.sockets.clone(),
        gate,
        of_users: Places::new(of_user),
        flood: FloodLimit {
            per_second: sync.frames_per_second,
            burst: sync.frames_burst,
            free: sync.window_events,
        },
        send_queue: sync.send_queue_bytes,
        send_buffer: sync.send_buffer_bytes,
    }
}

fn limit_config(it: &LimitSettings) -> LimitConfig {
    LimitConfig {
        ip_per_second: it.ip_per_second.get(),
        ip_burst: it.ip_burst.get(),
        user_per_second: it.user_per_second.get(),
        user_burst: it.user_burst.get(),
        auth_per_minute: it.auth_per_minute.get(),
        auth_burst: it.auth_burst.get(),
    }
}

impl Listeners {
    /// Serves until a listener fails.
    pub(super) async fn serve(&mut self) -> Result<(), BootError> {
        let mut sweep = tokio::time::interval(SWEEP);
        let [public, admin] = &mut self.servers;
        let ended: io::Result<()> = loop {
            tokio::select! {
                result = &mut *public => break result,
                result = &mut *admin => break result,
                _ = sweep.tick() => self.limits.sweep(),
            }
        };
        ended.map_err(io_error("a listener failed"))
    }

    /// Stops accepting, and waits for the requests and sockets in progress.
    pub(super) async fn stop(self) {
        let stopping = join_all(self.handles.map(|handle| handle.stop(true)));
        // The servers' own futures do the work; one that failed before has ended.
        let running = self.servers.into_iter().filter(|it| !it.is_terminated());
        join(stopping, join_all(running)).await;
    }
}
