//! The files with the certificate and its key: read, and judged as a pair.
//!
//! Owns what can be wrong with them, in words for the operator. Reads block: never on a thread that
//! serves. Keeps nothing, and shows nothing of a key.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::settings::{Finding, ProblemKind, Server};

pub(super) const CERT: &str = "server.tls_cert_file";
pub(super) const KEY: &str = "server.tls_key_file";
/// More than any chain; keeps a mistaken path to something huge from being read whole.
const MAX_BYTES: u64 = 1024 * 1024;
const A_CERTIFICATE: &str = "a readable PEM file with the certificate and those that vouch for it";
const A_KEY: &str = "a readable PEM file with the certificate's key";

/// Where the pair is.
#[derive(Debug, Clone)]
pub(super) struct PemFiles {
    cert: PathBuf,
    key: PathBuf,
}

/// What was read of the two files.
pub(super) struct Content {
    files: PemFiles,
    cert: io::Result<Vec<u8>>,
    key: io::Result<Vec<u8>>,
}

/// A certificate and a key that go together.
pub(super) struct Pair {
    /// What handshakes are made with.
    pub config: ServerConfig,
    /// When the certificate holds, if it can be told.
    pub validity: Option<Validity>,
}

/// The time for which a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    /// Its first moment.
    pub from: DateTime<Utc>,
    /// Its last moment.
    pub until: DateTime<Utc>,
}

impl PemFiles {
    /// The files that the settings name, if they do.
    pub(super) fn of(server: &Server) -> Option<Self> {
        Some(Self {
            cert: server.tls_cert_file.clone()?,
            key: server.tls_key_file.clone()?,
        })
    }

    /// Reads both, wherever links lead now.
    pub(super) fn read(self) -> Content {
        let (cert, key) = (read(&self.cert), read(&self.key));
        Content {
            files: self,
            cert,
            key,
        }
    }
}

impl Content {
    /// Tells two contents apart without keeping either.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut all = Sha256::new();
        for file in [&self.cert, &self.key] {
            let text = match file {
                Ok(text) => Sha256::digest(text),
                Err(e) => Sha256::digest(format!("{:?} {e}", e.kind())),
            };
            all.update([u8::from(file.is_ok())]);
            all.update(text);
        }
        all.finalize().into()
    }

    /// The pair.
    ///
    /// # Errors
    /// All that is wrong with the files.
    pub(super) fn pair(&self) -> Result<Pair, Vec<Finding>> {
        let (certs, key) = match (self.certs(), self.key()) {
            (Ok(certs), Ok(key)) => (certs, key),
            (certs, key) => return Err(certs.err().into_iter().chain(key.err()).collect()),
        };
        let validity = certs.first().and_then(validity);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|it| it.with_no_client_auth().with_single_cert(certs, key))
            .map_err(|e| {
                vec![Finding {
                    key: KEY,
                    kind: ProblemKind::Conflict,
                    found: format!("{}: {e}", self.files.key.display()),
                    expected: format!("the key of the certificate in {CERT}"),
                }]
            });
        let mut config = config?;
        // Sockets are opened over HTTP/1.1; everything else may use either.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Pair { config, validity })
    }

    fn certs(&self) -> Result<Vec<CertificateDer<'static>>, Finding> {
        let unusable = |kind, why: &str| Finding {
            key: CERT,
            kind,
            found: format!("{}, {why}", self.files.cert.display()),
            expected: A_CERTIFICATE.to_owned(),
        };
        let text = self.cert.as_ref();
        let text = text.map_err(|e| unusable(ProblemKind::UnreadableFile, &unreadable(e)))?;
        let certs: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
        match certs {
            Ok(certs) if !certs.is_empty() => Ok(certs),
            Ok(_) => Err(unusable(
                ProblemKind::BadValue,
                "in which there is no certificate",
            )),
            Err(e) => Err(unusable(ProblemKind::BadValue, &not_pem(&e))),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, Finding> {
        let unusable = |kind, why: &str| Finding {
            key: KEY,
            kind,
            found: format!("{}, {why}", self.files.key.display()),
            expected: A_KEY.to_owned(),
        };
        let text = self.key.as_ref();
        let text = text.map_err(|e| unusable(ProblemKind::UnreadableFile, &unreadable(e)))?;
        PrivateKeyDer::from_pem_slice(text).map_err(|e| match e {
            pem::Error::NoItemsFound => unusable(ProblemKind::BadValue, "in which there is no key"),
            e => unusable(ProblemKind::BadValue, &not_pem(&e)),
        })
    }
}

fn unreadable(e: &io::Error) -> String {
    format!("which cannot be read: {e}")
}

/// The kind of the error only: its text may quote the file.
fn not_pem(e: &pem::Error) -> String {
    let why = match e {
        pem::Error::MissingSectionEnd { .. } => "a section without its end",
        pem::Error::IllegalSectionStart { .. } => "a section that starts wrong",
        pem::Error::Base64Decode(_) => "a section that is not base64",
        _ => "something else",
    };
    format!("which is not whole PEM: {why}")
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    let read = File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > MAX_BYTES) {
        return Err(io::Error::other(format!(
            "it has more than {MAX_BYTES} bytes"
        )));
    }
    Ok(text)
}

fn validity(cert: &CertificateDer<'_>) -> Option<Validity> {
    let (_, cert) = X509Certificate::from_der(cert).ok()?;
    let validity = cert.validity();
    Some(Validity {
        from: DateTime::from_timestamp_secs(validity.not_before.timestamp())?,
        until: DateTime::from_timestamp_secs(validity.not_after.timestamp())?,
    })
}

impl Validity {
    /// What is wrong with it at `now`, in words.
    pub(super) fn refusal(&self, now: DateTime<Utc>) -> Option<String> {
        if now > self.until {
            Some(format!("a certificate that expired at {}", self.until))
        } else if now < self.from {
            Some(format!("a certificate that holds only from {}", self.from))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
