//! Puts the actor graph together.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use chrono::{DateTime, TimeDelta};
use tokio::sync::{Mutex, mpsc};

use super::{BootError, START_BUDGET, samples};
use crate::{
    actors::{
        Graph,
        identity::{LoginConfig, LoginDesks, LoginParts, Pulse, RevocationKeeper},
        inspector::{self, InspectorMetrics, InspectorParts, Inspectors},
        janitor::{
            HistoryJanitor, HistoryJanitorMetrics, HistoryJanitorParts, JanitorMetrics,
            JanitorParts, SyncLogJanitor,
        },
        kernel::{Caps, Directory, Handle, Kernel, KernelMetrics, Place, RestartPolicy, Singles},
        library::{PublicMetrics, PublicPlaylists},
        services::{Broadcaster, BroadcasterParts, KeyKeeper, ServiceMetrics, Services},
        session::{self, SessionParts, Sessions},
        sync::{Attached, CursorKeeper, HeadWatcher, KeeperParts, WatcherParts},
    },
    domain::{
        clock::World,
        identity::{RevocationSet, Secrets},
        services::{KeyRing, Quotas},
        sync::{Retention, SessionConfig, Window},
    },
    settings::Settings,
    store::{Hint, HintMetrics, Hints, Store},
    telemetry::metrics::Metrics,
    upstream::sms::SmsProvider,
};

/// An actor that the whole node needs: told things, asked little.
const ROOT: Place = Place {
    caps: Caps {
        commands: 64,
        reads: 64,
    },
    policy: RestartPolicy::ROOT,
};

/// Frames that a connection may have left unread before signals to it are dropped.
const SIDE_FRAMES: usize = 64;

/// The time between two looks of daily jobs at the clock.
const CLOCK_PERIOD: Duration = Duration::from_secs(5);

/// Where the development SMS provider writes.
pub(super) fn sms_log(settings: &Settings) -> PathBuf {
    settings.data_dir.join("dev-sms.log")
}

