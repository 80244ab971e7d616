//! A way to another server that tests can cut, stall and slow down.
//!
//! The server under test is given the proxy's port instead of that of its database or its Redis.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How the way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Nobody listens, and what was connected is cut.
    Gone,
    /// Connections are taken and kept, and nothing passes: neither data nor an end.
    Silent,
    /// Each piece of data takes so much longer, each way.
    Slow(Duration),
    /// So many bytes a second pass on each connection.
    Narrow(u32),
}

/// What becomes of the next `COMMIT` of a `PostgreSQL` connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The connection is cut before the database hears it.
    Before = 1,
    /// The database hears it and answers; the connection is cut before the answer arrives.
    After = 2,
}

/// A port that leads to another server. Ends with this value.
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    /// How often all connections that there were got lost.
    lost: watch::Sender<u32>,
    commit: Arc<AtomicU8>,
}

impl Proxy {
    /// Leads to `host:port`.
    pub async fn start(to: &str) -> Self {
        let to = tokio::net::lookup_host(to).await.unwrap().next().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], super::port()));
        let listener = TcpListener::bind(address).await.unwrap();
        let (way, changes) = watch::channel(Way::Open);
        let (lost, losses) = watch::channel(0);
        let commit = Arc::new(AtomicU8::new(0));
        tokio::spawn(listen(listener, to, (changes, losses), commit.clone()));
        Self {
            address,
            way,
            lost,
            commit,
        }
    }

    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Nothing passes any more on the connections that there are, and neither end is told; others
    /// pass. So it is where a firewall forgets.
    pub fn lose_connections(&self) {
        self.lost.send_modify(|lost| *lost += 1);
    }

    /// Cuts the connection that commits next, once.
    pub fn cut_next_commit(&self, cut: Cut) {
        self.commit.store(cut as u8, Ordering::SeqCst);
    }

    /// Cuts no commit any more.
    pub fn spare_commits(&self) {
        self.commit.store(0, Ordering::SeqCst);
    }

    /// Whether a cut that was ordered has happened.
    pub fn has_cut(&self) -> bool {
        self.commit.load(Ordering::SeqCst) == 0
    }
}

async fn listen(
    listener: TcpListener,
    to: SocketAddr,
    (mut way, lost): (watch::Receiver<Way>, watch::Receiver<u32>),
    commit: Arc<AtomicU8>,
) {
    let address = listener.local_addr().unwrap();
    let mut open = Some(listener);
    loop {
        let gone = *way.borrow_and_update() == Way::Gone;
        match &open {
            Some(_) if gone => open = None,
            None if !gone => open = Some(TcpListener::bind(address).await.unwrap()),
            _ => {}
        }
        let accepted = async {
            match &open {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = way.changed() => if changed.is_err() { return },
            accepted = accepted => {
                let (near, _) = accepted.unwrap();
                let (way, commit, mut lost) = (way.clone(), commit.clone(), lost.clone());
                lost.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let mut gone = way.clone();
                    let is_lost = tokio::select! {
                        () = pass(&near, &far, way, &commit) => false,
                        it = lost.changed() => it.is_ok(),
                    };
                    if is_lost {
                        let _ = gone.wait_for(|way| *way == Way::Gone).await;
                    }
                    drop((near, far));
                });
            }
        }
    }
}

