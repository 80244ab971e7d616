//! What a device has: filled by a snapshot, kept by events alone, as docs/protocol.md says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A play's place: when it was played, and its id.
type Place = (String, String);

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Library {
    favorites: BTreeMap<String, Value>,
    cleared_at: Option<Value>,
    plays: BTreeMap<Place, Value>,
    pub playlists: BTreeMap<String, Playlist>,
    player: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Playlist {
    about: Value,
    pub entries: Vec<Value>,
    /// It was deleted before its songs could be fetched: nothing counts until that is told.
    lost: bool,
}

/// What an event asks for that it does not say itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    /// The playlist is to be fetched, at this version or a later one.
    Fetch(String, u64),
}

/// A snapshot's position and content. An error: it was cut off, or is not what it should be.
pub fn snapshot(text: &str) -> Result<(String, u64, Library), String> {
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("a line of a snapshot is no JSON: {e}"))?;
    if lines.last() != Some(&json!({"end": {"lines": lines.len()}})) {
        return Err("a snapshot without its end".into());
    }
    let epoch = text_of(&lines[0], "epoch");
    let seq = lines[0]["seq"].as_u64().ok_or("a snapshot without seq")?;
    let mut library = Library::default();
    for line in &lines[1..lines.len() - 1] {
        let (kind, value) = line.as_object().unwrap().iter().next().unwrap();
        match kind.as_str() {
            "favorite" => drop(
                library
                    .favorites
                    .insert(text_of(value, "id"), value.clone()),
            ),
            "history" => library.cleared_at = Some(value["cleared_at"].clone()),
            "play" => drop(library.plays.insert(place(value), value.clone())),
            "playlist" => library.put(value.clone()),
            "entries" => {
                let playlist = library.playlists.get_mut(&text_of(value, "playlist_id"));
                let playlist = playlist.ok_or("entries of no playlist")?;
                playlist.entries.extend(array(value, "entries"));
            }
            "player" => library.player = value.clone(),
            other => return Err(format!("a line of an unknown kind: {other}")),
        }
    }
    Ok((epoch, seq, library))
}

impl Library {
    fn put(&mut self, about: Value) {
        self.fetched(about, Vec::new());
    }

    /// Puts a playlist as it was fetched in the place of what was known of it.
    pub fn fetched(&mut self, about: Value, entries: Vec<Value>) {
        let id = text_of(&about, "id");
        let lost = false;
        let playlist = Playlist {
            about,
            entries,
            lost,
        };
        self.playlists.insert(id, playlist);
    }

    /// There was nothing any more to be fetched.
    pub fn lost(&mut self, id: &str) {
        if let Some(playlist) = self.playlists.get_mut(id) {
            playlist.lost = true;
        }
    }

    /// Applies an event. An error: it does not fit what is there.
    pub fn apply(&mut self, event_type: &str, data: &Value) -> Result<Then, String> {
        let misfit = |why: &str| Err(format!("{event_type} does not fit ({why}): {data}"));
        let (kind, change) = event_type.split_once('.').unwrap_or_default();
        match (kind, change) {
            ("favorite", "removed") => {
                let gone = self.favorites.remove(&text_of(data, "id"));
                return gone.map_or_else(|| misfit("it is not there"), |_| Ok(Then::Nothing));
            }
            ("favorite", _) => {
                let mut favorite = data.clone();
                favorite.as_object_mut().unwrap().remove("version");
                self.favorites.insert(text_of(data, "id"), favorite);
            }
            ("history", change) => self.apply_history(change, data),
            ("player", "activated") => {
                self.player = json!({"active_device_id": data["device_id"],
                    "version": data["version"], "state": data["state"]});
            }
            ("playlist", change) => {
                return self.apply_playlist(change, data).or_else(misfit);
            }
            // Of services.
            _ => {}
        }
        Ok(Then::Nothing)
    }

    fn apply_history(&mut self, change: &str, data: &Value) {
        match change {
            "cleared" => {
                self.plays.clear();
                self.cleared_at = Some(data["cleared_at"].clone());
            }
            "removed" => {
                let ids = array(data, "ids");
                self.plays.retain(|_, it| !ids.contains(&it["id"]));
            }
            _ => {
                for play in data["plays"].as_array().into_iter().flatten() {
                    self.plays.insert(place(play), play.clone());
                }
                if data["oldest"].is_object() {
                    self.plays = self.plays.split_off(&place(&data["oldest"]));
                }
            }
        }
    }

