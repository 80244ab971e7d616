//! What clients say of their library: the player, plays, playlists.

use std::{
    collections::{BTreeSet, HashMap},
    str,
};

use listen_stream::{
    domain::{
        error::FieldError,
        identity::ClientDeviceId,
        ids::EntryId,
        library::{
            Arrivals, CoverUrl, Entries, HistoryPlace, MAX_AT_ONCE, MAX_EVENT_DATA, MAX_SONGS,
            NewPlay, Nullable, Place, Play, PlayStatus, Player, PlayerSignal, Playing,
            PlaylistName, Ruling, Songs, TargetId, VersionTag,
        },
        sync::{ClientFrame, Signal, SignalTo},
        time,
    },
    http::{
        history::NewPlays,
        playlist_songs::{AddBody, MoveBody, RemoveBody, ReplaceBody},
        playlists::{CreateBody, UpdateBody},
    },
};
use serde_json::{Map, Value};

use super::body::{is_line, is_token, plain_id, taken};

/// A day.
const MAX_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// A text frame of a client that may be a signal of the player. What is accepted says what was sent, and
/// nothing else; what is refused names a field of it.
pub fn player_signal(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if text.len() > ClientFrame::MAX_BYTES {
        return;
    }
    let Ok(ClientFrame::Signal(signal, _)) = ClientFrame::parse(text) else {
        return;
    };
    let kind = signal.name.as_str().strip_prefix("player.");
    let known = [
        "state", "play", "pause", "seek", "next", "previous", "transfer",
    ];
    let is_one = kind.is_some_and(|kind| known.contains(&kind));
    match PlayerSignal::parse(&signal) {
        None => assert!(!is_one, "a signal of the player that is not taken for one"),
        Some(read) => {
            assert!(is_one, "not a signal of the player");
            match read {
                Err(refusal) => player_refused(&refusal),
                Ok(meaning) => player_taken(&signal, &meaning),
            }
        }
    }
}

fn player_refused(FieldError { field, detail }: &FieldError) {
    let own = ["song_name", "artist_name", "duration_ms", "position_ms"];
    let is_named = field == "data" || field.starts_with("data.") || own.contains(&field.as_str());
    assert!(is_named, "{field}");
    assert!(!detail.is_empty());
    // Whoever sent it is told, and need not be told all of it again.
    assert!(field.len() + detail.len() <= 2048, "{}", detail.len());
}

fn player_taken(signal: &Signal, meaning: &PlayerSignal) {
    let plain = plain_signal(meaning);
    let sent: Value = serde_json::from_str(signal.data.as_str()).expect("data is JSON");
    match &sent {
        Value::Null => assert!(plain.as_object().is_some_and(Map::is_empty)),
        Value::Object(members) => {
            for (name, value) in members {
                let same = match (name.as_str(), value.is_null()) {
                    ("playlist_id" | "entry_id", false) => {
                        plain[name].as_str().map(str::to_owned) == plain_id(value)
                    }
                    _ => plain.get(name) == Some(value),
                };
                assert!(same, "{name} is {value} in {plain}");
            }
        }
        other => panic!("no object was taken: {other}"),
    }
    let again = Signal {
        data: serde_json::from_value(plain.clone()).expect("any JSON is data"),
        ..signal.clone()
    };
    assert_eq!(PlayerSignal::parse(&again), Some(Ok(meaning.clone())));

    let me = ClientDeviceId::parse("a").expect("an id");
    let mut player = Player::default();
    player.activate(Some(me.clone()), 1);
    match (meaning, player.judge(&me, meaning.clone())) {
        (PlayerSignal::State(sent), Ok(Ruling::Tell(playing))) => {
            assert_eq!(*sent, playing);
            assert!(is_line(&plain["song_name"], 0..=256) && is_token(&plain["song_id"]));
            assert!(is_line(&plain["artist_name"], 0..=256));
            for millis in [Some(playing.position_ms), playing.duration_ms] {
                assert!((0..=MAX_MILLIS).contains(&millis.unwrap_or(0)));
            }
            told(player, playing, &plain);
        }
        (PlayerSignal::Transfer(sent), Ok(Ruling::Activate(device))) => {
            assert_eq!(sent.device_id, device);
        }
        (PlayerSignal::Seek(seek), Ok(Ruling::Pass(SignalTo::Device(to)))) => {
            assert_eq!(to, me);
            assert!((0..=MAX_MILLIS).contains(&seek.position_ms));
        }
        (_, Ok(Ruling::Pass(SignalTo::Device(to)))) => assert_eq!(to, me),
        (meaning, ruling) => panic!("{ruling:?} of {meaning:?}"),
    }
}

