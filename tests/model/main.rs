//! The session protocol in a model checker: every state that can be reached within small bounds.
//!
//! A user with one or two devices, two nodes, one database. Each node's session is the real
//! [`SessionCore`]; around it `steps.rs` does what the server's actors and the store do (connections,
//! attach epochs, the keeper of cursors, reads, the watcher of heads, hints), and `client.rs` is a
//! client by `docs/protocol.md`. A step is one thing that happens: an event is stored, a session hears
//! of it, a read sees the database, its answer arrives, a frame is taken at one end of a connection, a
//! cursor is stored. Between any two of them anything else may happen. `rules.rs` says what must hold.
//!
//! Covered, each to the bounds of its configuration: connections that break with frames lost on the
//! way in either direction, ends that one side does not know to be dead, reconnects to either node
//! while the older attachment is still under way, replacement across nodes, crashes of a session and
//! of a node, hints lost, late and in any order, reads that fail and answers that are old, windows of
//! events and bytes, positions told by REST, clients that lost some or all of what they had, a log cut
//! off at its beginning, a restored database, a log that falls back under running nodes.
//!
//! Not covered: time (heartbeats, acks owed, ends of tokens; patience is taken to be endless), signals
//! and presence, removed devices, sessions that go to rest, clients that do not keep to the protocol,
//! two programs with one `device_id`, and more of anything than a configuration says. Commands of the
//! store are single steps: that they are is for the tests of the store. States are told apart by 64
//! bits of hash.
//!
//! That something good happens is checked in two ways: in each state in which nothing is under way,
//! everything is delivered; and in configurations that say so, from each state such a state is reached
//! when things happen in turn.
//!
//! [`SessionCore`]: listen_stream::domain::sync::SessionCore

#![expect(
    clippy::expect_used,
    reason = "a model that is not as it was meant fails the test"
)]

mod client;
mod config;
mod db;
mod effects;
mod faults;
mod model;
mod rules;
mod shared;
mod state;
mod steps;

use stateright::{Checker, HasDiscoveries, Model};

use config::{Bug, Config, Left};
use model::Session;

/// Checks every state; prints how many there are, and how a rule was broken.
fn check(config: Config, threads: usize) {
    let checker = Session { config }
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    println!(
        "{}: {} states, {} steps, longest shortest way {}",
        config.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth() - 1,
    );
    for (name, path) in checker.discoveries() {
        let failed = checker.discovery_classification(name).to_string() == "counterexample";
        assert!(!failed, "{name}: broken by {:#?}", path.into_actions());
    }
    checker.assert_properties();
}

/// Checks that a planted fault breaks the rule that it should.
fn finds(bug: Bug, rule: &'static str, config: Config) {
    let bug = Some(bug);
    let checker = Session {
        config: Config { bug, ..config },
    }
    .checker()
    .finish_when(HasDiscoveries::AnyFailures)
    .spawn_bfs()
    .join();
    let path = checker.discovery(rule).expect("the rule is broken");
    println!("{bug:?} breaks: {rule}: {:?}", path.into_actions());
}

