//! Playlists: made, changed, deleted, restored; songs put in, taken out, moved, replaced; expected
//! versions, and commands with keys that come again.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use serde_json::json;

use super::*;
use crate::{
    domain::{
        idempotency::IdempotencyKey,
        ids::{EntryId, PlaylistId},
        library::{
            CoverUrl, Entry, Expected, NewPlaylist, Nullable, Place as At0, Playlist, PlaylistName,
            PlaylistRefusal as Refusal, PlaylistUpdate, VersionTag,
        },
    },
    store::{NewSongs, PlaylistCommand as Target, PlaylistOutcome, PlaylistQuery, SongQuery},
};

/// Picks an entry by number; some numbers are those of no entry.
type Pick = u16;
const NO_ENTRY: Pick = 50_000;

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Beginning,
    End,
    After(Pick),
    Before(Pick),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Version {
    Whatever,
    Any,
    This,
    Another,
    OfAnotherLife,
}

#[derive(Debug, Clone)]
pub(super) enum Verb {
    /// A cover of 0 takes it away.
    Update(Option<u8>, Option<u8>, Option<bool>),
    Delete,
    Restore,
    Add(usize, Place, Option<u8>),
    Remove(Vec<Pick>),
    Move(Vec<Pick>, Place),
    /// Which one comes first, and how many are left out.
    Order(Pick, usize),
    Replace(usize),
}

#[derive(Debug, Clone)]
pub(super) enum PlaylistCommand {
    Create(bool, Option<u8>),
    /// Of a playlist by number; sometimes of none.
    On(u8, Version, Verb),
    /// Uses up all room between the entries of a playlist: nobody notices.
    Squeeze(u8),
}

#[derive(Debug, Clone)]
struct List {
    playlist: Playlist,
    entries: Vec<Entry>,
    deleted: bool,
}

#[derive(Default)]
pub(super) struct Playlists {
    lists: Vec<List>,
    /// What was asked and answered under a key.
    answers: HashMap<String, (String, Option<Value>)>,
}

/// By id: what is said of a playlist, and its entries; those of none are to be fetched.
type Known = BTreeMap<String, (Value, Option<Vec<Value>>)>;

fn picks() -> impl Strategy<Value = Vec<Pick>> {
    let pick = prop_oneof![20 => 0..NO_ENTRY, 1 => NO_ENTRY..];
    prop_oneof![
        9 => prop::collection::vec(pick, 1..5),
        1 => prop::collection::vec(0..NO_ENTRY, 600..900),
    ]
}

fn places() -> impl Strategy<Value = Place> {
    prop_oneof![
        1 => Just(Place::Beginning),
        1 => Just(Place::End),
        3 => any::<Pick>().prop_map(Place::After),
        3 => any::<Pick>().prop_map(Place::Before),
    ]
}

fn name(n: u8) -> PlaylistName {
    PlaylistName::parse(format!("Liste \"{n}\" 🎵")).unwrap()
}

fn cover(n: u8) -> Option<CoverUrl> {
    let url = CoverUrl::parse(format!("https://covers.example/{n}.jpg"));
    (n > 0).then(|| url.unwrap())
}

/// Few songs, so that they stand twice.
fn songs(n: usize) -> Vec<TargetId> {
    let song = |i: usize| TargetId::parse(format!("{}{}", "s".repeat(1 + i % 90), i % 7));
    (0..n).map(|i| song(i).unwrap()).collect()
}

fn key(n: Option<u8>, asked: &impl Debug) -> Option<IdempotencyKey> {
    n.map(|n| IdempotencyKey {
        key_hash: format!("playlist-{n}"),
        asked_hash: format!("{asked:?}"),
    })
}

impl List {
    fn pick(&self, pick: Pick) -> EntryId {
        if pick >= NO_ENTRY || self.entries.is_empty() {
            return EntryId(Uuid::from_u128(pick.into()));
        }
        self.entries[usize::from(pick) % self.entries.len()].id
    }

