//! Random commands of several devices against the real store: a model and the database agree after
//! each, and a client that only applies the log's events has what the lists show.
//!
//! Each kind of content is a [`Part`] with its commands, its model and its client; a new one is a line
//! in `library!`. The model is written without a look at the code that it is compared with.

mod favorites;
mod history;
mod player;
mod playlists;
mod snapshot;

use std::fmt::Debug;

use chrono::TimeDelta;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::Value;

use super::*;
use crate::domain::sync::Event;

on_both!(the_model_the_database_and_a_client_agree);

/// A kind of content of a user's library.
pub(super) trait Part: Default + Send {
    /// What a device may ask for.
    type Command: Debug + Clone + Send + Sync + 'static;
    /// What a client has that applied all events.
    type Client: Default + Send;
    /// Before the names of its events.
    const EVENTS: &'static str;

    /// Any command; few ids and times, so that they meet.
    fn commands() -> BoxedStrategy<Self::Command>;

    /// Runs a command in the store and in the model, compares what it answers, and gives back the
    /// events that it appended.
    async fn run(&mut self, at: &At<'_>, command: &Self::Command) -> Vec<Event>;

    /// Applies an event as its description in `docs/protocol.md` says, from its JSON alone.
    fn apply(client: &mut Self::Client, event_type: &str, data: &Value);

    /// Compares the model with what the store lists, and with what the client has.
    async fn check(&self, at: &At<'_>, client: &Self::Client);
}

/// Where and when a command runs.
pub(super) struct At<'a> {
    pub bed: &'a Bed,
    pub user: UserId,
    /// The device that asks.
    pub device: ClientDeviceId,
    pub now: DateTime<Utc>,
    /// The head of the log before the command.
    pub head: i64,
    /// Of the user's log.
    pub epoch: Epoch,
}

impl At<'_> {
    /// For a command of now.
    pub(super) fn issued(&self) -> Issued {
        Issued {
            user: self.user,
            origin: Some(self.device.clone()),
            now: self.now,
            event_id: EventId(self.bed.uuid()),
        }
    }

    /// The events of a command. It must have moved the log's head by as many.
    pub(super) fn told<T>(&self, written: &Written<T>) -> Vec<Event> {
        let seqs: Vec<_> = written.events.iter().map(|it| it.seq).collect();
        let expected: Vec<_> = (self.head + 1..=written.log.head_seq).collect();
        assert_eq!(seqs, expected);
        for event in &written.events {
            assert_eq!(event.origin_device_id.as_ref(), Some(&self.device));
            assert_eq!(event.data["version"], event.seq);
        }
        written.events.clone()
    }
}

/// A step of a user's life: who, how many seconds after the step before, and what.
#[derive(Debug, Clone)]
struct Step {
    device: u8,
    /// Clocks are set back, too.
    later: i64,
    command: Command,
}

macro_rules! library {
    ($($field:ident: $Part:ident = $part:ty, $weight:literal;)+) => {
        #[derive(Debug, Clone)]
        enum Command { $($Part(<$part as Part>::Command)),+ }

        fn commands() -> BoxedStrategy<Command> {
            prop_oneof![$($weight => <$part as Part>::commands().prop_map(Command::$Part)),+].boxed()
        }

        /// The model of a whole library.
        #[derive(Default)]
        struct Model { $($field: $part),+ }

        /// A client that applied all events.
        #[derive(Default)]
        struct Client { $($field: <$part as Part>::Client),+ }

        impl Model {
            async fn run(&mut self, at: &At<'_>, command: &Command) -> Vec<Event> {
                match command { $(Command::$Part(it) => self.$field.run(at, it).await),+ }
            }

            async fn check(&self, at: &At<'_>, client: &Client) {
                $(self.$field.check(at, &client.$field).await;)+
            }
        }

        impl Client {
            fn apply(&mut self, event_type: &str, data: &Value) {
                let kind = event_type.split_once('.').unwrap().0;
                $(if kind == <$part as Part>::EVENTS {
                    return <$part as Part>::apply(&mut self.$field, event_type, data);
                })+
                panic!("an event of no part: {event_type}");
            }
        }
    };
}

library! {
    favorites: Favorites = favorites::Favorites, 1;
    history: History = history::History, 3;
    playlists: Playlists = playlists::Playlists, 6;
    player: Player = player::Player, 1;
}

async fn the_model_the_database_and_a_client_agree(bed: &Bed) {
    let step = (0_u8..3, -2_i64..20, commands());
    let step = step.prop_map(|(device, later, command)| Step {
        device,
        later,
        command,
    });
    let lives = prop::collection::vec(step, 1..60);
    let config = Config {
        cases: 40,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let here = Handle::current();
    tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(config);
        let result = runner.run(&lives, |life| {
            here.block_on(live(bed, &life));
            Ok(())
        });
        result.unwrap_or_else(|e| panic!("{e}"));
    });
}

/// One user's life, compared after every step.
async fn live(bed: &Bed, life: &[Step]) {
    let user = bed.user().await.user.id;
    let heads = bed.store.log_heads(bed.soon(), &[user]).await.unwrap();
    let epoch = heads[0].1.epoch;
    let (mut model, mut client, mut log) = (Model::default(), Client::default(), Vec::new());
    let mut now = t(0);
    for step in life {
        now += TimeDelta::seconds(step.later);
        let device = format!("device-{}", step.device);
        let at = At {
            bed,
            user,
            device: ClientDeviceId::parse(device).unwrap(),
            now,
            head: i64::try_from(log.len()).unwrap(),
            epoch,
        };
        let events = model.run(&at, &step.command).await;
        for event in &events {
            // As it comes over the wire.
            let data: Value = serde_json::from_str(&event.data.to_string()).unwrap();
            client.apply(&event.event_type, &data);
        }
        log.extend(events);
        model.check(&at, &client).await;
    }
    let page = bed.store.log_page(bed.soon(), user, 0, 10_000).await;
    assert_eq!(page.unwrap().unwrap().events, log);
    let (head, clearing) = (i64::try_from(log.len()).unwrap(), model.history.cleared_at);
    snapshot::agrees(bed, user, head, clearing).await;
}
