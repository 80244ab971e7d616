//! What a session decides, told as short scripts; `tests/sim` runs it against whole schedules.

use uuid::Uuid;

use std::time::Duration;

use super::*;
use crate::domain::{
    clock::World,
    identity::ClientDeviceId,
    ids::Epoch,
    sync::{AckToken, LogHead, PresentDevice, Ref, Signal, SignalTo, Window},
};

const HEARTBEAT: Duration = Duration::from_secs(30);

fn core(window: u32) -> SessionCore {
    SessionCore::new(
        UserId(Uuid::from_u128(7)),
        SessionConfig {
            node: "n1".into(),
            window: Window {
                events: window,
                bytes: 1 << 20,
            },
            heartbeat: HEARTBEAT,
            heartbeat_timeout: Duration::from_secs(75),
            progress_timeout: Duration::from_mins(1),
            signals_per_second: 2,
            side_frames: 4,
        },
    )
}

const fn conn(n: u128) -> ConnId {
    ConnId(Uuid::from_u128(n))
}

const fn device(n: u128) -> DeviceId {
    DeviceId(Uuid::from_u128(n))
}

const fn epoch(n: u128) -> Epoch {
    Epoch(Uuid::from_u128(n))
}

/// The ends of a log in its first life, nothing trimmed.
const fn head(head_seq: i64) -> LogHead {
    log(1, 0, head_seq)
}

const fn log(life: u128, floor_seq: i64, head_seq: i64) -> LogHead {
    LogHead {
        epoch: epoch(life),
        head_seq,
        floor_seq,
    }
}

fn seen(log: LogHead) -> Seen {
    let asked_at = start();
    Seen { log, asked_at }
}

const fn at(life: u128, seq: i64) -> Position {
    Position {
        epoch: epoch(life),
        seq,
    }
}