/// Starts the actors that the whole node needs, with the revocations in force already read.
pub(super) async fn start(
    settings: &Settings,
    world: &World,
    metrics: &Metrics,
    store: &Store,
    secrets: Arc<Secrets>,
    runtime: &tokio::runtime::Handle,
) -> Result<Graph, BootError> {
    let kernel = Kernel::new(world.clone(), metrics.register(KernelMetrics::register));
    let access_life = seconds(settings.auth.access_token_secs);
    let (attached, revocations) = (Arc::<Attached>::default(), Arc::<RevocationSet>::default());

    // Nothing that could still be presented may be missing before the first token is checked: all
    // that is stored, because tokens made before the setting was lowered live longer than it says.
    let since = DateTime::UNIX_EPOCH;
    let soon = world.instant() + START_BUDGET;
    for it in store.revocations_since(soon, since).await? {
        revocations.add(&it);
    }

    let (hints, arriving) = start_hints(settings, metrics, runtime)?.unzip();
    samples::of_devices(metrics, Arc::clone(&attached), world.clone());
    samples::of_store(metrics, store.clone(), runtime.clone());
    let draining = Arc::new(AtomicBool::new(false));
    let told = Arc::<OnceLock<Sessions>>::default();
    let keeper = KeeperParts {
        store: store.clone(),
        attached: Arc::clone(&attached),
        sessions: Arc::clone(&told),
        metrics: Arc::clone(&metrics.sync),
        period: Duration::from_millis(settings.sync.cursor_flush_ms),
    };
    let cursors = kernel.start(ROOT, move || CursorKeeper::new(keeper.clone()));
    let janitor = start_janitor(&kernel, settings, metrics, store);
    let histories = start_history_janitor(&kernel, settings, metrics, store);
    let public = start_public(&kernel, metrics, store);
    let node = node_name(world)?;
    let parts = SessionParts {
        store: store.clone(),
        cursors: cursors.clone(),
        janitor: janitor.clone(),
        public: public.clone(),
        attached: Arc::clone(&attached),
        revocations: Arc::clone(&revocations),
        secrets: Arc::clone(&secrets),
        hints: hints.clone(),
        metrics: Arc::clone(&metrics.sync),
        draining: Arc::clone(&draining),
        config: session_config(settings, node.clone()),
        retention: retention(settings),
        max_plays: settings.history.max_plays,
        idle: Duration::from_secs(settings.sync.idle_secs),
        access_life,
    };
    let sessions = session::sessions(kernel.clone(), parts);
    told.get_or_init(|| sessions.clone());
    let heads = {
        let parts = WatcherParts {
            store: store.clone(),
            sessions: sessions.clone(),
            attached: Arc::clone(&attached),
            hints: hints
                .clone()
                .zip(arriving.map(|it| Arc::new(Mutex::new(it)))),
            period: Duration::from_millis(settings.sync.head_check_ms),
        };
        kernel.start(ROOT, move || HeadWatcher::new(parts.clone()))
    };
    let pulse = Arc::new(Pulse::new(world.instant()));
    let revoked = {
        let (store, sessions) = (store.clone(), sessions.clone());
        let (revocations, pulse) = (Arc::clone(&revocations), Arc::clone(&pulse));
        kernel.start(ROOT, move || {
            let (attached, revocations) = (Arc::clone(&attached), Arc::clone(&revocations));
            let (store, sessions) = (store.clone(), sessions.clone());
            RevocationKeeper::new(
                store,
                sessions,
                attached,
                revocations,
                Arc::clone(&pulse),
                since,
            )
        })
    };
    let parts = LoginParts {
        store: store.clone(),
        sessions: sessions.clone(),
        revocations: Arc::clone(&revocations),
        secrets: Arc::clone(&secrets),
        sms: SmsProvider::console(sms_log(settings)),
        config: login_config(settings),
    };
    let login = LoginDesks::start(&kernel, &parts);
    let parts = BroadcasterParts {
        store: store.clone(),
        sessions: sessions.clone(),
        hints: hints.clone(),
        metrics: metrics.register(ServiceMetrics::register),
        draining: Arc::clone(&draining),
        node,
        quotas: quotas(settings),
    };
    let services = start_services(&kernel, settings, world, parts).await?;
    let directory = Directory::default();
    directory.add(sessions.clone());
    directory.add(login.all());
    add_roots(&directory, &cursors, &heads, &revoked, &janitor);
    directory.add(Singles::one(&histories));
    directory.add(Singles::one(&public));
    directory.add(Singles::one(&services.keeper));
    directory.add(Singles::one(&services.broadcaster));
    let inspectors = start_inspector(kernel, metrics, &directory);
    Ok(Graph {
        directory,
        inspectors,
        sessions,
        login,
        revocations,
        secrets,
        world: world.clone(),
        pulse,
        draining,
        services,
        hints,
        public,
        cursors,
        heads,
        revoked,
    })
}

/// The way to other nodes and from them, if there may be any.
fn start_hints(
    settings: &Settings,
    metrics: &Metrics,
    runtime: &tokio::runtime::Handle,
) -> Result<Option<(Hints, mpsc::Receiver<Hint>)>, BootError> {
    let Some(url) = &settings.redis.url else {
        return Ok(None);
    };
    let counted = metrics.register(HintMetrics::register);
    let (hints, arriving) = Hints::start(url.expose(), runtime, counted)?;
    samples::of_redis(metrics, hints.clone());
    Ok(Some((hints, arriving)))
}

fn session_config(settings: &Settings, node: String) -> SessionConfig {
    let sync = &settings.sync;
    SessionConfig {
        node,
        window: Window {
            events: sync.window_events,
            bytes: sync.window_bytes,
        },
        heartbeat: Duration::from_secs(sync.heartbeat_secs),
        heartbeat_timeout: Duration::from_secs(sync.heartbeat_timeout_secs),
        progress_timeout: Duration::from_secs(sync.progress_timeout_secs),
        signals_per_second: sync.signals_per_second,
        side_frames: SIDE_FRAMES,
    }
}

fn retention(settings: &Settings) -> Retention {
    let sync = &settings.sync;
    Retention {
        max_age: TimeDelta::days(sync.retention_days.into()),
        min_age: TimeDelta::hours(sync.retention_min_hours.into()),
        max_events: sync.retention_max_events.into(),
        min_events: sync.retention_min_events.into(),
    }
}

