//! Twenty times `kill -9` under load, with fifty devices that check themselves.
//!
//! Ten users with five devices each; three devices of each user write by REST while all five hold a
//! socket, apply, acknowledge and remember ([`Follower`]). The server is killed at a random moment,
//! started again on the same data, and the devices come back by the rules of docs/protocol.md, but
//! sooner. After the last round everybody waits until nothing more comes, and then: what was
//! answered is there, what was not is there whole or not at all, and what each device has applied
//! is what the database holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::support::{
    Api, Device, Engine, PATIENCE, Server,
    client::try_send,
    dice::Dice,
    follower::{Acks, Figures, Follower, Habit, Stage},
    redis,
};

const ROUNDS: u64 = 20;
const USERS: usize = 10;
const WRITERS: usize = 3;
/// Answers after which the server is killed: at least, and up to so many more; or this much later, on
/// a machine that is busy.
const LOAD: (u64, u64) = (20, 80);
const LOAD_TIME: Duration = Duration::from_millis(1500);
const FLUSH_MS: &str = "50";
/// Flushed each 50 ms, an ack is durable long before this even on a machine that is busy.
const LAG: Duration = Duration::from_secs(1);
/// In some rounds nobody writes before the kill, long enough for acks to be durable.
const CALM: Duration = Duration::from_millis(1500);
const CALM_EVERY: u64 = 6;

/// A user's devices, each with habits of its own.
const HABITS: [Habit; 5] = [
    habit(Acks::Each, true),
    habit(Acks::Newest, true),
    habit(Acks::Each, false),
    habit(Acks::Newest, false),
    habit(Acks::Rest, false),
];

const fn habit(acks: Acks, since: bool) -> Habit {
    Habit { acks, since }
}

