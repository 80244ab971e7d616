//! The listeners, and what each serves: the public one the API, the admin one what operators ask, the
//! internal one what other services ask.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering},
    thread::available_parallelism,
    time::Duration,
};

use actix_web::web;
use futures_util::future::{FusedFuture as _, join, join_all, select_all};

use super::{
    BootError,
    files::{self, Files},
    io_error,
    listener::{self, Listener, Plan},
    samples,
};
use crate::{
    actors::Graph,
    domain::{
        clock::World,
        forwarded::TrustedProxies,
        limit::{LimitKey, Rate, Verdict},
        sync::FloodLimit,
    },
    http::{
        admin::{self, AdminAccess, AdminMetrics},
        connection::Door,
        headers::Origins,
        health::{self, CheckState, Readiness},
        history, identity,
        internal::{self, ServiceAccess},
        library,
        limit::{LimitConfig, Limits, SharedBuckets},
        openapi,
        places::Places,
        player, playlists, public_playlists, snapshot,
        socket::{ConnectionGate, Connections, SocketParts},
        stack::{self, Surface},
        sync,
        transport::Encryption,
        upgrade::Upgrades,
        ws,
    },
    settings::{Limits as LimitSettings, Secret, Server, Settings},
    store::SharedLimits,
    telemetry::metrics::Metrics,
};

/// A store that did not answer for so long makes the node unready.
const STORE_SILENT: Duration = Duration::from_secs(5);
/// How often buckets of callers who left are given back.
const SWEEP: Duration = Duration::from_mins(1);

/// The listeners, bound and accepting.
pub(super) struct Listeners {
    /// Where the public one listens.
    pub public: SocketAddr,
    /// Where the admin one listens.
    pub admin: SocketAddr,
    /// Where the internal one listens, if there is one.
    pub internal: Option<SocketAddr>,
    all: Vec<Listener>,
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
        checks.push(("actors", state(graph.roots_are_at_work())));
        let lesser = |good| {
            if good {
                CheckState::Ok
            } else {
                CheckState::Degraded
            }
        };
        let known = graph.trust.is_fresh(graph.world.instant());
        checks.push(("revocations", lesser(known)));
        if let Some(up) = graph.hints_arrive() {
            checks.push(("redis", lesser(up)));
        }
        if let Some(shared) = graph.limits_are_shared() {
            checks.push(("limits", lesser(shared)));
        }
        checks
    }
}

