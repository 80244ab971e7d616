//! A certificate is renewed under a server that runs, in all the ways in which files are renewed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::{
    Api, Device, Engine, Raw, Server,
    certificate::{Certificate, Tls},
    eventually,
    raw::{TEXT, frame, ping_of},
};

const TAKEN: &str = "tls_reloads_total{result=\"ok\"}";
const REFUSED: &str = "tls_reloads_total{result=\"failed\"}";
const EXPIRY: &str = "tls_certificate_expiry_timestamp_seconds";
const REFUSAL: &str = "the certificate's files cannot be used";
/// The first moments of years that the tests use.
const IN_2099: u64 = 4_070_908_800;
const IN_2098: u64 = 4_039_372_800;

/// Looks ten times a second.
const OFTEN: (&str, &str) = ("server.tls_check_ms", "100");
/// Does not look by itself while a test runs.
const NEVER: (&str, &str) = ("server.tls_check_ms", "86400000");

async fn server(folder: &Path, more: (&str, &str)) -> Server {
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (cert, key) = (text(folder.join("crt")), text(folder.join("key")));
    let settings = [
        ("server.tls_cert_file", cert.as_str()),
        ("server.tls_key_file", key.as_str()),
        more,
    ];
    Server::with(Engine::Sqlite, &settings).await
}

fn replace(path: &Path, text: &str) {
    let part = path.with_extension("part");
    fs::write(&part, text).unwrap();
    fs::rename(part, path).unwrap();
}

async fn becomes(server: &Server, metric: &str, value: u64) {
    let is_there = async || server.metric(metric).await == value;
    eventually(&format!("{metric} is {value}"), is_there).await;
}

