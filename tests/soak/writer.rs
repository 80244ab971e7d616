//! A device's user, who changes the library by random commands.

use std::{sync::Arc, time::Duration};

use chrono::{SubsecRound as _, TimeDelta};
use listen_stream::domain::clock::World;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    call::{Again, Caller, Reply},
    ledger::{Fate, Ledger, Mark},
    library::text_of,
    shared::Shared,
    support::{Device, client::try_send},
};

/// A pause between two commands, in milliseconds: at least, and up to so many more.
const PAUSE: (u64, u64) = (10, 100);
const PLAYLISTS: usize = 8;
const SONGS: u64 = 150;

/// See the module.
pub struct Writer {
    device: Device,
    /// All devices of the user.
    devices: Vec<String>,
    /// The end of the log's epoch, as tags of playlists have it.
    epoch: String,
    caller: Caller,
    made: u64,
    pub ledger: Ledger,
    /// Favorites of its own, and whether each is there.
    own: Vec<(String, bool)>,
    plays: Vec<String>,
}

type Done = Result<(), String>;

impl Writer {
    pub fn new(device: Device, devices: Vec<String>, epoch: &str, caller: Caller) -> Self {
        let ledger = Ledger {
            user: device.user_id.clone(),
            device: device.device_id.clone(),
            ..Ledger::default()
        };
        Self {
            device,
            devices,
            epoch: epoch[epoch.len() - 8..].to_owned(),
            caller,
            made: 0,
            ledger,
            own: Vec::new(),
            plays: Vec::new(),
        }
    }