/// A test for each: what it has, and then what may happen in it, each so often.
macro_rules! configurations {
    ($threads:literal: $(#[$attribute:meta])* $(
        $name:ident { $($field:ident: $value:expr),* } $left:tt
    )+) => { configurations! { @each $threads [$(#[$attribute])*] $($name { $($field: $value),* } $left)+ } };
    (@each $threads:literal $attributes:tt $($name:ident $fields:tt $left:tt)+) => {
        $(configurations! { @test $threads $attributes $name $fields $left })+
    };
    (@test $threads:literal [$(#[$attribute:meta])*] $name:ident
        { $($field:ident: $value:expr),* } { $($what:ident: $times:expr),* }) => {
        #[test]
        $(#[$attribute])*
        fn $name() {
            let left = Left { $($what: $times,)* ..Left::NONE };
            let config = Config::new(stringify!($name), left);
            check(Config { $($field: $value,)* ..config }, $threads);
        }
    };
}

// Small enough for every run of the tests.
configurations! { 1:
    a_connection_breaks { settle: true } { commits: 2, breaks: 1 }
    a_session_crashes { settle: true } { commits: 1, breaks: 1, session_crashes: 1 }
    a_node_crashes { settle: true } { commits: 1, breaks: 1, node_crashes: 1 }
    events_of_several_sizes { window: 2, bytes: 12, settle: true } { commits: 3 }
    reads_fail { settle: true } { commits: 2, failures: 2 }
    a_client_acks_by_rest { } { commits: 1, breaks: 1, rest_acks: 1 }
    a_client_loses_what_it_had { settle: true } { commits: 1, breaks: 1, losses: 1, wipes: 1 }
    the_log_is_cut { window: 2, events: 1, settle: true } { commits: 2, trims: 1 }
    the_log_is_cut_and_a_session_crashes { events: 1 } { commits: 1, trims: 1, session_crashes: 1 }
    the_database_is_restored { events: 1, settle: true } { commits: 1, restores: 1 }
    the_log_falls_back { settle: true } { commits: 2, fallbacks: 1 }
    the_log_falls_back_and_a_session_crashes { events: 1 } { commits: 1, fallbacks: 1, session_crashes: 1 }
    the_log_is_renewed { settle: true } { commits: 2, renewals: 1 }
    a_look_ends_late { events: 1 } { commits: 1, renewals: 1, late_looks: 1 }
    two_devices { devices: 2 } { commits: 2 }
    two_devices_and_a_connection_breaks { devices: 2 } { commits: 1, breaks: 1 }
    two_devices_and_the_log_is_cut { devices: 2, events: 1 } { commits: 1, trims: 1 }
    two_devices_and_a_session_crashes { devices: 2 } { commits: 1, session_crashes: 1 }
    two_devices_and_a_node_crashes { devices: 2 } { commits: 1, node_crashes: 1 }
}

// For `make model`.
configurations! { 2: #[ignore = "takes minutes: make model"]
    large_two_breaks { } { commits: 2, breaks: 2 }
    large_break_and_crash { window: 2 } { commits: 2, breaks: 1, session_crashes: 1 }
    large_several_sizes { window: 2, bytes: 12 } { commits: 3, breaks: 1 }
    large_losses { events: 1 } { commits: 1, breaks: 1, losses: 1, trims: 1, node_crashes: 1 }
    large_cut { window: 2, events: 1 } { commits: 1, trims: 1, breaks: 1, session_crashes: 1 }
    large_restore { window: 2, events: 1 } { commits: 1, restores: 1, breaks: 1, rest_acks: 1 }
    large_fallback { events: 1 } { commits: 1, fallbacks: 1, breaks: 1, session_crashes: 1 }
    large_fallback_and_cut { events: 1 } { commits: 1, fallbacks: 1, trims: 1, session_crashes: 1 }
    large_late_look { } { commits: 1, renewals: 1, breaks: 1, late_looks: 1 }
    large_renewal { events: 1 } { commits: 1, renewals: 1, breaks: 1, session_crashes: 1 }
    large_two_devices_break { devices: 2 } { commits: 2, breaks: 1 }
    large_two_devices_session { devices: 2, window: 2 } { commits: 2, session_crashes: 1 }
    large_two_devices_node { devices: 2, window: 2 } { commits: 3, node_crashes: 1 }
    large_two_devices_break_and_session { devices: 2 } { commits: 1, breaks: 1, session_crashes: 1 }
    large_two_devices_break_and_node { devices: 2 } { commits: 1, breaks: 1, node_crashes: 1 }
    large_two_devices_cut { devices: 2, window: 2, events: 1 } { commits: 1, trims: 1, session_crashes: 1 }
    large_two_devices_fallback { devices: 2, events: 1 } { commits: 1, fallbacks: 1 }
}

// A whole hour, and 6 GB.
configurations! { 2: #[ignore = "takes an hour: make model ALL=1"]
    huge_two_devices_session { devices: 2, window: 2 } { commits: 3, session_crashes: 1 }
    huge_late_look { } { commits: 2, renewals: 1, breaks: 1, late_looks: 1 }
}

/// One of one's own: `make model OWN="devices=2 commits=2 breaks=1"`.
#[test]
#[ignore = "needs to be told what to check"]
fn own() {
    let text = std::env::var("MODEL").unwrap_or_default();
    let mut config = Config::new("own", Left::NONE);
    for word in text.split_whitespace() {
        let (what, times) = word.split_once('=').expect("name=number");
        let times: u8 = times.parse().expect("name=number");
        let left = &mut config.left;
        match what {
            "devices" => config.devices = times.into(),
            "window" => config.window = times.into(),
            "bytes" => config.bytes = times.into(),
            "events" => config.events = times,
            "settle" => config.settle = times > 0,
            "eager" => config.eager = times > 0,
            "commits" => left.commits = times,
            "breaks" => left.breaks = times,
            "session_crashes" => left.session_crashes = times,
            "node_crashes" => left.node_crashes = times,
            "trims" => left.trims = times,
            "restores" => left.restores = times,
            "fallbacks" => left.fallbacks = times,
            "renewals" => left.renewals = times,
            "losses" => left.losses = times,
            "wipes" => left.wipes = times,
            "failures" => left.failures = times,
            "rest_acks" => left.rest_acks = times,
            "late_looks" => left.late_looks = times,
            _ => unreachable!("{what}: see config.rs"),
        }
    }
    check(config, 2);
}

/// A fault for each of the ways in which the model could be blind.
#[test]
fn planted_faults_are_found() {
    const BEHIND_CLIENT: &str = "a cursor is not beyond what its client has applied";
    const AT_REST: &str = "when nothing is under way every device has everything";
    let with = |left: Left| Config::new("planted", left);
    let one = Left {
        commits: 1,
        ..Left::NONE
    };
    let breaks = |left: Left| Left { breaks: 1, ..left };
    let renewed = |left: Left| Left {
        renewals: 1,
        ..left
    };
    let two = Left { commits: 2, ..one };

    let config = with(breaks(one));
    finds(
        Bug::CursorOfAnyAttach,
        "a replaced connection moves no cursor",
        config,
    );
    finds(Bug::CursorOfAnyLife, BEHIND_CLIENT, with(renewed(two)));
    let config = with(Left {
        rest_acks: 1,
        ..two
    });
    finds(Bug::CursorMovesBack, "a cursor moves forward only", config);
    finds(Bug::AckOfAnyLife, BEHIND_CLIENT, with(renewed(two)));
    let left = Left {
        late_looks: 1,
        ..renewed(one)
    };
    let rule = "a resync is not repeated before it is acked";
    finds(Bug::HintOfAnyLife, rule, with(left));
    finds(Bug::NobodyLooks, AT_REST, with(one));
    finds(Bug::AckBeforeApply, BEHIND_CLIENT, with(one));
    finds(
        Bug::ReplacedStaysAway,
        AT_REST,
        with(Left {
            breaks: 2,
            ..Left::NONE
        }),
    );
    let config = Config {
        window: 2,
        events: 2,
        ..with(Left::NONE)
    };
    let rule = "nobody loads anew where nothing was cut off or restored";
    finds(Bug::PageWithHole, rule, config);
}
