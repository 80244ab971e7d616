//! What is asked by HTTP: a durable write, and a read from memory.

use std::{sync::Arc, time::Duration};

use super::{CLIENTS, Stage, listening, settle};
use crate::{
    Plan, Res,
    fleet::{Make, as_fast_as_can, at_rate},
    http::request,
    machine::{Cores, pin},
    people::People,
    report::{Figures, Line, Round, Times},
    server::Reference,
};

/// Each request makes a favorite that is new, for the next of so many users.
pub fn puts(people: &People, users: usize, name: &str) -> Make {
    let (people, name) = (Arc::clone(people), name.to_owned());
    Arc::new(move |n| {
        let user = &people[n as usize % users];
        let path = format!("/v1/me/favorites/song/{name}-{n}");
        (request("PUT", &path, &user[0].token), 201)
    })
}

/// Has the store's own code run for a while.
pub fn run_store(store: &mut Reference, secs: Duration) -> Res<Round> {
    let said = store.ask(&format!("run {}", secs.as_millis()))?;
    let mut numbers = said.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next().ok_or("an answer that is too short");
    Ok(Round {
        count: next()??,
        took: Duration::from_micros(next()??),
        cpu: next()?? as f64 / 1e6,
    })
}

/// Durable writes of many users.
pub async fn favorite(plan: &Plan, stage: &Stage, engine: &str) -> Res<Line> {
    let users = super::WITH_MORE.min(stage.people.len());
    let server = stage.server(Cores::First).await?;
    let mut store = stage.store("favorites", Cores::First)?;
    pin(None, Cores::Second)?;
    let (mut ours, mut reference) = (Figures::default(), Figures::default());
    let to = (server.address, server.id());
    for round in 0..plan.rounds {
        reference.add(&run_store(&mut store, plan.secs)?);
        settle().await;
        let make = puts(&stage.people, users, &format!("f{round}"));
        let (done, _) = as_fast_as_can(to, CLIENTS, plan.secs, &make).await?;
        ours.add(&done);
        settle().await;
    }
    let mut times = Times::default();
    for round in 0..plan.rounds {
        let make = puts(&stage.people, users, &format!("h{round}"));
        let rate = ours.median() / 2.0;
        let (_, waited) = at_rate(to, CLIENTS, plan.secs, rate, &make).await?;
        times.join(waited);
    }
    pin(None, Cores::All)?;
    let name = "the same statements by the store alone, groups of 64".to_owned();
    let mut line = Line {
        name: format!("durable `PUT favorite`, {engine}"),
        unit: "/s",
        ours,
        reference: Some((name, reference)),
        goal: "≥ 50 %".to_owned(),
        notes: vec![format!("at half of it {}", times.show())],
        ..Line::default()
    };
    line.met = Some(line.ratio() >= 0.5);
    Ok(line)
}

/// Reads that an actor answers from memory.
pub async fn presence(plan: &Plan, stage: &Stage) -> Res<Line> {
    let server = stage.server(Cores::First).await?;
    let (reference, address) = listening("json", Cores::First)?;
    pin(None, Cores::Second)?;
    let people = Arc::clone(&stage.people);
    let ask: Make = Arc::new(move |n| {
        let user = &people[n as usize % super::WITH_MORE];
        (request("GET", "/v1/me/presence", &user[0].token), 200)
    });
    let people = Arc::clone(&stage.people);
    // The same bytes come in, although the handler does not look at them.
    let bare: Make = Arc::new(move |n| {
        let user = &people[n as usize % super::WITH_MORE];
        (request("GET", "/", &user[0].token), 200)
    });
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    for _ in 0..plan.rounds {
        let (done, _) =
            as_fast_as_can((address, reference.id()), CLIENTS, plan.secs, &bare).await?;
        theirs.add(&done);
        let to = (server.address, server.id());
        let (done, _) = as_fast_as_can(to, CLIENTS, plan.secs, &ask).await?;
        ours.add(&done);
        settle().await;
    }
    pin(None, Cores::All)?;
    let mut line = Line {
        name: "`GET /v1/me/presence` (HS256 token)".to_owned(),
        unit: "/s",
        ours,
        reference: Some(("a bare actix-web JSON handler".to_owned(), theirs)),
        goal: "≥ 70 %".to_owned(),
        ..Line::default()
    };
    line.met = Some(line.ratio() >= 0.7);
    Ok(line)
}
