//! The player: handed from device to device, and what the active one says.

use serde_json::json;

use super::*;
use crate::{
    domain::library::{Player as State, Playing, Reported},
    store::{ActivatePlayer, PlayerActivation},
};

on_both!(what_was_said_far_ahead_is_replaced);

#[derive(Debug, Clone)]
pub(super) enum PlayerCommand {
    /// To the user's device, to one that there is not, or to none; with what was said last, so many seconds
    /// ago.
    Activate(Option<bool>, Option<i64>),
    /// What was said so many seconds ago, since the change that is now or one before it.
    Report(i64, bool),
}

#[derive(Default)]
pub(super) struct Player(State);

fn said(at: DateTime<Utc>) -> Reported {
    Reported {
        playing: Playing {
            song_id: TargetId::parse("s").unwrap(),
            song_name: "Söng".into(),
            artist_name: String::new(),
            duration_ms: None,
            position_ms: at.timestamp() % 1000,
            playing: true,
            playlist_id: None,
            entry_id: None,
        },
        reported_at: at,
    }
}

impl Player {
    /// When what is kept was said.
    fn kept(&self) -> Option<DateTime<Utc>> {
        self.0.state.as_ref().map(|it| it.reported_at)
    }
}

/// Whether a clock that is right may show this time.
fn is_believed(at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    at <= now + TimeDelta::minutes(5)
}

impl Part for Player {
    type Command = PlayerCommand;
    /// Which device is active, and since when.
    type Client = Option<(Value, Value)>;
    const EVENTS: &'static str = "player";

    fn commands() -> BoxedStrategy<PlayerCommand> {
        // Also of a clock that is so far ahead that it is not believed, or just believed.
        let ago = prop_oneof![4 => -20_i64..20, 1 => -320_i64..-280];
        let latest = proptest::option::of(ago.clone());
        prop_oneof![
            (any::<Option<bool>>(), latest).prop_map(|(to, at)| PlayerCommand::Activate(to, at)),
            (ago, any::<bool>()).prop_map(|(at, now)| PlayerCommand::Report(at, now)),
        ]
        .boxed()
    }

    async fn run(&mut self, at: &At<'_>, command: &PlayerCommand) -> Vec<Event> {
        let (store, soon) = (&at.bed.store, at.bed.soon());
        let back = |ago: i64| at.now - TimeDelta::seconds(ago);
        match command {
            PlayerCommand::Activate(to, ago) => {
                let name = to.map(|there| if there { "phone-1" } else { "nobody" });
                let device = name.map(|name| ClientDeviceId::parse(name).unwrap());
                let latest = ago.map(|ago| said(back(ago)));
                let command = ActivatePlayer {
                    issued: at.issued(),
                    device: device.clone(),
                    latest: latest.clone(),
                };
                let written = store.player_activate(soon, command).await.unwrap();
                if *to == Some(false) {
                    assert_eq!(written.value, PlayerActivation::NoDevice);
                } else {
                    if device != self.0.active_device_id {
                        let rank = |it: DateTime<Utc>| (is_believed(it, at.now), it);
                        if let Some(it) = latest
                            && self.kept().map(rank) < Some(rank(it.reported_at))
                        {
                            self.0.state = Some(it);
                        }
                        self.0.active_device_id = device;
                        self.0.version = at.head + 1;
                        assert_eq!(written.events.len(), 1);
                    }
                    assert_eq!(written.value, PlayerActivation::Active(self.0.clone()));
                }
                at.told(&written)
            }
            PlayerCommand::Report(ago, is_now) => {
                let said = said(back(*ago));
                let version = self.0.version - i64::from(!is_now);
                let report = store.player_report(soon, at.user, version, said.clone(), at.now);
                report.await.unwrap();
                let kept = self.kept();
                let newer = kept < Some(said.reported_at);
                let wrong = kept.is_some_and(|kept| !is_believed(kept, at.now));
                // Before anything was active there is nothing that could say so.
                if *is_now && version > 0 && (newer || wrong) {
                    self.0.state = Some(said);
                }
                Vec::new()
            }
        }
    }

    fn apply(client: &mut Self::Client, event_type: &str, data: &Value) {
        assert_eq!(event_type, "player.activated");
        *client = Some((data["device_id"].clone(), data["version"].clone()));
    }

    async fn check(&self, at: &At<'_>, client: &Self::Client) {
        let stored = at.bed.store.player_fetch(at.bed.soon(), at.user).await;
        assert_eq!(stored.unwrap().unwrap().1, self.0, "what the model has");
        let device = json!(self.0.active_device_id);
        let known = (self.0.version > 0).then(|| (device, json!(self.0.version)));
        assert_eq!(*client, known, "what the client has");
    }
}

/// The clock of a node was a day ahead for a moment.
async fn what_was_said_far_ahead_is_replaced(bed: &Bed) {
    let (user, store) = (bed.user().await.user.id, &bed.store);
    let activate = async |device: Option<&str>, latest| {
        let command = ActivatePlayer {
            issued: Issued {
                user,
                origin: None,
                now: t(10),
                event_id: EventId(bed.uuid()),
            },
            device: device.map(|name| ClientDeviceId::parse(name).unwrap()),
            latest,
        };
        let written = store.player_activate(bed.soon(), command).await.unwrap();
        written.log.head_seq
    };
    let report = async |version, at, now| {
        let report = store.player_report(bed.soon(), user, version, said(t(at)), t(now));
        report.await.unwrap();
        let stored = store.player_fetch(bed.soon(), user).await.unwrap().unwrap();
        stored.1.state.unwrap()
    };
    let (day, version) = (86_400, activate(Some("phone-1"), None).await);
    assert_eq!(report(version, day, day).await, said(t(day)));
    assert_eq!(report(version, 10, 10).await, said(t(10)));
    // What comes late is not newer, also where clocks differ a little.
    assert_eq!(report(version, 9, 9).await, said(t(10)));
    assert_eq!(report(version, day, day).await, said(t(day)));
    let version = activate(None, Some(said(t(20)))).await;
    let stored = store.player_fetch(bed.soon(), user).await.unwrap().unwrap();
    assert_eq!(stored.1.state, Some(said(t(20))));
    assert_eq!(report(version, 19, 19).await, said(t(20)));
}
