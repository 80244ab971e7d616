use proptest::prelude::*;

use super::*;
use crate::domain::clock::World;

fn start() -> Instant {
    World::system().instant()
}

const fn window(events: u32) -> Window {
    Window {
        events,
        bytes: 1 << 20,
    }
}

const fn load(after: i64, limit: u32) -> Load {
    Load {
        after,
        limit,
        generation: 0,
    }
}

fn events(seqs: std::ops::RangeInclusive<i64>) -> Vec<WireEvent> {
    seqs.map(|seq| WireEvent {
        seq,
        text: "e".into(),
    })
    .collect()
}

#[test]
fn the_window_stops_sending_and_acks_open_it() {
    let mut d = Delivery::new(0, window(2));
    assert_eq!(d.next_load(5), Some(load(0, 2)));
    assert_eq!(d.next_load(5), None, "one read at a time");
    assert_eq!(
        d.loaded(start(), load(0, 2), &events(1..=2))
            .map(<[_]>::len),
        Some(2)
    );
    assert_eq!(d.next_load(5), None);
    assert_eq!(d.ack(start(), 1, 5), Ok(true));
    assert_eq!(d.next_load(5), Some(load(2, 1)));
}

#[test]
fn a_hole_is_never_sent_over() {
    let mut d = Delivery::new(0, window(256));
    d.next_load(9);
    assert_eq!(d.loaded(start(), load(0, 2), &events(3..=4)), None);
    assert_eq!(d.committed(start(), &events(2..=2)).len(), 0);
}

#[test]
fn a_resync_is_quiet_until_the_ack_and_goes_on_from_it() {
    let mut d = Delivery::resyncing(9, 7, window(256));
    assert_eq!(d.next_load(9), None);
    assert_eq!(d.committed(start(), &events(10..=10)).len(), 0);
    assert_eq!(d.ack(start(), 11, 10), Err(AckError::BeyondHead));
    assert_eq!(d.ack(start(), 8, 10), Ok(true));
    assert_eq!(d.next_load(10), Some(load(8, 128)));
}

#[test]
fn an_ack_from_before_a_resync_does_not_end_it() {
    let mut d = Delivery::resyncing(3, 7, window(256));
    assert_eq!(d.ack(start(), 4, 10), Ok(false));
    assert!(d.is_quiet());
    assert_eq!(d.ack(start(), 7, 10), Ok(true));
    assert!(!d.is_quiet());
}

#[derive(Debug, Clone)]
enum Step {
    Commit(u8),
    Pump,
    Answer(u8),
    Fail,
    Ack(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..4u8).prop_map(Step::Commit),
        Just(Step::Pump),
        (0..8u8).prop_map(Step::Answer),
        Just(Step::Fail),
        (0..64u16).prop_map(Step::Ack),
    ]
}

proptest! {
    /// Whatever happens in whatever order, the client sees each event once, in order, and never
    /// more than a window ahead of its ack.
    #[test]
    fn in_order_once_and_bounded(steps in prop::collection::vec(step(), 0..200)) {
        const WINDOW: u32 = 5;
        let mut d = Delivery::new(0, window(WINDOW));
        let (mut head, mut applied) = (0_i64, 0_i64);
        let mut reading = None;
        for step in steps {
            let sent: Vec<i64> = match step {
                Step::Commit(n) => {
                    let new = events(head + 1..=head + i64::from(n));
                    head += i64::from(n);
                    d.committed(start(), &new).iter().map(|e| e.seq).collect()
                }
                Step::Pump => {
                    if let Some(load) = d.next_load(head) {
                        prop_assert!(reading.is_none());
                        reading = Some(load);
                    }
                    vec![]
                }
                Step::Answer(n) => match reading.take() {
                    Some(load) => {
                        let n = i64::from(n).clamp(1, i64::from(load.limit)).min(head - load.after);
                        let page = events(load.after + 1..=load.after + n);
                        d.loaded(start(), load, &page).unwrap().iter().map(|e| e.seq).collect()
                    }
                    None => vec![],
                },
                Step::Fail => {
                    if reading.take().is_some() {
                        d.load_failed();
                    }
                    vec![]
                }
                Step::Ack(back) => {
                    let up_to = (applied - i64::from(back)).max(0);
                    prop_assert!(d.ack(start(), up_to, head).is_ok());
                    vec![]
                }
            };
            for seq in sent {
                prop_assert_eq!(seq, applied + 1);
                applied = seq;
            }
            prop_assert!(d.sent() - d.acked() <= i64::from(WINDOW));
        }
    }
}

