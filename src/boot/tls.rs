//! The certificate in force: read at the start, and again when its files change.
//!
//! Owns when they are looked at and what is said of it. What changed is taken for the handshakes to
//! come; open connections stay as they are. A pair that cannot be used changes nothing but the log
//! and a count. Files are read on the store's threads: reading blocks, and an arbiter must not.

use std::{convert::Infallible, future::pending, io, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    runtime::Handle,
    signal::unix::Signal,
    time::{MissedTickBehavior, interval},
};

use super::{
    BootError,
    certificate::{Pair, PemFiles, Validity},
    io_error, sentence,
};
use crate::{
    domain::clock::World,
    http::transport::Encryption,
    settings::{Finding, Server},
    telemetry::metrics::Metrics,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

const TAKEN: ResultLabels = ResultLabels { result: "ok" };
const REFUSED: ResultLabels = ResultLabels { result: "failed" };

#[derive(Debug, Clone, Default)]
struct TlsMetrics {
    reloads: Family<ResultLabels, Counter>,
    expiry: Gauge,
}

impl TlsMetrics {
    fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        // Both are there from the start, so that a first failure is seen as a change.
        it.reloads.get_or_create(&TAKEN).inc_by(0);
        it.reloads.get_or_create(&REFUSED).inc_by(0);
        registry.register(
            "tls_reloads",
            "Changes of the certificate's files that were noticed",
            it.reloads.clone(),
        );
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate in force expires, in seconds since 1970",
            it.expiry.clone(),
        );
        it
    }
}

/// The certificate in force and its files.
pub(super) struct Tls {
    /// What listeners encrypt with.
    pub encryption: Encryption,
    files: PemFiles,
    every: Duration,
    /// What the files held when they were last taken or refused.
    judged: [u8; 32],
    /// What they held when they were last looked at, if that is new and may not be whole.
    suspect: Option<[u8; 32]>,
    /// For how long the certificate in force holds.
    validity: Option<Validity>,
    /// What was judged was refused for its time only, which passes.
    untimely: bool,
    metrics: TlsMetrics,
    world: World,
    threads: Handle,
}

/// Why the files are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Time,
    Signal,
}

type Look = ([u8; 32], Result<Pair, Vec<Finding>>);

impl Tls {
    /// Reads the files that the settings name, if they do.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(super) async fn open(
        server: &Server,
        world: &World,
        metrics: &Metrics,
        threads: &Handle,
    ) -> Result<Option<Self>, BootError> {
        let Some(files) = PemFiles::of(server) else {
            return Ok(None);
        };
        let (judged, pair) = look(threads, files.clone()).await?;
        let pair = pair.map_err(BootError::Findings)?;
        let metrics = metrics.register(TlsMetrics::register);
        let it = Self {
            encryption: Encryption::new(pair.config),
            files,
            every: Duration::from_millis(server.tls_check_ms),
            judged,
            suspect: None,
            validity: pair.validity,
            untimely: false,
            metrics,
            world: world.clone(),
            threads: threads.clone(),
        };
        it.tell_validity(pair.validity);
        Ok(Some(it))
    }

    /// Takes what is new, at each look.
    async fn watch(mut self, mut hangup: Signal) -> Infallible {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let cause = tokio::select! {
                _ = ticks.tick() => Cause::Time,
                Some(()) = hangup.recv() => Cause::Signal,
            };
            match look(&self.threads, self.files.clone()).await {
                Ok(look) => self.judge(look, cause),
                // The threads are gone: so is the server.
                Err(error) => tracing::warn!(%error, "the certificate's files were not read"),
            }
        }
    }

    fn judge(&mut self, (digest, pair): Look, cause: Cause) {
        let suspect = self.suspect.take();
        let is_known = digest == self.judged;
        if is_known && cause == Cause::Time && !self.untimely {
            return;
        }
        // Two files never change at one moment, and may be written piece by piece, also so that a
        // piece looks whole: what is there still at the next look is meant.
        if !is_known && cause == Cause::Time && suspect != Some(digest) {
            self.suspect = Some(digest);
            return;
        }
        match pair {
            Ok(_) if is_known && !self.untimely => {
                tracing::info!("SIGHUP: the certificate's files have not changed");
            }
            Ok(pair) => {
                if let Some(problem) = self.untimely(pair.validity) {
                    if !is_known || cause == Cause::Signal {
                        self.refuse(digest, &problem);
                    }
                    self.untimely = true;
                    return;
                }
                self.encryption.replace(pair.config);
                (self.validity, self.untimely) = (pair.validity, false);
                self.judged = digest;
                self.metrics.reloads.get_or_create(&TAKEN).inc();
                tracing::info!("the certificate's files have changed: new connections get it");
                self.tell_validity(pair.validity);
            }
            Err(found) => {
                self.untimely = false;
                self.refuse(digest, &sentence(&found, "; "));
            }
        }
    }

    /// Why a pair is worse than the one in force: clients would refuse it, and do not refuse this one.
    fn untimely(&self, new: Option<Validity>) -> Option<String> {
        let now = self.world.now();
        let refusal = |validity: Option<Validity>| validity.and_then(|it| it.refusal(now));
        refusal(new).filter(|_| refusal(self.validity).is_none())
    }

    fn refuse(&mut self, digest: [u8; 32], problem: &str) {
        self.judged = digest;
        self.metrics.reloads.get_or_create(&REFUSED).inc();
        tracing::warn!(
            problem,
            "the certificate's files cannot be used: the old one stays"
        );
    }

    fn tell_validity(&self, validity: Option<Validity>) {
        let Some(validity) = validity else {
            self.metrics.expiry.set(0);
            tracing::warn!("cannot tell when the certificate expires");
            return;
        };
        self.metrics.expiry.set(validity.until.timestamp());
        if let Some(refusal) = validity.refusal(self.world.now()) {
            tracing::warn!("clients will refuse {refusal}");
        }
    }
}

