//! The rules, told what happened at made-up times.

use std::time::{Duration, Instant};

use super::{
    backoff::Wait,
    rules::Rules,
    steps::{Action, Input, Position, Stop},
    wire::{ClientFrame, ServerFrame},
};
use crate::domain::clock::World;

const SECOND: Duration = Duration::from_secs(1);

/// The rules and a clock that moves when the test says so.
struct Bench {
    rules: Rules,
    now: Instant,
}

impl Bench {
    fn new(last_seq: Option<u64>) -> Self {
        Self {
            rules: Rules::new(Position {
                epoch: last_seq.map(|_| "e1".to_owned()),
                last_seq: last_seq.unwrap_or(0),
            }),
            now: World::system().instant(),
        }
    }

    /// Connected and welcomed, with everything up to `seq` printed.
    fn at(seq: u64) -> Self {
        let mut bench = Self::new(Some(seq));
        bench.connect(seq, seq);
        bench
    }

    fn connect(&mut self, head: u64, acked: u64) -> Vec<String> {
        self.tell(Input::Opened {
            token_left: 900 * SECOND,
        });
        self.frame(&format!(
            r#"{{"type":"welcome","conn_id":"c","user_id":"u","device_id":"me","node":"n",
                "epoch":"e1","head_seq":{head},"acked_seq":{acked},"window":256,
                "heartbeat_secs":30}}"#
        ))
    }

    fn tell(&mut self, input: Input) -> Vec<String> {
        self.rules.step(self.now, input).iter().map(name).collect()
    }

    fn frame(&mut self, text: &str) -> Vec<String> {
        self.tell(Input::Frame(ServerFrame::parse(text).unwrap()))
    }

    fn event(&mut self, seq: u64) -> Vec<String> {
        self.frame(&format!(
            r#"{{"type":"event","id":"i","seq":{seq},"event_type":"t","user_id":"u","data":{{}},
                "origin_device_id":"o","ack_token":"k{seq}","timestamp":""}}"#
        ))
    }

    fn closed(&mut self, code: u16) -> Vec<String> {
        self.tell(Input::Closed {
            code: Some(code),
            reason: String::new(),
        })
    }

    fn lost(&mut self) -> Vec<String> {
        self.tell(Input::Lost {
            why: "cut".to_owned(),
        })
    }

    fn later(&mut self, by: Duration) -> &mut Self {
        self.now += by;
        self
    }

    fn last(&self) -> u64 {
        self.rules.position().last_seq
    }
}

fn name(action: &Action) -> String {
    match action {
        Action::Print(event) => format!("print {}", event.seq),
        Action::Say(text) => format!("say {text}"),
        Action::Save => "save".to_owned(),
        Action::Send(ClientFrame::Ack { ack_token }) => format!("ack {ack_token}"),
        Action::Send(frame) => serde_json::to_string(frame).unwrap(),
        Action::SendToken => "send token".to_owned(),
        Action::Renew => "renew".to_owned(),
        Action::ForgetTokens => "forget tokens".to_owned(),
        Action::Close(code) => format!("close {code}"),
        Action::Again { wait, refresh, .. } => {
            let wait = match wait {
                Wait::None => "at once".to_owned(),
                Wait::About(wait) => format!("in about {wait:?}"),
                Wait::Exactly(wait) => format!("in {wait:?}"),
            };
            format!(
                "again {wait}{}",
                if *refresh { " with new tokens" } else { "" }
            )
        }
        Action::Stop(Stop::LogInAgain(why)) => format!("stop: log in again: {why}"),
        Action::Stop(stop) => format!("stop: {stop:?}"),
    }
}

#[test]
fn a_burst_is_printed_then_saved_then_acknowledged_once() {
    let mut bench = Bench::at(2);
    assert_eq!(bench.event(3), ["print 3"]);
    assert_eq!(bench.event(4), ["print 4"]);
    assert_eq!(bench.tell(Input::Quiet), ["save", "ack k4"]);
    assert!(bench.tell(Input::Quiet).is_empty());
}

#[test]
fn a_burst_that_does_not_end_is_saved_on_the_way() {
    let mut bench = Bench::at(0);
    assert_eq!(bench.event(1), ["print 1"]);
    assert_eq!(
        bench.later(Duration::from_millis(200)).event(2),
        ["print 2", "save", "ack k2"]
    );
    bench.event(3);
    assert_eq!(
        bench.rules.deadline(),
        Some(bench.now + Duration::from_millis(200))
    );
    assert_eq!(
        bench.later(Duration::from_millis(200)).tell(Input::Tick),
        ["save", "ack k3"]
    );
}