both_engines! {
    async fn twenty_kills_lose_nothing(engine) {
        let seed = Dice::seed("kill -9");
        let mut dice = Dice::new(seed);
        let redis = redis();
        let mut settings = vec![("sync.cursor_flush_ms", FLUSH_MS), ("sync.head_check_ms", "200")];
        if engine == Engine::Postgres {
            settings.push(("redis.url", &redis));
        }
        let mut server = Server::with(engine, &settings).await;
        let users = users(&server).await;
        let mut writers = Vec::new();
        for devices in &users {
            for device in &devices[..WRITERS] {
                writers.push(Writer::new(device.clone(), dice.roll()));
            }
        }
        let (stage, told) = watch::channel(Stage::default());
        let followers: Vec<JoinHandle<Follower>> = users
            .iter()
            .flatten()
            .zip(HABITS.iter().cycle())
            .map(|(device, habit)| {
                let follower = Follower::new(device.clone(), *habit, LAG);
                tokio::spawn(follower.follow(told.clone()))
            })
            .collect();
        let mut kills = Vec::new();
        for round in 0..=ROUNDS {
            let api = server.api();
            let heads = heads(&api, &users).await;
            let is_last = round == ROUNDS;
            stage.send_replace(Stage {
                api: Some(api.clone()),
                kills: Arc::new(kills.clone()),
                ready_at: Some(Instant::now()),
                heads: Arc::new(heads),
                is_last,
            });
            if is_last {
                break;
            }
            let stopped = Arc::new(AtomicBool::new(false));
            let (answers, enough) = (Arc::new(AtomicU64::new(0)), LOAD.0 + dice.below(LOAD.1));
            let writing: Vec<_> = writers
                .drain(..)
                .map(|writer| tokio::spawn(writer.write(api.clone(), answers.clone(), stopped.clone())))
                .collect();
            let begun = Instant::now();
            while answers.load(Ordering::SeqCst) < enough && begun.elapsed() < LOAD_TIME {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if round % CALM_EVERY == CALM_EVERY - 1 {
                stopped.store(true, Ordering::SeqCst);
                tokio::time::sleep(CALM).await;
            }
            stage.send_modify(|stage| stage.api = None);
            let killed = Instant::now();
            server.kill9();
            kills.push(killed);
            for writer in writing {
                writers.push(writer.await.unwrap());
            }
            server.restart().await;
        }
        let mut done = Vec::new();
        for follower in followers {
            let follower = timeout(PATIENCE, follower).await.expect("a device gets everything");
            done.push(follower.expect("a device found no fault"));
        }
        let (mut applied, api) = (0, server.api());
        for (devices, followers) in users.iter().zip(done.chunks(HABITS.len())) {
            let writers: Vec<&Writer> = writers
                .iter()
                .filter(|writer| writer.device.user_id == devices[0].user_id)
                .collect();
            applied += check(&devices[0].with(&api), followers, &writers).await;
        }
        let settled = done.iter().map(|it| it.figures.settled).sum::<u64>();
        assert!(settled > 0, "no ack was old enough to have to be durable");
        report(engine, seed, &done, &writers, applied);
    }
}

/// The users, each with its devices, all of them new.
async fn users(server: &Server) -> Vec<Vec<Device>> {
    let api = server.api();
    // Logins of one phone have to wait for one another.
    join_all((0..USERS).map(|_| async {
        let mut devices = vec![api.newcomer("d0").await];
        for index in 1..HABITS.len() {
            let phone = &devices[0].phone;
            devices.push(api.login(phone, &format!("d{index}")).await);
        }
        devices
    }))
    .await
}

async fn heads(api: &Api, users: &[Vec<Device>]) -> HashMap<String, u64> {
    let heads = users.iter().map(|devices| async {
        let me = devices[0].with(api);
        (me.user_id.clone(), me.head().await.0)
    });
    join_all(heads).await.into_iter().collect()
}

/// What a writer asked for.
struct Wrote {
    event_type: &'static str,
    key: String,
    /// The position that the answer told; none where no answer came.
    seq: Option<u64>,
}

/// Adds, removes and restores favorites of its own, one after the other.
struct Writer {
    device: Device,
    dice: Dice,
    made: u64,
    /// Its favorites, and whether each is there. What was asked and not answered is left alone.
    own: Vec<(String, bool)>,
    wrote: Vec<Wrote>,
}

impl Writer {
    fn new(device: Device, seed: u64) -> Self {
        Self {
            device,
            dice: Dice::new(seed),
            made: 0,
            own: Vec::new(),
            wrote: Vec::new(),
        }
    }

    /// Writes until the server is gone, or it is told to stop.
    async fn write(mut self, api: Api, answers: Arc<AtomicU64>, stopped: Arc<AtomicBool>) -> Self {
        self.device.api = api;
        while !stopped.load(Ordering::SeqCst) && self.step().await {
            answers.fetch_add(1, Ordering::SeqCst);
            let pause = Duration::from_millis(self.dice.below(10));
            tokio::time::sleep(pause).await;
        }
        self
    }

    async fn step(&mut self) -> bool {
        let old = self.dice.below(3) == 0 && !self.own.is_empty();
        let (target, there) = if old {
            let index = self.dice.index(self.own.len());
            self.own.swap_remove(index)
        } else {
            self.made += 1;
            let target = format!("{}-{}", self.device.device_id, self.made);
            (target, false)
        };
        let path = format!("/v1/me/favorites/song/{target}");
        let (request, event_type, status) = match (old, there) {
            (false, _) => (
                self.device.request(Method::PUT, &path),
                "favorite.added",
                201,
            ),
            (true, true) => {
                let request = self.device.request(Method::DELETE, &path);
                (request, "favorite.removed", 204)
            }
            (true, false) => {
                let request = self
                    .device
                    .request(Method::POST, &format!("{path}/restore"));
                (request, "favorite.restored", 200)
            }
        };
        let answer = try_send(request).await.ok();
        let seq = answer.map(|answer| {
            assert_eq!(answer.status, status, "{event_type} {target}: {answer:#?}");
            answer.seq()
        });
        self.wrote.push(Wrote {
            event_type,
            key: format!("song/{target}"),
            seq,
        });
        if seq.is_some() {
            self.own.push((target, event_type != "favorite.removed"));
        }
        seq.is_some()
    }
}

/// Compares a user's database, devices and writers; tells how many unanswered writes are there.
async fn check(me: &Device, followers: &[Follower], writers: &[&Writer]) -> u64 {
    let log = me.log().await;
    let text =
        |event: &Value, path: &str| event.pointer(path).unwrap().as_str().unwrap().to_owned();
    let ids: BTreeSet<String> = log.iter().map(|event| text(event, "/id")).collect();
    assert_eq!(ids.len(), log.len(), "an event is there twice");

    // What was answered is there, at its place; each favorite has no history but its writer's.
    let mut history: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    for (event, seq) in log.iter().zip(1..) {
        let entry = (text(event, "/event_type"), seq);
        let key = format!(
            "{}/{}",
            text(event, "/data/type"),
            text(event, "/data/target_id")
        );
        history.entry(key).or_default().push(entry);
    }
    let mut extra = 0;
    for wrote in writers.iter().flat_map(|writer| &writer.wrote) {
        let there = history.get_mut(&wrote.key).filter(|it| !it.is_empty());
        let next = there.map(|it| it.remove(0));
        match (wrote.seq, next) {
            (Some(seq), next) => {
                assert_eq!(
                    next,
                    Some((wrote.event_type.to_owned(), seq)),
                    "{}",
                    wrote.key
                );
            }
            (None, Some((event_type, _))) => {
                assert_eq!(event_type, wrote.event_type, "{}", wrote.key);
                extra += 1;
            }
            (None, None) => {}
        }
    }
    let unasked: Vec<_> = history
        .iter()
        .filter(|(_, left)| !left.is_empty())
        .collect();
    assert!(unasked.is_empty(), "nobody asked for {unasked:?}");

    // Whole or not at all: what the log makes is what is stored, and what each device has.
    let mut stored = BTreeSet::new();
    for favorite in me.all_favorites(200).await {
        let key = format!(
            "{}/{}",
            text(&favorite, "/type"),
            text(&favorite, "/target_id")
        );
        assert!(stored.insert(key), "twice in the list: {favorite:#}");
    }
    for follower in followers {
        let name = &follower.device.device_id;
        assert_eq!(follower.log.len(), log.len(), "{name}");
        for (applied, event) in follower.log.iter().zip(&log) {
            assert_eq!(applied.id, text(event, "/id"), "{name}");
        }
        let state: BTreeSet<String> = follower.state.keys().cloned().collect();
        assert_eq!(state, stored, "{name}");
    }
    extra
}

fn report(engine: Engine, seed: u64, followers: &[Follower], writers: &[Writer], extra: u64) {
    let sum = |of: fn(&Figures) -> u64| followers.iter().map(|it| of(&it.figures)).sum::<u64>();
    let wrote: Vec<&Wrote> = writers.iter().flat_map(|writer| &writer.wrote).collect();
    let answered = wrote.iter().filter(|it| it.seq.is_some()).count();
    let catch_up = followers.iter().map(|it| it.figures.catch_up).max();
    println!(
        "kill -9 on {engine:?}: {ROUNDS} rounds, {} devices, {answered} writes answered, {} not \
         ({extra} of them stored), {} events applied, {} repeats, {} connects, {} acks durable by \
         time, slowest catch-up \
         {:?}, FAULTS_SEED={seed}",
        followers.len(),
        wrote.len() - answered,
        sum(|it| it.applied),
        sum(|it| it.repeats),
        sum(|it| it.connects),
        sum(|it| it.settled),
        catch_up.unwrap_or_default(),
    );
}