/// Keeps the certificate that of its files, and hears SIGHUP, which must not end the server, also
/// where there are none.
pub(super) async fn keep(tls: Option<Tls>, mut hangup: Signal) -> Infallible {
    if let Some(tls) = tls {
        return tls.watch(hangup).await;
    }
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: there is no certificate to read again");
    }
    pending().await
}

async fn look(threads: &Handle, files: PemFiles) -> Result<Look, BootError> {
    let look = move || {
        let content = files.read();
        (content.digest(), content.pair())
    };
    let look = threads.spawn_blocking(look).await.map_err(io::Error::other);
    look.map_err(io_error("cannot read the certificate's files"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use tempfile::TempDir;

    use super::*;
    use crate::settings::{Overrides, Settings};

    async fn tls(folder: &Path) -> Tls {
        let (cert, key) = (folder.join("crt"), folder.join("key"));
        let lines = format!(
            "[server]\ntls_cert_file = \"{}\"\ntls_key_file = \"{}\"\n",
            cert.display(),
            key.display()
        );
        fs::write(folder.join("listen-stream.toml"), lines).unwrap();
        let settings = Settings::load(&Overrides::new(folder)).unwrap();
        let (world, metrics) = (World::system(), Metrics::new());
        let tls = Tls::open(&settings.server, &world, &metrics, &Handle::current()).await;
        tls.unwrap().unwrap()
    }

    fn write(folder: &Path, half: bool) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let cert = if half { &cert[..cert.len() / 2] } else { &cert };
        fs::write(folder.join("crt"), cert).unwrap();
        fs::write(folder.join("key"), key).unwrap();
    }

    async fn look_once(tls: &mut Tls, cause: Cause) -> (u64, u64) {
        let seen = look(&tls.threads, tls.files.clone()).await.unwrap();
        tls.judge(seen, cause);
        let count = |labels| tls.metrics.reloads.get_or_create(labels).get();
        (count(&TAKEN), count(&REFUSED))
    }

    #[tokio::test]
    async fn what_may_be_half_written_is_looked_at_twice() {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        write(folder, false);
        let mut tls = tls(folder).await;
        assert_eq!(look_once(&mut tls, Cause::Time).await, (0, 0));
        // Whole before the next look: nobody hears of it.
        write(folder, true);
        assert_eq!(look_once(&mut tls, Cause::Time).await, (0, 0));
        write(folder, false);
        // A piece may look whole.
        assert_eq!(look_once(&mut tls, Cause::Time).await, (0, 0));
        assert_eq!(look_once(&mut tls, Cause::Time).await, (1, 0));
        // Still being written, and then left so.
        write(folder, true);
        assert_eq!(look_once(&mut tls, Cause::Time).await, (1, 0));
        write(folder, true);
        assert_eq!(look_once(&mut tls, Cause::Time).await, (1, 0));
        for _ in 0..3 {
            assert_eq!(look_once(&mut tls, Cause::Time).await, (1, 1));
        }
        // Who asks is answered at once.
        assert_eq!(look_once(&mut tls, Cause::Signal).await, (1, 2));
        write(folder, true);
        assert_eq!(look_once(&mut tls, Cause::Signal).await, (1, 3));
        write(folder, false);
        assert_eq!(look_once(&mut tls, Cause::Signal).await, (2, 3));
        assert_eq!(look_once(&mut tls, Cause::Signal).await, (2, 3));
    }

    #[tokio::test]
    async fn the_old_pair_is_taken_again_when_it_comes_back() {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        write(folder, false);
        let mut tls = tls(folder).await;
        let old = fs::read(folder.join("key")).unwrap();
        fs::remove_file(folder.join("key")).unwrap();
        assert_eq!(look_once(&mut tls, Cause::Signal).await, (0, 1));
        fs::write(folder.join("key"), old).unwrap();
        assert_eq!(look_once(&mut tls, Cause::Time).await, (0, 1));
        assert_eq!(look_once(&mut tls, Cause::Time).await, (1, 1));
    }

    fn write_holding(folder: &Path, from: i32, until: i32) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        fs::write(folder.join("crt"), cert.pem()).unwrap();
        fs::write(folder.join("key"), key.serialize_pem()).unwrap();
    }

    #[tokio::test]
    async fn a_pair_out_of_its_time_replaces_no_good_one() {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        write(folder, false);
        let mut tls = tls(folder).await;
        for (n, (from, until)) in [(2020, 2021), (2098, 2099)].into_iter().enumerate() {
            let n = n as u64;
            write_holding(folder, from, until);
            for refused in [n, n + 1, n + 1, n + 1] {
                assert_eq!(look_once(&mut tls, Cause::Time).await, (0, refused));
            }
        }
        assert_eq!(look_once(&mut tls, Cause::Signal).await, (0, 3));
        // As if the one in force had expired since: now the other is no worse, and is what is meant.
        tls.validity = tls.validity.map(|it| Validity {
            until: it.from,
            ..it
        });
        assert_eq!(look_once(&mut tls, Cause::Time).await, (1, 3));
        assert_eq!(look_once(&mut tls, Cause::Time).await, (1, 3));
    }
}
