//! Many HTTP clients at a time, and what they did.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    Res,
    http::Http,
    machine,
    people::expect,
    report::{Round, Times},
};

/// Makes the `n`th request of all, and says which status it must be answered with.
pub type Make = Arc<dyn Fn(u64) -> (Vec<u8>, u16) + Send + Sync>;

/// Each of `clients` asks again as soon as it was answered, for so long.
pub async fn as_fast_as_can(
    server: (SocketAddr, u32),
    clients: usize,
    took: Duration,
    make: &Make,
) -> Res<(Round, Times)> {
    drive(server, clients, Until::Over(took), None, make).await
}

/// So many requests, as fast as `clients` can.
pub async fn exactly(
    server: (SocketAddr, u32),
    clients: usize,
    count: u64,
    make: &Make,
) -> Res<Round> {
    let (round, _) = drive(server, clients, Until::Done(count), None, make).await?;
    Ok(round)
}

/// All clients together ask at `rate` a second; a request that has to wait for a free client waits on its
/// own account, from when it was due.
pub async fn at_rate(
    server: (SocketAddr, u32),
    clients: usize,
    took: Duration,
    rate: f64,
    make: &Make,
) -> Res<(Round, Times)> {
    drive(server, clients, Until::Over(took), Some(rate), make).await
}

#[derive(Debug, Clone, Copy)]
enum Until {
    Over(Duration),
    Done(u64),
}

async fn drive(
    (address, process): (SocketAddr, u32),
    clients: usize,
    until: Until,
    rate: Option<f64>,
    make: &Make,
) -> Res<(Round, Times)> {
    let mut connections = Vec::new();
    for n in 0..clients {
        connections.push(Http::connect(address, n).await?);
    }
    let next = Arc::new(AtomicU64::new(0));
    let (begun, cpu) = (Instant::now(), machine::cpu(process)?);
    let mut tasks = Vec::new();
    for mut http in connections {
        let (next, make) = (Arc::clone(&next), Arc::clone(make));
        tasks.push(tokio::spawn(async move {
            let mut times = Times::default();
            loop {
                let n = next.fetch_add(1, Relaxed);
                let due = rate.map(|rate| begun + Duration::from_secs_f64(n as f64 / rate));
                if let Some(due) = due {
                    tokio::time::sleep_until(due.into()).await;
                }
                let sent = due.unwrap_or_else(Instant::now);
                let over = match until {
                    Until::Over(took) => sent >= begun + took,
                    Until::Done(count) => n >= count,
                };
                if over {
                    return Res::Ok(times);
                }
                let (request, status) = make(n);
                let answer = http.call(&request).await?;
                expect(answer.status, status, answer.body)?;
                times.add(sent.elapsed());
            }
        }));
    }
    let mut times = Times::default();
    for task in tasks {
        times.join(task.await??);
    }
    let round = Round {
        count: times.count(),
        took: begun.elapsed(),
        cpu: machine::cpu(process)? - cpu,
    };
    Ok((round, times))
}
