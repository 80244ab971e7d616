//! At the end: the log against what was asked for, each device against the log, and what each device has
//! against what the database holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reqwest::Method;
use serde_json::Value;

use crate::{
    call::Timed,
    device::{Client, pages},
    ledger::{Asked, Fate, Ledger, Mark},
    library::{Library, Lists, snapshot, text_of},
    support::{Device, Server},
    system::System,
};

/// An event as it came into the log.
#[derive(Debug)]
pub struct Event {
    pub seq: u64,
    pub id: String,
    pub kind: String,
    pub data: Value,
    pub origin: Option<String>,
}

/// All that ever came into the logs, by user.
pub type Logs = HashMap<String, Vec<Event>>;

pub async fn logs(system: &System) -> Logs {
    type Row = (uuid::Uuid, i64, uuid::Uuid, String, Value, Option<String>);
    let mut database = system.database().await;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT user_id, seq, id, event_type, data, origin FROM soak_log ORDER BY user_id, seq, n",
    )
    .fetch_all(&mut database)
    .await
    .unwrap();
    let mut logs = Logs::new();
    for (user, seq, id, event_type, data, origin) in rows {
        logs.entry(user.to_string()).or_default().push(Event {
            seq: u64::try_from(seq).unwrap(),
            id: id.to_string(),
            kind: event_type,
            data,
            origin,
        });
    }
    logs
}

/// Each log has every place once, up to its head.
pub fn whole(logs: &Logs, heads: &HashMap<String, u64>) -> Result<(), String> {
    let mut ids = BTreeSet::new();
    for (user, head) in heads {
        let log = logs.get(user).map_or(&[][..], Vec::as_slice);
        for (event, seq) in log.iter().zip(1..) {
            if event.seq != seq || !ids.insert(&event.id) {
                return Err(format!("user {user}: at {seq} stands {event:?}"));
            }
        }
        if log.len() as u64 != *head {
            return Err(format!("user {user}: {} events, head {head}", log.len()));
        }
    }
    Ok(())
}

/// Every type of event came: a command that is always refused would be tried in vain.
pub fn of_every_type(logs: &Logs) -> Result<(), String> {
    const TYPES: [&str; 17] = [
        "favorite.added",
        "favorite.removed",
        "favorite.restored",
        "history.added",
        "history.removed",
        "history.cleared",
        "playlist.created",
        "playlist.updated",
        "playlist.deleted",
        "playlist.restored",
        "playlist.songs_added",
        "playlist.songs_removed",
        "playlist.songs_moved",
        "playlist.replaced",
        "player.activated",
        "soak.note",
        "soak.hello",
    ];
    let there: BTreeSet<_> = logs.values().flatten().map(|it| &*it.kind).collect();
    match TYPES.iter().find(|it| !there.contains(*it)) {
        Some(missing) => Err(format!("no {missing} in any log")),
        None => Ok(()),
    }
}

/// A device applied what the log says, in its order.
pub fn applied(client: &Client, logs: &Logs) -> Result<(), String> {
    let log = &logs[&client.device.user_id];
    let mut last = 0;
    for it in &client.applied {
        let at = usize::try_from(it.seq - 1).unwrap();
        if it.seq <= last || log.get(at).is_none_or(|event| event.id != it.id) {
            let (id, user) = (&client.device.device_id, &client.device.user_id);
            return Err(format!(
                "{id} of user {user} applied {it:?}, the log has {:?}",
                log.get(at)
            ));
        }
        last = it.seq;
    }
    Ok(())
}

