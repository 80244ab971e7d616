//! A device that does what docs/protocol.md asks of a client, through the balancer, and says where the
//! server breaks what that page promises.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    library::{Library, Then, snapshot, text_of},
    shared::{Backoff, Shared, count},
    support::{
        Device, Incoming, Socket, client::try_send, dice::Dice, follower::Acks, socket::Unopened,
    },
};

/// Nothing is heard for so long, and a ping asks whether anybody is there.
const ASK_AFTER: Duration = Duration::from_secs(4);
/// Clients wait for 75 s; here nodes are killed more often.
const GIVE_UP_AFTER: Duration = Duration::from_secs(12);
/// A `4001` that comes sooner than this after an attempt that was given up is the late attempt's doing.
const LATE_ATTEMPT: Duration = Duration::from_mins(1);

/// What a device does as it likes.
#[derive(Debug, Clone, Copy)]
pub struct Habit {
    pub acks: Acks,
    /// Says where it is when it connects; else it relies on its cursor.
    pub since: bool,
    /// Is away for long, again and again; and loses what it has now and then.
    pub sleepy: bool,
}

/// An event that a device applied, and how it came.
#[derive(Debug, Clone)]
pub struct Applied {
    pub seq: u64,
    pub id: String,
    pub at: Instant,
    /// Where, and since when it was connected there.
    pub node: Option<usize>,
    pub since: Instant,
    pub quiet: bool,
}

/// See the module.
pub struct Client {
    pub device: Device,
    shared: Arc<Shared>,
    habit: Habit,
    dice: Dice,
    epoch: String,
    pub last: u64,
    pub library: Library,
    pub applied: Vec<Applied>,
    /// By the word of the server: nothing up to here comes again.
    durable: u64,
    /// The newest that was acknowledged on this connection.
    acked: u64,
    gave_up: Option<Instant>,
    wakes_at: Instant,
}

type Broken = String;

impl Client {
    pub fn new(device: Device, habit: Habit, shared: Arc<Shared>, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let wakes_at = Instant::now() + Duration::from_millis(5000 + dice.below(15_000));
        Self {
            device,
            shared,
            habit,
            dice,
            epoch: String::new(),
            last: 0,
            library: Library::default(),
            applied: Vec::new(),
            durable: 0,
            acked: 0,
            gave_up: None,
            wakes_at,
        }
    }

    /// Lives until everything that there will be is applied, or something is broken.
    pub async fn live(mut self) -> Self {
        if let Err(what) = self.try_live().await {
            let Device {
                user_id, device_id, ..
            } = &self.device;
            let what = format!("{device_id} of user {user_id}: {what}");
            let steps = self.shared.steps_of(user_id, device_id);
            self.shared.violated(&what, &steps);
        }
        self
    }