    fn picks(&self, picks: &[Pick]) -> Vec<EntryId> {
        let mut all = Vec::new();
        for id in picks.iter().map(|it| self.pick(*it)) {
            if !all.contains(&id) {
                all.push(id);
            }
        }
        all
    }

    fn place(&self, place: Place) -> At0 {
        match place {
            Place::Beginning => At0::Beginning,
            Place::End => At0::End,
            Place::After(pick) => At0::After(self.pick(pick)),
            Place::Before(pick) => At0::Before(self.pick(pick)),
        }
    }

    /// Puts entries to a place; the others keep theirs.
    fn put(&mut self, entries: Vec<Entry>, place: At0) -> Result<(), Refusal> {
        let find = |id, field: &str| {
            let at = self.entries.iter().position(|it| it.id == id);
            let field = field.to_owned();
            at.ok_or(Refusal::NoEntry { field })
        };
        let at = match place {
            At0::Beginning => 0,
            At0::End => self.entries.len(),
            At0::After(id) => find(id, "after")? + 1,
            At0::Before(id) => find(id, "before")?,
        };
        self.entries.splice(at..at, entries);
        Ok(())
    }

    /// What a change of a playlist in force does to it.
    fn change(&mut self, verb: &Verb, new: &[Entry]) -> Result<(), Refusal> {
        match verb {
            Verb::Update(to, url, is_public) => {
                let it = &mut self.playlist;
                if let Some(n) = to {
                    name(*n).as_str().clone_into(&mut it.name);
                }
                if let Some(url) = url {
                    it.cover_url = cover(*url).map(|url| url.as_str().to_owned());
                }
                it.is_public = is_public.unwrap_or(it.is_public);
            }
            Verb::Add(_, place, _) => self.put(new.to_vec(), self.place(*place))?,
            Verb::Remove(picks) => {
                let ids = self.picks(picks);
                self.entries.retain(|it| !ids.contains(&it.id));
            }
            Verb::Move(picks, place) => {
                let (ids, place) = (self.picks(picks), self.place(*place));
                let mut moved = Vec::new();
                for (n, id) in ids.iter().enumerate() {
                    let entry = self.entries.iter().find(|it| it.id == *id);
                    let field = format!("entry_ids[{n}]");
                    moved.push(entry.ok_or(Refusal::NoEntry { field })?.clone());
                }
                self.entries.retain(|it| !ids.contains(&it.id));
                self.put(moved, place)?;
            }
            Verb::Order(first, left_out) => {
                let (missing, version) = (*left_out, self.playlist.version);
                if missing > 0 {
                    return Err(Refusal::LeftOut { missing, version });
                }
                let len = self.entries.len().max(1);
                self.entries.rotate_left(usize::from(*first) % len);
            }
            Verb::Replace(_) => self.entries = new.to_vec(),
            Verb::Delete => self.deleted = true,
            Verb::Restore => self.deleted = false,
        }
        Ok(())
    }

    /// The model's answer to a command, and the list after it.
    fn after(&self, verb: &Verb, version: Version, new: &[Entry]) -> (Result<(), Refusal>, Self) {
        let same = |it: &Self| it.clone();
        match (verb, self.deleted) {
            (Verb::Delete, true) | (Verb::Restore, false) => return (Ok(()), same(self)),
            (Verb::Restore, true) | (_, false) => {}
            (_, true) => return (Err(Refusal::NotFound), same(self)),
        }
        if matches!(version, Version::Another | Version::OfAnotherLife) {
            let version = self.playlist.version;
            return (Err(Refusal::Stale { version }), same(self));
        }
        let mut next = self.clone();
        match next.change(verb, new) {
            Ok(()) => {
                next.playlist.song_count = i64::try_from(next.entries.len()).unwrap();
                (Ok(()), next)
            }
            Err(refusal) => (Err(refusal), same(self)),
        }
    }

    fn differs(&self, other: &Self) -> bool {
        self.playlist != other.playlist
            || self.entries != other.entries
            || self.deleted != other.deleted
    }
}

