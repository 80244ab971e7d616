//! What plays, and where: of a user's devices at most one is active, and the others steer it.
//!
//! Devices speak of it by signals whose names begin with `player.`. Which device is active is
//! decided in the log, so that all see the same changes in the same order; what plays is told beside
//! it, and the newest of it is kept.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{EventSchema, favorite::TargetId, history::AHEAD};
use crate::domain::{
    error::FieldError,
    identity::ClientDeviceId,
    ids::{EntryId, PlaylistId},
    sync::{Signal, SignalTo},
    text::shortened,
};

/// The most milliseconds of a song: a day.
const MAX_MILLIS: i64 = 86_400_000;
const MAX_NAME: usize = 256;

/// What plays on the active device, by its own word: the data of `player.state`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Playing {
    /// The catalogue's id of the song.
    pub song_id: TargetId,
    /// As it is called; at most 256 characters.
    pub song_name: String,
    /// Who sings; at most 256 characters.
    pub artist_name: String,
    /// How long the song is, in milliseconds; null when the device does not know.
    #[schema(minimum = 0, maximum = 86_400_000)]
    pub duration_ms: Option<i64>,
    /// Where in the song it is, in milliseconds.
    #[schema(minimum = 0, maximum = 86_400_000)]
    pub position_ms: i64,
    /// False: it pauses there.
    pub playing: bool,
    /// The playlist from which it plays.
    pub playlist_id: Option<PlaylistId>,
    /// The place in that playlist.
    pub entry_id: Option<EntryId>,
}

impl Playing {
    fn check(&self) -> Result<(), FieldError> {
        for (field, text) in [
            ("song_name", &self.song_name),
            ("artist_name", &self.artist_name),
        ] {
            if text.chars().count() > MAX_NAME || text.chars().any(char::is_control) {
                let expected = "at most 256 characters, none of them control characters";
                return Err(FieldError::new(field, expected));
            }
        }
        for (field, millis) in [
            ("duration_ms", self.duration_ms.unwrap_or(0)),
            ("position_ms", self.position_ms),
        ] {
            check_millis(field, millis)?;
        }
        Ok(())
    }

    /// Whether the two say of different things, and not only of different moments.
    fn is_other(&self, before: &Self) -> bool {
        (&self.song_id, self.playing, self.entry_id)
            != (&before.song_id, before.playing, before.entry_id)
    }
}

fn check_millis(field: &str, millis: i64) -> Result<(), FieldError> {
    if (0..=MAX_MILLIS).contains(&millis) {
        Ok(())
    } else {
        Err(FieldError::new(field, "0 to 86400000 milliseconds"))
    }
}

/// A place in the song: the data of `player.seek`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Seek {
    /// Milliseconds from the song's beginning.
    #[schema(minimum = 0, maximum = 86_400_000)]
    pub position_ms: i64,
}

/// Which device is to play: the data of `player.transfer`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// A device of the user, also the one that asks. Null: none.
    #[serde(deserialize_with = "required")]
    pub device_id: Option<ClientDeviceId>,
}

/// A command without more to say: no data, or an empty object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A field that may be null, but is there.
fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(d)
}

