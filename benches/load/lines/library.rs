//! What users keep: songs that move in long playlists, plays that come by the hundred, and all of it at
//! once.

use std::{
    fmt::Write as _,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use listen_stream::domain::{clock::World, time::rfc3339};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{CLIENTS, Stage, listening_with, path, rest::run_store, settle};
use crate::{
    Plan, Res,
    fleet::{Make, as_fast_as_can, at_rate, exactly},
    http::{Http, post_as, request},
    machine::{self, Cores, pin},
    people::{Device, ask, expect},
    report::{Figures, Line, Round, Times},
    rows::Rows,
};

/// Users whose playlists are worked at.
const MOVERS: usize = 16;
/// Songs of a long playlist: as many as there may be.
const LONG: usize = 10_000;
/// Songs of one that is compared with it.
const SHORT: usize = 100;
/// Songs that one call adds.
const AT_ONCE: usize = 1_000;
/// Moves of which it is looked at what they touch.
const LOOKED_AT: u64 = 100;

/// A playlist, and its entries as they stood at first.
struct List {
    token: String,
    id: String,
    entries: Vec<String>,
}

impl List {
    async fn make(http: &mut Http, of: &Device, songs: usize, prefix: &str) -> Res<Self> {
        let body = json!({"name": format!("{prefix} {songs}")}).to_string();
        let made = ask(http, &post_as(&of.token, "/v1/me/playlists", &body), 201).await?;
        let id = text(&made["id"])?;
        let mut entries = Vec::with_capacity(songs);
        let path = format!("/v1/me/playlists/{id}/songs");
        while entries.len() < songs {
            let from = entries.len();
            let ids: Vec<_> = (from..songs.min(from + AT_ONCE))
                .map(|n| format!("{prefix}:song-{n}"))
                .collect();
            let body = json!({ "song_ids": ids }).to_string();
            let put = ask(http, &post_as(&of.token, &path, &body), 201).await?;
            for entry in put["entries"].as_array().ok_or("no entries")? {
                entries.push(text(&entry["id"])?);
            }
        }
        let token = of.token.clone();
        Ok(Self { token, id, entries })
    }

    /// A request that moves one entry behind another.
    fn move_one(&self, what: usize, behind: usize) -> Vec<u8> {
        let (what, behind) = (&self.entries[what], &self.entries[behind]);
        let body = format!("{{\"entry_ids\":[\"{what}\"],\"after\":\"{behind}\"}}");
        let path = format!("/v1/me/playlists/{}/songs:move", self.id);
        post_as(&self.token, &path, &body)
    }

    /// Any two entries.
    fn pick(&self, seed: u64) -> (usize, usize) {
        let length = self.entries.len();
        let (any, other) = (scatter(seed), scatter(seed ^ 0xa5a5_a5a5));
        let what = any as usize % length;
        // Not itself.
        (what, (what + 1 + other as usize % (length - 1)) % length)
    }
}

fn text(value: &Value) -> Res<String> {
    Ok(value
        .as_str()
        .ok_or("no text where some was due")?
        .to_owned())
}

/// Numbers that look like chance, the same in each run.
const fn scatter(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Each request moves a song of the next playlist.
fn moves(lists: &Arc<Vec<List>>, salt: u64) -> Make {
    let lists = Arc::clone(lists);
    Arc::new(move |n| {
        let list = &lists[n as usize % lists.len()];
        let (what, behind) = list.pick(scatter(salt + 1) ^ n);
        (list.move_one(what, behind), 200)
    })
}

async fn lists(
    address: std::net::SocketAddr,
    people: &[Vec<Device>],
    songs: usize,
) -> Res<Arc<Vec<List>>> {
    let mut lists = Vec::new();
    for (n, of) in people.iter().take(MOVERS).enumerate() {
        let mut http = Http::connect(address, n).await?;
        lists.push(List::make(&mut http, &of[0], songs, "move").await?);
    }
    Ok(Arc::new(lists))
}

/// How many entries get another place by a move: the mean, and the most. Most moves go to one place, so
/// that there is no more room between its neighbours now and then.
async fn touched(address: std::net::SocketAddr, list: &List, rows: &mut Rows) -> Res<(f64, i64)> {
    let mut http = Http::connect(address, 0).await?;
    let playlist: Uuid = list.id.parse()?;
    let (mut all, mut most) = (0, 0);
    for n in 0..LOOKED_AT {
        let (what, behind) = match n % 5 {
            0 => list.pick(n),
            _ => (1 + scatter(n) as usize % (list.entries.len() - 1), 0),
        };
        rows.remember(playlist).await?;
        ask(&mut http, &list.move_one(what, behind), 200).await?;
        let count = rows.moved(playlist).await?;
        all += count;
        most = most.max(count);
    }
    Ok((all as f64 / LOOKED_AT as f64, most))
}

/// Single songs that move, each in a playlist as long as one may be.
pub async fn moved(plan: &Plan, stage: &Stage, engine: &str) -> Res<Line> {
    let server = stage.server(Cores::First).await?;
    let long = lists(server.address, &stage.people, LONG).await?;
    let short = lists(server.address, &stage.people, SHORT).await?;
    pin(None, Cores::Second)?;
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    let to = (server.address, server.id());
    for round in 0..plan.fewer(3) as u64 {
        settle().await;
        let (done, _) = as_fast_as_can(to, MOVERS, plan.secs, &moves(&short, round)).await?;
        theirs.add(&done);
        settle().await;
        let (done, _) = as_fast_as_can(to, MOVERS, plan.secs, &moves(&long, round)).await?;
        ours.add(&done);
    }
    settle().await;
    let rate = ours.median() / 2.0;
    let (_, mut times) = at_rate(to, MOVERS, plan.secs, rate, &moves(&long, 1000)).await?;
    pin(None, Cores::All)?;
    let mut rows = Rows::open(&server.data, stage.url()).await?;
    let (mean, most) = touched(server.address, &long[0], &mut rows).await?;
    let mut line = Line {
        name: format!("one song moved in a playlist of 10,000, durable, {engine}"),
        unit: "/s",
        ours,
        reference: Some(("the same in playlists of 100".to_owned(), theirs)),
        goal: "≥ 80 %, ≤ 100 entries".to_owned(),
        notes: vec![
            format!("at half of it {}", times.show()),
            format!(
                "entries that a move writes, most moves to one place: {} on average, {most} at most",
                crate::report::show(mean)
            ),
        ],
        ..Line::default()
    };
    line.met = Some(line.ratio() >= 0.8 && most <= 100);
    Ok(line)
}

/// Plays of one call: as many as there may be.
const PLAYS: u64 = 200;
/// Users who bring them, and as many for whom the store alone works.
const LISTENERS: usize = 200;

/// A call with plays that nobody has brought yet.
fn plays(world: &World, first: u64) -> String {
    let now = world.now();
    // Whoever comes later in a second has the greater ids, so that what is new is kept.
    let seed = u128::from(now.timestamp_micros().unsigned_abs()) << 64;
    let second = rfc3339(now - chrono::TimeDelta::seconds(1));
    let second = &second[..19];
    let mut body = String::with_capacity(PLAYS as usize * 210);
    body.push_str("{\"plays\":[");
    for n in 0..PLAYS {
        let comma = if n == 0 { "" } else { "," };
        let id = Uuid::from_u128(seed | u128::from(first + n));
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            "{comma}{{\"id\":\"{id}\",\"song_id\":\"song-{}\",\"song_name\":\"The name of a song {n}\",\
             \"artist_name\":\"Somebody who sings\",\"duration\":215,\"played_at\":\"{second}.{:06}Z\"}}",
            first + n,
            n * 5_000
        );
    }
    body.push_str("]}");
    body
}

/// Plays by the hundred, for users whose histories are full.
pub async fn history(plan: &Plan, stage: &Stage, engine: &str) -> Res<Line> {
    let server = stage.server(Cores::First).await?;
    let mut store = stage.store("plays", Cores::First)?;
    pin(None, Cores::Second)?;
    // Others than the store alone works for: with PostgreSQL both have one database.
    let first = LISTENERS;
    let (world, next) = (World::system(), AtomicU64::new(0));
    let people = Arc::clone(&stage.people);
    let make: Make = Arc::new(move |n| {
        let body = plays(&world, next.fetch_add(PLAYS, Relaxed));
        let of = &people[first + n as usize % LISTENERS][0];
        (post_as(&of.token, "/v1/me/history", &body), 200)
    });
    let to = (server.address, server.id());
    // Until a call has to let go as many as it brings.
    exactly(to, CLIENTS, 3 * LISTENERS as u64, &make).await?;
    run_store(&mut store, plan.secs / 2)?;
    let (mut ours, mut reference) = (Figures::default(), Figures::default());
    let of_plays = |round: Round| Round {
        count: round.count * PLAYS,
        ..round
    };
    for _ in 0..plan.fewer(3) {
        reference.add(&of_plays(run_store(&mut store, plan.secs)?));
        settle().await;
        let (done, _) = as_fast_as_can(to, CLIENTS, plan.secs, &make).await?;
        ours.add(&of_plays(done));
        settle().await;
    }
    let rate = ours.median() / PLAYS as f64 / 2.0;
    let (_, mut times) = at_rate(to, CLIENTS, plan.secs, rate, &make).await?;
    let mut http = Http::connect(server.address, 0).await?;
    let answer = ask(&mut http, &make(0).0, 200).await?;
    let results = answer["results"].as_array().ok_or("no results")?;
    if results.iter().any(|it| it["status"] != "added") {
        return Err("plays are ignored: not what is measured".into());
    }
    pin(None, Cores::All)?;
    let name = "the same by the store alone, 64 at a time".to_owned();
    let mut line = Line {
        name: format!("plays, 200 a call, into full histories, durable, {engine}"),
        unit: " plays/s",
        notes: vec![format!(
            "{} calls/s; a call at half of it {}",
            crate::report::show(ours.median() / PLAYS as f64),
            times.show()
        )],
        ours,
        reference: Some((name, reference)),
        goal: "≥ 50 %".to_owned(),
        ..Line::default()
    };
    line.met = Some(line.ratio() >= 0.5);
    Ok(line)
}

/// What the user of the snapshot keeps.
const FAVORITES: u64 = 2_000;
/// Playlists, and songs in each.
const PLAYLISTS: usize = 100;

/// Gives somebody a large library.
async fn fill(to: (std::net::SocketAddr, u32), of: &Device) -> Res<()> {
    let token = of.token.clone();
    let make: Make = Arc::new(move |n| {
        let path = format!("/v1/me/favorites/song/catalogue:song-{n}");
        (request("PUT", &path, &token), 201)
    });
    exactly(to, 32, FAVORITES, &make).await?;
    let mut http = Http::connect(to.0, 0).await?;
    for n in 0..3 {
        let body = plays(&World::system(), n * PLAYS);
        ask(&mut http, &post_as(&of.token, "/v1/me/history", &body), 200).await?;
    }
    let mut making = JoinSet::new();
    for first in 0..8 {
        let of = of.clone();
        making.spawn(async move {
            let mut http = Http::connect(to.0, first).await?;
            for n in (first..PLAYLISTS).step_by(8) {
                List::make(&mut http, &of, 100, &format!("list-{n}")).await?;
            }
            Res::Ok(())
        });
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    Ok(())
}

/// One client that asks for so long; how long each answer took until its last byte.
async fn take(
    (address, process): (std::net::SocketAddr, u32),
    asked: &[u8],
    length: usize,
    secs: Duration,
) -> Res<(Round, Times)> {
    let mut http = Http::connect(address, 0).await?;
    let mut times = Times::default();
    let (begun, cpu) = (Instant::now(), machine::cpu(process)?);
    while begun.elapsed() < secs {
        let sent = Instant::now();
        let (status, body) = http.stream(asked).await?;
        times.add(sent.elapsed());
        expect(status, 200, &body)?;
        if body.len() != length {
            return Err(format!("{} bytes, not {length}", body.len()).into());
        }
    }
    let round = Round {
        count: times.count(),
        took: begun.elapsed(),
        cpu: machine::cpu(process)? - cpu,
    };
    Ok((round, times))
}

/// Everything that somebody keeps, who keeps much.
pub async fn snapshot(plan: &Plan, stage: &Stage, engine: &str) -> Res<Line> {
    let server = stage.server(Cores::First).await?;
    // Somebody of whom no other line knows.
    let of = &stage.people.last().ok_or("nobody")?[0];
    let to = (server.address, server.id());
    fill(to, of).await?;
    let asked = request("GET", "/v1/me/snapshot", &of.token);
    let (status, body) = Http::connect(to.0, 0).await?.stream(&asked).await?;
    expect(status, 200, &body)?;
    let lines = body.split(|byte| *byte == b'\n').count() - 1;
    let end = format!("{{\"end\":{{\"lines\":{lines}}}}}\n");
    let due = 1 + FAVORITES as usize + 500 + 2 * PLAYLISTS + 1;
    if lines != due || !body.ends_with(end.as_bytes()) {
        return Err(format!("a snapshot of {lines} lines, not {due}").into());
    }
    let file = server.data.with_extension("ndjson");
    std::fs::write(&file, &body)?;
    let (reference, address) = listening_with(&["bytes", &path(&file)], Cores::First)?;
    pin(None, Cores::Second)?;
    let (mut ours, mut bare) = (Figures::default(), Figures::default());
    let (mut all, secs) = (Times::default(), plan.secs / 2);
    let store = "listen_stream_store_read_seconds";
    let (sum, count) = (
        format!("{store}_sum{{name=\"snapshot\"}}"),
        format!("{store}_count{{name=\"snapshot\"}}"),
    );
    let before = (server.metric(&sum).await?, server.metric(&count).await?);
    let add = |to: &mut Figures, round: &Round, times: &mut Times| {
        to.values.push(times.part(0.5));
        to.cpu_us.push(round.cpu * 1e6 / round.count.max(1) as f64);
    };
    for _ in 0..plan.fewer(3) {
        let to_bare = (address, reference.id());
        let (round, mut times) = take(to_bare, &asked, body.len(), secs).await?;
        add(&mut bare, &round, &mut times);
        let (round, mut times) = take(to, &asked, body.len(), secs).await?;
        add(&mut ours, &round, &mut times);
        all.join(times);
    }
    pin(None, Cores::All)?;
    let read = server.metric(&sum).await? - before.0;
    let read = read / (server.metric(&count).await? - before.1).max(1.0);
    let met = Some(ours.median() < 50.0);
    Ok(Line {
        name: format!(
            "snapshot of 500 plays, 2,000 favorites and 100 playlists × 100 songs ({} KiB), {engine}: \
             P50 to the last byte",
            body.len() / 1024
        ),
        unit: " ms",
        ours,
        reference: Some((
            "the same bytes by a bare actix-web handler".to_owned(),
            bare,
        )),
        goal: "< 50 ms".to_owned(),
        met,
        notes: vec![
            format!("all: {}", all.show()),
            format!(
                "the read within the server {} ms",
                crate::report::show(read * 1000.0)
            ),
        ],
    })
}
