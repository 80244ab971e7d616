//! What reaches sockets that are open: events as they are stored, and signals.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{CLIENTS, DEVICES, Stage, WITH_MORE, listening, rest::puts, settle};
use crate::{
    Plan, Res,
    fleet::{Make, as_fast_as_can, at_rate},
    http::request,
    machine::{self, Cores},
    people::People,
    report::{Figures, Line, Round, Times},
    server::Server,
    socket::{Socket, number, text},
};

/// Upgrades in progress while followers connect.
const OPENING: usize = 64;

/// What all followers heard.
#[derive(Default)]
pub struct Heard {
    pub frames: AtomicU64,
    /// From asking for a change to its event, when `timed`.
    times: Mutex<Times>,
    pub timed: AtomicBool,
}

impl Heard {
    /// All times so far, which begin anew.
    pub fn take_times(&self) -> Times {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Devices that follow: each acknowledges what it got with each read.
pub struct Followers {
    pub heard: Arc<Heard>,
    tasks: JoinSet<Res<()>>,
}

impl Followers {
    /// The first so many users, each with so many devices.
    pub async fn connect(
        server: &Server,
        people: &People,
        (users, devices): (usize, usize),
        begun: Instant,
    ) -> Res<Self> {
        let heard = Arc::new(Heard::default());
        let (mut tasks, mut opening) = (JoinSet::new(), JoinSet::new());
        for first in 0..OPENING {
            let (people, address) = (Arc::clone(people), server.address);
            opening.spawn(async move {
                let mut open = Vec::new();
                for n in (first..users * devices).step_by(OPENING) {
                    let token = &people[n / devices][n % devices].token;
                    let mut socket = Socket::of_device(address, n, token).await?;
                    let welcome = socket.read_until("welcome").await?;
                    let epoch = text(&welcome, b"\"epoch\":\"").ok_or("no epoch")?;
                    open.push((socket, epoch.to_owned()));
                }
                Res::Ok(open)
            });
        }
        while let Some(open) = opening.join_next().await {
            for (socket, epoch) in open?? {
                let heard = Arc::clone(&heard);
                tasks.spawn(async move { follow(socket, &epoch, &heard, begun).await });
            }
        }
        Ok(Self { heard, tasks })
    }

    fn check(&mut self) -> Res<()> {
        while let Some(ended) = self.tasks.try_join_next() {
            ended??;
        }
        Ok(())
    }

    /// Waits until so many frames were heard.
    pub async fn until(&mut self, frames: u64) -> Res<()> {
        let patience = Instant::now() + Duration::from_mins(1);
        while self.heard.frames.load(Relaxed) < frames {
            self.check()?;
            if Instant::now() > patience {
                let heard = self.heard.frames.load(Relaxed);
                return Err(format!("{heard} deliveries of {frames}").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// Each request makes a favorite whose name is when it was asked for.
pub fn timed_puts(people: &People, users: usize, begun: Instant) -> Make {
    let people = Arc::clone(people);
    Arc::new(move |n| {
        let path = format!("/v1/me/favorites/song/at-{}", begun.elapsed().as_nanos());
        let user = &people[n as usize % users];
        (request("PUT", &path, &user[0].token), 201)
    })
}

async fn follow(mut socket: Socket, epoch: &str, heard: &Heard, begun: Instant) -> Res<()> {
    loop {
        let (mut frames, mut last) = (0, 0);
        socket
            .read(|frame| {
                if !frame.starts_with(b"{\"type\":\"event\"") {
                    return;
                }
                frames += 1;
                last = number(frame, b"\"seq\":").unwrap_or(last);
                if heard.timed.load(Relaxed)
                    && let Some(sent) = number(frame, b"\"target_id\":\"at-")
                {
                    let took = begun
                        .elapsed()
                        .saturating_sub(Duration::from_nanos(sent as u64));
                    heard
                        .times
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(took);
                }
            })
            .await?;
        if frames > 0 {
            heard.frames.fetch_add(frames, Relaxed);
            socket.put(&format!(
                "{{\"type\":\"ack\",\"up_to\":{last},\"epoch\":\"{epoch}\"}}"
            ));
            socket.flush().await?;
        }
    }
}

/// Changes of users whose five devices are all connected.
pub async fn push(plan: &Plan, stage: &Stage) -> Res<Line> {
    let begun = Instant::now();
    let (alone, server) = (
        stage.server(Cores::All).await?,
        stage.server(Cores::All).await?,
    );
    let mut followers =
        Followers::connect(&server, &stage.people, (WITH_MORE, DEVICES), begun).await?;
    settle().await;
    let (mut ours, mut commands) = (Figures::default(), Figures::default());
    for round in 0..plan.rounds {
        let make = puts(&stage.people, WITH_MORE, &format!("a{round}"));
        let (done, _) =
            as_fast_as_can((alone.address, alone.id()), CLIENTS, plan.secs, &make).await?;
        commands.add(&done);
        settle().await;
        let make = puts(&stage.people, WITH_MORE, &format!("p{round}"));
        let (from, started, cpu) = (
            followers.heard.frames.load(Relaxed),
            Instant::now(),
            machine::cpu(server.id())?,
        );
        let to = (server.address, server.id());
        let (done, _) = as_fast_as_can(to, CLIENTS, plan.secs, &make).await?;
        let count = done.count * DEVICES as u64;
        followers.until(from + count).await?;
        ours.add(&Round {
            count,
            took: started.elapsed(),
            cpu: machine::cpu(server.id())? - cpu,
        });
        settle().await;
    }
    followers.heard.timed.store(true, Relaxed);
    let rate = ours.median() / DEVICES as f64 / 2.0;
    for _ in 0..plan.rounds {
        let make = timed_puts(&stage.people, WITH_MORE, begun);
        let from = followers.heard.frames.load(Relaxed);
        let to = (server.address, server.id());
        let (done, _) = at_rate(to, CLIENTS, plan.secs, rate, &make).await?;
        followers.until(from + done.count * DEVICES as u64).await?;
    }
    let mut times = followers.heard.take_times();
    let slow = times.part(0.99);
    let mut line = Line {
        name: "live push, 1,000 users × 5 devices, each event acknowledged, all cores".to_owned(),
        unit: " deliveries/s",
        ours,
        reference: Some((
            "durable commands of users without a device, commands/s".to_owned(),
            commands,
        )),
        goal: "≥ 4 ×, P99 < 50 ms".to_owned(),
        notes: vec![format!(
            "at half of it, from asking for the change to its frame: {}",
            times.show()
        )],
        ..Line::default()
    };
    line.met = Some(line.ratio() >= 4.0 && slow < 50.0);
    Ok(line)
}

/// Signals that a device has under way.
const IN_FLIGHT: usize = 16;
/// Users whose two devices talk to each other.
const PAIRS: usize = 100;

/// A device that answers each signal with one, from now until `stop`.
async fn talk(
    mut socket: Socket,
    first: bool,
    frame: &'static str,
    count: &AtomicU64,
    stop: &AtomicBool,
) -> Res<Socket> {
    if first {
        for _ in 0..IN_FLIGHT {
            socket.put(frame);
        }
        socket.flush().await?;
    }
    loop {
        let mut heard = 0;
        let reading = socket.read(|text| heard += u64::from(find_signal(text)));
        match tokio::time::timeout(Duration::from_millis(500), reading).await {
            Ok(read) => read?,
            Err(_) => return Ok(socket),
        }
        count.fetch_add(heard, Relaxed);
        if !stop.load(Relaxed) {
            for _ in 0..heard {
                socket.put(frame);
            }
            socket.flush().await?;
        }
    }
}

fn find_signal(text: &[u8]) -> bool {
    text.starts_with(b"{\"type\":\"signal\"")
}

const SIGNAL: &str = concat!(
    r#"{"type":"signal","to":"all","name":"remote.seek","data":{"at_ms":61500,"rate":1.0,"#,
    r#""queue":"0190b2f0-7c1e-7a44-9d5e-3f6a1c2b4d5e","note":"as long as a message between players is"}}"#
);

async fn signals_for(sockets: Vec<(Socket, Socket)>, process: u32, secs: Duration) -> Res<Round> {
    let (count, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut tasks = JoinSet::new();
    for (one, other) in sockets {
        for (socket, first) in [(one, true), (other, false)] {
            let (count, stop) = (Arc::clone(&count), Arc::clone(&stop));
            tasks.spawn(async move { talk(socket, first, SIGNAL, &count, &stop).await });
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (from, cpu, begun) = (count.load(Relaxed), machine::cpu(process)?, Instant::now());
    tokio::time::sleep(secs).await;
    let round = Round {
        count: count.load(Relaxed) - from,
        took: begun.elapsed(),
        cpu: machine::cpu(process)? - cpu,
    };
    stop.store(true, Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    if round.count == 0 {
        return Err("no signal arrived".into());
    }
    Ok(round)
}

/// Two devices of a user that talk to each other.
pub async fn signals(plan: &Plan, stage: &Stage) -> Res<Line> {
    let (mut ours, mut bare) = (Figures::default(), Figures::default());
    for _ in 0..plan.rounds {
        let (reference, address) = listening("sockets", Cores::All)?;
        let mut pairs = Vec::new();
        for n in 0..PAIRS {
            let path = format!("/?{n}");
            let mut one = Socket::open(address, n, &path, "").await?;
            one.read_until("welcome").await?;
            let mut other = Socket::open(address, n, &path, "").await?;
            other.read_until("welcome").await?;
            pairs.push((one, other));
        }
        bare.add(&signals_for(pairs, reference.id(), plan.secs).await?);
        drop(reference);
        let server = stage.server(Cores::All).await?;
        let mut pairs = Vec::new();
        for n in 0..PAIRS {
            let of = &stage.people[n];
            let mut one = Socket::of_device(server.address, n, &of[0].token).await?;
            one.read_until("welcome").await?;
            let mut other = Socket::of_device(server.address, n, &of[1].token).await?;
            other.read_until("welcome").await?;
            pairs.push((one, other));
        }
        settle().await;
        ours.add(&signals_for(pairs, server.id(), plan.secs).await?);
    }
    let met = ours.median() >= 100_000.0;
    Ok(Line {
        name: "signals, 2 devices of a user, 16 under way, server and clients on all cores"
            .to_owned(),
        unit: " deliveries/s",
        ours,
        reference: Some((
            "bare `actix-web-actors`, no token, no rules".to_owned(),
            bare,
        )),
        goal: "≥ 100,000/s".to_owned(),
        met: Some(met),
        ..Line::default()
    })
}