macro_rules! signals {
    ($($(#[doc = $doc:literal])+ $name:ident($data:ty) = $text:literal;)+) => {
        /// What devices tell each other of the player.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum PlayerSignal { $($(#[doc = $doc])+ $name($data)),+ }

        impl PlayerSignal {
            /// Takes a signal that is one. None: it is of something else, and nobody's business.
            ///
            /// # Errors
            /// The field of `data` that cannot be taken, and why.
            pub fn parse(signal: &Signal) -> Option<Result<Self, FieldError>> {
                match signal.name.as_str() {
                    $($text => Some(read::<$data>(signal).and_then(|data| {
                        let it = Self::$name(data);
                        it.check().map(|()| it)
                    })),)+
                    _ => None,
                }
            }

            /// The schema of each signal's data.
            #[must_use]
            pub fn schemas() -> Vec<EventSchema> {
                vec![$({
                    let mut parts = Vec::new();
                    <$data as ToSchema>::schemas(&mut parts);
                    let schema: RefOr<Schema> = <$data as PartialSchema>::schema();
                    EventSchema {
                        event_type: $text,
                        about: concat!($($doc),+).trim(),
                        schema,
                        parts,
                    }
                }),+]
            }
        }
    };
}

signals! {
    /// From the active device to all others: what plays. The server keeps the newest.
    State(Playing) = "player.state";
    /// To the active device: go on.
    Play(Nothing) = "player.play";
    /// To the active device: pause.
    Pause(Nothing) = "player.pause";
    /// To the active device: go to this place in the song.
    Seek(Seek) = "player.seek";
    /// To the active device: the next song.
    Next(Nothing) = "player.next";
    /// To the active device: the song before.
    Previous(Nothing) = "player.previous";
    /// To the server: another device is to be active. All hear of it by the event `player.activated`.
    Transfer(Transfer) = "player.transfer";
}

impl PlayerSignal {
    fn check(&self) -> Result<(), FieldError> {
        match self {
            Self::State(playing) => playing.check(),
            Self::Seek(seek) => check_millis("position_ms", seek.position_ms),
            _ => Ok(()),
        }
    }
}

fn read<T: DeserializeOwned>(signal: &Signal) -> Result<T, FieldError> {
    let text = match signal.data.as_str() {
        "null" => "{}",
        // A struct would also be read from an array, by the order of its fields: that is no contract.
        text if text.starts_with('{') => text,
        _ => return Err(FieldError::new("data", "expected an object")),
    };
    let mut de = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut de).map_err(|e| {
        let field = match e.path().to_string().as_str() {
            "." => "data".to_owned(),
            path => format!("data.{path}"),
        };
        let mut detail = e.inner().to_string();
        // Where in the line means nothing to who wrote an object.
        if let Some(at) = detail.rfind(" at line ") {
            detail.truncate(at);
        }
        FieldError::new(shortened(&field), shortened(&detail))
    })
}

/// What plays, and when the server heard of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, ToSchema)]
pub struct Reported {
    /// What plays.
    #[serde(flatten)]
    pub playing: Playing,
    /// When the server heard of it: `position_ms` is of then.
    #[serde(serialize_with = "crate::domain::time::serialize")]
    pub reported_at: DateTime<Utc>,
}

impl Reported {
    /// Whether it was heard after `before`. Of which the time is far ahead of `now` was heard by a clock
    /// that was wrong: what has a better time is newer.
    #[must_use]
    pub fn is_after(&self, before: Option<&Self>, now: DateTime<Utc>) -> bool {
        let rank = |it: &Self| (it.reported_at <= now + AHEAD, it.reported_at);
        before.is_none_or(|before| rank(before) < rank(self))
    }
}

/// A user's player.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, ToSchema)]
pub struct Player {
    /// The one device that plays; null when none does.
    pub active_device_id: Option<ClientDeviceId>,
    /// The `seq` of the event that chose it; 0 when none ever did.
    pub version: i64,
    /// What it said last. It stays when another device takes over.
    pub state: Option<Reported>,
}

/// The active device changed: the data of `player.activated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlayerActivated {
    /// Only this device plays from now on, where `state` says; null: none does.
    pub device_id: Option<ClientDeviceId>,
    /// The `seq` of this event.
    pub version: i64,
    /// What the device before it said last.
    pub state: Option<Reported>,
}

/// What becomes of a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It is for these.
    Pass(SignalTo),
    /// It is for all others, and `playing` is what plays now.
    Tell(Playing),
    /// This device is to be active, if it is one of the user's.
    Activate(Option<ClientDeviceId>),
}

/// Why a signal is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlayerRefusal {
    /// Only the active device says what plays.
    #[error("only the active device says what plays")]
    NotActive,
    /// There is none that could be steered.
    #[error("no device is active")]
    NoneActive,
}

impl Player {
    /// What becomes of what the device `from` says.
    ///
    /// # Errors
    /// [`PlayerRefusal`].
    pub fn judge(
        &self,
        from: &ClientDeviceId,
        signal: PlayerSignal,
    ) -> Result<Ruling, PlayerRefusal> {
        match signal {
            PlayerSignal::State(playing) if self.active_device_id.as_ref() == Some(from) => {
                Ok(Ruling::Tell(playing))
            }
            PlayerSignal::State(_) => Err(PlayerRefusal::NotActive),
            PlayerSignal::Play(_)
            | PlayerSignal::Pause(_)
            | PlayerSignal::Seek(_)
            | PlayerSignal::Next(_)
            | PlayerSignal::Previous(_) => self
                .active_device_id
                .clone()
                .map(|active| Ruling::Pass(SignalTo::Device(active)))
                .ok_or(PlayerRefusal::NoneActive),
            PlayerSignal::Transfer(Transfer { device_id }) => Ok(Ruling::Activate(device_id)),
        }
    }

    /// Takes what the active device said. Says whether it is worth keeping at once: a song, a pause,
    /// not only that time went on.
    pub fn report(&mut self, playing: Playing, now: DateTime<Utc>) -> bool {
        let is_other = self
            .state
            .as_ref()
            .is_none_or(|before| playing.is_other(&before.playing));
        // Clocks are set back, and nodes' clocks differ: what comes later is newer all the same. But
        // one that was far ahead must not count until the others are there: clients reckon from it.
        let before = self.state.as_ref().map(|it| it.reported_at);
        let before = before.filter(|before| *before <= now + AHEAD);
        let after = |before: DateTime<Utc>| before + TimeDelta::microseconds(1);
        let reported_at = before.map_or(now, |before| now.max(after(before)));
        self.state = Some(Reported {
            playing,
            reported_at,
        });
        is_other
    }

