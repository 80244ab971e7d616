//! Sockets that do nothing, and many that come at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Stage, listening, settle};
use crate::{
    Plan, Res,
    machine::{self, Cores},
    people::People,
    report::{Figures, Line, Round, Times},
    socket::Socket,
};

/// Idle sockets, each of a user of its own.
const SOCKETS: usize = 10_000;
/// Sockets that come back at once.
const AT_ONCE: usize = 1_000;
/// Upgrades in progress while the idle ones are opened.
const OPENING: usize = 64;

/// Where to connect: as a device, or as one of a pair at the reference.
#[derive(Clone)]
enum To {
    Server(std::net::SocketAddr, People),
    Reference(std::net::SocketAddr),
}

impl To {
    async fn open(&self, n: usize) -> Res<Socket> {
        let mut socket = match self {
            Self::Server(address, people) => {
                Socket::of_device(*address, n, &people[n][0].token).await?
            }
            Self::Reference(address) => Socket::open(*address, n, &format!("/?{n}"), "").await?,
        };
        socket.read_until("welcome").await?;
        Ok(socket)
    }

    /// Opens so many, `OPENING` at a time.
    async fn open_all(&self) -> Res<Vec<Socket>> {
        let tasks: Vec<_> = (0..OPENING)
            .map(|first| {
                let to = self.clone();
                tokio::spawn(async move {
                    let mut sockets = Vec::new();
                    for n in (first..SOCKETS).step_by(OPENING) {
                        sockets.push(to.open(n).await?);
                    }
                    Res::Ok(sockets)
                })
            })
            .collect();
        let mut all = Vec::with_capacity(SOCKETS);
        for task in tasks {
            all.extend(task.await??);
        }
        Ok(all)
    }
}

struct Held {
    connects: Round,
    kib: f64,
}

async fn hold(to: &To, process: u32) -> Res<(Held, Vec<Socket>)> {
    settle().await;
    let (before, cpu, begun) = (
        machine::resident(process)?,
        machine::cpu(process)?,
        Instant::now(),
    );
    let sockets = to.open_all().await?;
    let connects = Round {
        count: SOCKETS as u64,
        took: begun.elapsed(),
        cpu: machine::cpu(process)? - cpu,
    };
    // Until pages of what opening needed are given back, and all is told that there is to tell.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let kib = (machine::resident(process)? as f64 - before as f64) / SOCKETS as f64;
    Ok((Held { connects, kib }, sockets))
}

/// Memory of idle sockets, connects a second, and a thousand that come back at once.
pub async fn lines(plan: &Plan, stage: &Stage) -> Res<Vec<Line>> {
    let (mut kib, mut bare_kib) = (Figures::default(), Figures::default());
    let (mut rate, mut bare_rate) = (Figures::default(), Figures::default());
    let (mut back, mut slowest, lost) = (
        Figures::default(),
        Times::default(),
        machine::lost_connections()?,
    );
    for _ in 0..plan.rounds {
        let (reference, address) = listening("sockets", Cores::First)?;
        machine::pin(None, Cores::Second)?;
        let (held, sockets) = hold(&To::Reference(address), reference.id()).await?;
        bare_kib.values.push(held.kib);
        bare_rate.add(&held.connects);
        drop((sockets, reference));
        let server = stage.server(Cores::First).await?;
        machine::pin(None, Cores::Second)?;
        let to = To::Server(server.address, Arc::clone(&stage.people));
        let (held, mut sockets) = hold(&to, server.id()).await?;
        kib.values.push(held.kib);
        rate.add(&held.connects);
        sockets.truncate(SOCKETS - AT_ONCE);
        settle().await;
        let begun = Instant::now();
        let tasks: Vec<_> = (SOCKETS - AT_ONCE..SOCKETS)
            .map(|n| {
                let to = to.clone();
                tokio::spawn(async move { Res::Ok((to.open(n).await?, begun.elapsed())) })
            })
            .collect();
        for task in tasks {
            let (socket, took) = task.await??;
            sockets.push(socket);
            slowest.add(took);
        }
        back.values.push(begun.elapsed().as_secs_f64() * 1000.0);
        drop((sockets, server));
        machine::pin(None, Cores::All)?;
    }
    let lost = machine::lost_connections()? - lost;
    let bare = || "a bare `actix-web-actors` socket".to_owned();
    let met = |figures: &Figures, most: f64| Some(figures.median() <= most);
    Ok(vec![
        Line {
            name: "10,000 idle sockets, each its own user: memory of one".to_owned(),
            unit: " KiB",
            met: met(&kib, 5.8),
            ours: kib,
            reference: Some((bare(), bare_kib)),
            goal: "≤ 5.8 KiB".to_owned(),
            ..Line::default()
        },
        Line {
            name: "connects with a token check, each durable".to_owned(),
            unit: "/s",
            ours: rate,
            reference: Some((format!("{}, no token, nothing stored", bare()), bare_rate)),
            goal: "–".to_owned(),
            ..Line::default()
        },
        Line {
            name: "1,000 reconnects at once, until the last welcome".to_owned(),
            unit: " ms",
            ours: back,
            goal: "no lost SYN".to_owned(),
            met: Some(lost == 0),
            notes: vec![format!(
                "{}; {lost} connections turned away",
                slowest.show()
            )],
            ..Line::default()
        },
    ])
}