    fn apply_playlist(&mut self, change: &str, data: &Value) -> Result<Then, &'static str> {
        let id = text_of(data, "id");
        let version = data["version"].as_u64().ok_or("no version")?;
        let known = self.playlists.get_mut(&id);
        // It was fetched when this had happened already.
        if known.as_ref().is_some_and(|it| it.version() >= version) {
            return Ok(Then::Nothing);
        }
        match (change, known) {
            ("created" | "restored", None) => self.put(data.clone()),
            ("created" | "restored", Some(_)) => return Err("it is there"),
            ("replaced", _) => return Ok(Then::Fetch(id, version)),
            (_, None) => return Err("it is not there"),
            ("deleted", Some(_)) => drop(self.playlists.remove(&id)),
            (_, Some(it)) if it.lost => {}
            ("updated", Some(it)) => it.about = data.clone(),
            ("songs_added", Some(it)) => {
                it.insert(&data["after"], array(data, "entries"))?;
                it.touch(data);
            }
            ("songs_removed", Some(it)) => {
                it.take(data)?;
                it.touch(data);
            }
            ("songs_moved", Some(it)) => {
                let moved = it.take(data)?;
                it.insert(&data["after"], moved)?;
                it.touch(data);
            }
            _ => return Err("unknown"),
        }
        Ok(Then::Nothing)
    }
}

impl Playlist {
    fn version(&self) -> u64 {
        self.about["version"].as_u64().unwrap()
    }

    fn touch(&mut self, data: &Value) {
        for field in ["version", "song_count", "updated_at"] {
            if let Some(value) = data.get(field) {
                self.about[field] = value.clone();
            }
        }
    }

    fn insert(&mut self, after: &Value, entries: Vec<Value>) -> Result<(), &'static str> {
        let at = if after.is_null() {
            0
        } else {
            let found = self.entries.iter().position(|it| it["id"] == *after);
            found.ok_or("the entry before it is not there")? + 1
        };
        self.entries.splice(at..at, entries);
        Ok(())
    }

    /// Takes out the entries that are named, in that order.
    fn take(&mut self, data: &Value) -> Result<Vec<Value>, &'static str> {
        let mut taken = Vec::new();
        for id in array(data, "entry_ids") {
            let found = self.entries.iter().position(|it| it["id"] == id);
            taken.push(self.entries.remove(found.ok_or("an entry is not there")?));
        }
        Ok(taken)
    }
}

/// What lists show, put together as a device has it.
pub struct Lists {
    pub favorites: Vec<Value>,
    pub plays: Vec<Value>,
    pub playlists: Vec<(Value, Vec<Value>)>,
    pub player: Value,
}

impl Lists {
    pub fn library(self) -> Library {
        let mut library = Library::default();
        for favorite in self.favorites {
            library.favorites.insert(text_of(&favorite, "id"), favorite);
        }
        for play in self.plays {
            library.plays.insert(place(&play), play);
        }
        for (about, entries) in self.playlists {
            library.fetched(about, entries);
        }
        library.player = self.player;
        library
    }
}

impl Library {
    /// Without what no list shows.
    #[must_use]
    pub fn as_listed(&self) -> Self {
        let mut listed = self.clone();
        listed.cleared_at = None;
        if listed.player.is_null() {
            listed.player = json!({"active_device_id": null, "version": 0, "state": null});
        }
        listed
    }

    /// The first thing that is not the same.
    pub fn differs(&self, other: &Self) -> Option<String> {
        let first =
            |name: &str, a: &Value, b: &Value| (a != b).then(|| format!("{name}: {a} is not {b}"));
        let part = |name: &str, a: Value, b: Value| {
            let (a, b) = (a.as_object().unwrap(), b.as_object().unwrap());
            let mut keys: Vec<_> = a.keys().chain(b.keys()).collect();
            keys.sort();
            let null = Value::Null;
            keys.into_iter().find_map(|key| {
                let name = format!("{name} {key}");
                first(
                    &name,
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                )
            })
        };
        let plays = |it: &Self| {
            let all = it.plays.iter();
            all.map(|((at, id), play)| (format!("{at} {id}"), play.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let playlists = |it: &Self| {
            let all = it.playlists.iter();
            all.map(|(id, it)| (id.clone(), json!([it.about, it.entries])))
                .collect::<BTreeMap<_, _>>()
        };
        part("favorite", json!(self.favorites), json!(other.favorites))
            .or_else(|| part("play", json!(plays(self)), json!(plays(other))))
            .or_else(|| part("playlist", json!(playlists(self)), json!(playlists(other))))
            .or_else(|| first("player", &self.player, &other.player))
            .or_else(|| first("cleared", &json!(self.cleared_at), &json!(other.cleared_at)))
    }
}

pub fn text_of(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn array(value: &Value, field: &str) -> Vec<Value> {
    value[field].as_array().cloned().unwrap_or_default()
}

fn place(play: &Value) -> Place {
    (text_of(play, "played_at"), text_of(play, "id"))
}
