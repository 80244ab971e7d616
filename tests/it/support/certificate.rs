//! Certificates of a test's own, and what a listener shows of them.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Server;

/// A certificate for `localhost` with its key.
pub struct Certificate {
    pub der: CertificateDer<'static>,
    pub cert: String,
    pub key: String,
}

impl Certificate {
    pub fn new() -> Self {
        Self::holding(2026, 4096)
    }

    /// One that holds from the first day of one year to that of another.
    pub fn holding(from: i32, until: i32) -> Self {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Self {
            der: cert.der().clone(),
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Puts it into `crt` and `key` of the folder.
    pub fn write(&self, folder: &Path) {
        fs::write(folder.join("crt"), &self.cert).unwrap();
        fs::write(folder.join("key"), &self.key).unwrap();
    }
}

/// A client that trusts some certificates, and resumes sessions where the server lets it.
pub struct Tls(TlsConnector);

impl Tls {
    pub fn trusting(certificates: &[&Certificate], protocols: &[&[u8]]) -> Self {
        let mut roots = RootCertStore::empty();
        for it in certificates {
            roots.add(it.der.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// A connection to the public listener.
    pub async fn connect(&self, server: &Server) -> TlsStream<TcpStream> {
        self.connect_to(server.listen()).await
    }

    pub async fn connect_to(&self, address: &str) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.0.connect(name, stream).await.unwrap()
    }

    /// The certificate that a new connection to `address` sees.
    pub async fn shown(&self, address: &str) -> CertificateDer<'static> {
        let stream = self.connect_to(address).await;
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        shown[0].clone().into_owned()
    }
}