/// Binds all addresses and starts to accept.
pub(super) fn bind(
    settings: &Settings,
    world: &World,
    metrics: &Metrics,
    graph: &Graph,
    files: Files,
    encryption: Option<&Encryption>,
) -> Result<Listeners, BootError> {
    let server = &settings.server;
    let together = graph.redis.as_ref().map(|it| together(&it.limits));
    let limits = Limits::new(&limit_config(&settings.limits), world).together(together);
    let proxies = TrustedProxies::new(&server.trusted_proxies, server.forwarded_header);
    let surface = Surface {
        world: world.clone(),
        metrics: metrics.clone(),
        origins: Origins::new(&server.allowed_origins)?,
        limits: Some(limits.clone()),
        proxies: proxies.clone(),
    };
    let unlimited = Surface {
        limits: None,
        ..surface.clone()
    };
    let readiness: Arc<dyn Readiness> = Arc::new(NodeReadiness(graph.clone()));
    samples::of_node(metrics, Arc::clone(&readiness), server.max_connections);
    let gate = ConnectionGate::new(server.max_connections);
    let silence = Duration::from_secs(settings.sync.heartbeat_timeout_secs);
    let open = |address| listener::open(address, silence);
    // All are bound before one accepts.
    let (public, admin) = (open(server.listen)?, open(server.admin_listen)?);
    let internal = server.internal_listen.map(open).transpose()?;
    let workers = match server.workers {
        0 => available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let idle = Duration::from_secs(server.idle_connection_secs);
    let door = |encrypted: bool, places| Door {
        encryption: encryption.filter(|_| encrypted).cloned(),
        places,
        proxies: proxies.clone(),
    };

    let operated = operated(settings, world, metrics, graph);
    let for_services = for_services(world, graph);
    let (graph, ready) = (graph.clone(), Arc::clone(&readiness));
    let sockets = Arc::new(socket_parts(settings, &graph, metrics, gate.clone()));
    let app = move || {
        stack::app(&surface)
            .app_data(web::Data::new(graph.clone()))
            .app_data(web::Data::from(Arc::clone(&ready)))
            .app_data(web::Data::from(Arc::clone(&sockets)))
            // Tried in this order: first those without parts to be captured.
            .configure(health::routes)
            .configure(sync::routes)
            .configure(ws::routes)
            .configure(playlists::routes)
            .configure(public_playlists::routes)
            .configure(library::routes)
            .configure(player::routes)
            .configure(snapshot::routes)
            .configure(history::routes)
            .configure(identity::routes)
            .configure(openapi::routes)
    };
    let plan = Plan {
        name: "public",
        workers,
        connections: files.requests,
        door: door(true, Some(Places::new(settings.limits.ip_connections))),
        idle,
        shutdown_secs: server.shutdown_secs,
    };
    let public = plan.serve(public, move |http| {
        let http = http.builder().upgrade(Upgrades::new(app()));
        http.finish(listener::service(app()))
    })?;

    let (ready, inside) = (readiness, &unlimited);
    let admin_door = door(server.admin_tls, None);
    let admin = serve_admin(server, admin_door, inside, &ready, operated, admin)?;
    let door = door(server.internal_tls, None);
    let serve = |at| serve_internal(server, workers, door, inside, &ready, for_services, at);
    let internal = internal.map(serve).transpose()?;

    Ok(Listeners {
        public: public.address,
        admin: admin.address,
        internal: internal.as_ref().map(|it| it.address),
        all: [public, admin].into_iter().chain(internal).collect(),
        limits,
        gate,
    })
}

/// What operators ask.
fn serve_admin(
    server: &Server,
    door: Door,
    surface: &Surface,
    readiness: &Arc<dyn Readiness>,
    operated: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    at: TcpListener,
) -> Result<Listener, BootError> {
    let (surface, readiness) = (surface.clone(), Arc::clone(readiness));
    let app = move || {
        stack::app(&surface)
            .app_data(web::Data::from(Arc::clone(&readiness)))
            .configure(health::routes)
            .configure(health::metrics_route)
            .configure(operated.clone())
    };
    let plan = Plan {
        name: "admin",
        workers: 1,
        connections: files::ADMIN,
        door,
        idle: Duration::from_secs(server.idle_connection_secs),
        shutdown_secs: 1,
    };
    plan.serve(at, move |http| {
        http.builder().finish(listener::service(app()))
    })
}

/// What other services of the operator's ask.
fn serve_internal(
    server: &Server,
    workers: usize,
    door: Door,
    surface: &Surface,
    readiness: &Arc<dyn Readiness>,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    at: TcpListener,
) -> Result<Listener, BootError> {
    let (surface, readiness) = (surface.clone(), Arc::clone(readiness));
    let app = move || {
        stack::app(&surface)
            .app_data(web::Data::from(Arc::clone(&readiness)))
            .configure(health::routes)
            .configure(routes.clone())
    };
    let plan = Plan {
        name: "internal",
        workers,
        connections: files::INTERNAL,
        door,
        idle: Duration::from_secs(server.idle_connection_secs),
        shutdown_secs: server.shutdown_secs,
    };
    plan.serve(at, move |http| {
        http.builder().finish(listener::service(app()))
    })
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
        connections: connections(graph),
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

/// What the admin listener has for whoever has the admin token.
fn operated(
    settings: &Settings,
    world: &World,
    metrics: &Metrics,
    graph: &Graph,
) -> impl Fn(&mut web::ServiceConfig) + Clone + use<> {
    let access = web::Data::new(AdminAccess::new(
        settings.admin.token.as_ref().map(Secret::expose),
        world.clone(),
        metrics.register(AdminMetrics::register),
    ));
    let graph = web::Data::new(graph.clone());
    move |cfg| {
        cfg.app_data(graph.clone())
            .app_data(access.clone())
            .configure(admin::routes);
    }
}

/// What the internal listener has for other services.
fn for_services(world: &World, graph: &Graph) -> impl Fn(&mut web::ServiceConfig) + Clone + use<> {
    let access = web::Data::new(ServiceAccess::new(world.clone()));
    let graph = web::Data::new(graph.clone());
    move |cfg| {
        cfg.app_data(graph.clone())
            .app_data(access.clone())
            .configure(internal::routes);
    }
}

/// The connections of this node, to be found by an operator.
fn connections(graph: &Graph) -> Connections {
    let all = Connections::new(graph.world.clone());
    graph.directory.add(all.clone());
    all
}

/// The buckets that all nodes share, as limiters ask them.
#[derive(Debug)]
struct Together(SharedLimits);

impl SharedBuckets for Together {
    fn take(&self, key: LimitKey, rate: Rate, cost: u32) -> Option<Verdict> {
        self.0.take(key, rate, cost)
    }

    fn sweep(&self) {
        self.0.sweep();
    }
}

fn together(limits: &SharedLimits) -> Arc<dyn SharedBuckets> {
    Arc::new(Together(limits.clone()))
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
        let mut ends = select_all(self.all.iter_mut().map(|it| &mut it.server));
        let ended: io::Result<()> = loop {
            tokio::select! {
                (result, _, _) = &mut ends => break result,
                _ = sweep.tick() => self.limits.sweep(),
            }
        };
        ended.map_err(io_error("a listener failed"))
    }

    /// Stops accepting, and waits for the requests and sockets in progress.
    pub(super) async fn stop(self) {
        let stopping = join_all(self.all.iter().map(|it| it.handle.stop(true)));
        // The servers' own futures do the work; one that failed before has ended.
        let servers = self.all.into_iter().map(|it| it.server);
        let running = servers.filter(|it| !it.is_terminated());
        join(stopping, join_all(running)).await;
    }
}
