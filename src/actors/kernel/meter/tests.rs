use prometheus_client::registry::Registry;

use super::*;
use crate::domain::clock::{Clock as _, System};

const SEC: Duration = Duration::from_secs(1);

fn meter() -> (Meter, Arc<KindMeter>, Instant) {
    let kind = KernelMetrics::register(&mut Registry::default()).kind("probe");
    let now = System.instant();
    (Meter::new(now), kind, now)
}

#[test]
fn the_slowest_answer_is_kept_for_half_a_minute_to_a_minute() {
    let (meter, kind, start) = meter();
    let ask = |at: u64, millis: u64, what| {
        let sent = start + SEC * u32::try_from(at).unwrap();
        meter.answered(&kind, what, sent, sent + Duration::from_millis(millis));
    };
    let slowest = |at: u32| meter.read(&kind, start + SEC * at).slowest;
    assert_eq!(slowest(1), None);
    ask(2, 5, "a::b::Quick");
    ask(3, 900, "a::b::Slow<a::b::C>");
    ask(4, 7, "a::b::Quick");
    let slow = Slowest {
        what: "Slow<a::b::C>",
        took: Duration::from_millis(900),
    };
    assert_eq!(slowest(5), Some(slow));
    // Also where nothing was asked meanwhile.
    assert_eq!(slowest(59), Some(slow));
    assert_eq!(slowest(60), None);
    ask(31, 4, "Quick");
    assert_eq!(slowest(40), Some(slow));
    ask(65, 3, "Quick");
    let quick = slowest(66).unwrap();
    assert_eq!((quick.what, quick.took.as_millis()), ("Quick", 4));
    ask(200, 1, "Quick");
    assert_eq!(slowest(201).unwrap().took.as_millis(), 1);
}

#[test]
fn what_is_in_hand_is_owed_since_the_last_answer() {
    let (meter, kind, start) = meter();
    let owing = |at: u32| meter.read(&kind, start + SEC * at).owing;
    meter.owes(Class::Control, start + SEC);
    assert_eq!(owing(2), None);
    meter.owes(Class::Command, start + SEC * 2);
    meter.owes(Class::Command, start + SEC * 3);
    assert_eq!(owing(10), Some(SEC * 8));
    // Reads that are answered say nothing of commands.
    meter.owes(Class::Read, start + SEC * 9);
    meter.settled(Class::Read, start + SEC * 10, false);
    assert_eq!(owing(10), Some(SEC * 8));
    meter.settled(Class::Command, start + SEC * 10, true);
    assert_eq!(owing(11), Some(SEC));
    meter.settled(Class::Command, start + SEC * 12, false);
    assert_eq!(owing(13), None);
    meter.owes(Class::Command, start + SEC * 14);
    meter.life_over();
    assert_eq!(owing(15), None);
}

#[test]
fn messages_are_counted_with_the_time_that_they_took() {
    let (meter, kind, start) = meter();
    let micro = Duration::from_micros(1);
    for _ in 0..1000 {
        // Less than a microsecond each is something all the same.
        meter.handled(&kind);
        let sent = Sent::at(start);
        meter.timed(&kind, sent, start + micro, start + micro + micro / 2);
    }
    let read = meter.read(&kind, start + SEC);
    assert_eq!((read.handled, read.busy), (1000, micro * 500));
    assert_eq!(read.idle, Some(Duration::from_nanos(999_998_500)));
    assert_eq!(kind.totals().messages, 1000);
    assert_eq!(kind.totals().handle.within(500), Some(micro * 5 / 8));
    // One that stands for others.
    let sent = Sent {
        at: start,
        stands_for: 16,
    };
    meter.timed(&kind, sent, start, start + micro);
    let read = meter.read(&kind, start + SEC);
    assert_eq!((read.handled, read.busy), (1000, micro * 516));
}

#[test]
fn only_the_last_failures_are_kept_and_none_costs_nothing() {
    let (meter, _, _) = meter();
    assert!(meter.failures.get().is_none() && meter.failures().is_empty());
    for life in 0..20 {
        meter.failed(Failure {
            at: System.now(),
            life,
            reason: "planted",
            quarantined: false,
        });
    }
    let lives: Vec<_> = meter.failures().iter().map(|it| it.life).collect();
    assert_eq!(lives, (12..20).collect::<Vec<_>>());
    assert!(size_of::<Meter>() <= 128, "{}", size_of::<Meter>());
}
