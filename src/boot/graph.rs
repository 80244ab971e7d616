//! Puts the actor graph together.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use chrono::TimeDelta;

use super::{BootError, START_BUDGET};
use crate::{
    actors::{
        Graph,
        identity::{LoginConfig, LoginDesks, LoginParts, Pulse, RevocationKeeper},
        kernel::{Caps, Kernel, KernelMetrics, Place, RestartPolicy},
        session::{self, SessionParts},
        sync::{Attached, CursorKeeper, HeadWatcher},
    },
    domain::{
        clock::World,
        identity::{RevocationSet, Secrets},
        sync::SessionConfig,
    },
    settings::Settings,
    store::{Engine, Store},
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
) -> Result<Graph, BootError> {
    let kernel = Kernel::new(world.clone(), metrics.register(KernelMetrics::register));
    let access_life = seconds(settings.auth.access_token_secs);
    let (attached, revocations) = (Arc::<Attached>::default(), Arc::<RevocationSet>::default());

    // Nothing that could still be presented may be missing before the first token is checked.
    let since = world.now() - access_life - TimeDelta::minutes(1);
    for it in store
        .revocations_since(world.instant() + START_BUDGET, since)
        .await?
    {
        revocations.add(&it);
    }

    let cursors = {
        let (store, period) = (store.clone(), millis(settings.sync.cursor_flush_ms));
        kernel.start(ROOT, move || CursorKeeper::new(store.clone(), period))
    };
    let parts = SessionParts {
        store: store.clone(),
        cursors: cursors.clone(),
        attached: Arc::clone(&attached),
        revocations: Arc::clone(&revocations),
        secrets: Arc::clone(&secrets),
        config: SessionConfig {
            node: node_name(world)?,
            window: settings.sync.window_events,
            heartbeat: Duration::from_secs(settings.sync.heartbeat_secs),
            heartbeat_timeout: Duration::from_secs(settings.sync.heartbeat_timeout_secs),
        },
        idle: Duration::from_secs(settings.sync.idle_secs),
        access_life,
    };
    let sessions = session::sessions(kernel.clone(), parts);
    let heads = {
        let (store, sessions, attached) = (store.clone(), sessions.clone(), Arc::clone(&attached));
        // With one process there is nobody else who could write: only a lost hint is to be found.
        let slower = if store.engine() == Engine::Sqlite {
            5
        } else {
            1
        };
        let period = millis(settings.sync.head_check_ms) * slower;
        kernel.start(ROOT, move || {
            HeadWatcher::new(
                store.clone(),
                sessions.clone(),
                Arc::clone(&attached),
                period,
            )
        })
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
    let login = LoginDesks::start(
        &kernel,
        &LoginParts {
            store: store.clone(),
            sessions: sessions.clone(),
            revocations: Arc::clone(&revocations),
            secrets: Arc::clone(&secrets),
            sms: SmsProvider::console(sms_log(settings)),
            config: LoginConfig {
                code_life: seconds(settings.auth.sms_code_secs),
                code_tries: i64::from(settings.auth.sms_tries),
                resend: seconds(settings.sms.resend_secs),
                access_life,
                max_devices: settings.auth.max_devices as usize,
            },
        },
    );
    Ok(Graph {
        sessions,
        login,
        revocations,
        secrets,
        world: world.clone(),
        pulse,
        draining: Arc::new(AtomicBool::new(false)),
        cursors,
        heads,
        revoked,
    })
}

/// A name for this process that no other has: its start's id.
fn node_name(world: &World) -> Result<String, BootError> {
    let id = world.uuid()?.simple().to_string();
    // The end of a UUID v7 is its random part.
    Ok(format!("node-{}", &id[id.len() - 8..]))
}

fn seconds(n: u64) -> TimeDelta {
    i64::try_from(n)
        .ok()
        .and_then(TimeDelta::try_seconds)
        .unwrap_or(TimeDelta::MAX)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
