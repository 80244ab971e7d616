//! `[server]`: the listeners.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use url::Url;

use crate::{
    domain::forwarded::{ForwardedHeader, parse_network},
    settings::reader::Reader,
};

/// The listeners and who may talk to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where metrics are read; for operators only.
    pub admin_listen: SocketAddr,
    /// Whether that speaks TLS, with the same certificate.
    pub admin_tls: bool,
    /// Where other services ask, if anywhere.
    pub internal_listen: Option<SocketAddr>,
    /// Whether that speaks TLS, with the same certificate.
    pub internal_tls: bool,
    /// Threads that serve; 0 for one a core.
    pub workers: usize,
    /// Sockets that the node holds at a time.
    pub max_connections: usize,
    /// Seconds after which a connection that asks for nothing is closed.
    pub idle_connection_secs: u64,
    /// The certificate, with those that vouch for it. Without one the server speaks plain HTTP.
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's key.
    pub tls_key_file: Option<PathBuf>,
    /// Milliseconds between two looks whether those files have changed.
    pub tls_check_ms: u64,
    /// Peers whose word counts for whom they heard.
    pub trusted_proxies: Vec<IpNet>,
    /// Where they write it.
    pub forwarded_header: ForwardedHeader,
    /// How long a shutdown waits for work in progress, in seconds.
    pub shutdown_secs: u64,
    /// Origins of pages that may call the API and open sockets.
    pub allowed_origins: Vec<String>,
    /// Serve plain HTTP on addresses that other machines can reach.
    pub allow_plain_http_beyond_loopback: bool,
}

impl Server {
    pub(in crate::settings) fn read(from: &mut Reader) -> Self {
        let address = "an IP address and a port, such as 127.0.0.1:8080";
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            listen: from.text(
                "server.listen",
                local(8080),
                address,
                |s| s.parse().ok(),
                ToString::to_string,
            ),
            admin_listen: from.text(
                "server.admin_listen",
                local(8081),
                address,
                |s| s.parse().ok(),
                ToString::to_string,
            ),
            admin_tls: from.flag("server.admin_tls", false),
            internal_listen: from.text(
                "server.internal_listen",
                None,
                "an IP address and a port, such as 127.0.0.1:8082, or \"\"",
                |s| match s {
                    "" => Some(None),
                    s => s.parse().ok().map(Some),
                },
                |address| address.map_or_else(String::new, |address| address.to_string()),
            ),
            internal_tls: from.flag("server.internal_tls", false),
            workers: from.number("server.workers", 0, &(0..=1024)),
            max_connections: from.number("server.max_connections", 10_000, &(1..=1_000_000)),
            idle_connection_secs: from.number("server.idle_connection_secs", 60, &(1..=3600)),
            tls_cert_file: pem_file(from, "server.tls_cert_file"),
            tls_key_file: pem_file(from, "server.tls_key_file"),
            tls_check_ms: from.number("server.tls_check_ms", 10_000, &(100..=86_400_000)),
            trusted_proxies: from.list(
                "server.trusted_proxies",
                "addresses of proxies and networks that hold nothing else, such as 10.0.0.7 or \
                 10.0.0.0/24",
                parse_network,
                ToString::to_string,
            ),
            forwarded_header: from.choice(
                "server.forwarded_header",
                ForwardedHeader::XForwardedFor,
                &[ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded]
                    .map(|it| (it.name(), it)),
            ),
            shutdown_secs: from.number("server.shutdown_secs", 20, &(0..=600)),
            allowed_origins: from.list(
                "server.allowed_origins",
                "origins such as https://app.example.com, without a path (and not \"*\": \
                 requests carry credentials)",
                |text| is_origin(text).then(|| text.to_owned()),
                String::clone,
            ),
            allow_plain_http_beyond_loopback: from
                .flag("server.allow_plain_http_beyond_loopback", false),
        }
    }
}

/// The path of a PEM file; what is one itself, in the wrong place, is not shown.
fn pem_file(from: &mut Reader, key: &'static str) -> Option<PathBuf> {
    from.path(key, "the path of a PEM file", |text| text.contains("-----"))
}

/// Whether a browser would send exactly this as `Origin`: lower case, no path, no default port.
fn is_origin(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return false;
    };
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{host}{port}", url.scheme()) == text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_sends_is_an_origin() {
        for good in [
            "https://app.example.com",
            "http://localhost:5173",
            "https://[::1]:8443",
            "capacitor://localhost",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "*",
            "null",
            "",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com:443",
            "https://App.example.com",
            "https://user@app.example.com",
            "https://app.example.com/path",
            "https://*.example.com/?",
            "file:///",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
