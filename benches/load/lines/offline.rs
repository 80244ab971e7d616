//! Events for devices that are not there, and their coming back.

use std::{sync::Arc, time::Instant};

use tokio::task::JoinSet;

use super::{CLIENTS, Stage, WITH_MORE, settle};
use crate::{
    Plan, Res,
    fleet::{Make, exactly},
    http::request,
    machine::{self, Cores},
    report::{Figures, Line, Round},
    socket::{Socket, number, text},
};

/// Events that each device finds.
const EVENTS: u64 = 100;

/// Storing for devices that are offline, and draining and acknowledging all of it.
pub async fn lines(plan: &Plan, stage: &Stage) -> Res<Vec<Line>> {
    let (mut stored, mut drained) = (Figures::default(), Figures::default());
    let total = WITH_MORE as u64 * EVENTS;
    for round in 0..plan.rounds {
        let server = stage.server(Cores::All).await?;
        let people = Arc::clone(&stage.people);
        let make: Make = Arc::new(move |n| {
            let user = &people[n as usize % WITH_MORE];
            let path = format!("/v1/me/favorites/song/o{round}-{n}");
            (request("PUT", &path, &user[0].token), 201)
        });
        let to = (server.address, server.id());
        let done = exactly(to, CLIENTS, total, &make).await?;
        stored.add(&done);
        settle().await;
        let (begun, cpu) = (Instant::now(), machine::cpu(server.id())?);
        let mut tasks = JoinSet::new();
        for n in 0..WITH_MORE {
            let (people, address) = (Arc::clone(&stage.people), server.address);
            tasks.spawn(async move { drain(address, n, &people[n][0].token).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        drained.add(&Round {
            count: total,
            took: begun.elapsed(),
            cpu: machine::cpu(server.id())? - cpu,
        });
    }
    let line = |name: &str, ours: Figures, goal: f64, told: &str| Line {
        name: name.to_owned(),
        unit: " events/s",
        met: Some(ours.median() >= goal),
        ours,
        goal: told.to_owned(),
        ..Line::default()
    };
    Ok(vec![
        line(
            "offline queue, 1,000 devices × 100 events: stored durably, all cores",
            stored,
            8_000.0,
            "≥ 8,000/s",
        ),
        line(
            "the same drained and acknowledged, connects included, all cores",
            drained,
            70_000.0,
            "≥ 70,000/s",
        ),
    ])
}

/// Connects, takes everything, acknowledges it, and waits until the server has heard that.
async fn drain(address: std::net::SocketAddr, n: usize, token: &str) -> Res<()> {
    let mut socket = Socket::of_device(address, n, token).await?;
    let welcome = socket.read_until("welcome").await?;
    let epoch = text(&welcome, b"\"epoch\":\"")
        .ok_or("no epoch")?
        .to_owned();
    let head = number(&welcome, b"\"head_seq\":").ok_or("no head")?;
    let mut last = number(&welcome, b"\"acked_seq\":").ok_or("no cursor")?;
    let mut due = last + EVENTS.cast_signed();
    if due != head {
        return Err(format!("{due} events are due, {head} are there").into());
    }
    while last < head {
        socket
            .read(|frame| {
                if frame.starts_with(b"{\"type\":\"event\"") {
                    let seq = number(frame, b"\"seq\":").unwrap_or(-1);
                    if seq == last + 1 {
                        last = seq;
                    } else {
                        due = -1;
                    }
                }
            })
            .await?;
        if due < 0 {
            return Err("an event is missing".into());
        }
        socket.put(&format!(
            "{{\"type\":\"ack\",\"up_to\":{last},\"epoch\":\"{epoch}\"}}"
        ));
        socket.flush().await?;
    }
    socket.put("{\"type\":\"ping\",\"ref\":\"done\"}");
    socket.flush().await?;
    socket.read_until("pong").await?;
    Ok(())
}