    async fn try_live(&mut self) -> Result<(), Broken> {
        self.load().await?;
        let mut backoff = Backoff::default();
        while !self.is_done() {
            self.nap().await?;
            match self.connect().await? {
                Some((socket, from)) => {
                    backoff.reset();
                    self.listen(socket, from).await?;
                    self.note("lost its socket");
                }
                None => count(&self.shared.counts.unopened),
            }
            backoff.wait().await;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let last = self.shared.last_of(&self.device.user_id);
        last.is_some_and(|last| self.last >= last)
    }

    fn note(&self, what: &str) {
        let Device {
            user_id, device_id, ..
        } = &self.device;
        self.shared.device_step(user_id, device_id, what);
    }

    fn tell(&self, awake: bool) {
        let key = (self.device.user_id.clone(), self.device.device_id.clone());
        let mut progress = self.shared.progress.lock().unwrap();
        progress.insert(key, (self.last, awake));
    }

    /// Is away, if it is time for that; and may come back with nothing.
    async fn nap(&mut self) -> Result<(), Broken> {
        if Instant::now() < self.wakes_at || self.shared.is_settling() {
            return Ok(());
        }
        let span = if self.habit.sleepy { 20_000 } else { 3000 };
        let until = Instant::now() + Duration::from_millis(span / 2 + self.dice.below(span));
        self.note("is away");
        count(&self.shared.counts.naps);
        self.tell(false);
        while Instant::now() < until && !self.shared.is_settling() {
            sleep(Duration::from_millis(100)).await;
        }
        if self.habit.sleepy && self.dice.below(4) == 0 {
            self.note("lost all that it had");
            count(&self.shared.counts.forgot);
            self.load().await?;
        }
        let pause = if self.habit.sleepy { 8000 } else { 30_000 };
        self.wakes_at = Instant::now() + Duration::from_millis(4000 + self.dice.below(pause));
        self.tell(true);
        Ok(())
    }

    /// Loads everything, and stands where the snapshot does.
    async fn load(&mut self) -> Result<(), Broken> {
        let mut backoff = Backoff::default();
        loop {
            let request = self.device.request(Method::GET, "/v1/me/snapshot");
            // A body that breaks off is an error of the client's library, or lacks its end.
            let text = async {
                let answer = request.header("Connection", "close").send().await.ok()?;
                (answer.status() == 200).then_some(())?;
                answer.text().await.ok()
            };
            if let Some(text) = text.await {
                match snapshot(&text) {
                    Ok((epoch, seq, library)) => {
                        if !self.epoch.is_empty() && epoch != self.epoch {
                            return Err(format!("another epoch: {epoch}"));
                        }
                        if seq < self.last {
                            return Err(format!("a snapshot at {seq}, and {} was told", self.last));
                        }
                        self.epoch = epoch;
                        self.last = seq;
                        self.library = library;
                        count(&self.shared.counts.snapshots);
                        self.note(&format!("loaded the snapshot at {seq}"));
                        return Ok(());
                    }
                    Err(why) if why.contains("without its end") => self.note(&why),
                    Err(why) => return Err(why),
                }
            }
            backoff.wait().await;
        }
    }

    /// Opens a socket; with it the position behind which events must begin.
    async fn connect(&mut self) -> Result<Option<(Socket, u64)>, Broken> {
        // Who has never acknowledged has its cursor where it logged in, and loaded later.
        let since = self.habit.since || self.acked == 0;
        let query = if since {
            format!("?since={}&epoch={}", self.last, self.epoch)
        } else {
            String::new()
        };
        let socket = match Socket::try_open(&self.device, &query).await {
            Ok(socket) => socket,
            Err(Unopened::Refused(answer)) => {
                self.note(&format!("was refused: {} {}", answer.status, answer.code()));
                return match answer.status {
                    503 | 504 => Ok(None),
                    _ => Err(format!("its upgrade was refused: {answer:#?}")),
                };
            }
            Err(Unopened::Gone(code)) => {
                self.gave_up = Some(Instant::now());
                self.note(&format!("got no welcome ({code:?})"));
                return match code {
                    None | Some(1001 | 1013 | 4001) => Ok(None),
                    Some(code) => Err(format!("closed {code} before the welcome")),
                };
            }
        };
        let acked = socket.welcome["acked_seq"].as_u64().unwrap();
        let node = text_of(&socket.welcome, "node");
        self.note(&format!(
            "is at {node}: head {}, cursor {acked}, has {}{query}",
            socket.welcome["head_seq"], self.last
        ));
        if socket.epoch() != self.epoch {
            return Err(format!("another epoch: {}", socket.epoch()));
        }
        if acked < self.durable || acked > self.last {
            return Err(format!(
                "its cursor is {acked}: {} was durable, {} applied",
                self.durable, self.last
            ));
        }
        self.durable = acked;
        self.acked = self.acked.max(acked);
        count(&self.shared.counts.connects);
        if !self.applied.is_empty() {
            count(&self.shared.counts.reconnects);
        }
        self.tell(true);
        Ok(Some((socket, if since { self.last } else { acked })))
    }

    /// Takes what comes on one connection, until it is over.
    async fn listen(&mut self, mut socket: Socket, mut at: u64) -> Result<(), Broken> {
        let node = self.shared.node(&text_of(&socket.welcome, "node"));
        let since = Instant::now();
        let (mut heard, mut asked) = (since, false);
        self.acked = self.acked.min(at);
        loop {
            if self.is_done() && self.acked >= self.last {
                socket.close().await;
                return Ok(());
            }
            if Instant::now() >= self.wakes_at && !self.shared.is_settling() {
                return Ok(());
            }
            let incoming = socket.heard(Duration::from_millis(60)).await;
            if incoming.is_some() {
                (heard, asked) = (Instant::now(), false);
            }
            match incoming {
                Some(Incoming::Frame(frame)) => match frame["type"].as_str().unwrap() {
                    "event" => {
                        at = place(&frame, at)?;
                        self.take(&frame, (node, since)).await?;
                        if self.habit.acks == Acks::Each {
                            let ack = json!({"type": "ack", "ack_token": frame["ack_token"]});
                            if !socket.try_send(&ack).await {
                                return Ok(());
                            }
                            self.acked = self.acked.max(at);
                        }
                    }
                    "resync" => {
                        let Some(stands) = self.resync(&frame, at).await? else {
                            return Ok(());
                        };
                        at = stands;
                    }
                    "goodbye" => {
                        self.note("was told goodbye");
                        let millis = frame["retry_after_ms"].as_u64().unwrap();
                        sleep(Duration::from_millis(millis.min(1000))).await;
                    }
                    "pong" | "presence" => {}
                    // The ack is sent again below.
                    "error" if frame["code"] == "store_unavailable" => self.acked = 0,
                    _ => return Err(format!("it was sent {frame}")),
                },
                Some(Incoming::Close(code)) => return self.closed(code),
                Some(Incoming::Gone) => return Ok(()),
                None => {
                    if self.acked < at && !self.ack(&mut socket, at).await? {
                        return Ok(());
                    }
                    if heard.elapsed() > GIVE_UP_AFTER {
                        count(&self.shared.counts.fell_silent);
                        self.note("heard nothing any more");
                        return Ok(());
                    }
                    if heard.elapsed() > ASK_AFTER && !asked {
                        asked = true;
                        if !socket.try_send(&json!({"type": "ping"})).await {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    fn closed(&mut self, code: u16) -> Result<(), Broken> {
        self.note(&format!("was closed {code}"));
        let late = |at: Instant| at.elapsed() < LATE_ATTEMPT;
        match code {
            1001 | 1013 => Ok(()),
            4001 if self.gave_up.is_some_and(late) => Ok(()),
            _ => Err(format!("closed {code}")),
        }
    }

    /// Applies an event, unless it was applied before.
    async fn take(
        &mut self,
        frame: &Value,
        (node, since): (Option<usize>, Instant),
    ) -> Result<(), Broken> {
        let (seq, id) = (frame["seq"].as_u64().unwrap(), text_of(frame, "id"));
        if seq <= self.last {
            if seq <= self.durable {
                return Err(format!(
                    "{seq} came again, and {} was durable: {frame}",
                    self.durable
                ));
            }
            let before = self.applied.iter().rev().find(|it| it.seq == seq);
            if before.is_some_and(|it| it.id != id) {
                return Err(format!("another event at {seq}: {frame}"));
            }
            count(&self.shared.counts.delivered_again);
            return Ok(());
        }
        if seq != self.last + 1 {
            return Err(format!("a gap: {seq} after {}", self.last));
        }
        let event_type = text_of(frame, "event_type");
        let is_own = !event_type.starts_with("soak.");
        if is_own && frame["data"]["version"].as_u64() != Some(seq) {
            return Err(format!("its version is not its place: {frame}"));
        }
        self.note(&format!("{seq} {event_type}"));
        if let Then::Fetch(id, version) = self.library.apply(&event_type, &frame["data"])? {
            self.fetch(&id, version).await?;
        }
        self.last = seq;
        self.applied.push(Applied {
            seq,
            id,
            at: Instant::now(),
            node,
            since,
            quiet: self.shared.is_quiet(),
        });
        count(&self.shared.counts.delivered);
        self.tell(true);
        Ok(())
    }

    /// Loads everything anew; tells where the connection goes on, unless a new one is to be made.
    async fn resync(&mut self, frame: &Value, at: u64) -> Result<Option<u64>, Broken> {
        self.note(&format!("was told {frame}"));
        count(&self.shared.counts.resyncs);
        let floor = frame["floor_seq"].as_u64().unwrap();
        if frame["reason"] != "compacted" || floor <= at {
            return Err(format!("told to load anew at {at}: {frame}"));
        }
        let head = frame["head_seq"].as_u64().unwrap();
        self.load().await?;
        if self.last < head {
            return Err(format!("a snapshot at {}, behind {frame}", self.last));
        }
        self.tell(true);
        self.acked = 0;
        Ok(match self.dice.below(3) {
            // Where the snapshot stands, which may be beyond what the session knows.
            0 => Some(self.last),
            // Where the resync stands: what the snapshot has beyond that comes again.
            1 => Some(head),
            _ => None,
        })
    }

    /// Acknowledges everything up to `seq`; says whether the connection took it.
    async fn ack(&mut self, socket: &mut Socket, seq: u64) -> Result<bool, Broken> {
        let body = json!({"up_to": seq, "epoch": self.epoch});
        if self.habit.acks == Acks::Rest {
            let request = self
                .device
                .request(Method::POST, "/v1/me/changes/ack")
                .header("Connection", "close");
            match try_send(request.json(&body)).await {
                Ok(answer) if answer.status == 200 => {
                    self.durable = answer.body["acked_seq"].as_u64().unwrap();
                    self.acked = seq;
                }
                Ok(answer) if answer.status < 500 => {
                    return Err(format!("its ack of {seq} was refused: {answer:#?}"));
                }
                _ => {}
            }
            return Ok(true);
        }
        let taken = socket
            .try_send(&json!({"type": "ack", "up_to": seq, "epoch": self.epoch}))
            .await;
        if taken {
            self.acked = seq;
        }
        Ok(taken)
    }

    /// Fetches a playlist and its songs, all of one version.
    async fn fetch(&mut self, id: &str, version: u64) -> Result<(), Broken> {
        let mut backoff = Backoff::default();
        count(&self.shared.counts.fetches);
        loop {
            if let Some((about, entries)) = pages(&self.device, id).await? {
                let Some(about) = about else {
                    self.library.lost(id);
                    return Ok(());
                };
                let fetched = about["version"].as_u64().unwrap();
                if fetched < version {
                    return Err(format!(
                        "playlist {id} is {fetched}, and {version} was told"
                    ));
                }
                self.library.fetched(about, entries);
                return Ok(());
            }
            backoff.wait().await;
        }
    }
}

/// Where a connection is after this event.
fn place(frame: &Value, at: u64) -> Result<u64, Broken> {
    let seq = frame["seq"].as_u64().unwrap();
    if seq == at + 1 {
        return Ok(seq);
    }
    Err(format!("wrong order: {seq} after {at}: {frame}"))
}

/// What a playlist is about, if it is there, and its entries.
type Fetched = (Option<Value>, Vec<Value>);

/// Fetches a playlist and its songs. None: it has to be tried again.
pub async fn pages(device: &Device, id: &str) -> Result<Option<Fetched>, Broken> {
    let get = async |path: &str| {
        let request = device.request(Method::GET, path);
        try_send(request.header("Connection", "close")).await.ok()
    };
    let path = format!("/v1/me/playlists/{id}");
    let Some(answer) = get(&path).await else {
        return Ok(None);
    };
    let about = match answer.status {
        200 => answer.body,
        404 => return Ok(Some((None, Vec::new()))),
        500.. => return Ok(None),
        _ => return Err(format!("{path}: {answer:#?}")),
    };
    let (mut entries, mut query) = (Vec::new(), "?limit=100".to_owned());
    loop {
        let Some(answer) = get(&format!("{path}/songs{query}")).await else {
            return Ok(None);
        };
        match answer.status {
            200 if answer.body["version"] == about["version"] => {}
            // It changed in between.
            200 | 404 | 412 | 500.. => return Ok(None),
            _ => return Err(format!("{path}: {answer:#?}")),
        }
        entries.extend(answer.body["items"].as_array().unwrap().iter().cloned());
        match answer.body["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=100&cursor={cursor}"),
            None => return Ok(Some((Some(about), entries))),
        }
    }
}

/// How many devices that want to be connected have not applied their users' logs up to `heads`.
pub fn behind(shared: &Shared, heads: &std::collections::HashMap<String, u64>) -> Vec<String> {
    let progress = shared.progress.lock().unwrap();
    let behind = progress.iter().filter(|((user, _), (last, awake))| {
        *awake && heads.get(user).is_some_and(|head| last < head)
    });
    behind
        .map(|((user, device), (last, _))| {
            let steps = shared.steps_of(user, device);
            let steps = Vec::from(steps).join("\n  ");
            format!("\n{device} of user {user} is at {last}, after\n  {steps}")
        })
        .collect()
}
