//! The history: plays in batches, late, twice, ahead of the clock; removed, cleared, trimmed.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;

use super::*;
use crate::domain::{
    idempotency::IdempotencyKey,
    ids::PlayId,
    library::{ArtistName, IgnoredBecause, NewPlay, PlayResult, PlayStatus, SongName},
    time::rfc3339,
};

/// Plays that are kept here: few, so that some are too many.
const KEEP: u32 = 6;

#[derive(Debug, Clone)]
pub(super) enum HistoryCommand {
    /// Plays by number, each with how many seconds ago it was played.
    Add {
        plays: Vec<(u8, i64)>,
        key: Option<u8>,
    },
    Remove(u8),
    Clear {
        key: Option<u8>,
    },
}

/// A time and an id, and what is listed of the play.
type Plays = BTreeMap<(String, PlayId), Value>;

#[derive(Default)]
pub(super) struct History {
    plays: Plays,
    /// Removed plays, with their times.
    removed: HashMap<PlayId, DateTime<Utc>>,
    pub(super) cleared_at: Option<DateTime<Utc>>,
    /// What was asked and answered under a key.
    answers: HashMap<String, (String, Value)>,
}

fn id(n: u8) -> PlayId {
    PlayId(Uuid::from_u128(n.into()))
}

fn new_play(n: u8, played_at: DateTime<Utc>) -> NewPlay {
    NewPlay {
        id: id(n),
        song_id: TargetId::parse(format!("s{n}")).unwrap(),
        song_name: SongName::parse(format!("Söng \"{n}\"")).unwrap(),
        artist_name: ArtistName::parse("").unwrap(),
        duration: n.into(),
        played_at,
    }
}

impl History {
    fn time_of(&self, id: PlayId) -> Option<DateTime<Utc>> {
        let mut there = self.plays.keys().filter(|it| it.1 == id);
        there.next().map(|(at, _)| at.parse().unwrap())
    }

    fn add(&mut self, now: DateTime<Utc>, sent: &[NewPlay]) -> Vec<PlayResult> {
        let mut results = Vec::new();
        for play in sent {
            let ahead = play.played_at > now + TimeDelta::minutes(5);
            let mut played_at = if ahead { now } else { play.played_at };
            let mut reason = None;
            if let Some(at) = self.time_of(play.id) {
                (played_at, reason) = (at, Some(IgnoredBecause::Duplicate));
            } else if let Some(at) = self.removed.get(&play.id) {
                let cleared = self.cleared_at.is_some_and(|cleared| *at <= cleared);
                let why = if cleared {
                    IgnoredBecause::Cleared
                } else {
                    IgnoredBecause::Removed
                };
                (played_at, reason) = (*at, Some(why));
            } else if self.cleared_at.is_some_and(|at| played_at <= at) {
                reason = Some(IgnoredBecause::Cleared);
            } else {
                let listed = json!(play.at(played_at));
                self.plays.insert((rfc3339(played_at), play.id), listed);
            }
            results.push((play.id, reason, played_at));
        }
        while self.plays.len() > KEEP as usize {
            self.plays.pop_first();
        }
        let results = results.into_iter().map(|(id, mut reason, played_at)| {
            // Whoever is known by this call alone and fell out of it was too old.
            let added = reason.is_none() && self.time_of(id).is_some();
            if reason.is_none() && !added {
                reason = Some(IgnoredBecause::TooOld);
            }
            PlayResult {
                id,
                status: if added {
                    PlayStatus::Added
                } else {
                    PlayStatus::Ignored
                },
                reason,
                played_at,
            }
        });
        results.collect()
    }

    fn clear(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        let cleared_at = self.cleared_at.map_or(now, |at| at.max(now));
        self.cleared_at = Some(cleared_at);
        for ((at, id), _) in std::mem::take(&mut self.plays) {
            self.removed.insert(id, at.parse().unwrap());
        }
        cleared_at
    }

    /// What a call under a key answers: what it did the first time, or what `run` does. `None`: the
    /// key was used for something else.
    fn once(
        &mut self,
        key: Option<&IdempotencyKey>,
        run: impl FnOnce(&mut Self) -> Value,
    ) -> Option<Value> {
        let Some(key) = key else {
            return Some(run(self));
        };
        if let Some((asked, answer)) = self.answers.get(&key.key_hash) {
            return (*asked == key.asked_hash).then(|| answer.clone());
        }
        let answer = run(self);
        let known = (key.asked_hash.clone(), answer.clone());
        self.answers.insert(key.key_hash.clone(), known);
        Some(answer)
    }
}