impl Playlists {
    /// What a key that was used answers; null: it was used for something else.
    fn answered(&self, key: Option<&IdempotencyKey>) -> Option<Value> {
        let key = key?;
        let (asked, answer) = self.answers.get(&key.key_hash)?;
        if *asked == key.asked_hash {
            // What was refused is decided anew.
            answer.clone()
        } else {
            Some(Value::Null)
        }
    }

    async fn create(&mut self, at: &At<'_>, is_public: bool, n: Option<u8>) -> Vec<Event> {
        let new = NewPlaylist {
            name: name(0),
            cover_url: None,
            is_public,
        };
        let id = PlaylistId(at.bed.uuid());
        let target = target(at, id, None);
        let key = key(n, &is_public);
        let (store, soon) = (&at.bed.store, at.bed.soon());
        let once = store.playlist_create(soon, target, new, key.clone()).await;
        let once = once.unwrap();
        let answer = match &once {
            Once::Ran(written) => json!(written.value),
            Once::Reused => Value::Null,
        };
        if let Some(known) = self.answered(key.as_ref()) {
            assert_eq!(answer, known);
            return told(at, &once);
        }
        let playlist = Playlist {
            id,
            name: name(0).as_str().to_owned(),
            cover_url: None,
            is_public,
            song_count: 0,
            version: at.head + 1,
            created_at: at.now,
            updated_at: at.now,
        };
        let outcome: PlaylistOutcome = Ok(playlist.clone());
        assert_eq!(answer, json!(outcome));
        self.remember(key, Some(json!(outcome)));
        self.lists.push(List {
            playlist,
            entries: Vec::new(),
            deleted: false,
        });
        told(at, &once)
    }

    fn remember(&mut self, key: Option<IdempotencyKey>, answer: Option<Value>) {
        if let Some(key) = key {
            self.answers.insert(key.key_hash, (key.asked_hash, answer));
        }
    }

    /// The playlist that is meant; some numbers are those of none.
    fn number(&self, n: u8) -> Option<usize> {
        let len = u8::try_from(self.lists.len()).unwrap();
        (n >= 5)
            .then(|| n.checked_rem(len))
            .flatten()
            .map(usize::from)
    }

    /// Puts all ranks side by side.
    async fn squeeze(&self, at: &At<'_>, n: u8) {
        let Some(n) = self.number(n) else { return };
        let id = self.lists[n].playlist.id;
        let literal = match at.bed.store.engine() {
            Engine::Sqlite => format!("X'{}'", id.0.simple()),
            Engine::Postgres => format!("'{id}'"),
        };
        let sql = format!(
            "CREATE TABLE squeezed AS SELECT id, ROW_NUMBER() OVER (ORDER BY rank) AS n
                 FROM playlist_entries WHERE playlist_id = {literal};
             UPDATE playlist_entries SET rank = 4096 + (SELECT n FROM squeezed
                 WHERE squeezed.id = playlist_entries.id) WHERE playlist_id = {literal};
             DROP TABLE squeezed"
        );
        at.bed.sql(&sql).await.unwrap();
    }