/// Everything that was answered is in the log exactly once, what was refused is not, and nothing is there
/// that nobody asked for. Gives the number of acknowledged changes that were looked for.
pub fn asked(ledgers: &[Ledger], logs: &Logs) -> Result<u64, String> {
    let mut found = 0;
    let mut claimed = BTreeSet::new();
    for ledger in ledgers {
        let log = &logs[&ledger.user];
        let mine: Vec<&Event> = log
            .iter()
            .filter(|it| it.origin.as_ref() == Some(&ledger.device))
            .collect();
        let misses = |what: String| {
            let Ledger { user, device, .. } = ledger;
            Err(format!("user {user}, device {device}: {what}"))
        };
        let index = Index::of(&mine);
        let mut cleared = (0, 0);
        for it in &ledger.asked {
            let there = index.find(it);
            if let (Mark::Cleared, Fate::Once(Some(seq))) = (&it.mark, it.fate)
                && cleared_by_another(log, &ledger.device, seq)
            {
                continue;
            }
            if matches!(it.mark, Mark::Cleared) {
                match it.fate {
                    Fate::Once(_) => cleared.0 += 1,
                    Fate::Perhaps => cleared.1 += 1,
                    Fate::Never => {}
                }
            }
            let Fate::Once(seq) = it.fate else {
                if there.len() > 1 || (it.fate == Fate::Never && !there.is_empty()) {
                    return misses(format!("{it:?} is there: {there:?}"));
                }
                continue;
            };
            found += 1;
            // By the position alone: the event there is this one's, and no other command's.
            if let (Mark::Changed(..) | Mark::Cleared, Some(seq)) = (&it.mark, seq)
                && !claimed.insert((&ledger.user, seq))
            {
                return misses(format!(
                    "{it:?}: another command was told the same position"
                ));
            }
            let right = match (&it.mark, seq) {
                // Another device may have done the same before.
                (Mark::Activated(to), Some(seq)) => {
                    let event = &log[usize::try_from(seq - 1).unwrap()];
                    event.kind == "player.activated" && event.data["device_id"] == to.as_str()
                }
                (_, Some(seq)) => there == [seq],
                (_, None) => there.len() == 1,
            };
            if !right {
                return misses(format!("{it:?} is at {there:?}"));
            }
        }
        let clears = index.count("history.cleared");
        if !(cleared.0..=cleared.0 + cleared.1).contains(&clears) {
            return misses(format!("{cleared:?} clears, {clears} events"));
        }
        found += favorites(ledger, &mine).or_else(misses)?;
        for (event_type, most) in &ledger.at_most {
            let there = index.count(event_type);
            if there > *most {
                return misses(format!("{there} {event_type} of {most} commands"));
            }
        }
        for event in &mine {
            let known = ledger.at_most.contains_key(event.kind.as_str());
            let others = [
                "playlist.deleted",
                "playlist.restored",
                "playlist.songs_added",
            ];
            if !known && !others.contains(&event.kind.as_str()) {
                return misses(format!("nobody asked for {event:?}"));
            }
        }
    }
    Ok(found)
}

/// Whether another device had just cleared the history, later than this one by the clock: nothing was left
/// to be cleared.
fn cleared_by_another(log: &[Event], device: &str, seq: u64) -> bool {
    let until = log.iter().rev().skip_while(|it| it.seq > seq);
    let mut plays = until.filter(|it| matches!(&*it.kind, "history.added" | "history.cleared"));
    plays.next().is_some_and(|it| {
        it.kind == "history.cleared" && it.origin.as_ref().is_some_and(|it| it != device)
    })
}

/// Favorites that only this writer touches, step by step.
fn favorites(ledger: &Ledger, mine: &[&Event]) -> Result<u64, String> {
    let mut found = 0;
    let mut there: BTreeMap<String, Vec<(&str, u64)>> = BTreeMap::new();
    for event in mine {
        if event.kind.starts_with("favorite.") {
            let steps = there.entry(text_of(&event.data, "target_id")).or_default();
            steps.push((&event.kind, event.seq));
        }
    }
    there.retain(|target, _| !target.starts_with("shared-"));
    for (target, asked) in &ledger.favorites {
        let steps = there.remove(target).unwrap_or_default();
        let wanted: Vec<_> = asked.iter().filter(|it| it.1 != Fate::Never).collect();
        let fits = steps.len() == wanted.len()
            && steps.iter().zip(&wanted).all(|(there, wanted)| {
                there.0 == wanted.0
                    && (wanted.1 == Fate::Once(None) || wanted.1 == Fate::Once(Some(there.1)))
            });
        if !fits {
            return Err(format!("{target}: asked for {asked:?}, there is {steps:?}"));
        }
        found += wanted.len() as u64;
    }
    if there.is_empty() {
        Ok(found)
    } else {
        Err(format!("nobody asked for {there:?}"))
    }
}

