//! Starts the actors that the whole node needs, each with what it works with.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, mpsc};

use super::{
    configs::{login_config, quotas, retention},
    sms_log,
};
use crate::boot::{BootError, patience::patiently, samples};
use crate::{
    actors::{
        identity::{LoginDesks, LoginParts, Pulse, RevocationKeeper, RevocationParts},
        inspector::{self, InspectorMetrics, InspectorParts, Inspectors},
        janitor::{
            HistoryJanitor, HistoryJanitorMetrics, HistoryJanitorParts, JanitorMetrics,
            JanitorParts, SyncLogJanitor,
        },
        kernel::{Caps, Directory, Handle, Kernel, Place, RestartPolicy},
        library::{PublicMetrics, PublicPlaylists},
        nodes::{NodeKeeper, NodeMetrics, NodeParts, Nodes},
        services::{Broadcaster, BroadcasterParts, KeyKeeper, ServiceMetrics, Services},
        session::{SessionParts, Sessions},
        sync::{Attached, CursorKeeper, HeadWatcher, KeeperParts, WatcherParts},
    },
    domain::{clock::World, identity::RevocationSet, ids::NodeId, services::KeyRing},
    settings::Settings,
    store::{Engine, Hint, HintMetrics, LimitMetrics, Redis, Store},
    telemetry::metrics::Metrics,
    upstream::sms::SmsProvider,
};

/// An actor that the whole node needs: told things, asked little.
pub(super) const ROOT: Place = Place {
    caps: Caps {
        commands: 64,
        reads: 64,
    },
    policy: RestartPolicy::ROOT,
};

/// The time between two looks of daily jobs at the clock.
const CLOCK_PERIOD: Duration = Duration::from_secs(5);

/// What other nodes say, for all lives of who hears it.
type Arriving = Arc<Mutex<mpsc::Receiver<Hint>>>;

/// The way to other nodes and from them, if there may be any.
pub(super) fn start_redis(
    settings: &Settings,
    world: &World,
    metrics: &Metrics,
    runtime: &tokio::runtime::Handle,
) -> Result<Option<(Redis, Arriving)>, BootError> {
    let Some(url) = &settings.redis.url else {
        return Ok(None);
    };
    let counted = (
        metrics.register(HintMetrics::register),
        metrics.register(LimitMetrics::register),
    );
    let (redis, arriving) = Redis::start(url.expose(), runtime, world, counted)?;
    samples::of_redis(metrics, redis.clone());
    Ok(Some((redis, Arc::new(Mutex::new(arriving)))))
}

/// Takes this node's place among those on the database, and learns of the others, before anybody is
/// served.
pub(super) async fn join(world: &World, store: &Store) -> Result<Arc<Nodes>, BootError> {
    let id = NodeId(world.uuid()?);
    let now = world.now();
    let nodes = Nodes::new(id, node_name(id), now);
    let own = nodes.own_row(now, 1, [0; 3]);
    let rows = if store.engine() == Engine::Postgres {
        let beat = async |by| Ok(store.node_beat(by, own.clone()).await?);
        patiently(world, beat).await?
    } else {
        vec![own]
    };
    nodes.seen(world.instant(), rows);
    Ok(Arc::new(nodes))
}

/// A name for this process that no other has: its start's id.
pub(super) fn node_name(id: NodeId) -> String {
    let id = id.0.simple().to_string();
    // The end of a UUID v7 is its random part.
    format!("node-{}", &id[id.len() - 8..])
}

/// Nothing that could still be presented may be missing before the first token is checked: all that is
/// stored, because tokens made before the setting was lowered live longer than it says.
pub(super) async fn revocations(
    store: &Store,
    world: &World,
    since: DateTime<Utc>,
) -> Result<Arc<RevocationSet>, BootError> {
    let revocations = Arc::<RevocationSet>::default();
    let read = async |by| Ok(store.revocations_since(by, since).await?);
    for it in patiently(world, read).await? {
        revocations.add(&it);
    }
    Ok(revocations)
}

pub(super) fn start_cursors(
    kernel: &Kernel,
    settings: &Settings,
    metrics: &Metrics,
    store: &Store,
    attached: Arc<Attached>,
    sessions: Arc<OnceLock<Sessions>>,
) -> Handle<CursorKeeper> {
    let parts = KeeperParts {
        store: store.clone(),
        attached,
        sessions,
        metrics: Arc::clone(&metrics.sync),
        period: Duration::from_millis(settings.sync.cursor_flush_ms),
    };
    kernel.start(ROOT, move || CursorKeeper::new(parts.clone()))
}