/// Passes data both ways until either end closes or the way is gone.
async fn pass(near: &TcpStream, far: &TcpStream, mut way: watch::Receiver<Way>, commit: &AtomicU8) {
    for end in [near, far] {
        // What is cut is cut at once, without a farewell.
        let _ = (end.set_nodelay(true), end.set_zero_linger());
    }
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut swallow = false;
    loop {
        let now = *way.borrow_and_update();
        if now == Way::Gone {
            return;
        }
        let (sent, got) = tokio::select! {
            changed = way.changed() => if changed.is_err() { return } else { continue },
            n = read(near, &mut up), if now != Way::Silent => (true, n),
            n = read(far, &mut down), if now != Way::Silent => (false, n),
        };
        let Ok(n @ 1..) = got else { return };
        let data = if sent { &up[..n] } else { &down[..n] };
        match now {
            Way::Slow(by) => tokio::time::sleep(by).await,
            Way::Narrow(bytes) => {
                let piece = u32::try_from(n).unwrap();
                tokio::time::sleep(Duration::from_secs(1) * piece / bytes).await;
            }
            _ => {}
        }
        // It may have fallen silent, or gone, while the data was on its way.
        let Ok(later) = way
            .wait_for(|way| *way != Way::Silent)
            .await
            .map(|way| *way)
        else {
            return;
        };
        if later == Way::Gone {
            return;
        }
        if sent && is_commit(data) {
            match commit.swap(0, Ordering::SeqCst) {
                1 => return,
                2 => swallow = true,
                _ => {}
            }
        } else if swallow && !sent {
            return;
        }
        if write(if sent { far } else { near }, data).await.is_err() {
            return;
        }
    }
}

async fn read(from: &TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

async fn write(to: &TcpStream, mut data: &[u8]) -> std::io::Result<()> {
    while !data.is_empty() {
        to.writable().await?;
        match to.try_write(data) {
            Ok(n) => data = &data[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether a client of `PostgreSQL` says `COMMIT` here, as a simple query.
fn is_commit(data: &[u8]) -> bool {
    data.windows(12).any(|it| it == b"Q\0\0\0\x0bCOMMIT\0")
}

#[tokio::test]
async fn proxies_pass_cut_and_stall() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = far.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = far.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let proxy = Proxy::start(&to).await;
    let address = ("127.0.0.1", proxy.port());
    let says = async |stream: &mut TcpStream, text: &[u8]| {
        stream.write_all(text).await.ok()?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await.ok()?;
        Some(back)
    };
    let soon = Duration::from_millis(200);
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(says(&mut stream, b"a").await.as_deref(), Some(&b"a"[..]));
    proxy.set(Way::Silent);
    let silent = tokio::time::timeout(soon, says(&mut stream, b"b")).await;
    assert!(silent.is_err(), "{silent:?}");
    proxy.set(Way::Open);
    let mut back = [0; 1];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"b", "what waited arrives");

    proxy.lose_connections();
    let lost = tokio::time::timeout(soon, says(&mut stream, b"b")).await;
    assert!(lost.is_err(), "{lost:?}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let commit = b"Q\0\0\0\x0bCOMMIT\0";
    for cut in [Cut::Before, Cut::After] {
        proxy.cut_next_commit(cut);
        assert_eq!(says(&mut stream, b"c").await.as_deref(), Some(&b"c"[..]));
        assert!(!proxy.has_cut());
        assert_eq!(says(&mut stream, commit).await, None, "{cut:?}");
        assert!(proxy.has_cut());
        stream = TcpStream::connect(address).await.unwrap();
    }
    proxy.cut_next_commit(Cut::Before);
    proxy.spare_commits();
    assert!(says(&mut stream, commit).await.is_some());
    proxy.set(Way::Gone);
    assert_eq!(says(&mut stream, b"d").await, None);
    super::eventually("nobody listens", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    proxy.set(Way::Slow(soon));
    super::eventually("somebody listens", async || {
        TcpStream::connect(address).await.is_ok()
    })
    .await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let start = tokio::time::Instant::now();
    assert_eq!(says(&mut stream, b"e").await.as_deref(), Some(&b"e"[..]));
    assert!(start.elapsed() >= soon * 2, "{:?}", start.elapsed());
    proxy.set(Way::Narrow(1000));
    let start = tokio::time::Instant::now();
    assert!(says(&mut stream, &[b'f'; 200]).await.is_some());
    assert!(start.elapsed() >= soon * 2, "{:?}", start.elapsed());
}
