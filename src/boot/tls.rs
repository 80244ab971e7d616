//! The certificate and its key, read once at the start.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

use crate::{domain::error::FieldError, settings::Server};

const CERT: &str = "server.tls_cert_file";
const KEY: &str = "server.tls_key_file";

/// What accepts TLS, if the settings name files for it.
///
/// # Errors
/// [`FieldError`] of the setting whose file cannot be used.
pub(super) fn acceptor(server: &Server) -> Result<Option<TlsAcceptor>, FieldError> {
    let (Some(cert), Some(key)) = (&server.tls_cert_file, &server.tls_key_file) else {
        return Ok(None);
    };
    let (certs, key) = (read_certs(cert)?, read_key(key)?);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| FieldError::new(CERT, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .map_err(|e| FieldError::new(KEY, format!("does not go with {CERT}: {e}")))?;
    // Sockets are opened over HTTP/1.1; everything else may use either.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, FieldError> {
    let certs: Result<Vec<_>, pem::Error> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match certs {
        Ok(certs) if certs.is_empty() => Err(unusable(CERT, path, "no certificate in it")),
        Ok(certs) => Ok(certs),
        Err(e) => Err(unusable(CERT, path, &e.to_string())),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FieldError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| unusable(KEY, path, &e.to_string()))
}

fn unusable(key: &str, path: &Path, why: &str) -> FieldError {
    FieldError::new(key, format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs, net::Ipv4Addr, path::PathBuf};

    use super::*;

    fn server(cert: Option<&Path>, key: Option<&Path>) -> Server {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        Server {
            listen: address,
            admin_listen: address,
            workers: 0,
            max_connections: 1,
            idle_connection_secs: 1,
            tls_cert_file: cert.map(PathBuf::from),
            tls_key_file: key.map(PathBuf::from),
            shutdown_secs: 1,
            allowed_origins: Vec::new(),
            allow_plain_http_beyond_loopback: false,
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let pair = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            (
                write(&format!("{name}.crt"), &made.cert.pem()),
                write(&format!("{name}.key"), &made.signing_key.serialize_pem()),
            )
        };
        let ((cert, key), (_, other)) = (pair("one"), pair("two"));
        let (empty, none) = (write("empty", ""), folder.path().join("none"));
        let refused = |cert, key| acceptor(&server(Some(cert), Some(key))).err().unwrap();
        assert!(
            acceptor(&server(Some(&cert), Some(&key)))
                .unwrap()
                .is_some()
        );
        assert!(acceptor(&server(None, None)).unwrap().is_none());
        for (cert, key, field) in [
            (&none, &key, CERT),
            (&empty, &key, CERT),
            (&key, &key, CERT),
            (&cert, &none, KEY),
            (&cert, &empty, KEY),
            (&cert, &cert, KEY),
            (&cert, &other, KEY),
        ] {
            let error = refused(cert, key);
            assert_eq!(error.field, field, "{error}");
        }
    }
}