pub(super) fn start_nodes(
    kernel: &Kernel,
    metrics: &Metrics,
    store: &Store,
    sessions: &Sessions,
    attached: Arc<Attached>,
    nodes: Arc<Nodes>,
) -> Handle<NodeKeeper> {
    let parts = NodeParts {
        store: store.clone(),
        sessions: sessions.clone(),
        attached,
        nodes,
        metrics: metrics.register(NodeMetrics::register),
        sockets: NodeParts::sockets(&metrics.sockets),
    };
    kernel.start(ROOT, move || NodeKeeper::new(parts.clone()))
}

pub(super) fn start_janitor(
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

pub(super) fn start_history_janitor(
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
pub(super) fn start_public(
    kernel: &Kernel,
    metrics: &Metrics,
    store: &Store,
) -> Handle<PublicPlaylists> {
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

pub(super) fn start_revocations(
    kernel: &Kernel,
    parts: &SessionParts,
    sessions: &Sessions,
    (pulse, since): (&Arc<Pulse>, DateTime<Utc>),
) -> Handle<RevocationKeeper> {
    let parts = RevocationParts {
        store: parts.store.clone(),
        sessions: sessions.clone(),
        attached: Arc::clone(&parts.attached),
        published: Arc::clone(&parts.revocations),
        pulse: Arc::clone(pulse),
        trust: Arc::clone(&parts.trust),
        since,
    };
    kernel.start(ROOT, move || RevocationKeeper::new(parts.clone()))
}

pub(super) fn start_heads(
    kernel: &Kernel,
    settings: &Settings,
    parts: &SessionParts,
    sessions: &Sessions,
    (revoked, arriving): (&Handle<RevocationKeeper>, Option<Arriving>),
) -> Handle<HeadWatcher> {
    let parts = WatcherParts {
        store: parts.store.clone(),
        sessions: sessions.clone(),
        attached: Arc::clone(&parts.attached),
        revoked: revoked.clone(),
        hints: parts.hints.clone().zip(arriving),
        period: Duration::from_millis(settings.sync.head_check_ms),
    };
    kernel.start(ROOT, move || HeadWatcher::new(parts.clone()))
}

pub(super) fn start_login(
    kernel: &Kernel,
    settings: &Settings,
    parts: &SessionParts,
    sessions: &Sessions,
) -> LoginDesks {
    let parts = LoginParts {
        store: parts.store.clone(),
        sessions: sessions.clone(),
        revocations: Arc::clone(&parts.revocations),
        secrets: Arc::clone(&parts.secrets),
        hints: parts.hints.clone(),
        sms: SmsProvider::console(sms_log(settings)),
        config: login_config(settings),
    };
    LoginDesks::start(kernel, &parts)
}

/// What other services are served with, with their keys already read.
pub(super) async fn start_services(
    kernel: &Kernel,
    (settings, world, metrics): (&Settings, &World, &Metrics),
    parts: &SessionParts,
    sessions: &Sessions,
) -> Result<Services, BootError> {
    let parts = BroadcasterParts {
        store: parts.store.clone(),
        sessions: sessions.clone(),
        hints: parts.hints.clone(),
        metrics: metrics.register(ServiceMetrics::register),
        draining: Arc::clone(&parts.draining),
        node: parts.config.node.clone(),
        quotas: quotas(settings),
    };
    let keys = Arc::<KeyRing>::default();
    let serves = settings.server.internal_listen.is_some();
    if serves {
        let read = async |by| Ok((world.instant(), parts.store.api_key_list(by).await?));
        let (as_of, all) = patiently(world, read).await?;
        keys.publish(all, as_of);
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

/// It is started when it is first asked.
pub(super) fn start_inspector(
    kernel: Kernel,
    metrics: &Metrics,
    directory: &Directory,
) -> Inspectors {
    let parts = InspectorParts {
        directory: directory.clone(),
        sockets: metrics.sockets.clone(),
        metrics: metrics.register(InspectorMetrics::register),
    };
    let inspectors = inspector::inspectors(kernel, parts);
    directory.add(inspectors.clone());
    inspectors
}
