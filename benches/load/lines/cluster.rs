//! Several nodes: from a change at one to a device at another.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use super::{
    Stage,
    deliver::{Followers, timed_puts},
    settle,
};
use crate::{
    Plan, Res,
    fleet::at_rate,
    machine::Cores,
    report::{Figures, Line, Times},
    server::Server,
};

/// Users whose device is connected.
const USERS: usize = 500;
/// Changes a second of all of them.
const RATE: f64 = 200.0;
/// Clients that ask for changes.
const WRITERS: usize = 32;

/// Changes at one node, for devices that follow at another, and at the same one.
pub async fn delivery(plan: &Plan, stage: &Stage, redis: &str) -> Res<Line> {
    let with_redis = [("REDIS__URL", redis)];
    let settings = stage.settings(&with_redis);
    let writes = Server::start(&stage.copy()?, &settings, Cores::All).await?;
    let other = Server::start(&stage.copy()?, &settings, Cores::All).await?;
    let begun = Instant::now();
    let (mut ours, mut near) = (Figures::default(), Figures::default());
    let (mut all, mut all_near) = (Times::default(), Times::default());
    for _ in 0..plan.fewer(3) {
        for at in [&writes, &other] {
            let mut followers = Followers::connect(at, &stage.people, (USERS, 1), begun).await?;
            let heard = std::sync::Arc::clone(&followers.heard);
            // Until each node knows what the other one serves.
            settle().await;
            heard.timed.store(true, Relaxed);
            let to = (writes.address, writes.id());
            let make = timed_puts(&stage.people, USERS, begun);
            let (done, _) = at_rate(to, WRITERS, plan.secs, RATE, &make).await?;
            followers.until(done.count).await?;
            let mut times = heard.take_times();
            let (figures, all) = if std::ptr::eq(at, &raw const other) {
                (&mut ours, &mut all)
            } else {
                (&mut near, &mut all_near)
            };
            figures.values.push(times.part(0.99));
            all.join(times);
            drop(followers);
            settle().await;
        }
    }
    let slow = all.part(0.99);
    Ok(Line {
        name: "from a change at one node to its frame at another, PostgreSQL and Redis, 200 changes/s, \
               all cores: P99"
            .to_owned(),
        unit: " ms",
        ours,
        reference: Some((
            format!("a device at the same node, of all {}", all_near.show()),
            near,
        )),
        goal: "P99 < 200 ms".to_owned(),
        met: Some(slow < 200.0),
        notes: vec![format!("of all {}", all.show())],
    })
}