fn events(seqs: std::ops::RangeInclusive<i64>) -> Vec<WireEvent> {
    seqs.map(|seq| WireEvent {
        seq,
        text: format!(r#"{{"type":"event","seq":{seq}}}"#).into(),
    })
    .collect()
}

/// The id that device `n` made for itself.
fn named(n: u128) -> ClientDeviceId {
    ClientDeviceId::parse(if n == 1 {
        "phone".into()
    } else {
        format!("d{n}")
    })
    .unwrap()
}

/// Connection `n` of device `n`.
fn attachment(n: u128, acked_seq: i64, since: Option<Position>, now: Instant) -> Attachment {
    Attachment {
        conn: conn(n),
        device: device(n),
        device_id: named(n),
        acked_seq,
        attach_epoch: 1,
        resumed: None,
        resyncing: None,
        since,
        token_until: now + Duration::from_hours(1),
    }
}

fn start() -> Instant {
    World::system().instant()
}

/// Device `n` at `acked`, attached to a log of `head` events without more ado.
fn attached(it: &mut SessionCore, n: u128, acked: i64, head_seq: i64) {
    let now = start();
    it.attach(now, attachment(n, acked, None, now), seen(head(head_seq)));
}

fn ack(it: &mut SessionCore, n: u128, position: Position) -> Vec<String> {
    show(it.frame(start(), conn(n), ClientFrame::Ack(position, None)))
}

/// Answers a read that was asked for before any resync.
fn loaded(it: &mut SessionCore, n: u128, after: i64, events: &[WireEvent]) -> Vec<Effect> {
    let load = Load {
        after,
        limit: 100,
        generation: 0,
    };
    let log = it.log().unwrap();
    it.loaded(start(), conn(n), load, seen(log), events)
}

/// What is decided about the log; what passes beside it is shown by [`show_all`].
fn show(effects: Vec<Effect>) -> Vec<String> {
    let mut shown = show_all(effects);
    shown.retain(|line| !line.contains("present"));
    shown
}

fn show_all(effects: Vec<Effect>) -> Vec<String> {
    let mut shown = Vec::new();
    for effect in effects {
        match effect {
            Effect::Send(c, texts) => {
                shown.extend(
                    texts
                        .iter()
                        .map(|t| format!("{}: {}", c.0.as_u128(), brief(t))),
                );
            }
            Effect::Ping(c) => shown.push(format!("{}: ping", c.0.as_u128())),
            Effect::Close(c, code) => {
                shown.push(format!("{}: close {}", c.0.as_u128(), code.number()));
            }
            Effect::Load(c, load) => shown.push(format!(
                "{}: load {} after {}",
                c.0.as_u128(),
                load.limit,
                load.after
            )),
            Effect::ReadHead => shown.push("read head".into()),
            Effect::Acked(Cursor {
                device, position, ..
            }) => shown.push(format!("{}: acked {}", device.0.as_u128(), position.seq)),
            Effect::Detached(d) => shown.push(format!("{}: detached", d.0.as_u128())),
            Effect::Relay(from, signal) => {
                shown.push(format!(
                    "relay {} of {}",
                    signal.name.as_str(),
                    from.as_str()
                ));
            }
            Effect::Present(devices) => shown.push(format!("tell present {}", names(&devices))),
            Effect::Player(ask) => shown.push(format!(
                "{}: asks {}",
                ask.conn.0.as_u128(),
                ask.signal.name.as_str()
            )),
            Effect::SignalDropped(c) => shown.push(format!("{}: signal dropped", c.0.as_u128())),
        }
    }
    shown
}

fn names(devices: &[ClientDeviceId]) -> String {
    let names: Vec<_> = devices.iter().map(ClientDeviceId::as_str).collect();
    names.join(" ")
}

fn brief(text: &str) -> String {
    let frame: serde_json::Value = serde_json::from_str(text).unwrap();
    let field = |name: &str| frame[name].to_string().replace('"', "");
    match frame["type"].as_str().unwrap() {
        "welcome" => format!(
            "welcome acked {} head {}",
            field("acked_seq"),
            field("head_seq")
        ),
        "event" => format!("event {}", field("seq")),
        "resync" => format!(
            "resync {} floor {} head {}",
            field("reason"),
            field("floor_seq"),
            field("head_seq")
        ),
        "error" => format!("error {} ref {}", field("code"), field("ref")),
        "pong" => format!("pong ref {}", field("ref")),
        "signal" => format!("signal {} {}", field("name"), field("data")),
        "presence" => {
            let devices = frame["devices"].as_array().unwrap().iter();
            let ids: Vec<_> = devices.map(|d| d["device_id"].as_str().unwrap()).collect();
            format!("present {}", ids.join(" "))
        }
        "goodbye" => format!("goodbye {} in {}", field("reason"), field("retry_after_ms")),
        other => panic!("{other}"),
    }
}

/// Attaches device 1 at cursor 5 to a log of floor 2 and head 9.
fn placed(since: Option<Position>) -> Vec<String> {
    let now = start();
    show(core(100).attach(now, attachment(1, 5, since, now), seen(log(1, 2, 9))))
}

#[test]
fn the_welcome_is_first_and_says_everything() {
    let now = start();
    let mut it = core(64);
    let effects = it.attach(now, attachment(1, 5, None, now), seen(head(9)));
    let Some(Effect::Send(to, texts)) = effects.first() else {
        panic!("{effects:?}");
    };
    assert_eq!(*to, conn(1));
    let welcome: serde_json::Value = serde_json::from_str(&texts[0]).unwrap();
    assert_eq!(
        welcome,
        serde_json::json!({
            "type": "welcome",
            "conn_id": conn(1),
            "user_id": Uuid::from_u128(7),
            "device_id": "phone",
            "node": "n1",
            "epoch": epoch(1),
            "head_seq": 9,
            "acked_seq": 5,
            "window": 64,
            "heartbeat_secs": 30,
        })
    );
}

#[test]
fn a_connection_that_attaches_again_is_not_welcomed_twice() {
    let now = start();
    let again = |since| Attachment {
        resumed: Some(epoch(1)),
        ..attachment(1, 5, since, now)
    };
    let shown = show(core(100).attach(now, again(Some(at(1, 8))), seen(head(9))));
    assert_eq!(shown, ["1: acked 8", "1: load 100 after 8"]);
    assert_eq!(
        show(core(100).attach(now, again(Some(at(1, 9))), seen(head(9)))),
        ["1: acked 9"]
    );
    let shown = show(core(100).attach(now, again(Some(at(2, 8))), seen(head(9))));
    assert_eq!(shown, ["1: resync epoch_changed floor 0 head 9"]);
    // One that never said where it is knows what it was told.
    let elsewhere = Attachment {
        resumed: Some(epoch(2)),
        ..attachment(1, 5, None, now)
    };
    let shown = show(core(100).attach(now, elsewhere, seen(head(9))));
    assert_eq!(shown, ["1: resync epoch_changed floor 0 head 9"]);
}

#[test]
fn a_connection_that_owes_the_ack_of_a_resync_is_not_told_it_twice() {
    let now = start();
    let again = |life| Attachment {
        resumed: Some(epoch(life)),
        resyncing: Some(at(life, 6)),
        ..attachment(1, 5, Some(at(1, 8)), now)
    };
    let mut it = core(100);
    let shown = show(it.attach(now, again(2), seen(log(2, 0, 9))));
    assert_eq!(shown, Vec::<String>::new(), "quiet");
    assert_eq!(
        ack(&mut it, 1, at(1, 8)),
        ["1: error epoch_changed ref null"]
    );
    assert_eq!(ack(&mut it, 1, at(2, 5)), [""; 0], "said before it");
    assert_eq!(
        ack(&mut it, 1, at(2, 7)),
        ["1: acked 7", "1: load 100 after 7"]
    );
    // What it was told is of an earlier life.
    let shown = show(core(100).attach(now, again(2), seen(log(3, 0, 9))));
    assert_eq!(shown, ["1: resync epoch_changed floor 0 head 9"]);
    // What was read for it is of an earlier life than the one that it was told of.
    let mut it = core(100);
    let later = now + Duration::from_secs(1);
    it.head_seen(later, seen(log(2, 0, 9)));
    let shown = show(it.attach(later, again(2), seen(log(1, 0, 9))));
    assert_eq!(shown, Vec::<String>::new(), "quiet");
}

#[test]
fn a_device_starts_behind_its_cursor_or_where_it_says() {
    let welcome = |acked: i64| format!("1: welcome acked {acked} head 9");
    let load = |after: i64| format!("1: load 100 after {after}");
    assert_eq!(placed(None), [welcome(5), load(5)]);
    assert_eq!(
        placed(Some(at(1, 8))),
        [welcome(8), "1: acked 8".into(), load(8)],
        "above the cursor is an ack"
    );
    assert_eq!(
        placed(Some(at(1, 3))),
        [welcome(5), load(3)],
        "below the cursor the events come again"
    );
    assert_eq!(placed(Some(at(1, 2))), [welcome(5), load(2)], "the floor");
    assert_eq!(
        placed(Some(at(1, 9))),
        [welcome(9), "1: acked 9".into()],
        "nothing is lacking"
    );
}

#[test]
fn a_position_that_means_nothing_here_is_a_resync() {
    let foreign = [
        "1: welcome acked 5 head 9",
        "1: resync epoch_changed floor 2 head 9",
    ];
    assert_eq!(placed(Some(at(2, 3))), foreign, "another epoch");
    assert_eq!(placed(Some(at(1, 10))), foreign, "ahead of the log");
    let trimmed = [
        "1: welcome acked 5 head 9",
        "1: resync compacted floor 2 head 9",
    ];
    assert_eq!(placed(Some(at(1, 1))), trimmed);
    assert_eq!(placed(Some(at(2, 0))), trimmed, "the beginning is gone");
}

#[test]
fn the_beginning_is_the_same_in_every_epoch() {
    let now = start();
    let since = Some(at(2, 0));
    let shown = show(core(100).attach(now, attachment(1, 5, since, now), seen(head(9))));
    assert_eq!(shown, ["1: welcome acked 5 head 9", "1: load 100 after 0"]);
}

#[test]
fn a_cursor_that_the_log_cannot_have_is_a_resync() {
    let now = start();
    let shown = show(core(100).attach(now, attachment(1, 12, None, now), seen(head(9))));
    assert_eq!(
        shown,
        [
            "1: welcome acked 12 head 9",
            "1: resync epoch_changed floor 0 head 9"
        ]
    );
    let shown = show(core(100).attach(now, attachment(1, 1, None, now), seen(log(1, 2, 9))));
    assert_eq!(
        shown,
        [
            "1: welcome acked 1 head 9",
            "1: resync compacted floor 2 head 9"
        ]
    );
}

#[test]
fn the_log_is_replayed_in_pages_that_fit_the_window() {
    let mut it = core(3);
    let now = start();
    let shown = show(it.attach(now, attachment(1, 5, None, now), seen(head(20))));
    assert_eq!(shown[1..], ["1: load 3 after 5"]);
    let shown = show(loaded(&mut it, 1, 5, &events(6..=8)));
    assert_eq!(
        shown,
        ["1: event 6", "1: event 7", "1: event 8"],
        "the window is full"
    );
    assert_eq!(
        ack(&mut it, 1, at(1, 7)),
        ["1: acked 7", "1: load 2 after 8"]
    );
    assert_eq!(ack(&mut it, 1, at(1, 7)), [""; 0], "nothing new");
    assert_eq!(ack(&mut it, 1, at(1, 6)), [""; 0], "cumulative");
}

#[test]
fn a_commit_goes_to_every_device_that_is_up_to_date() {
    let mut it = core(10);
    attached(&mut it, 1, 4, 4);
    attached(&mut it, 2, 4, 4);
    attached(&mut it, 3, 2, 4);
    let shown = show(it.committed(start(), seen(head(6)), &events(5..=6)));
    assert_eq!(
        shown,
        ["1: event 5", "1: event 6", "2: event 5", "2: event 6"]
    );
    let shown = show(loaded(&mut it, 3, 2, &events(3..=4)));
    assert_eq!(shown, ["3: event 3", "3: event 4", "3: load 8 after 4"]);
}

#[test]
fn what_of_a_commit_does_not_fit_is_read_later() {
    let mut it = core(2);
    attached(&mut it, 1, 4, 4);
    assert_eq!(
        show(it.committed(start(), seen(head(7)), &events(5..=7))),
        ["1: event 5", "1: event 6"]
    );
    assert_eq!(
        show(it.committed(start(), seen(head(8)), &events(8..=8))),
        [""; 0]
    );
    assert_eq!(
        ack(&mut it, 1, at(1, 6)),
        ["1: acked 6", "1: load 2 after 6"]
    );
}

#[test]
fn a_hint_from_elsewhere_makes_the_log_be_read() {
    let mut it = core(10);
    attached(&mut it, 1, 4, 4);
    assert_eq!(
        show(it.head_seen(start(), seen(head(6)))),
        ["1: load 10 after 4"]
    );
    assert_eq!(
        show(it.head_seen(start(), seen(head(5)))),
        [""; 0],
        "late, and older"
    );
    assert_eq!(it.log(), Some(head(6)));
}

#[test]
fn a_hole_in_what_was_read_is_a_resync() {
    let mut it = core(10);
    attached(&mut it, 1, 4, 9);
    it.head_seen(start(), seen(log(1, 6, 9)));
    assert_eq!(
        show(loaded(&mut it, 1, 4, &events(7..=9))),
        ["1: resync compacted floor 6 head 9"]
    );
    assert_eq!(
        show(it.committed(start(), seen(log(1, 6, 10)), &events(10..=10))),
        [""; 0],
        "quiet"
    );
    assert_eq!(
        ack(&mut it, 1, at(1, 9)),
        ["1: acked 9", "1: load 10 after 9"]
    );
}

#[test]
fn a_read_that_failed_is_tried_again() {
    let mut it = core(10);
    attached(&mut it, 1, 4, 9);
    assert_eq!(show(it.retry()), [""; 0], "under way");
    it.load_failed(conn(1));
    assert_eq!(show(it.retry()), ["1: load 10 after 4"]);
}

#[test]
fn an_answer_for_a_connection_that_is_gone_is_nobodys() {
    let mut it = core(10);
    attached(&mut it, 1, 4, 9);
    assert_eq!(show(it.detached(conn(1))), ["1: detached"]);
    assert_eq!(show(it.detached(conn(1))), [""; 0]);
    assert_eq!(show(loaded(&mut it, 1, 4, &events(5..=9))), [""; 0]);
    it.load_failed(conn(1));
    assert_eq!(ack(&mut it, 1, at(1, 5)), [""; 0]);
    assert_eq!(it.attached(), 0);
}

#[test]
fn an_ack_beyond_the_known_head_waits_for_the_head() {
    let mut it = core(10);
    attached(&mut it, 1, 4, 4);
    let beyond = |mark| ClientFrame::Ack(at(1, 6), Some(Ref::Number(mark)));
    assert_eq!(show(it.frame(start(), conn(1), beyond(1))), ["read head"]);
    assert_eq!(show(it.head_read(start(), seen(head(6)))), ["1: acked 6"]);

    let far = ClientFrame::Ack(at(1, 9), Some(Ref::Number(2)));
    assert_eq!(show(it.frame(start(), conn(1), far.clone())), ["read head"]);
    assert_eq!(
        show(it.head_read(start(), seen(head(6)))),
        ["1: error ack_beyond_head ref 2"]
    );
    assert_eq!(show(it.frame(start(), conn(1), far)), ["read head"]);
    assert_eq!(
        show(it.head_failed(start())),
        ["1: error store_unavailable ref 2"]
    );
    assert_eq!(
        show(it.head_read(start(), seen(head(9)))),
        ["1: load 10 after 6"],
        "no longer waits"
    );
}

#[test]
fn an_ack_that_waits_is_not_judged_by_an_older_look_at_the_head() {
    let mut it = core(10);
    attached(&mut it, 1, 4, 4);
    assert_eq!(ack(&mut it, 1, at(1, 6)), ["read head"]);
    assert_eq!(
        show(it.head_seen(start(), seen(head(5)))),
        ["1: load 10 after 4"],
        "an older hint"
    );
    assert_eq!(
        show(it.head_seen(start(), seen(head(6)))),
        ["1: acked 6"],
        "a hint that is enough"
    );
    assert_eq!(show(it.head_read(start(), seen(head(6)))), [""; 0]);
}

#[test]
fn an_ack_that_came_during_a_read_of_the_head_waits_for_the_next() {
    let mut it = core(10);
    attached(&mut it, 1, 6, 6);
    attached(&mut it, 2, 6, 6);
    assert_eq!(ack(&mut it, 1, at(1, 7)), ["read head"]);
    assert_eq!(ack(&mut it, 2, at(1, 8)), [""; 0], "one read at a time");
    assert_eq!(
        show(it.head_read(start(), seen(head(7)))),
        ["1: acked 7", "read head", "2: load 10 after 6"]
    );
    assert_eq!(
        show(it.head_read(start(), seen(head(8)))),
        ["2: acked 8", "1: load 10 after 7"]
    );
}

#[test]
fn an_ack_of_another_epoch_is_an_error() {
    let mut it = core(10);
    attached(&mut it, 1, 4, 4);
    assert_eq!(
        ack(&mut it, 1, at(2, 4)),
        ["1: error epoch_changed ref null"]
    );
}

#[test]
fn a_token_acks_as_the_position_does() {
    let mut it = core(10);
    attached(&mut it, 1, 0, 4);
    loaded(&mut it, 1, 0, &events(1..=4));
    let text = format!(
        r#"{{"type":"ack","ack_token":"{}"}}"#,
        AckToken(at(1, 3)).encode()
    );
    let frame = ClientFrame::parse(&text).unwrap();
    assert_eq!(show(it.frame(start(), conn(1), frame)), ["1: acked 3"]);
}

#[test]
fn another_life_of_the_log_stops_everyone_until_they_say_where_they_are() {
    let mut it = core(10);
    attached(&mut it, 1, 4, 9);
    attached(&mut it, 2, 9, 9);
    assert_eq!(
        show(it.head_seen(start(), seen(log(2, 0, 3)))),
        [
            "1: resync epoch_changed floor 0 head 3",
            "2: resync epoch_changed floor 0 head 3"
        ]
    );
    assert_eq!(
        show(loaded(&mut it, 1, 4, &events(5..=9))),
        [""; 0],
        "of the old life"
    );
    assert_eq!(
        show(it.committed(start(), seen(log(2, 0, 4)), &events(4..=4))),
        [""; 0]
    );
    assert_eq!(
        ack(&mut it, 1, at(1, 9)),
        ["1: error epoch_changed ref null"]
    );
    assert_eq!(
        ack(&mut it, 1, at(2, 3)),
        ["1: acked 3", "1: load 10 after 3"]
    );
    assert_eq!(
        ack(&mut it, 2, at(2, 8)),
        ["read head"],
        "what was sent in the old life is no position in the new one"
    );
}

#[test]
fn the_ack_that_ends_a_resync_is_made_durable_even_if_the_number_is_the_same() {
    let mut it = core(10);
    attached(&mut it, 1, 9, 9);
    it.head_seen(start(), seen(log(2, 0, 9)));
    assert_eq!(ack(&mut it, 1, at(2, 9)), ["1: acked 9"]);
}

#[test]
fn a_commit_in_another_life_is_a_resync_too() {
    let mut it = core(10);
    attached(&mut it, 1, 9, 9);
    assert_eq!(
        show(it.committed(start(), seen(log(2, 0, 10)), &events(10..=10))),
        ["1: resync epoch_changed floor 0 head 10"]
    );
}

#[test]
fn one_read_at_a_time_also_across_a_resync() {
    let mut it = core(5);
    attached(&mut it, 1, 20, 40);
    it.head_seen(start(), seen(log(2, 0, 40)));
    assert_eq!(
        ack(&mut it, 1, at(2, 18)),
        ["1: acked 18"],
        "one is under way"
    );
    assert_eq!(
        show(loaded(&mut it, 1, 20, &events(21..=25))),
        ["1: load 5 after 18"],
        "it was for another place"
    );
}

#[test]
fn a_cursor_moved_elsewhere_opens_the_window_and_is_not_sent_again() {
    let mut it = core(3);
    attached(&mut it, 1, 4, 20);
    loaded(&mut it, 1, 4, &events(5..=7));
    assert_eq!(
        show(it.acked_elsewhere(start(), device(2), at(1, 6))),
        [""; 0]
    );
    assert_eq!(
        show(it.acked_elsewhere(start(), device(1), at(1, 6))),
        ["1: load 2 after 7"]
    );
    it.load_failed(conn(1));
    // Another node appended 21 to 30; the store would not have taken the ack otherwise.
    assert_eq!(
        show(it.acked_elsewhere(start(), device(1), at(1, 30))),
        [""; 0]
    );
    assert_eq!(
        show(it.acked_elsewhere(start(), device(1), at(2, 31))),
        [""; 0],
        "of another life"
    );
    assert_eq!(
        show(it.head_seen(start(), seen(head(31)))),
        ["1: load 3 after 30"]
    );
}

#[test]
fn frames_are_answered() {
    let mut it = core(3);
    attached(&mut it, 1, 4, 4);
    let mark = || Some(Ref::Text("a".into()));
    let cases = [
        (ClientFrame::Ping(mark()), "1: pong ref a"),
        (ClientFrame::Ping(None), "1: pong ref null"),
        (ClientFrame::Unknown(mark()), "1: error unknown_type ref a"),
        (
            ClientFrame::Auth(crate::domain::sync::BearerText("t".into()), mark()),
            "1: error token_invalid ref a",
        ),
    ];
    for (frame, answer) in cases {
        assert_eq!(show(it.frame(start(), conn(1), frame)), [answer]);
    }
}

#[test]
fn a_newer_connection_replaces_the_older_of_its_device() {
    let now = start();
    let mut it = core(3);
    attached(&mut it, 1, 4, 4);
    attached(&mut it, 3, 4, 4);
    let newer = Attachment {
        conn: conn(2),
        ..attachment(1, 4, None, now)
    };
    assert_eq!(
        show(it.attach(now, newer, seen(head(4)))),
        ["1: close 4001", "1: detached", "2: welcome acked 4 head 4"]
    );
    assert_eq!(it.attached(), 2);
}

#[test]
fn a_drain_says_goodbye_and_when_to_come_back() {
    let mut it = core(3);
    attached(&mut it, 1, 4, 4);
    attached(&mut it, 2, 4, 4);
    assert_eq!(
        show(it.evict_all(|| Duration::from_millis(1500))),
        [
            "1: goodbye going_away in 1500",
            "2: goodbye going_away in 1500",
            "1: close 1001",
            "1: detached",
            "2: close 1001",
            "2: detached"
        ]
    );
    assert_eq!(it.next_tick(), None);
    attached(&mut it, 1, 4, 4);
    let shown = show(it.evict(conn(1), CloseCode::DeviceRemoved));
    assert_eq!(shown, ["1: close 4005", "1: detached"]);
    assert_eq!(show(it.evict(conn(1), CloseCode::DeviceRemoved)), [""; 0]);
}

mod time {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn tick(it: &mut SessionCore, now: Instant) -> Vec<String> {
        show(it.tick(now, Duration::ZERO))
    }

    #[test]
    fn a_silent_device_is_pinged_and_then_let_go() {
        let t0 = start();
        let mut it = core(3);
        assert_eq!(it.next_tick(), None);
        it.attach(t0, attachment(1, 0, None, t0), seen(head(0)));
        let mut ticks = Vec::new();
        while let Some(due) = it.next_tick() {
            let early = due.checked_sub(Duration::from_millis(1)).unwrap();
            assert_eq!(tick(&mut it, early), [""; 0], "not before it is due");
            ticks.push(((due - t0).as_secs(), tick(&mut it, due)));
        }
        let over = vec!["1: close 4002".to_owned(), "1: detached".to_owned()];
        let ping = vec!["1: ping".to_owned()];
        assert_eq!(ticks, [(30, ping.clone()), (60, ping), (75, over)]);
    }

    #[test]
    fn whatever_is_heard_keeps_a_device() {
        let t0 = start();
        let mut it = core(3);
        it.attach(t0, attachment(1, 0, None, t0), seen(head(0)));
        it.heard(t0 + secs(70), conn(1));
        assert_eq!(tick(&mut it, t0 + secs(80)), ["1: ping"]);
        it.frame(t0 + secs(140), conn(1), ClientFrame::Unknown(None));
        tick(&mut it, t0 + secs(214));
        assert_eq!(it.attached(), 1);
        assert_eq!(tick(&mut it, t0 + secs(215))[0], "1: close 4002");
    }

    #[test]
    fn time_in_which_the_session_could_not_run_does_not_count() {
        let t0 = start();
        let mut it = core(3);
        it.attach(t0, attachment(1, 0, None, t0), seen(head(0)));
        // Due at 30, run at 110: the device was silent for 30 seconds at most.
        assert_eq!(show(it.tick(t0 + secs(110), secs(80))), ["1: ping"]);
        assert_eq!(it.next_tick(), Some(t0 + secs(140)));
        // And a second for what is on its way.
        assert_eq!(tick(&mut it, t0 + secs(155)), ["1: ping"]);
        assert_eq!(tick(&mut it, t0 + secs(156))[0], "1: close 4002");

        it.attach(t0, attachment(1, 0, None, t0), seen(head(0)));
        it.heard(t0 + secs(29), conn(1));
        show(it.tick(t0 + secs(31), secs(600)));
        assert_eq!(
            tick(&mut it, t0 + secs(105)),
            ["1: ping"],
            "never into the future"
        );
        assert_eq!(tick(&mut it, t0 + secs(106))[0], "1: close 4002");
    }

    #[test]
    fn a_token_that_is_over_ends_the_connection_unless_it_was_renewed() {
        let t0 = start();
        let mut it = core(3);
        for n in 1..=2 {
            let until = Attachment {
                token_until: t0 + secs(20),
                ..attachment(n, 0, None, t0)
            };
            it.attach(t0, until, seen(head(0)));
        }
        assert_eq!(it.next_tick(), Some(t0 + secs(20)));
        it.renewed(t0 + secs(10), conn(2), t0 + secs(40));
        assert_eq!(
            show(it.tick(t0 + secs(20), secs(10))),
            ["1: close 4003", "1: detached"],
            "a late session makes no token last longer"
        );
        assert_eq!(it.next_tick(), Some(t0 + secs(30)), "the ping");
        assert_eq!(tick(&mut it, t0 + secs(30)), ["2: ping"]);
        assert_eq!(it.next_tick(), Some(t0 + secs(40)));
        assert_eq!(tick(&mut it, t0 + secs(40))[0], "2: close 4003");
    }
}

mod side {
    use super::*;

    fn signal(to: &str, name: &str) -> ClientFrame {
        let text = format!(r#"{{"type":"signal","to":"{to}","name":"{name}","data":[1],"ref":7}}"#);
        ClientFrame::parse(&text).unwrap()
    }

    fn three() -> SessionCore {
        let mut it = core(10);
        (1..=3).for_each(|n| attached(&mut it, n, 0, 0));
        it
    }

    #[test]
    fn everyone_hears_who_comes_and_goes() {
        let now = start();
        let mut it = core(10);
        let shown = show_all(it.attach(now, attachment(1, 0, None, now), seen(head(0))));
        assert_eq!(shown[1..], ["tell present phone", "1: present phone"]);
        let shown = show_all(it.attach(now, attachment(2, 0, None, now), seen(head(0))));
        assert_eq!(
            shown[1..],
            [
                "tell present d2 phone",
                "1: present d2 phone",
                "2: present d2 phone"
            ]
        );
        let again = Attachment {
            conn: conn(9),
            ..attachment(2, 0, None, now)
        };
        let shown = show_all(it.attach(now, again, seen(head(0))));
        assert_eq!(
            shown[3..],
            ["9: present d2 phone"],
            "nothing changed for others"
        );
        let shown = show_all(it.detached(conn(9)));
        assert_eq!(
            shown,
            ["2: detached", "tell present phone", "1: present phone"]
        );
    }

    #[test]
    fn who_is_at_other_nodes_is_there_until_its_node_falls_silent() {
        let now = start();
        let mut it = core(10);
        attached(&mut it, 1, 0, 0);
        let arrive =
            |it: &mut SessionCore, devices| show_all(it.presence_arrived(now, "n2", devices));
        assert_eq!(arrive(&mut it, vec![named(2)]), ["1: present d2 phone"]);
        assert_eq!(arrive(&mut it, vec![named(2)]), [""; 0]);
        assert_eq!(arrive(&mut it, vec![]), ["1: present phone"]);
        arrive(&mut it, vec![named(2)]);
        it.heard(now + Duration::from_secs(74), conn(1));
        let shown = show_all(it.tick(now + Duration::from_secs(75), Duration::ZERO));
        assert_eq!(shown, ["1: ping", "tell present phone", "1: present phone"]);
        let present = PresentDevice {
            device_id: named(1),
        };
        assert_eq!(it.present(), [present]);
    }

    #[test]
    fn who_had_too_much_to_read_hears_with_the_next_tick_who_is_there() {
        let now = start();
        let mut it = core(10);
        attached(&mut it, 1, 0, 0);
        it.unread(conn(1), 1000);
        assert_eq!(
            show_all(it.presence_arrived(now, "n2", vec![named(2)])),
            [""; 0]
        );
        it.unread(conn(1), 0);
        it.heard(now, conn(1));
        let shown = show_all(it.tick(now + 2 * HEARTBEAT, Duration::ZERO));
        assert_eq!(
            shown,
            ["1: ping", "tell present phone", "1: present d2 phone"]
        );
    }

    #[test]
    fn a_signal_goes_to_whom_it_names() {
        let mut it = three();
        let mut send = |frame| show_all(it.frame(start(), conn(1), frame));
        let all = ["2: signal volume.set [1]", "3: signal volume.set [1]"];
        assert_eq!(send(signal("all", "volume.set")), all);
        assert_eq!(send(signal("d3", "x")), ["3: signal x [1]"]);
        let mut it = three();
        let shown = show_all(it.frame(start(), conn(1), signal("d9", "x")));
        assert_eq!(shown, ["1: error device_not_attached ref 7"]);
        it.presence_arrived(start(), "n2", vec![named(9)]);
        let shown = show_all(it.frame(start(), conn(1), signal("d9", "x")));
        assert_eq!(shown, ["relay x of phone"]);
        let ClientFrame::Signal(from_afar, _) = signal("all", "y") else {
            panic!();
        };
        assert_eq!(from_afar.to, SignalTo::All);
        let shown = show_all(it.signal_arrived(&named(9), &from_afar));
        assert_eq!(shown.len(), 3);
        let to_one = Signal {
            to: SignalTo::Device(named(2)),
            ..from_afar
        };
        let shown = show_all(it.signal_arrived(&named(9), &to_one));
        assert_eq!(shown, ["2: signal y [1]"]);
    }

    #[test]
    fn a_device_may_send_so_many_signals_a_second() {
        let (mut it, t) = (three(), start());
        let mut send = |at| show_all(it.frame(at, conn(1), signal("d2", "x")));
        assert_eq!(send(t), ["2: signal x [1]"]);
        assert_eq!(send(t), ["2: signal x [1]"]);
        assert_eq!(send(t), ["1: error rate_limited ref 7"]);
        let half = Duration::from_millis(501);
        assert_eq!(send(t + half), ["2: signal x [1]"]);
        assert_eq!(send(t + half), ["1: error rate_limited ref 7"]);
    }

    #[test]
    fn what_passes_beside_the_log_does_not_pile_up() {
        let mut it = three();
        it.unread(conn(2), 4);
        let shown = show_all(it.frame(start(), conn(1), signal("all", "x")));
        assert_eq!(shown, ["2: signal dropped", "3: signal x [1]"]);
        assert_eq!(
            show_all(it.frame(start(), conn(2), ClientFrame::Ping(None))),
            [""; 0]
        );
        assert_eq!(
            show_all(it.detached(conn(3))),
            [
                "3: detached",
                "tell present d2 phone",
                "1: present d2 phone"
            ],
            "not to the one that has much to read"
        );
        show_all(it.detached(conn(1)));
        let event = show_all(it.committed(start(), seen(head(1)), &events(1..=1)));
        assert_eq!(event, ["2: event 1"], "the log is not held up");
        it.unread(conn(2), 3);
        assert_eq!(
            show_all(it.frame(start(), conn(2), ClientFrame::Ping(None))),
            ["2: pong ref null", "2: present d2"],
            "once, as it is now"
        );
    }
}

mod progress {
    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    /// Device 1 that was sent event 5 at the time that is returned, and answers pings.
    fn owing() -> (SessionCore, Instant) {
        let (mut it, t) = (core(10), start());
        it.attach(t, attachment(1, 4, None, t), seen(head(4)));
        it.committed(t, seen(head(5)), &events(5..=5));
        it.heard(t + PATIENCE, conn(1));
        (it, t)
    }

    #[test]
    fn a_device_that_reads_and_does_not_ack_is_let_go() {
        let (mut it, t) = owing();
        let before = PATIENCE.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(show(it.tick(t + before, Duration::ZERO)), ["1: ping"]);
        assert_eq!(it.next_tick(), Some(t + PATIENCE));
        let shown = show(it.tick(t + PATIENCE, Duration::ZERO));
        assert_eq!(shown, ["1: close 4004", "1: detached"]);
    }

    #[test]
    fn an_ack_of_what_was_acked_is_no_progress() {
        let (mut it, t) = owing();
        let old = ClientFrame::Ack(at(1, 4), None);
        it.frame(t + PATIENCE / 2, conn(1), old);
        assert_eq!(
            show(it.tick(t + PATIENCE, Duration::ZERO))[0],
            "1: close 4004"
        );
    }

    #[test]
    fn an_ack_that_waits_for_the_store_is_the_stores_delay() {
        let (mut it, t) = owing();
        let beyond = ClientFrame::Ack(at(1, 6), None);
        let shown = show(it.frame(t + PATIENCE / 2, conn(1), beyond));
        assert_eq!(shown, ["read head"]);
        assert_eq!(show(it.tick(t + PATIENCE, Duration::ZERO)), ["1: ping"]);
        assert!(it.next_tick() > Some(t + PATIENCE), "no tick for nothing");
        it.head_failed(t + PATIENCE);
        assert_eq!(it.next_tick(), Some(t + 3 * HEARTBEAT));
        it.heard(t + 2 * PATIENCE, conn(1));
        let shown = show(it.tick(t + 2 * PATIENCE, Duration::ZERO));
        assert_eq!(shown[0], "1: close 4004", "it did not try again");
    }

    #[test]
    fn a_reload_takes_its_time() {
        let (mut it, t) = owing();
        it.head_seen(t, seen(log(2, 0, 3)));
        assert_eq!(show(it.tick(t + PATIENCE, Duration::ZERO)), ["1: ping"]);
        assert_eq!(it.attached(), 1);
    }
}

mod late_answers {
    use super::*;

    #[test]
    fn of_an_earlier_life_of_the_log_change_nothing() {
        let (mut it, t) = (core(10), start());
        let second = Duration::from_secs(1);
        it.attach(t, attachment(1, 4, None, t), seen(head(9)));
        let new = Seen {
            log: log(2, 0, 7),
            asked_at: t + second,
        };
        let shown = show(it.head_seen(t + 2 * second, new));
        assert_eq!(shown, ["1: resync epoch_changed floor 0 head 7"]);
        assert_eq!(ack(&mut it, 1, at(2, 7)), ["1: acked 7"]);
        let old = Seen {
            log: head(12),
            asked_at: t,
        };
        assert_eq!(show(it.head_seen(t + 2 * second, old)), [""; 0]);
        assert_eq!(
            show(it.committed(t + 2 * second, old, &events(8..=8))),
            [""; 0]
        );
        let load = Load {
            after: 4,
            limit: 10,
            generation: 0,
        };
        let page = events(5..=9);
        assert_eq!(
            show(it.loaded(t + 2 * second, conn(1), load, old, &page)),
            [""; 0]
        );
        let shown = show(it.attach(t + 2 * second, attachment(2, 12, None, t), old));
        assert_eq!(
            shown,
            [
                "2: welcome acked 12 head 7",
                "2: resync epoch_changed floor 0 head 7"
            ],
            "its cursor was read in the earlier life"
        );
    }

    #[test]
    fn of_an_older_attachment_replace_nothing() {
        let (mut it, t) = (core(10), start());
        let newer = Attachment {
            attach_epoch: 7,
            ..attachment(1, 0, None, t)
        };
        it.attach(t, newer, seen(head(0)));
        let older = Attachment {
            conn: conn(2),
            attach_epoch: 6,
            ..attachment(1, 0, None, t)
        };
        let again = Attachment {
            resumed: Some(epoch(1)),
            ..older.clone()
        };
        assert_eq!(show(it.attach(t, again, seen(head(0)))), ["2: close 4001"]);
        assert_eq!(show(it.superseded(device(1), 7)), [""; 0]);
        assert_eq!(
            show(it.superseded(device(1), 8)),
            ["1: close 4001", "1: detached"]
        );
    }

    #[test]
    fn of_a_store_that_fell_back_make_the_device_come_again() {
        let (mut it, t) = (core(10), start());
        let numbered = |conn_id: u128, attach_epoch| Attachment {
            conn: conn(conn_id),
            attach_epoch,
            ..attachment(1, 0, None, t)
        };
        it.attach(t, numbered(1, 9), seen(head(0)));
        assert_eq!(
            show(it.attach(t, numbered(2, 8), seen(head(0)))),
            ["1: close 1013", "1: detached", "2: welcome acked 0 head 0"],
            "the one that is there now stays"
        );
        assert_eq!(show(it.unknown(device(1), 9)), [""; 0]);
        assert_eq!(
            show(it.unknown(device(1), 8)),
            ["2: close 1013", "1: detached"]
        );
    }

    #[test]
    fn of_a_head_that_was_never_reached_are_no_hole() {
        let (mut it, t) = (core(10), start());
        it.attach(t, attachment(1, 4, None, t), seen(head(4)));
        let shown = show(it.head_seen(t, seen(head(99))));
        assert_eq!(shown, ["1: load 10 after 4"]);
        let load = Load {
            after: 4,
            limit: 10,
            generation: 0,
        };
        let shown = show(it.loaded(t, conn(1), load, seen(head(4)), &[]));
        assert_eq!(shown, [""; 0]);
        assert_eq!(it.log(), Some(head(4)));
        assert_eq!(
            show(it.committed(t, seen(head(5)), &events(5..=5))),
            ["1: event 5"]
        );
    }
}