    /// Writes until it is told to stop, or something is broken.
    pub async fn write(mut self) -> Ledger {
        let shared: Arc<Shared> = self.caller.shared.clone();
        while !shared.is_settling() && shared.broken().is_none() {
            if let Err(what) = self.step().await {
                self.caller.violated(&what);
                break;
            }
            let pause = PAUSE.0 + self.caller.dice.below(PAUSE.1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.ledger
    }

    async fn step(&mut self) -> Done {
        match self.caller.dice.below(100) {
            0..27 => self.favorite().await,
            27..32 => self.shared_favorite().await,
            32..50 => self.add_plays().await,
            50..54 => self.remove_play().await,
            54..56 => self.clear().await,
            56..62 => self.create().await,
            62..67 => self.rename().await,
            67..73 => self.delete_or_restore().await,
            73..83 => self.add_songs().await,
            83..89 => self.remove_songs().await,
            89..94 => self.move_songs().await,
            94..97 => self.replace().await,
            _ => self.hand_over().await,
        }
    }

    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}.{}.{}", self.device.device_id, self.made)
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let request = self.device.request(Method::GET, path);
        let answer = try_send(request.header("Connection", "close")).await.ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    /// A favorite that only this writer touches: what must be in the log is known one by one.
    async fn favorite(&mut self) -> Done {
        let old = self.caller.dice.below(3) == 0 && !self.own.is_empty();
        let (target, there) = if old {
            let index = self.caller.dice.index(self.own.len());
            self.own.swap_remove(index)
        } else {
            (self.name("fav"), false)
        };
        let path = format!("/v1/me/favorites/song/{target}");
        let (method, path, event_type) = match (old, there) {
            (false, _) => (Method::PUT, path, "favorite.added"),
            (true, true) => (Method::DELETE, path, "favorite.removed"),
            (true, false) => (Method::POST, format!("{path}/restore"), "favorite.restored"),
        };
        let device = self.device.clone();
        let make = || device.request(method.clone(), &path);
        let what = format!("{event_type} {target}");
        let fate = match self.caller.call(&what, Again::Yes, make).await? {
            Reply::Done { answer, by_this } => Fate::Once(by_this.then(|| answer.seq())),
            Reply::Nothing => Fate::Never,
            other => return Err(format!("{what}: {other:#?}")),
        };
        self.ledger.may(event_type);
        let events = self.ledger.favorites.entry(target.clone()).or_default();
        events.push((event_type, fate));
        let done = fate != Fate::Never;
        if old || done {
            let now = if done {
                event_type != "favorite.removed"
            } else {
                there
            };
            self.own.push((target, now));
        }
        Ok(())
    }

    /// One that several devices put, remove and restore.
    async fn shared_favorite(&mut self) -> Done {
        let path = format!(
            "/v1/me/favorites/album/shared-{}",
            self.caller.dice.below(4)
        );
        let (method, path, event_type) = match self.caller.dice.below(3) {
            0 => (Method::PUT, path, "favorite.added"),
            1 => (Method::DELETE, path, "favorite.removed"),
            _ => (Method::POST, format!("{path}/restore"), "favorite.restored"),
        };
        let device = self.device.clone();
        let make = || device.request(method.clone(), &path);
        self.caller.call(&path, Again::No, make).await?;
        self.ledger.may(event_type);
        Ok(())
    }

    async fn add_plays(&mut self) -> Done {
        let count = 1 + self.caller.dice.below(12);
        let now = World::system().now().trunc_subsecs(6);
        let (mut plays, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let id = Uuid::from_u128(
                u128::from(self.caller.dice.roll()) << 64 | u128::from(self.caller.dice.roll()),
            )
            .to_string();
            let seconds = i64::try_from(self.caller.dice.below(600)).unwrap();
            plays.push(json!({"id": id, "song_id": "song:1", "song_name": "A song",
                "artist_name": "Somebody", "duration": 180,
                "played_at": (now - TimeDelta::seconds(seconds)).to_rfc3339()}));
            ids.push(id);
        }
        let body = json!({ "plays": plays });
        // The ids alone are enough; a key does no harm.
        let key = (self.caller.dice.below(2) == 0).then(|| self.name("plays"));
        let device = self.device.clone();
        let make = || {
            let request = device.request(Method::POST, "/v1/me/history").json(&body);
            match &key {
                Some(key) => request.header("Idempotency-Key", key),
                None => request,
            }
        };
        let what = format!("plays {}", ids[0]);
        self.ledger.may("history.added");
        let reply = self.caller.call(&what, Again::Yes, make).await?;
        let Reply::Done { answer, by_this } = reply else {
            let Reply::Nothing = reply else {
                return Err(format!("{what}: {reply:#?}"));
            };
            for id in ids {
                self.ledger.ask(Mark::Play(id), Fate::Never);
            }
            return Ok(());
        };
        let mut fates = Vec::new();
        for (result, id) in answer.body["results"].as_array().unwrap().iter().zip(&ids) {
            assert_eq!(result["id"], id.as_str());
            fates.push(
                match (result["status"].as_str(), result["reason"].as_str()) {
                    (Some("added"), _) => Fate::Once(by_this.then(|| answer.seq())),
                    // The try before had put it there.
                    (_, Some("duplicate" | "removed")) if !by_this => Fate::Once(None),
                    (_, Some("cleared" | "too_old")) if by_this => Fate::Never,
                    (_, Some("cleared" | "too_old")) => Fate::Perhaps,
                    _ => return Err(format!("{what}: {result}")),
                },
            );
        }
        for (id, fate) in ids.iter().zip(fates) {
            self.ledger.ask(Mark::Play(id.clone()), fate);
            self.plays.push(id.clone());
        }
        if self.caller.dice.below(4) == 0 {
            // An app that forgot that it was answered.
            let make = || device.request(Method::POST, "/v1/me/history").json(&body);
            let reply = self.caller.call("the same plays", Again::Yes, make).await?;
            if let Reply::Done { answer, .. } = reply {
                let results = answer.body["results"].as_array().unwrap();
                // One that was cleared or trimmed long ago is not known any more, but stays out.
                if results.iter().any(|it| it["status"] != "ignored") {
                    return Err(format!("repeated {what}: {answer:#?}"));
                }
            }
        }
        Ok(())
    }

    async fn remove_play(&mut self) -> Done {
        if self.plays.is_empty() {
            return Ok(());
        }
        let index = self.caller.dice.index(self.plays.len());
        let id = self.plays.swap_remove(index);
        let path = format!("/v1/me/history/{id}");
        let device = self.device.clone();
        let make = || device.request(Method::DELETE, &path);
        self.ledger.may("history.removed");
        self.caller.call(&path, Again::Yes, make).await?;
        Ok(())
    }

    async fn clear(&mut self) -> Done {
        let key = self.name("clear");
        let device = self.device.clone();
        let make = || {
            let request = device.request(Method::DELETE, "/v1/me/history");
            request.header("Idempotency-Key", &key)
        };
        let reply = self.caller.call(&key, Again::Yes, make).await?;
        let fate = keyed_fate(&reply);
        if fate != Fate::Never {
            self.ledger.may("history.cleared");
            self.plays.clear();
        }
        self.ledger.ask(Mark::Cleared, fate);
        Ok(())
    }

    /// A playlist of the user, as it is listed now.
    async fn some(&mut self, deleted: bool) -> Option<(usize, Value)> {
        let path = format!("/v1/me/playlists?limit=200&deleted={deleted}");
        let list = self.get(&path).await?;
        let items = list["items"].as_array().unwrap();
        let count = items.len();
        (count > 0).then(|| (count, items[self.caller.dice.index(count)].clone()))
    }

    async fn create(&mut self) -> Done {
        if let Some((PLAYLISTS.., playlist)) = self.some(false).await {
            return self.delete(&text_of(&playlist, "id")).await;
        }
        let name = self.name("list");
        let body = json!({"name": name, "is_public": false});
        let device = self.device.clone();
        let make = || {
            let request = device.request(Method::POST, "/v1/me/playlists").json(&body);
            request.header("Idempotency-Key", &name)
        };
        let reply = self.caller.call(&name, Again::Yes, make).await?;
        let fate = keyed_fate(&reply);
        self.ledger.may("playlist.created");
        self.ledger.ask(Mark::Named("playlist.created", name), fate);
        Ok(())
    }

    /// With `If-Match`: done once at most, also when it is sent again.
    async fn rename(&mut self) -> Done {
        let Some((_, playlist)) = self.some(false).await else {
            return Ok(());
        };
        let name = self.name("name");
        let path = format!("/v1/me/playlists/{}", text_of(&playlist, "id"));
        let reply = self
            .changed(Method::PATCH, &path, &playlist, &json!({"name": name}))
            .await?;
        let fate = fate(&reply);
        self.ledger.may("playlist.updated");
        self.ledger.ask(Mark::Named("playlist.updated", name), fate);
        Ok(())
    }

    async fn delete(&mut self, id: &str) -> Done {
        let path = format!("/v1/me/playlists/{id}");
        let device = self.device.clone();
        let make = || device.request(Method::DELETE, &path);
        let what = format!("delete {id}");
        self.caller.call(&what, Again::Yes, make).await?;
        Ok(())
    }

    async fn delete_or_restore(&mut self) -> Done {
        if self.caller.dice.below(2) == 0 {
            let Some((_, playlist)) = self.some(false).await else {
                return Ok(());
            };
            return self.delete(&text_of(&playlist, "id")).await;
        }
        let Some((_, playlist)) = self.some(true).await else {
            return Ok(());
        };
        let path = format!("/v1/me/playlists/{}/restore", text_of(&playlist, "id"));
        let device = self.device.clone();
        let make = || device.request(Method::POST, &path);
        self.caller.call(&path, Again::Yes, make).await?;
        Ok(())
    }

    async fn add_songs(&mut self) -> Done {
        let Some((_, playlist)) = self.some(false).await else {
            return Ok(());
        };
        if playlist["song_count"].as_u64() > Some(SONGS) {
            return self.take_out(&playlist, 100).await;
        }
        let name = self.name("song");
        let count = 1 + self.caller.dice.below(20);
        let songs: Vec<_> = (0..count).map(|n| format!("{name}.{n}")).collect();
        let mut body = json!({ "song_ids": songs });
        if self.caller.dice.below(2) == 0 {
            body["after"] = Value::Null;
        }
        let path = format!("/v1/me/playlists/{}/songs", text_of(&playlist, "id"));
        let device = self.device.clone();
        let make = || {
            let request = device.request(Method::POST, &path).json(&body);
            request.header("Idempotency-Key", &name)
        };
        let reply = self.caller.call(&name, Again::Yes, make).await?;
        self.ledger.ask(Mark::Songs(songs), keyed_fate(&reply));
        Ok(())
    }

    async fn entries(&self, playlist: &Value) -> Option<Vec<String>> {
        let id = text_of(playlist, "id");
        let page = self
            .get(&format!("/v1/me/playlists/{id}/songs?limit=1000"))
            .await?;
        let items = page["items"].as_array().unwrap().iter();
        Some(items.map(|it| text_of(it, "id")).collect())
    }

    async fn remove_songs(&mut self) -> Done {
        match self.some(false).await {
            Some((_, playlist)) => self.take_out(&playlist, 6).await,
            None => Ok(()),
        }
    }

    async fn take_out(&mut self, playlist: &Value, most: u64) -> Done {
        let Some(entries) = self.entries(playlist).await.filter(|it| !it.is_empty()) else {
            return Ok(());
        };
        let first = self.caller.dice.index(entries.len());
        let count = usize::try_from(1 + self.caller.dice.below(most)).unwrap();
        let entries: Vec<_> = entries.into_iter().skip(first).take(count).collect();
        let path = format!("/v1/me/playlists/{}/songs:remove", text_of(playlist, "id"));
        let body = json!({ "entry_ids": entries });
        let device = self.device.clone();
        let make = || device.request(Method::POST, &path).json(&body);
        self.ledger.may("playlist.songs_removed");
        self.caller.call(&path, Again::Yes, make).await?;
        Ok(())
    }

    async fn move_songs(&mut self) -> Done {
        let Some((_, playlist)) = self.some(false).await else {
            return Ok(());
        };
        let Some(mut entries) = self.entries(&playlist).await.filter(|it| it.len() > 2) else {
            return Ok(());
        };
        let index = self.caller.dice.index(entries.len());
        let moved = entries.swap_remove(index);
        let index = self.caller.dice.index(entries.len());
        let after = entries.swap_remove(index);
        let path = format!("/v1/me/playlists/{}/songs:move", text_of(&playlist, "id"));
        let body = json!({"entry_ids": [moved], "after": after});
        self.ledger.may("playlist.songs_moved");
        if self.caller.dice.below(2) == 0 {
            let reply = self.changed(Method::POST, &path, &playlist, &body).await?;
            let mark = Mark::Changed("playlist.songs_moved", text_of(&playlist, "id"));
            self.ledger.ask(mark, changed_fate(&reply, &playlist));
            return Ok(());
        }
        let device = self.device.clone();
        let make = || device.request(Method::POST, &path).json(&body);
        self.caller.call(&path, Again::No, make).await?;
        Ok(())
    }

    async fn replace(&mut self) -> Done {
        let Some((_, playlist)) = self.some(false).await else {
            return Ok(());
        };
        let body = if self.caller.dice.below(2) == 0 {
            let name = self.name("new");
            let count = self.caller.dice.below(30);
            let songs: Vec<_> = (0..count).map(|n| format!("{name}.{n}")).collect();
            json!({ "song_ids": songs })
        } else {
            let Some(mut entries) = self.entries(&playlist).await.filter(|it| it.len() > 1) else {
                return Ok(());
            };
            entries.reverse();
            json!({ "entry_ids": entries })
        };
        let path = format!("/v1/me/playlists/{}/songs", text_of(&playlist, "id"));
        self.ledger.may("playlist.replaced");
        let reply = self.changed(Method::PUT, &path, &playlist, &body).await?;
        let mark = Mark::Changed("playlist.replaced", text_of(&playlist, "id"));
        self.ledger.ask(mark, changed_fate(&reply, &playlist));
        Ok(())
    }

    /// A change of the playlist that is meant for the version at hand.
    async fn changed(
        &mut self,
        method: Method,
        path: &str,
        playlist: &Value,
        body: &Value,
    ) -> Result<Reply, String> {
        let tag = format!("\"{}-{}\"", playlist["version"], self.epoch);
        let device = self.device.clone();
        let make = || {
            let request = device.request(method.clone(), path).json(body);
            request.header("If-Match", &tag)
        };
        self.caller.call(path, Again::Yes, make).await
    }

    async fn hand_over(&mut self) -> Done {
        let index = self.caller.dice.index(self.devices.len());
        let to = self.devices[index].clone();
        let body = json!({ "device_id": to });
        let device = self.device.clone();
        let make = || {
            device
                .request(Method::PUT, "/v1/me/player/device")
                .json(&body)
        };
        self.ledger.may("player.activated");
        let reply = self.caller.call("hand over", Again::No, make).await?;
        if let Reply::Done { answer, .. } = reply {
            let seq = answer.body["version"].as_u64();
            self.ledger.ask(Mark::Activated(to), Fate::Once(seq));
        }
        Ok(())
    }
}

/// What must be in the log after such a reply to a command with an `Idempotency-Key`: also a repetition is
/// told the position of the first.
pub fn keyed_fate(reply: &Reply) -> Fate {
    match reply {
        Reply::Done { answer, .. } => Fate::Once(Some(answer.seq())),
        other => fate(other),
    }
}

/// The same where a repetition is not told what was of the first.
fn fate(reply: &Reply) -> Fate {
    match reply {
        Reply::Done { answer, by_this } => Fate::Once(by_this.then(|| answer.seq())),
        Reply::Refused { maybe: false } | Reply::Nothing => Fate::Never,
        Reply::Refused { maybe: true } | Reply::Unknown => Fate::Perhaps,
    }
}

/// The same where the mark is the position, if the answer shows that this call changed the playlist.
fn changed_fate(reply: &Reply, before: &Value) -> Fate {
    match reply {
        Reply::Done {
            answer,
            by_this: true,
        } if answer.body["version"] != before["version"] => Fate::Once(Some(answer.seq())),
        _ => Fate::Perhaps,
    }
}
