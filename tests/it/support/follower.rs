//! A device that does what docs/protocol.md asks of a client, and fails where the server breaks what
//! that page promises: the order, no gap, nothing again that was durably acknowledged.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{Api, Device, Incoming, Socket, client, socket::Unopened};

/// What every device of a test is told: where the server is, and what happened to it.
#[derive(Clone, Default)]
pub struct Stage {
    /// Where the server is; none while it is dead.
    pub api: Option<Api>,
    /// When it was killed, each time.
    pub kills: Arc<Vec<Instant>>,
    /// When it was ready again, and the heads of the users' logs then.
    pub ready_at: Option<Instant>,
    pub heads: Arc<HashMap<String, u64>>,
    /// Nothing more is written: who has everything up to the heads is done.
    pub is_last: bool,
}

/// How a device acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Each event by its token.
    Each,
    /// The newest by its position, when nothing more is waiting.
    Newest,
    /// The newest by REST, when nothing more is waiting.
    Rest,
}

/// What a device does as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habit {
    pub acks: Acks,
    /// Says where it is when it connects; else it relies on its cursor.
    pub since: bool,
}

/// An event as it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub id: String,
    pub event_type: String,
    pub key: String,
}

/// What a device can tell of its life.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub applied: u64,
    pub repeats: u64,
    pub connects: u64,
    /// Acks of the socket that had to be durable.
    pub settled: u64,
    /// The longest time from a restart until everything that had been stored was applied.
    pub catch_up: Duration,
}

/// See the module.
pub struct Follower {
    pub device: Device,
    habit: Habit,
    /// How long after it was sent an ack is durable at the latest.
    lag: Duration,
    epoch: Option<String>,
    /// The events applied, the first at position 1.
    pub log: Vec<Applied>,
    /// What is there after them, with its version.
    pub state: BTreeMap<String, u64>,
    /// Acks that were sent by the socket to lives of the server that are not known to be over: the
    /// life, when, and up to where.
    acks: Vec<(usize, Instant, u64)>,
    /// The life of the server to which it is connected.
    life: usize,
    acked: u64,
    /// Durable by the word of the server, or because enough time had passed before a kill.
    durable: u64,
    caught_up_with: Option<Instant>,
    pub figures: Figures,
}

impl Follower {
    /// A new device, to which nothing has happened yet.
    pub fn new(device: Device, habit: Habit, lag: Duration) -> Self {
        Self {
            device,
            habit,
            lag,
            epoch: None,
            log: Vec::new(),
            state: BTreeMap::new(),
            acks: Vec::new(),
            life: 0,
            acked: 0,
            durable: 0,
            caught_up_with: None,
            figures: Figures::default(),
        }
    }

    /// The last event that it applied.
    pub fn last(&self) -> u64 {
        self.log.len() as u64
    }