    /// Another device becomes active, by the event of `version`.
    pub fn activate(&mut self, device_id: Option<ClientDeviceId>, version: i64) -> PlayerActivated {
        self.active_device_id.clone_from(&device_id);
        self.version = version;
        PlayerActivated {
            device_id,
            version,
            state: self.state.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(n: u8) -> ClientDeviceId {
        ClientDeviceId::parse(format!("d{n}")).unwrap()
    }

    fn signal(name: &str, data: &str) -> Signal {
        serde_json::from_str(&format!(r#"{{"to":"all","name":"{name}","data":{data}}}"#)).unwrap()
    }

    fn playing(position_ms: i64, playing: bool) -> Playing {
        Playing {
            song_id: TargetId::parse("s1").unwrap(),
            song_name: "Song".to_owned(),
            artist_name: "Artist".to_owned(),
            duration_ms: None,
            position_ms,
            playing,
            playlist_id: None,
            entry_id: None,
        }
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_795_215_600_120_000).unwrap()
    }

    #[test]
    fn a_field_that_cannot_be_taken_is_named() {
        let refused = |name: &str, data: &str| {
            let parsed = PlayerSignal::parse(&signal(name, data));
            parsed.unwrap().unwrap_err().field
        };
        assert_eq!(
            refused("player.seek", r#"{"position_ms":-1}"#),
            "position_ms"
        );
        assert_eq!(
            refused("player.seek", r#"{"position_ms":"x"}"#),
            "data.position_ms"
        );
        assert_eq!(refused("player.seek", "{}"), "data");
        assert_eq!(refused("player.pause", r#"{"now":true}"#), "data.now");
        assert_eq!(refused("player.transfer", "null"), "data");
        assert_eq!(
            refused("player.seek", "[1]"),
            "data",
            "by the order of fields"
        );
        assert_eq!(refused("player.pause", "[]"), "data");
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(9000));
        assert!(refused("player.pause", &long).len() < 300);
        assert!(
            PlayerSignal::parse(&signal("player.pause", "null"))
                .unwrap()
                .is_ok()
        );
        assert!(PlayerSignal::parse(&signal("player.dance", "null")).is_none());
        assert!(PlayerSignal::parse(&signal("chat", "null")).is_none());
    }

    #[test]
    fn only_the_active_device_says_what_plays_and_only_it_is_steered() {
        let mut player = Player::default();
        let state = PlayerSignal::State(playing(1, true));
        let pause = PlayerSignal::Pause(Nothing {});
        assert_eq!(
            player.judge(&device(1), state.clone()),
            Err(PlayerRefusal::NotActive)
        );
        assert_eq!(
            player.judge(&device(1), pause.clone()),
            Err(PlayerRefusal::NoneActive)
        );
        player.activate(Some(device(2)), 7);
        assert_eq!(
            player.judge(&device(1), state.clone()),
            Err(PlayerRefusal::NotActive)
        );
        assert!(matches!(
            player.judge(&device(2), state),
            Ok(Ruling::Tell(_))
        ));
        assert_eq!(
            player.judge(&device(1), pause),
            Ok(Ruling::Pass(SignalTo::Device(device(2))))
        );
    }

    #[test]
    fn a_pause_is_worth_keeping_and_the_passing_of_time_is_not() {
        let mut player = Player::default();
        assert!(player.report(playing(0, true), now()));
        assert!(!player.report(playing(5000, true), now()));
        assert!(player.report(playing(5000, false), now()));
        // By a clock that was set back a little.
        let before = player.state.clone().unwrap().reported_at;
        player.report(playing(5000, false), now() - TimeDelta::minutes(4));
        assert!(player.state.clone().unwrap().reported_at > before);
        let told = player.activate(Some(device(1)), 3);
        assert_eq!(told.state.unwrap().playing.position_ms, 5000);
    }

    #[test]
    fn a_clock_that_was_far_ahead_for_a_moment_does_not_stay() {
        let reported_at = |player: &Player| player.state.as_ref().unwrap().reported_at;
        let mut player = Player::default();
        player.report(playing(0, true), now() + TimeDelta::days(1));
        let far = player.state.clone().unwrap();
        player.report(playing(5000, true), now());
        assert_eq!(reported_at(&player), now());
        let right = player.state.clone().unwrap();
        assert!(right.is_after(Some(&far), now()) && !far.is_after(Some(&right), now()));
        assert!(far.is_after(Some(&right), now() + TimeDelta::days(1)));
        // As far as clocks go it is believed.
        player.report(playing(5000, true), now() + AHEAD);
        player.report(playing(6000, true), now());
        assert_eq!(
            reported_at(&player),
            now() + AHEAD + TimeDelta::microseconds(1)
        );
    }

    proptest! {
        /// Whatever devices say in whatever order: at most one may say what plays.
        #[test]
        fn at_most_one_is_active(steps in prop::collection::vec((0_u8..4, 0_u8..5), 0..40)) {
            let mut player = Player::default();
            for (version, (from, to)) in (1..).zip(steps) {
                let to = (to < 4).then(|| device(to));
                let signal = PlayerSignal::Transfer(Transfer { device_id: to.clone() });
                let ruling = player.judge(&device(from), signal).unwrap();
                prop_assert_eq!(&ruling, &Ruling::Activate(to.clone()));
                player.activate(to, version);
                let may = (0..4).filter(|n| {
                    let state = PlayerSignal::State(playing(1, true));
                    player.judge(&device(*n), state).is_ok()
                });
                prop_assert!(may.count() <= 1);
            }
        }
    }
}