fn start_janitor(
    kernel: &Kernel,
    settings: &Settings,
    metrics: &Metrics,
    store: &Store,
) -> Handle<SyncLogJanitor> {
    let parts = JanitorParts {
        store: store.clone(),
        metrics: metrics.register(JanitorMetrics::register),
        rule: retention(settings),
        period: Duration::from_millis(settings.sync.trim_interval_ms),
    };
    kernel.start(ROOT, move || SyncLogJanitor::new(parts.clone()))
}

fn start_history_janitor(
    kernel: &Kernel,
    settings: &Settings,
    metrics: &Metrics,
    store: &Store,
) -> Handle<HistoryJanitor> {
    let parts = HistoryJanitorParts {
        store: store.clone(),
        metrics: metrics.register(HistoryJanitorMetrics::register),
        daily: settings.history.cleanup,
        keep: settings.history.max_plays,
        period: CLOCK_PERIOD,
    };
    kernel.start(ROOT, move || HistoryJanitor::new(parts.clone()))
}

/// Asked by everybody who has a link.
fn start_public(kernel: &Kernel, metrics: &Metrics, store: &Store) -> Handle<PublicPlaylists> {
    let place = Place {
        caps: Caps {
            commands: 1,
            reads: 1024,
        },
        policy: RestartPolicy::ROOT,
    };
    let (store, counted) = (store.clone(), metrics.register(PublicMetrics::register));
    kernel.start(place, move || {
        PublicPlaylists::new(store.clone(), counted.clone())
    })
}

fn quotas(settings: &Settings) -> Quotas {
    Quotas {
        of_key: settings.services.events_per_hour.into(),
        of_user: settings.services.user_events_per_hour.into(),
    }
}

/// What other services are served with, with their keys already read.
async fn start_services(
    kernel: &Kernel,
    settings: &Settings,
    world: &World,
    parts: BroadcasterParts,
) -> Result<Services, BootError> {
    let keys = Arc::<KeyRing>::default();
    let serves = settings.server.internal_listen.is_some();
    if serves {
        let as_of = world.instant();
        keys.publish(parts.store.api_key_list(as_of + START_BUDGET).await?, as_of);
    }
    let keeper = {
        let (store, keys) = (parts.store.clone(), Arc::clone(&keys));
        kernel.start(ROOT, move || {
            KeyKeeper::new(store.clone(), Arc::clone(&keys), serves)
        })
    };
    let (metrics, quotas) = (parts.metrics.clone(), parts.quotas);
    Ok(Services {
        keys,
        keeper,
        broadcaster: kernel.start(ROOT, move || Broadcaster::new(parts.clone())),
        metrics,
        quotas,
    })
}

fn add_roots(
    to: &Directory,
    cursors: &Handle<CursorKeeper>,
    heads: &Handle<HeadWatcher>,
    revoked: &Handle<RevocationKeeper>,
    janitor: &Handle<SyncLogJanitor>,
) {
    to.add(Singles::one(cursors));
    to.add(Singles::one(heads));
    to.add(Singles::one(revoked));
    to.add(Singles::one(janitor));
}

/// It is started when it is first asked.
fn start_inspector(kernel: Kernel, metrics: &Metrics, directory: &Directory) -> Inspectors {
    let parts = InspectorParts {
        directory: directory.clone(),
        sockets: metrics.sockets.clone(),
        metrics: metrics.register(InspectorMetrics::register),
    };
    let inspectors = inspector::inspectors(kernel, parts);
    directory.add(inspectors.clone());
    inspectors
}

fn login_config(settings: &Settings) -> LoginConfig {
    let auth = &settings.auth;
    LoginConfig {
        code_life: seconds(auth.sms_code_secs),
        code_tries: i64::from(auth.sms_tries),
        resend: seconds(settings.sms.resend_secs),
        codes_per_hour: i64::from(settings.sms.codes_per_hour),
        access_life: seconds(auth.access_token_secs),
        max_devices: auth.max_devices as usize,
    }
}

/// A name for this process that no other has: its start's id.
fn node_name(world: &World) -> Result<String, BootError> {
    let id = world.uuid()?.simple().to_string();
    // The end of a UUID v7 is its random part.
    Ok(format!("node-{}", &id[id.len() - 8..]))
}

pub(super) fn seconds(n: u64) -> TimeDelta {
    i64::try_from(n)
        .ok()
        .and_then(TimeDelta::try_seconds)
        .unwrap_or(TimeDelta::MAX)
}