fn refusals(server: &Server) -> usize {
    server.output().matches(REFUSAL).count()
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_and_open_connections_live_on() {
    let folder = TempDir::new().unwrap();
    let (old, new) = (
        Certificate::holding(2020, 2098),
        Certificate::holding(2020, 2099),
    );
    old.write(folder.path());
    let server = server(folder.path(), OFTEN).await;
    let tls = Tls::trusting(&[&old, &new], &[b"http/1.1"]);
    let me: Device = server.api().newcomer("mine").await;
    let mut socket = Raw::over(tls.connect(&server).await).opened(&me).await;
    assert_eq!(tls.shown(server.listen()).await, old.der);
    assert_eq!(server.metric(EXPIRY).await, IN_2098);
    assert_eq!(
        (server.metric(TAKEN).await, server.metric(REFUSED).await),
        (0, 0)
    );

    replace(&folder.path().join("key"), &new.key);
    replace(&folder.path().join("crt"), &new.cert);
    becomes(&server, TAKEN, 1).await;
    // The client would resume a session of before, and see the old one.
    assert_eq!(tls.shown(server.listen()).await, new.der);
    assert_eq!(server.metric(EXPIRY).await, IN_2099);
    socket.send(frame(TEXT, ping_of(50))).await;
    socket.expect_answer("r").await;
    me.put("song", "a").await.ok(201);
}

/// As certbot does it: a link for each file, moved one after the other.
#[tokio::test]
async fn links_that_are_moved_one_by_one_are_followed() {
    let folder = TempDir::new().unwrap();
    let (old, new) = (Certificate::new(), Certificate::new());
    for (name, it) in [("1", &old), ("2", &new)] {
        let archive = folder.path().join(name);
        fs::create_dir(&archive).unwrap();
        it.write(&archive);
    }
    let point = |file: &str, to: &str| {
        let link = folder.path().join(format!("{file}.new"));
        symlink(format!("{to}/{file}"), &link).unwrap();
        fs::rename(link, folder.path().join(file)).unwrap();
    };
    point("crt", "1");
    point("key", "1");
    let server = server(folder.path(), ("server.tls_check_ms", "400")).await;
    let tls = Tls::trusting(&[&old, &new], &[]);
    point("crt", "2");
    point("key", "2");
    becomes(&server, TAKEN, 1).await;
    assert_eq!(tls.shown(server.listen()).await, new.der);
    // What was there between the two moves is nobody's mistake.
    assert_eq!((server.metric(REFUSED).await, refusals(&server)), (0, 0));
}

/// As Kubernetes does it: the files are links through a link to a folder, which is moved.
#[tokio::test]
async fn a_link_to_a_folder_is_followed() {
    let folder = TempDir::new().unwrap();
    let (old, new) = (Certificate::new(), Certificate::new());
    let point = |to: &str| {
        symlink(to, folder.path().join("..data_tmp")).unwrap();
        fs::rename(
            folder.path().join("..data_tmp"),
            folder.path().join("..data"),
        )
        .unwrap();
    };
    for (name, it) in [("..1", &old), ("..2", &new)] {
        fs::create_dir(folder.path().join(name)).unwrap();
        it.write(&folder.path().join(name));
    }
    point("..1");
    for file in ["crt", "key"] {
        symlink(format!("..data/{file}"), folder.path().join(file)).unwrap();
    }
    let server = server(folder.path(), OFTEN).await;
    let tls = Tls::trusting(&[&old, &new], &[]);
    assert_eq!(tls.shown(server.listen()).await, old.der);
    point("..2");
    fs::remove_dir_all(folder.path().join("..1")).unwrap();
    becomes(&server, TAKEN, 1).await;
    assert_eq!(tls.shown(server.listen()).await, new.der);
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_changes_nothing_and_is_said_once() {
    let folder = TempDir::new().unwrap();
    let (old, new) = (Certificate::new(), Certificate::new());
    old.write(folder.path());
    let server = server(folder.path(), OFTEN).await;
    let tls = Tls::trusting(&[&old, &new], &[b"http/1.1"]);
    let me: Device = server.api().newcomer("mine").await;
    let mut socket = Raw::over(tls.connect(&server).await).opened(&me).await;
    let (crt, key) = (folder.path().join("crt"), folder.path().join("key"));
    let half = &new.cert[..new.cert.len() / 2];

    // Half written, in place; a key that goes with another; a file that is gone.
    fs::write(&crt, half).unwrap();
    becomes(&server, REFUSED, 1).await;
    // Time for some looks at the same, which are no news.
    sleep(Duration::from_millis(500)).await;
    assert_eq!((server.metric(REFUSED).await, refusals(&server)), (1, 1));
    fs::write(&crt, &new.cert).unwrap();
    becomes(&server, REFUSED, 2).await;
    fs::remove_file(&key).unwrap();
    becomes(&server, REFUSED, 3).await;
    assert_eq!(refusals(&server), 3, "{}", server.output());
    for told in [&crt, &key].map(|path| path.display().to_string()) {
        let output = server.output();
        let lines: Vec<_> = output.lines().filter(|it| it.contains(REFUSAL)).collect();
        assert!(lines.iter().any(|it| it.contains(&told)), "{lines:?}");
    }
    assert_eq!(server.metric(TAKEN).await, 0);
    assert_eq!(tls.shown(server.listen()).await, old.der);
    socket.send(frame(TEXT, ping_of(50))).await;
    socket.expect_answer("r").await;

    // And then whole.
    fs::write(&key, &new.key).unwrap();
    becomes(&server, TAKEN, 1).await;
    assert_eq!(tls.shown(server.listen()).await, new.der);
    assert_eq!(server.metric(REFUSED).await, 3);
}

#[tokio::test]
async fn a_signal_looks_at_once() {
    let folder = TempDir::new().unwrap();
    let (old, new) = (Certificate::new(), Certificate::new());
    old.write(folder.path());
    let mut server = server(folder.path(), NEVER).await;
    let tls = Tls::trusting(&[&old, &new], &[]);
    let unchanged = "the certificate's files have not changed";
    server.signal(Signal::HUP);
    eventually("it says so", async || server.output().contains(unchanged)).await;
    assert_eq!(server.metric(TAKEN).await, 0);
    fs::write(folder.path().join("crt"), &new.cert).unwrap();
    server.signal(Signal::HUP);
    // Whoever asks is answered, also when it is nothing new.
    becomes(&server, REFUSED, 1).await;
    server.signal(Signal::HUP);
    becomes(&server, REFUSED, 2).await;
    assert_eq!(tls.shown(server.listen()).await, old.der);
    new.write(folder.path());
    server.signal(Signal::HUP);
    becomes(&server, TAKEN, 1).await;
    assert_eq!(tls.shown(server.listen()).await, new.der);
    server.stop().await;
}

#[tokio::test]
async fn a_signal_ends_no_server_without_a_certificate() {
    let mut server = Server::start(Engine::Sqlite).await;
    server.signal(Signal::HUP);
    let said = "there is no certificate to read again";
    eventually("it says so", async || server.output().contains(said)).await;
    assert!(server.api().is_ready().await);
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_that_expired_serves_with_a_warning_and_is_no_good_setting() {
    let folder = TempDir::new().unwrap();
    Certificate::holding(2020, 2021).write(folder.path());
    let server = server(folder.path(), OFTEN).await;
    assert!(
        server.output().contains("expired at 2021-01-01"),
        "{}",
        server.output()
    );
    let api: Api = server.api();
    api.get("/health").await.ok(200);
    let checked = server.run(&["config", "check"]).await;
    assert_eq!(checked.code, Some(2), "{}", checked.output);
    assert!(
        checked
            .output
            .contains("server.tls_cert_file: found a certificate that expired at 2021"),
        "{}",
        checked.output
    );
    // One that comes later is no better, and taken all the same: it is what the files hold.
    Certificate::holding(2098, 2099).write(folder.path());
    becomes(&server, TAKEN, 1).await;
    assert_eq!(server.metric(EXPIRY).await, IN_2099);
    assert!(
        server.output().contains("holds only from 2098-01-01"),
        "{}",
        server.output()
    );
    let checked = server.run(&["config", "check"]).await;
    assert_eq!(checked.code, Some(2), "{}", checked.output);
}