    async fn run_on(&mut self, at: &At<'_>, n: u8, version: Version, verb: &Verb) -> Vec<Event> {
        let (store, soon) = (&at.bed.store, at.bed.soon());
        let Some(n) = self.number(n) else {
            let none = target(at, PlaylistId(at.bed.uuid()), None);
            let written = store.playlist_delete(soon, none).await.unwrap();
            assert_eq!(written.value, Err(Refusal::NotFound));
            return at.told(&written);
        };
        let list = self.lists[n].clone();
        let is = list.playlist.version;
        let tag = |version| VersionTag::new(version, at.epoch);
        let expected = match version {
            Version::Whatever => None,
            Version::Any => Some(Expected::Any),
            Version::This => Some(Expected::Versions(vec![tag(-1), tag(is)])),
            Version::Another => Some(Expected::Versions(vec![tag(is - 1)])),
            Version::OfAnotherLife => Some(Expected::Versions(vec![VersionTag {
                epoch: !tag(is).epoch,
                ..tag(is)
            }])),
        };
        let target = target(at, list.playlist.id, expected);
        let first = EntryId(at.bed.uuid());
        let count = match verb {
            Verb::Add(count, ..) | Verb::Replace(count) => *count,
            _ => 0,
        };
        let new: Vec<_> = (0..)
            .zip(songs(count))
            .map(|(n, song_id)| Entry {
                id: first.after(n),
                song_id,
                added_at: at.now,
            })
            .collect();
        if let Verb::Add(_, place, n) = verb {
            let place = list.place(*place);
            let key = key(*n, &(list.playlist.id, count, place));
            let songs = songs(count);
            let command = NewSongs {
                place,
                songs,
                first,
                key: key.clone(),
            };
            let once = store.playlist_songs_add(soon, target, command).await;
            let once = once.unwrap();
            if let Some(known) = self.answered(key.as_ref()) {
                let answer = match &once {
                    Once::Ran(written) => json!(written.value.as_ref().unwrap()),
                    Once::Reused => Value::Null,
                };
                assert_eq!(answer, known);
                return told(at, &once);
            }
            let Once::Ran(written) = once else {
                panic!("a key that was never used")
            };
            let events = at.told(&written);
            let put = written.value.clone();
            let outcome = put.clone().map(|it| it.playlist);
            self.compare(
                &list,
                n_of(&self.lists, &list),
                verb,
                version,
                &new,
                at,
                &outcome,
                &events,
            );
            if let Ok(put) = &put {
                assert_eq!(put.entries, new);
            }
            self.remember(key, put.ok().map(|it| json!(it)));
            return events;
        }
        let written = run(at, &list, verb, target, first).await;
        let events = at.told(&written);
        self.compare(&list, n, verb, version, &new, at, &written.value, &events);
        events
    }

    #[expect(clippy::too_many_arguments, reason = "all that a comparison needs")]
    fn compare(
        &mut self,
        list: &List,
        n: usize,
        verb: &Verb,
        version: Version,
        new: &[Entry],
        at: &At<'_>,
        outcome: &PlaylistOutcome,
        events: &[Event],
    ) {
        let (modelled, mut next) = list.after(verb, version, new);
        let changed = next.differs(list);
        assert_eq!(!events.is_empty(), changed, "{verb:?}: {events:?}");
        if changed {
            next.playlist.version = at.head + i64::try_from(events.len()).unwrap();
            next.playlist.updated_at = at.now;
        }
        assert_eq!(
            *outcome,
            modelled.map(|()| next.playlist.clone()),
            "{verb:?}"
        );
        self.lists[n] = next;
    }
}

fn n_of(lists: &[List], list: &List) -> usize {
    let mut all = lists.iter();
    all.position(|it| it.playlist.id == list.playlist.id)
        .unwrap()
}

fn target(at: &At<'_>, id: PlaylistId, expected: Option<Expected>) -> Target {
    Target {
        issued: at.issued(),
        id,
        expected,
    }
}

fn told<T>(at: &At<'_>, once: &Once<T>) -> Vec<Event> {
    match once {
        Once::Ran(written) => at.told(written),
        Once::Reused => Vec::new(),
    }
}

async fn run(
    at: &At<'_>,
    list: &List,
    verb: &Verb,
    target: Target,
    first: EntryId,
) -> Written<PlaylistOutcome> {
    let (store, soon) = (&at.bed.store, at.bed.soon());
    match verb {
        Verb::Add(..) => unreachable!("has a key"),
        Verb::Update(to, url, is_public) => {
            let update = PlaylistUpdate {
                name: to.map(name),
                cover_url: url.map_or(Nullable::LeftOut, |it| {
                    cover(it).map_or(Nullable::Null, Nullable::Is)
                }),
                is_public: *is_public,
            };
            store.playlist_update(soon, target, update).await
        }
        Verb::Delete => store.playlist_delete(soon, target).await,
        Verb::Restore => store.playlist_restore(soon, target).await,
        Verb::Remove(picks) => {
            let ids = list.picks(picks);
            store.playlist_songs_remove(soon, target, ids).await
        }
        Verb::Move(picks, place) => {
            let (ids, place) = (list.picks(picks), list.place(*place));
            store.playlist_songs_move(soon, target, ids, place).await
        }
        Verb::Order(pick, left_out) => {
            let mut ids: Vec<_> = list.entries.iter().map(|it| it.id).collect();
            let len = ids.len().max(1);
            ids.rotate_left(usize::from(*pick) % len);
            ids.truncate(ids.len() - left_out);
            store.playlist_songs_reorder(soon, target, ids).await
        }
        Verb::Replace(count) => {
            let songs = songs(*count);
            store
                .playlist_songs_replace(soon, target, songs, first)
                .await
        }
    }
    .unwrap()
}