fn sized(seqs: std::ops::RangeInclusive<i64>, bytes: usize) -> Vec<WireEvent> {
    seqs.map(|seq| WireEvent {
        seq,
        text: "e".repeat(bytes).into(),
    })
    .collect()
}

#[test]
fn bytes_bound_what_is_in_flight_and_one_event_always_fits() {
    let bytes = Window {
        events: 256,
        bytes: 100,
    };
    let mut d = Delivery::new(0, bytes);
    assert_eq!(d.committed(start(), &sized(1..=5, 40)).len(), 2);
    assert_eq!(d.flight_bytes(), 80);
    assert_eq!(d.next_load(5), None, "more than half is in flight");
    assert_eq!(d.ack(start(), 1, 5), Ok(true));
    let more = d.next_load(5).unwrap();
    assert_eq!(more.after, 2);
    let page = sized(3..=5, 40);
    assert_eq!(d.loaded(start(), more, &page).map(<[_]>::len), Some(1));
    assert_eq!(d.ack(start(), 3, 5), Ok(true));
    assert_eq!(d.flight_bytes(), 0);
    let huge = d.next_load(5).unwrap();
    let page = sized(4..=5, 1000);
    assert_eq!(d.loaded(start(), huge, &page).map(<[_]>::len), Some(1));
}

#[test]
fn what_has_no_room_is_not_read_again_and_again() {
    let bytes = Window {
        events: 256,
        bytes: 100,
    };
    let mut d = Delivery::new(0, bytes);
    assert_eq!(d.committed(start(), &sized(1..=1, 40)).len(), 1);
    let more = d.next_load(2).unwrap();
    let page = sized(2..=2, 80);
    assert_eq!(d.loaded(start(), more, &page), Some(&[][..]));
    assert_eq!(d.next_load(2), None, "it would find the same");
    assert_eq!(d.ack(start(), 1, 2), Ok(true));
    let more = d.next_load(2).unwrap();
    assert_eq!(d.loaded(start(), more, &page).map(<[_]>::len), Some(1));
}

#[test]
fn a_read_from_before_a_resync_brings_nothing() {
    let mut d = Delivery::new(0, window(256));
    let old = d.next_load(9).unwrap();
    d.resync(0);
    assert_eq!(d.ack(start(), 0, 9), Ok(true));
    assert_eq!(d.next_load(9), None, "one read at a time");
    let page = events(1..=9);
    assert_eq!(d.loaded(start(), old, &page), Some(&[][..]));
    let new = d.next_load(9).unwrap();
    assert_eq!(d.loaded(start(), new, &page).map(<[_]>::len), Some(9));
}

#[test]
fn an_ack_is_owed_from_the_first_event_and_anew_after_each_ack() {
    let second = Duration::from_secs(1);
    let (t, mut d) = (start(), Delivery::new(0, window(256)));
    assert_eq!(d.overdue_at(second), None);
    d.committed(t, &events(1..=1));
    d.committed(t + second, &events(2..=2));
    assert_eq!(d.overdue_at(second), Some(t + second));
    assert_eq!(d.ack(t + second, 1, 2), Ok(true));
    assert_eq!(d.ack(t + 2 * second, 1, 2), Ok(false), "no progress");
    assert_eq!(d.overdue_at(second), Some(t + 2 * second));
    d.excuse(second, t + 9 * second);
    assert_eq!(d.overdue_at(second), Some(t + 3 * second));
    d.resync(0);
    assert_eq!(d.overdue_at(second), None, "a reload takes its time");
}