    /// Connects again and again, applies and acknowledges, until everything is there.
    pub async fn follow(mut self, mut stage: watch::Receiver<Stage>) -> Self {
        loop {
            let now = stage.borrow_and_update().clone();
            let Some(api) = now.api.clone() else {
                stage.changed().await.unwrap();
                continue;
            };
            self.device.api = api;
            match self.connect(&now).await {
                Ok((socket, from)) => {
                    self.figures.connects += 1;
                    if self.listen(socket, from, &mut stage).await {
                        return self;
                    }
                }
                Err(Unopened::Refused(answer)) => {
                    assert_eq!(answer.status, 503, "refused: {answer:#?}");
                }
                Err(Unopened::Gone(code)) => assert!(matches!(code, None | Some(1001 | 1013))),
            }
            // Clients back off from a second on; here the server comes back sooner.
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Opens a socket; with it the position behind which events must begin.
    async fn connect(&mut self, stage: &Stage) -> Result<(Socket, u64), Unopened> {
        let query = match &self.epoch {
            Some(epoch) if self.habit.since => format!("?since={}&epoch={epoch}", self.last()),
            _ => String::new(),
        };
        let socket = Socket::try_open(&self.device, &query).await?;
        let epoch = socket.epoch();
        self.epoch.get_or_insert_with(|| epoch.clone());
        assert_eq!(self.epoch, Some(epoch), "{}: another epoch", self.name());
        let acked = socket.welcome["acked_seq"].as_u64().unwrap();
        assert!(acked <= self.last(), "acked beyond what was applied");
        self.settle(&stage.kills);
        self.life = stage.kills.len();
        assert!(
            acked >= self.durable,
            "{}: {} was durable, the cursor is {acked}",
            self.name(),
            self.durable
        );
        self.acked = acked;
        let from = if query.is_empty() { acked } else { self.last() };
        Ok((socket, from))
    }

    /// Acks that the server had for long enough before it was killed are durable; of the others that
    /// it had nothing is known.
    fn settle(&mut self, kills: &[Instant]) {
        for (life, at, seq) in std::mem::take(&mut self.acks) {
            let Some(killed) = kills.get(life) else {
                self.acks.push((life, at, seq));
                continue;
            };
            if at + self.lag <= *killed && seq > self.durable {
                self.durable = seq;
                self.figures.settled += 1;
            }
        }
    }

    /// Takes what comes on one connection; says whether everything is there.
    async fn listen(
        &mut self,
        mut socket: Socket,
        mut at: u64,
        stage: &mut watch::Receiver<Stage>,
    ) -> bool {
        let mut quiet = 0;
        loop {
            let is_last = self.note(&stage.borrow_and_update());
            match socket.heard(Duration::from_millis(20)).await {
                Some(Incoming::Frame(frame)) if frame["type"] == "event" => {
                    quiet = 0;
                    at += 1;
                    assert_eq!(frame["seq"], at, "{}: out of order: {frame:#}", self.name());
                    self.apply(&frame, at);
                    if self.habit.acks == Acks::Each {
                        let ack = json!({"type": "ack", "ack_token": frame["ack_token"]});
                        self.sent(at, socket.try_send(&ack).await);
                    }
                }
                Some(Incoming::Frame(frame)) => panic!("{} was sent {frame:#}", self.name()),
                Some(Incoming::Close(code)) => {
                    assert!(matches!(code, 1001 | 1013), "closed {code}");
                    return false;
                }
                Some(Incoming::Gone) => return false,
                None => {
                    quiet += 1;
                    if self.acked < at && !self.ack(&mut socket, at).await {
                        return false;
                    }
                    if is_last && quiet > 10 {
                        socket.close().await;
                        return true;
                    }
                }
            }
        }
    }

    /// Looks at what happened to the server; says whether this device has all that there will be.
    fn note(&mut self, stage: &Stage) -> bool {
        let Some(head) = stage.heads.get(&self.device.user_id) else {
            return false;
        };
        let has_all = self.last() >= *head;
        if has_all && self.caught_up_with != stage.ready_at {
            self.caught_up_with = stage.ready_at;
            let took = stage.ready_at.map(|at| at.elapsed()).unwrap_or_default();
            self.figures.catch_up = self.figures.catch_up.max(took);
        }
        has_all && stage.is_last
    }

    fn apply(&mut self, frame: &Value, seq: u64) {
        let text = |path: &str| frame.pointer(path).unwrap().as_str().unwrap().to_owned();
        let event = Applied {
            id: text("/id"),
            event_type: text("/event_type"),
            key: format!("{}/{}", text("/data/type"), text("/data/target_id")),
        };
        assert_eq!(frame["data"]["version"], seq, "{frame:#}");
        if let Some(before) = self.log.get(usize::try_from(seq - 1).unwrap()) {
            assert_eq!(*before, event, "another event came again at {seq}");
            assert!(seq > self.durable, "{seq} came again, and was durable");
            self.figures.repeats += 1;
            return;
        }
        assert_eq!(seq, self.last() + 1, "{}: a gap", self.name());
        if event.event_type == "favorite.removed" {
            assert!(self.state.remove(&event.key).is_some(), "{event:?}");
        } else {
            self.state.insert(event.key.clone(), seq);
        }
        self.log.push(event);
        self.figures.applied += 1;
    }

    /// Acknowledges everything up to `seq`; says whether the connection took it.
    async fn ack(&mut self, socket: &mut Socket, seq: u64) -> bool {
        let epoch = self.epoch.clone().unwrap();
        let body = json!({"up_to": seq, "epoch": epoch});
        if self.habit.acks == Acks::Rest {
            let request = self
                .device
                .request(reqwest::Method::POST, "/v1/me/changes/ack");
            let Ok(answer) = client::try_send(request.json(&body)).await else {
                return false;
            };
            if answer.status == 200 {
                self.durable = answer.body["acked_seq"].as_u64().unwrap();
                self.acked = seq;
            }
            return true;
        }
        let ack = json!({"type": "ack", "up_to": seq, "epoch": epoch});
        let taken = socket.try_send(&ack).await;
        self.sent(seq, taken);
        taken
    }

    fn sent(&mut self, seq: u64, taken: bool) {
        if taken {
            self.acks.push((self.life, Instant::now(), seq));
            self.acked = self.acked.max(seq);
        }
    }

    fn name(&self) -> String {
        format!("{} of {}", self.device.device_id, self.device.phone)
    }
}