#[test]
fn what_was_printed_is_not_printed_again_but_acknowledged_again() {
    let mut bench = Bench::at(5);
    assert!(bench.event(4).is_empty());
    assert!(bench.event(5).is_empty());
    assert_eq!(bench.tell(Input::Quiet), ["ack k5"]);
    assert_eq!(bench.last(), 5);
}

#[test]
fn a_hole_is_never_acknowledged() {
    let mut bench = Bench::at(5);
    bench.event(6);
    assert_eq!(
        bench.event(8),
        ["save", "ack k6", "close 1000", "again in about 1s"]
    );
    assert_eq!(bench.last(), 6);
}

#[test]
fn a_new_device_starts_where_the_server_says() {
    let mut bench = Bench::new(None);
    assert_eq!(
        bench.connect(9, 7),
        ["say connected as me: head 9, acknowledged 7", "save"]
    );
    assert_eq!(bench.event(8), ["print 8"]);
    assert_eq!(bench.event(9), ["print 9", "say replayed 2 events"]);
    assert_eq!(bench.event(10), ["print 10"]);
}

#[test]
fn a_resync_takes_the_head_saves_and_acknowledges_it() {
    let mut bench = Bench::at(5);
    bench.event(6);
    assert_eq!(
        bench.frame(
            r#"{"type":"resync","epoch":"e2","floor_seq":0,"head_seq":3,"reason":"epoch_changed"}"#
        ),
        [
            "say resync (epoch_changed): events up to 3 cannot be replayed",
            "save",
            r#"{"type":"ack","up_to":3,"epoch":"e2"}"#
        ]
    );
    assert_eq!(bench.rules.position().epoch.as_deref(), Some("e2"));
    assert!(bench.tell(Input::Quiet).is_empty());
    assert_eq!(bench.event(4), ["print 4"]);
}

#[test]
fn pings_every_thirty_seconds_and_gives_up_after_seventy_five() {
    let mut bench = Bench::at(0);
    let ping = r#"{"type":"ping"}"#;
    assert_eq!(bench.later(30 * SECOND).tell(Input::Tick), [ping]);
    assert_eq!(bench.later(30 * SECOND).tell(Input::Tick), [ping]);
    assert_eq!(bench.rules.deadline(), Some(bench.now + 15 * SECOND));
    bench
        .later(14 * SECOND)
        .frame(r#"{"type":"pong","ref":null}"#);
    assert!(bench.later(SECOND).tell(Input::Tick).is_empty());
    bench.event(1);
    assert_eq!(
        bench.later(75 * SECOND).tell(Input::Tick),
        ["save", "again in about 1s"]
    );
    assert_eq!(bench.rules.deadline(), None);
}

#[test]
fn the_token_is_renewed_a_minute_before_its_end() {
    let mut bench = Bench::at(0);
    let tick = |bench: &mut Bench| {
        bench.tell(Input::Heard);
        bench.tell(Input::Tick)
    };
    assert!(!tick(bench.later(839 * SECOND)).contains(&"renew".to_owned()));
    assert_eq!(tick(bench.later(SECOND)), ["renew"]);
    // While the answer is on its way it is not asked for again.
    assert!(tick(bench.later(SECOND)).is_empty());
    let failed = Input::NotRenewed {
        why: "busy".to_owned(),
        retry_after: None,
    };
    assert_eq!(
        bench.tell(failed),
        ["say the token could not be renewed: busy"]
    );
    assert_eq!(tick(bench.later(10 * SECOND)), ["renew"]);
    let renewed = Input::Renewed {
        token_left: 4 * SECOND,
    };
    assert_eq!(bench.tell(renewed), ["send token"]);
    assert_eq!(tick(bench.later(2 * SECOND)), ["renew"]);
}

#[test]
fn backs_off_until_a_welcome() {
    let mut bench = Bench::at(0);
    let waits: Vec<_> = (0..7).flat_map(|_| bench.lost()).collect();
    let about = |n: u64| format!("again in about {n}s");
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30].map(about));
    bench.connect(0, 0);
    assert_eq!(bench.lost(), [about(1)]);
    for code in [1000, 1009, 1013, 4002, 4004, 4006] {
        bench.connect(0, 0);
        assert_eq!(bench.closed(code), [about(1)], "{code}");
    }
}