fn key(n: Option<u8>, asked: &impl Debug) -> Option<IdempotencyKey> {
    n.map(|n| IdempotencyKey {
        key_hash: n.to_string(),
        asked_hash: format!("{asked:?}"),
    })
}

impl Part for History {
    type Command = HistoryCommand;
    type Client = Plays;
    const EVENTS: &'static str = "history";

    fn commands() -> BoxedStrategy<HistoryCommand> {
        let key = proptest::option::weighted(0.2, 0_u8..4);
        let plays = prop::collection::vec((0_u8..24, -400_i64..60), 1..10);
        prop_oneof![
            6 => (plays, key.clone()).prop_map(|(plays, key)| HistoryCommand::Add { plays, key }),
            2 => (0_u8..24).prop_map(HistoryCommand::Remove),
            1 => key.prop_map(|key| HistoryCommand::Clear { key }),
        ]
        .boxed()
    }

    async fn run(&mut self, at: &At<'_>, command: &HistoryCommand) -> Vec<Event> {
        let (store, soon) = (&at.bed.store, at.bed.soon());
        match command {
            HistoryCommand::Add { plays, key: n } => {
                let back = |ago: i64| at.now - TimeDelta::seconds(ago);
                let sent = plays.iter().map(|(n, ago)| new_play(*n, back(*ago)));
                let add = HistoryAdd {
                    issued: at.issued(),
                    key: key(*n, plays),
                    plays: sent.collect(),
                    keep: KEEP,
                };
                let once = store.history_add(soon, add.clone()).await.unwrap();
                let answer = self.once(add.key.as_ref(), |it| json!(it.add(at.now, &add.plays)));
                assert_eq!(answered(&once), answer);
                events(at, &once)
            }
            HistoryCommand::Remove(n) => {
                let id = id(*n);
                let written = store.history_remove(soon, at.issued(), id).await.unwrap();
                if let Some(played_at) = self.time_of(id) {
                    self.plays.retain(|(_, it), _| *it != id);
                    self.removed.insert(id, played_at);
                }
                let gone = self.removed.contains_key(&id);
                assert_eq!(written.value == PlayRemoved::Gone, gone);
                at.told(&written)
            }
            HistoryCommand::Clear { key: n } => {
                let clear = HistoryClear {
                    issued: at.issued(),
                    key: key(*n, &"clear"),
                };
                let once = store.history_clear(soon, clear.clone()).await.unwrap();
                let answer = self.once(clear.key.as_ref(), |it| json!(it.clear(at.now)));
                assert_eq!(answered(&once), answer);
                events(at, &once)
            }
        }
    }

    fn apply(client: &mut Plays, event_type: &str, data: &Value) {
        let name = |it: &Value| {
            let at = it["played_at"].as_str().unwrap().to_owned();
            (at, it["id"].as_str().unwrap().parse::<PlayId>().unwrap())
        };
        match event_type {
            "history.added" => {
                for play in data["plays"].as_array().unwrap() {
                    client.insert(name(play), play.clone());
                }
                if !data["oldest"].is_null() {
                    *client = client.split_off(&name(&data["oldest"]));
                }
            }
            "history.removed" => {
                for id in data["ids"].as_array().unwrap() {
                    let id: PlayId = id.as_str().unwrap().parse().unwrap();
                    client.retain(|(_, it), _| *it != id);
                }
            }
            "history.trimmed" => *client = client.split_off(&name(&data["oldest"])),
            "history.cleared" => client.clear(),
            other => panic!("{other}"),
        }
    }

    async fn check(&self, at: &At<'_>, client: &Plays) {
        let query = HistoryQuery {
            user: at.user,
            limit: 100,
            before: None,
        };
        let listed = at.bed.store.history_list(at.bed.soon(), query).await;
        let listed: Vec<_> = listed.unwrap().iter().map(|it| json!(it)).collect();
        let modelled: Vec<_> = self.plays.values().rev().cloned().collect();
        assert_eq!(listed, modelled, "what the model has");
        assert!(listed.len() <= KEEP as usize);
        assert_eq!(*client, self.plays, "what the client has");
    }
}

fn answered<T: serde::Serialize>(once: &Once<T>) -> Option<Value> {
    match once {
        Once::Ran(written) => Some(json!(written.value)),
        Once::Reused => None,
    }
}

fn events<T>(at: &At<'_>, once: &Once<T>) -> Vec<Event> {
    match once {
        Once::Ran(written) => at.told(written),
        Once::Reused => Vec::new(),
    }
}
