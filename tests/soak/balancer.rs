//! A balancer of bare TCP: in turn to each node that says that it is ready, else to any that is there.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{NODES, support};

const CONNECT: Duration = Duration::from_secs(1);

/// A port that leads to the nodes.
#[derive(Clone)]
pub struct Balancer {
    pub address: String,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    nodes: [Node; NODES],
    turn: AtomicUsize,
    /// Where requests with an id went.
    routes: Mutex<HashMap<String, usize>>,
}

#[derive(Default)]
struct Node {
    address: Mutex<Option<String>>,
    ready: AtomicBool,
}

impl Balancer {
    pub async fn start() -> Self {
        let address = format!("127.0.0.1:{}", support::port());
        let listener = TcpListener::bind(&address).await.unwrap();
        let inner = Arc::new(Inner::default());
        let carrier = inner.clone();
        tokio::spawn(async move {
            loop {
                // One that is gone again before it was accepted is nobody's loss.
                if let Ok((near, _)) = listener.accept().await {
                    let carrier = carrier.clone();
                    tokio::spawn(async move { carrier.carry(near).await });
                }
            }
        });
        Self { address, inner }
    }

    /// Where a node is; none while it is not there.
    pub fn place(&self, node: usize, address: Option<String>) {
        let node = &self.inner.nodes[node];
        node.ready.store(address.is_some(), Ordering::SeqCst);
        *node.address.lock().unwrap() = address;
    }

    pub fn address_of(&self, node: usize) -> Option<String> {
        self.inner.nodes[node].address.lock().unwrap().clone()
    }

    /// Whether a node says that it is ready.
    pub fn note_ready(&self, node: usize, ready: bool) {
        self.inner.nodes[node].ready.store(ready, Ordering::SeqCst);
    }

    /// Which node a request with this id went to; asked once.
    pub fn route(&self, id: &str) -> Option<usize> {
        self.inner.routes.lock().unwrap().remove(id)
    }
}

impl Inner {
    async fn carry(&self, mut near: TcpStream) {
        let Some((node, mut far)) = self.connect().await else {
            return;
        };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let mut first = vec![0; 1 << 14];
        let Ok(Ok(n @ 1..)) = timeout(CONNECT * 10, near.read(&mut first)).await else {
            return;
        };
        let mut loses = false;
        if let Some(id) = request_id(&first[..n]) {
            loses = is_lost(&id);
            self.routes.lock().unwrap().insert(id, node);
        }
        if far.write_all(&first[..n]).await.is_ok() {
            if loses {
                // It is done, and whoever asked does not hear of it.
                let _ = timeout(CONNECT * 10, far.read(&mut first)).await;
                return;
            }
            // An end that is cut ends the other.
            let _ = copy_bidirectional(&mut near, &mut far).await;
        }
    }

    async fn connect(&self) -> Option<(usize, TcpStream)> {
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        let in_turn = (0..NODES).map(|n| (turn + n) % NODES);
        let ready = |n: &usize| self.nodes[*n].ready.load(Ordering::SeqCst);
        let (first, last): (Vec<_>, Vec<_>) = in_turn.partition(ready);
        for node in first.into_iter().chain(last) {
            let Some(address) = self.nodes[node].address.lock().unwrap().clone() else {
                continue;
            };
            if let Ok(Ok(far)) = timeout(CONNECT, TcpStream::connect(address)).await {
                return Some((node, far));
            }
        }
        None
    }
}

/// Whether the answer to a command gets lost: one of 32, by the command's random id.
fn is_lost(id: &str) -> bool {
    let first = id.get(..2).and_then(|it| u8::from_str_radix(it, 16).ok());
    first.is_some_and(|it| it.is_multiple_of(32))
}

fn request_id(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let (_, rest) = head.split_once("\r\nx-request-id: ")?;
    Some(rest.split_once("\r\n")?.0.to_owned())
}

#[test]
fn ids_of_requests_are_found() {
    let head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: ab-1\r\n\r\n";
    assert_eq!(request_id(head).as_deref(), Some("ab-1"));
    assert_eq!(request_id(b"GET / HTTP/1.1\r\n\r\n"), None);
    assert!(is_lost("e0a1") && !is_lost("e1a1") && !is_lost(""));
}