/// Where the events of a device are, by what marks them.
#[derive(Default)]
struct Index {
    named: HashMap<(String, String), Vec<u64>>,
    /// Of a song: its entries, each with the place where it came first.
    songs: HashMap<String, BTreeMap<String, u64>>,
    plays: HashMap<String, Vec<u64>>,
    changed: HashMap<u64, (String, String)>,
    counts: HashMap<String, u64>,
}

impl Index {
    fn of(events: &[&Event]) -> Self {
        let mut index = Self::default();
        for Event {
            seq,
            kind: event_type,
            data,
            ..
        } in events
        {
            *index.counts.entry(event_type.clone()).or_default() += 1;
            index
                .changed
                .insert(*seq, (event_type.clone(), text_of(data, "id")));
            let key = (event_type.clone(), text_of(data, "name"));
            index.named.entry(key).or_default().push(*seq);
            for entry in data["entries"].as_array().into_iter().flatten() {
                let entries = index.songs.entry(text_of(entry, "song_id")).or_default();
                entries.entry(text_of(entry, "id")).or_insert(*seq);
            }
            for play in data["plays"].as_array().into_iter().flatten() {
                let places = index.plays.entry(text_of(play, "id")).or_default();
                places.push(*seq);
            }
        }
        index
    }

    fn count(&self, event_type: &str) -> u64 {
        self.counts.get(event_type).copied().unwrap_or_default()
    }

    /// The places of what was asked for.
    fn find(&self, asked: &Asked) -> Vec<u64> {
        let at = match asked.fate {
            Fate::Once(at) => at,
            _ => None,
        };
        match &asked.mark {
            Mark::Named(event_type, name) => {
                let key = ((*event_type).to_owned(), name.clone());
                self.named.get(&key).cloned().unwrap_or_default()
            }
            Mark::Songs(songs) => {
                let mut places: Vec<u64> = songs
                    .iter()
                    .flat_map(|it| self.songs.get(it).into_iter().flatten())
                    .map(|(_, seq)| *seq)
                    .collect();
                let whole = places.len() == songs.len() || places.is_empty();
                places.dedup();
                // Some of them, or one of them twice: not as it was asked for.
                if whole { places } else { vec![0, 0] }
            }
            Mark::Play(id) => self.plays.get(id).cloned().unwrap_or_default(),
            Mark::Cleared => at
                .filter(|at| {
                    self.changed
                        .get(at)
                        .is_some_and(|it| it.0 == "history.cleared")
                })
                .into_iter()
                .collect(),
            Mark::Changed(event_type, id) => at
                .filter(|at| {
                    let there = self.changed.get(at);
                    there.is_some_and(|it| it.0 == *event_type && it.1 == *id)
                })
                .into_iter()
                .collect(),
            Mark::Activated(_) | Mark::Service(_) => Vec::new(),
        }
    }
}

/// Events of a service: each that was acknowledged is there once, each that may be once at most.
pub fn services(asked: &[(String, Asked)], logs: &Logs) -> Result<u64, String> {
    let mut found = 0;
    for (user, it) in asked {
        let Mark::Service(note) = &it.mark else {
            continue;
        };
        let log = logs.get(user).into_iter().flatten();
        let there = log
            .filter(|event| event.data["note"] == note.as_str())
            .count();
        let right = match it.fate {
            Fate::Once(_) => there == 1,
            Fate::Perhaps => there <= 1,
            Fate::Never => there == 0,
        };
        if !right {
            return Err(format!("user {user}: {it:?} is there {there} times"));
        }
        found += there as u64;
    }
    Ok(found)
}