/// What plays is kept as it was said, and fits into an event when another device takes over.
fn told(mut player: Player, playing: Playing, plain: &Value) {
    let now = time::parse("2026-11-20T10:00:00Z").expect("a time");
    assert!(player.report(playing, now), "it is new");
    let mut state = serde_json::to_value(&player.state).expect("it can be written");
    let members = state.as_object_mut().expect("an object");
    assert!(members.remove("reported_at").is_some());
    assert_eq!(state, *plain);
    let event = serde_json::to_vec(&player.activate(None, 2)).expect("it can be written");
    assert!(event.len() <= MAX_EVENT_DATA);
}

fn plain_signal(meaning: &PlayerSignal) -> Value {
    match meaning {
        PlayerSignal::State(it) => serde_json::to_value(it),
        PlayerSignal::Seek(it) => serde_json::to_value(it),
        PlayerSignal::Transfer(it) => serde_json::to_value(it),
        PlayerSignal::Play(it)
        | PlayerSignal::Pause(it)
        | PlayerSignal::Next(it)
        | PlayerSignal::Previous(it) => serde_json::to_value(it),
    }
    .expect("what was read can be written")
}

/// The body of `POST /v1/me/history`. Plays that are taken are what was sent, and a history makes of them
/// what it makes of any.
pub fn new_plays(data: &[u8]) {
    let Some(members) = taken::<NewPlays>(data) else {
        return;
    };
    assert_eq!(members.len(), 1);
    let sent = members["plays"].as_array().expect("plays are a list");
    let plays: Vec<NewPlay> = sent.iter().map(new_play).collect();
    let Some(now) = plays.iter().map(|it| it.played_at).max() else {
        return;
    };
    let keep = 3;
    let settled = Arrivals::new(&plays, now, None, &HashMap::new()).settle(0, keep, &[]);
    let ids: BTreeSet<_> = plays.iter().map(|it| it.id).collect();
    let added: BTreeSet<_> = settled.added.iter().map(Play::place).collect();
    assert_eq!(settled.added.len(), ids.len().min(keep));
    assert_eq!(added.len(), settled.added.len(), "one was added twice");
    assert_eq!(settled.results.len(), plays.len());
    for (play, result) in plays.iter().zip(&settled.results) {
        assert_eq!(play.id, result.id);
        let place = HistoryPlace {
            played_at: result.played_at,
            id: play.id,
        };
        if result.status == PlayStatus::Added {
            assert!(result.reason.is_none() && added.contains(&place));
        } else {
            assert!(result.reason.is_some());
            assert!(added.contains(&place) || added.iter().all(|it| *it > place));
        }
    }
}

fn new_play(sent: &Value) -> NewPlay {
    let members = sent.as_object().expect("a play is an object");
    let play: NewPlay = serde_json::from_value(sent.clone()).expect("it was taken");
    let kept = play.at(play.played_at);
    let plain = serde_json::to_value(&kept).expect("what was read can be written");
    assert_eq!(members.len(), plain.as_object().map_or(0, Map::len));
    for name in ["song_id", "song_name", "artist_name", "duration"] {
        assert_eq!(sent[name], plain[name]);
    }
    assert_eq!(plain_id(&sent["id"]).as_deref(), plain["id"].as_str());
    assert!(is_token(&plain["song_id"]) && is_line(&plain["song_name"], 1..=256));
    assert!(is_line(&plain["artist_name"], 0..=256) && (0..=86_400).contains(&play.duration));
    // As clients are told the time, it is the same time.
    assert_eq!(
        serde_json::from_value::<NewPlay>(plain).ok().as_ref(),
        Some(&play)
    );
    // A page that ends at it is followed by what comes after it.
    assert_eq!(
        HistoryPlace::decode(&kept.place().encode()),
        Some(kept.place())
    );
    play
}

