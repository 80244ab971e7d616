//! Puts the actor graph together.

mod configs;
mod roots;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use chrono::DateTime;

pub(super) use self::configs::seconds;
use self::{
    configs::{retention, session_config},
    roots::{
        join, start_cursors, start_heads, start_history_janitor, start_inspector, start_janitor,
        start_login, start_nodes, start_public, start_redis, start_revocations, start_services,
    },
};
use super::{BootError, samples};
use crate::{
    actors::{
        Graph,
        identity::Pulse,
        kernel::{Directory, Kernel, KernelMetrics, Singles},
        session::{self, SessionParts, Sessions},
        sync::Attached,
    },
    domain::{clock::World, identity::Secrets},
    settings::Settings,
    store::{Redis, Store},
    telemetry::metrics::Metrics,
};

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
    let attached = Arc::<Attached>::default();
    let since = DateTime::UNIX_EPOCH;
    let revocations = roots::revocations(store, world, since).await?;
    let trust = Arc::new(configs::trust(settings, world));
    let nodes = join(world, store).await?;
    let (redis, arriving) = start_redis(settings, world, metrics, runtime)?.unzip();
    let hints = redis.as_ref().map(|it: &Redis| it.hints.clone());
    samples::of_devices(metrics, Arc::clone(&attached), world.clone());
    samples::of_store(metrics, store.clone(), runtime.clone());
    samples::of_nodes(
        metrics,
        Arc::clone(&nodes),
        Arc::clone(&trust),
        world.clone(),
    );
    let draining = Arc::new(AtomicBool::new(false));
    let told = Arc::<OnceLock<Sessions>>::default();
    let cursors = {
        let (attached, sessions) = (Arc::clone(&attached), Arc::clone(&told));
        start_cursors(&kernel, settings, metrics, store, attached, sessions)
    };
    let janitor = start_janitor(&kernel, settings, metrics, store);
    let histories = start_history_janitor(&kernel, settings, metrics, store);
    let public = start_public(&kernel, metrics, store);
    let parts = SessionParts {
        store: store.clone(),
        cursors: cursors.clone(),
        janitor: janitor.clone(),
        public: public.clone(),
        attached: Arc::clone(&attached),
        revocations: Arc::clone(&revocations),
        secrets: Arc::clone(&secrets),
        trust: Arc::clone(&trust),
        nodes: Arc::clone(&nodes),
        hints: hints.clone(),
        metrics: Arc::clone(&metrics.sync),
        draining: Arc::clone(&draining),
        config: session_config(settings, nodes.name().to_owned()),
        retention: retention(settings),
        max_plays: settings.history.max_plays,
        idle: Duration::from_secs(settings.sync.idle_secs),
        access_life,
    };
    let sessions = session::sessions(kernel.clone(), parts.clone());
    told.get_or_init(|| sessions.clone());
    let pulse = Arc::new(Pulse::new(world.instant()));
    let revoked = start_revocations(&kernel, &parts, &sessions, (&pulse, since));
    let heads = start_heads(&kernel, settings, &parts, &sessions, (&revoked, arriving));
    let beating = start_nodes(&kernel, metrics, store, &sessions, attached, nodes);
    let login = start_login(&kernel, settings, &parts, &sessions);
    let services = start_services(&kernel, (settings, world, metrics), &parts, &sessions).await?;
    let directory = Directory::default();
    directory.add(sessions.clone());
    directory.add(login.all());
    directory.add(Singles::one(&cursors));
    directory.add(Singles::one(&heads));
    directory.add(Singles::one(&revoked));
    directory.add(Singles::one(&janitor));
    directory.add(Singles::one(&histories));
    directory.add(Singles::one(&public));
    directory.add(Singles::one(&services.keeper));
    directory.add(Singles::one(&services.broadcaster));
    directory.add(Singles::one(&beating));
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
        trust,
        draining,
        services,
        public,
        redis,
        nodes: beating,
        cursors,
        heads,
        revoked,
    })
}