/// A broadcast reached whom it says it reached, and each of them once.
pub fn broadcast(told: Option<(u64, u64)>, logs: &Logs) -> Result<(), String> {
    let Some((reached, skipped)) = told else {
        return Ok(());
    };
    let mut there = 0;
    for (user, log) in logs {
        let hello = log.iter().filter(|it| it.kind == "soak.hello");
        match hello.count() {
            0 => {}
            1 => there += 1,
            n => return Err(format!("user {user} has the broadcast {n} times")),
        }
    }
    if there == reached && reached + skipped == logs.len() as u64 {
        Ok(())
    } else {
        Err(format!(
            "reached {reached}, left out {skipped}, {there} have the broadcast"
        ))
    }
}

async fn all(device: &Device, path: &str) -> Vec<Value> {
    let (mut all, mut query) = (Vec::new(), "?limit=100".to_owned());
    loop {
        let page = device.get(&format!("{path}{query}")).await.ok(200);
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=100&cursor={cursor}"),
            None => return all,
        }
    }
}

/// What a node tells of a user's library: its snapshot, and its lists.
async fn told(device: &Device, node: &Server) -> Result<(Library, Library), String> {
    let device = device.at(node);
    let text = device.request(Method::GET, "/v1/me/snapshot").send().await;
    let text = text.unwrap().text().await.unwrap();
    let (_, _, library) = snapshot(&text)?;
    let mut playlists = Vec::new();
    for playlist in all(&device, "/v1/me/playlists").await {
        let fetched = pages(&device, &text_of(&playlist, "id")).await?;
        let Some((Some(about), entries)) = fetched else {
            return Err(format!("{playlist} cannot be fetched"));
        };
        playlists.push((about, entries));
    }
    let lists = Lists {
        favorites: all(&device, "/v1/me/favorites").await,
        plays: all(&device, "/v1/me/history").await,
        playlists,
        player: device.get("/v1/me/player").await.ok(200),
    };
    Ok((library, lists.library()))
}

/// What each device has is what each node tells.
pub async fn equal(clients: &[Client], system: &System) -> Result<(), String> {
    for (n, node) in system.nodes.iter().enumerate() {
        let mut users = HashMap::new();
        for client in clients {
            let Device {
                user_id, device_id, ..
            } = &client.device;
            if !users.contains_key(user_id) {
                let told = told(&client.device, node).await?;
                users.insert(user_id.clone(), told);
            }
            let (snapshot, lists) = &users[user_id];
            let (mine, has) = (
                client.library.clone(),
                format!("{device_id} of user {user_id}"),
            );
            if let Some(what) = mine.differs(snapshot) {
                return Err(format!("{has} is not the snapshot of node {n}: {what}"));
            }
            if let Some(what) = mine.as_listed().differs(lists) {
                return Err(format!("{has} is not what node {n} lists: {what}"));
            }
        }
    }
    Ok(())
}

/// Milliseconds from a call to its event at devices of other nodes, sorted: in quiet times.
pub fn crossings(clients: &[Client], timed: &[Timed]) -> Vec<u128> {
    let calls: HashMap<(&str, u64), &Timed> = timed
        .iter()
        .map(|it| ((it.user.as_str(), it.seq), it))
        .collect();
    let mut took = Vec::new();
    for client in clients {
        for it in client.applied.iter().filter(|it| it.quiet) {
            let call = calls.get(&(client.device.user_id.as_str(), it.seq));
            // Who connected later read it from the log.
            let there = |call: &&&Timed| {
                it.since < call.sent && it.node.is_some_and(|node| node != call.node)
            };
            if let Some(call) = call.filter(there) {
                took.push(it.at.duration_since(call.sent).as_millis());
            }
        }
    }
    took.sort_unstable();
    took
}