#[test]
fn the_server_says_how_long_to_stay_away() {
    let mut bench = Bench::at(0);
    let goodbye = r#"{"type":"goodbye","reason":"shutdown","retry_after_ms":1500}"#;
    assert_eq!(
        bench.frame(goodbye),
        ["say the server says goodbye: shutdown"]
    );
    bench.event(1);
    assert_eq!(bench.closed(1001), ["save", "again in 1.5s"]);
    let refused = |status, seconds| Input::Refused {
        status,
        why: String::new(),
        retry_after: Some(Duration::from_secs(seconds)),
    };
    assert_eq!(bench.tell(refused(503, 7)), ["again in 7s"]);
    assert_eq!(bench.tell(refused(503, 1_000_000)), ["again in 3600s"]);
}

#[test]
fn a_bad_token_is_renewed_at_once_but_not_in_a_circle() {
    let mut bench = Bench::at(0);
    assert_eq!(bench.closed(4003), ["again at once with new tokens"]);
    let refused = || Input::Refused {
        status: 401,
        why: String::new(),
        retry_after: None,
    };
    assert_eq!(bench.tell(refused()), ["again in about 1s with new tokens"]);
    assert_eq!(
        bench.later(11 * SECOND).tell(refused()),
        ["again at once with new tokens"]
    );
    let unanswered = Input::NotRenewed {
        why: "away".to_owned(),
        retry_after: None,
    };
    assert_eq!(
        bench.tell(unanswered),
        ["again in about 2s with new tokens"]
    );
    let refused = Input::SignedOut {
        why: "refresh_token_invalid".to_owned(),
    };
    assert_eq!(
        bench.tell(refused),
        ["forget tokens", "stop: log in again: refresh_token_invalid"]
    );
}

#[test]
fn a_replaced_or_removed_device_stays_away() {
    let mut bench = Bench::at(0);
    bench.event(1);
    assert_eq!(bench.closed(4001), ["save", "stop: Replaced"]);
    let mut bench = Bench::at(0);
    assert_eq!(bench.closed(4005), ["forget tokens", "stop: Removed"]);
}

#[test]
fn one_that_was_replaced_by_what_it_gave_up_itself_comes_back() {
    let mut bench = Bench::at(3);
    bench.lost();
    // Its request may be on its way through the server still.
    bench.lost();
    bench.connect(3, 3);
    let again = bench.closed(4001);
    assert!(again.concat().contains("again"), "{again:?}");
    bench.connect(3, 3);
    bench.later(60 * SECOND);
    assert_eq!(bench.closed(4001), ["stop: Replaced"]);
}

#[test]
fn a_connection_that_was_welcomed_before_it_broke_replaces_nothing_later() {
    let mut bench = Bench::at(3);
    bench.lost();
    bench.connect(3, 3);
    assert_eq!(bench.closed(4001), ["stop: Replaced"]);
}

#[test]
fn who_is_at_the_beginning_takes_the_epoch_of_the_welcome() {
    let mut bench = Bench::new(Some(0));
    bench.tell(Input::Opened {
        token_left: 900 * SECOND,
    });
    let told = bench.frame(
        r#"{"type":"welcome","conn_id":"c","user_id":"u","device_id":"me","node":"n",
            "epoch":"e2","head_seq":2,"acked_seq":1,"window":256,"heartbeat_secs":30}"#,
    );
    assert!(told.contains(&"save".to_owned()), "{told:?}");
    let position = bench.rules.position();
    assert_eq!(
        (position.epoch.as_deref(), position.last_seq),
        (Some("e2"), 0)
    );
}

#[test]
fn an_interrupt_leaves_nothing_undone() {
    let mut bench = Bench::at(0);
    bench.event(1);
    assert_eq!(
        bench.tell(Input::Interrupted),
        ["save", "ack k1", "close 1000", "stop: Interrupted"]
    );
    assert_eq!(
        Bench::new(None).tell(Input::Interrupted),
        ["stop: Interrupted"]
    );
}

#[test]
fn errors_are_told_and_unknown_frames_passed_over() {
    let mut bench = Bench::at(0);
    assert_eq!(
        bench.frame(r#"{"type":"error","code":"unknown_type","detail":"what?","ref":null}"#),
        ["say error unknown_type: what?"]
    );
    assert!(
        bench
            .frame(r#"{"type":"presence","devices":[]}"#)
            .is_empty()
    );
    assert_eq!(bench.tell(Input::Unreadable).len(), 1);
}