/// What a call about a playlist says: the body of one, or a version. It is within its limits, names no
/// entry twice, and says what was sent.
pub fn playlist_edits(data: &[u8]) {
    if let Some(tag) = str::from_utf8(data).ok().and_then(VersionTag::parse) {
        assert_eq!(tag.to_string().as_bytes(), data, "two texts, one meaning");
        assert!(tag.version >= 0);
    }
    if let Some(body) = taken::<CreateBody>(data) {
        only(&body, &["name", "cover_url", "is_public"]);
        named(&body["name"]);
        cover(body.get("cover_url").unwrap_or(&Value::Null));
        assert!(body.get("is_public").is_none_or(Value::is_boolean));
    }
    if let Some(body) = taken::<UpdateBody>(data) {
        only(&body, &["name", "cover_url", "is_public"]);
        body.get("name").inspect(|it| named(it));
        body.get("cover_url").inspect(|it| cover(it));
        assert!(body.get("is_public").is_none_or(Value::is_boolean));
    }
    if let Some(body) = taken::<AddBody>(data) {
        only(&body, &["song_ids", "after", "before"]);
        songs::<MAX_AT_ONCE>(&body["song_ids"], 1);
        place(&body);
    }
    if let Some(body) = taken::<MoveBody>(data) {
        only(&body, &["entry_ids", "after", "before"]);
        entries::<MAX_AT_ONCE>(&body["entry_ids"], 1);
        place(&body);
    }
    if let Some(body) = taken::<RemoveBody>(data) {
        only(&body, &["entry_ids"]);
        entries::<MAX_AT_ONCE>(&body["entry_ids"], 1);
    }
    if let Some(body) = taken::<ReplaceBody>(data) {
        only(&body, &["entry_ids", "song_ids"]);
        body.get("entry_ids")
            .inspect(|it| entries::<MAX_SONGS>(it, 0));
        body.get("song_ids").inspect(|it| songs::<MAX_SONGS>(it, 0));
    }
}

fn only(body: &Map<String, Value>, names: &[&str]) {
    for name in body.keys() {
        assert!(names.contains(&name.as_str()), "{name} was taken");
    }
}

fn named(value: &Value) {
    assert!(is_line(value, 1..=128), "{value}");
    let name: PlaylistName = serde_json::from_value(value.clone()).expect("it was taken");
    assert_eq!(value.as_str(), Some(name.as_str()));
}

/// Whoever reads it by whatever rules fetches it from the same host, without a password.
fn cover(value: &Value) {
    let Some(text) = value.as_str() else {
        assert!(value.is_null(), "{value}");
        return;
    };
    assert!(text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic()));
    let (scheme, rest) = text.split_once("://").expect("it has a scheme and a host");
    assert!(scheme.eq_ignore_ascii_case("https"), "{text}");
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    assert!(!host.is_empty() && !host.contains(['@', '\\']), "{text}");
    let cover: CoverUrl = serde_json::from_value(value.clone()).expect("it was taken");
    assert_eq!(cover.as_str(), text);
}

fn songs<const MAX: usize>(value: &Value, least: usize) {
    let sent = value.as_array().expect("songs are a list");
    assert!((least..=MAX).contains(&sent.len()));
    assert!(sent.iter().all(is_token));
    let songs: Songs<MAX> = serde_json::from_value(value.clone()).expect("they were taken");
    let sent = sent.iter().filter_map(Value::as_str);
    assert!(songs.into_inner().iter().map(TargetId::as_str).eq(sent));
}

fn entries<const MAX: usize>(value: &Value, least: usize) {
    let sent = value.as_array().expect("entries are a list");
    assert!((least..=MAX).contains(&sent.len()));
    let entries: Entries<MAX> = serde_json::from_value(value.clone()).expect("they were taken");
    let entries = entries.into_inner();
    let ids = sent.iter().filter_map(plain_id);
    assert!(entries.iter().map(EntryId::to_string).eq(ids));
    let once: BTreeSet<_> = entries.iter().collect();
    assert_eq!(once.len(), entries.len(), "one is named twice");
}

/// `after` and `before` of a body. That not both are there is for the handler to say.
fn place(body: &Map<String, Value>) {
    let read = |name| {
        let Some(value) = body.get(name) else {
            return Nullable::LeftOut;
        };
        let read: Nullable<EntryId> = serde_json::from_value(value.clone()).expect("it was taken");
        let id = match read {
            Nullable::Is(id) => Some(id.to_string()),
            _ => None,
        };
        assert_eq!(id, plain_id(value));
        read
    };
    let (after, before) = (read("after"), read("before"));
    match Place::of(after, before) {
        Err(refusal) => {
            assert!(![after, before].contains(&Nullable::LeftOut));
            assert_eq!(refusal.field, "before");
        }
        Ok(place) => {
            let named = place.named();
            let given = match (after, before) {
                (Nullable::Is(id), _) | (_, Nullable::Is(id)) => Some(id),
                _ => None,
            };
            assert_eq!(named.map(|(id, _)| id), given);
            assert_eq!(matches!(place, Place::Beginning), after == Nullable::Null);
            assert!(named.is_none_or(|(_, field)| body.contains_key(field)));
        }
    }
}