impl Part for Playlists {
    type Command = PlaylistCommand;
    type Client = Mutex<Known>;
    const EVENTS: &'static str = "playlist";

    fn commands() -> BoxedStrategy<PlaylistCommand> {
        let key = proptest::option::weighted(0.2, 0_u8..4);
        let cover = proptest::option::of(0_u8..3);
        let update = (proptest::option::of(0_u8..2), cover, any::<Option<bool>>());
        let count = prop_oneof![6 => 1_usize..4, 1 => 60_usize..200, 1 => 401_usize..420];
        let verb = prop_oneof![
            2 => update.prop_map(|(a, b, c)| Verb::Update(a, b, c)),
            1 => Just(Verb::Delete),
            2 => Just(Verb::Restore),
            6 => (count.clone(), places(), key.clone()).prop_map(|(n, at, key)| Verb::Add(n, at, key)),
            3 => picks().prop_map(Verb::Remove),
            6 => (picks(), places()).prop_map(|(picks, at)| Verb::Move(picks, at)),
            1 => (any::<Pick>(), prop_oneof![4 => Just(0_usize), 1 => Just(1)])
                .prop_map(|(first, left)| Verb::Order(first, left)),
            1 => prop_oneof![Just(0_usize), count].prop_map(Verb::Replace),
        ];
        let version = prop_oneof![
            6 => Just(Version::Whatever),
            1 => Just(Version::Any),
            2 => Just(Version::This),
            1 => Just(Version::Another),
            1 => Just(Version::OfAnotherLife),
        ];
        prop_oneof![
            1 => (any::<bool>(), key).prop_map(|(public, key)| PlaylistCommand::Create(public, key)),
            1 => any::<u8>().prop_map(PlaylistCommand::Squeeze),
            18 => (any::<u8>(), version, verb).prop_map(|(n, version, verb)| PlaylistCommand::On(n, version, verb)),
        ]
        .boxed()
    }

    async fn run(&mut self, at: &At<'_>, command: &PlaylistCommand) -> Vec<Event> {
        match command {
            PlaylistCommand::Create(is_public, key) => self.create(at, *is_public, *key).await,
            PlaylistCommand::Squeeze(n) => {
                self.squeeze(at, *n).await;
                Vec::new()
            }
            // Without one there is little to do.
            PlaylistCommand::On(..) if self.lists.is_empty() => self.create(at, false, None).await,
            PlaylistCommand::On(n, version, verb) => {
                // What leaves out one of none, or moves an entry beside itself, no client can say.
                let list = self.number(*n).map(|n| &self.lists[n]);
                let beside_itself = list.is_some_and(|list| match verb {
                    Verb::Order(_, left_out) => *left_out > list.entries.len(),
                    Verb::Move(picks, place) => {
                        let named = list.place(*place).named();
                        named.is_some_and(|(id, _)| list.picks(picks).contains(&id))
                    }
                    _ => false,
                });
                if beside_itself {
                    return Vec::new();
                }
                self.run_on(at, *n, *version, verb).await
            }
        }
    }

