//! An event for everybody: until all logs have it, and until all devices have it.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{CLIENTS, Stage, deliver::Followers, rest::puts, settle};
use crate::{
    Plan, Res,
    fleet::as_fast_as_can,
    http::{Http, post_as, request},
    machine::{self, Cores},
    people::ask,
    report::{Figures, Line, Round, Times},
    rows::Rows,
    server::{Server, create_key},
};

/// Users whose logs get it.
const STORED: usize = 100_000;
/// Rounds of it, which take long.
const ROUNDS: usize = 2;

/// A server with an internal listener, and another service that calls it.
struct Service {
    server: Server,
    internal: SocketAddr,
    key: String,
}

impl Service {
    /// With so many users in all; those whom the stage lacks are made without devices.
    async fn start(stage: &Stage, users: usize) -> Res<Self> {
        let data = stage.copy()?;
        let more = [("SERVER__INTERNAL_LISTEN", "127.0.0.1:0")];
        let settings = stage.settings(&more);
        let mut rows = Rows::open(&data, stage.url()).await?;
        rows.add_users(users.saturating_sub(stage.people.len()))
            .await?;
        drop(rows);
        let key = create_key(&data, &settings, "events:broadcast")?;
        let server = Server::start(&data, &settings, Cores::All).await?;
        let internal = server.internal.ok_or("no internal listener")?;
        Ok(Self {
            server,
            internal,
            key,
        })
    }

    /// Begins a broadcast; its id.
    async fn begin(&self, data: &Value) -> Res<String> {
        let body = json!({"event_type": "news.published", "data": data}).to_string();
        let request = post_as(&self.key, "/internal/v1/events:broadcast", &body);
        // The server gives up connections that are silent for as long as devices may take to connect.
        let mut http = Http::connect(self.internal, 0).await?;
        let begun = ask(&mut http, &request, 202).await?;
        Ok(begun["id"].as_str().ok_or("no id")?.to_owned())
    }

    /// Waits for its end, and shows it then.
    async fn finished(&self, id: &str) -> Res<Value> {
        let request = request("GET", &format!("/internal/v1/broadcasts/{id}"), &self.key);
        let mut http = Http::connect(self.internal, 0).await?;
        loop {
            let shown = ask(&mut http, &request, 200).await?;
            match shown["state"].as_str() {
                Some("finished") => return Ok(shown),
                Some("cancelled") | None => {
                    return Err(format!("a broadcast ended: {shown}").into());
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn moment(shown: &Value) -> Res<DateTime<Utc>> {
    let text = shown.as_str().ok_or("no time")?;
    Ok(DateTime::parse_from_rfc3339(text)?.to_utc())
}

/// Until it is in the logs of users who are not there.
pub async fn stored(plan: &Plan, stage: &Stage, engine: &str) -> Res<Line> {
    let service = Service::start(stage, STORED).await?;
    let process = service.server.id();
    let (mut ours, mut single, mut took) = (Figures::default(), Figures::default(), Vec::new());
    for round in 0..plan.fewer(ROUNDS) {
        settle().await;
        let make = puts(&stage.people, stage.people.len(), &format!("b{round}"));
        let to = (service.server.address, process);
        let (done, _) = as_fast_as_can(to, CLIENTS, plan.secs, &make).await?;
        single.add(&done);
        settle().await;
        let cpu = machine::cpu(process)?;
        let id = service.begin(&json!({"text": "hello"})).await?;
        let shown = service.finished(&id).await?;
        if shown["reached"] != STORED {
            return Err(format!("it did not reach all: {shown}").into());
        }
        let time = moment(&shown["finished_at"])? - moment(&shown["created_at"])?;
        took.push(time.as_seconds_f64());
        ours.add(&Round {
            count: STORED as u64,
            took: time.to_std()?,
            cpu: machine::cpu(process)? - cpu,
        });
    }
    Ok(Line {
        name: format!("broadcast to 100,000 users, stored durably, {engine}, all cores"),
        unit: " events/s",
        ours,
        reference: Some(("durable commands of single users".to_owned(), single)),
        goal: "–".to_owned(),
        notes: vec![format!(
            "{} s for all; it leaves the store to others half of the time",
            crate::report::show(crate::report::median(&took))
        )],
        ..Line::default()
    })
}

/// Until it is at devices that are all connected, each of a user of its own.
pub async fn connected(plan: &Plan, stage: &Stage, engine: &str) -> Res<Line> {
    let users = stage.people.len();
    let service = Service::start(stage, users).await?;
    let process = service.server.id();
    let begun = Instant::now();
    let mut followers =
        Followers::connect(&service.server, &stage.people, (users, 1), begun).await?;
    let heard = std::sync::Arc::clone(&followers.heard);
    heard.timed.store(true, Relaxed);
    let (mut ours, mut all) = (Figures::default(), Times::default());
    for _ in 0..plan.fewer(3) {
        settle().await;
        let (from, cpu, sent) = (
            heard.frames.load(Relaxed),
            machine::cpu(process)?,
            begun.elapsed(),
        );
        let id = service
            .begin(&json!({"target_id": format!("at-{}", sent.as_nanos())}))
            .await?;
        followers.until(from + users as u64).await?;
        let took = begun.elapsed().saturating_sub(sent);
        ours.values.push(took.as_secs_f64() * 1000.0);
        ours.cpu_us
            .push((machine::cpu(process)? - cpu) * 1e6 / users as f64);
        let shown = service.finished(&id).await?;
        if shown["reached"] != users {
            return Err(format!("it did not reach all: {shown}").into());
        }
        all.join(heard.take_times());
    }
    Ok(Line {
        name: format!(
            "broadcast to {} connected devices, each its own user, until the last has it, {engine}, all cores",
            crate::report::show(users as f64)
        ),
        unit: " ms",
        ours,
        goal: "–".to_owned(),
        notes: vec![format!(
            "devices: {}; the CPU is that of one of them",
            all.show()
        )],
        ..Line::default()
    })
}