    fn apply(client: &mut Self::Client, event_type: &str, data: &Value) {
        let known = client.get_mut().unwrap();
        let id = data["id"].as_str().unwrap().to_owned();
        match event_type {
            "playlist.created" | "playlist.restored" => {
                assert_eq!(data["song_count"], 0);
                assert!(known.insert(id, (data.clone(), Some(Vec::new()))).is_none());
                return;
            }
            "playlist.deleted" => {
                assert!(known.remove(&id).is_some());
                return;
            }
            _ => {}
        }
        let (playlist, entries) = known.get_mut(&id).unwrap();
        let ids = |field: &str| -> Vec<Value> { data[field].as_array().unwrap().clone() };
        let put = |all: &mut Vec<Value>, new: Vec<Value>| {
            let at = match &data["after"] {
                Value::Null => 0,
                after => all.iter().position(|it| it["id"] == *after).unwrap() + 1,
            };
            all.splice(at..at, new);
        };
        match (event_type, entries) {
            ("playlist.updated", _) => {
                assert_eq!(playlist["song_count"], data["song_count"]);
                *playlist = data.clone();
            }
            ("playlist.replaced", entries) => *entries = None,
            ("playlist.songs_added", Some(all)) => put(all, ids("entries")),
            ("playlist.songs_removed", Some(all)) => {
                let gone = ids("entry_ids");
                let before = all.len();
                all.retain(|it| !gone.contains(&it["id"]));
                assert_eq!(before - all.len(), gone.len());
            }
            ("playlist.songs_moved", Some(all)) => {
                let moved = ids("entry_ids");
                let of = |id: &Value| all.iter().find(|it| it["id"] == *id).unwrap().clone();
                let entries = moved.iter().map(of).collect();
                all.retain(|it| !moved.contains(&it["id"]));
                put(all, entries);
            }
            (other, None) => panic!("{other} before the fetch"),
            (other, _) => panic!("{other}"),
        }
        for field in ["version", "updated_at", "song_count"] {
            if let Some(value) = data.get(field) {
                playlist[field] = value.clone();
            }
        }
    }

    async fn check(&self, at: &At<'_>, client: &Self::Client) {
        let (store, soon) = (&at.bed.store, at.bed.soon());
        for deleted in [false, true] {
            let query = PlaylistQuery {
                user: at.user,
                deleted,
                limit: 100,
                before: None,
            };
            let listed = store.playlist_list(soon, query).await.unwrap();
            let lists = self.lists.iter().filter(|it| it.deleted == deleted);
            let mut modelled: Vec<_> = lists.map(|it| it.playlist.clone()).collect();
            modelled.sort_by_key(|it| Reverse((it.created_at, it.id)));
            assert_eq!(listed, modelled);
        }
        let mut known = client.lock().unwrap().clone();
        for list in &self.lists {
            let id = list.playlist.id;
            let query = SongQuery {
                id,
                user: Some(at.user),
                limit: 20_000,
                after: None,
            };
            let page = store.playlist_songs(soon, query).await.unwrap();
            assert_eq!(page.is_none(), list.deleted);
            let Some(page) = page else {
                assert!(!known.contains_key(&id.to_string()), "deleted");
                continue;
            };
            assert!(page.entries.is_sorted_by(|a, b| a.1 < b.1));
            let there = i64::try_from(page.entries.len()).unwrap();
            assert_eq!(
                (page.song_count, page.version),
                (there, list.playlist.version)
            );
            let entries: Vec<_> = page.entries.into_iter().map(|it| it.0).collect();
            assert_eq!(entries, list.entries);
            let (playlist, songs) = known.get_mut(&id.to_string()).unwrap();
            if songs.is_none() {
                // Told to fetch, the client does.
                let fetched = store.playlist_fetch(soon, id, Some(at.user)).await.unwrap();
                *playlist = json!(fetched.unwrap().0);
                *songs = Some(entries.iter().map(|it| json!(it)).collect());
            }
            assert_eq!(*playlist, json!(list.playlist), "what the client has");
            let modelled: Vec<_> = list.entries.iter().map(|it| json!(it)).collect();
            assert_eq!(*songs, Some(modelled), "what the client has");
        }
        let in_force = self.lists.iter().filter(|it| !it.deleted).count();
        assert_eq!(known.len(), in_force);
        *client.lock().unwrap() = known;
    }
}
