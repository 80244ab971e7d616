//! A small world around a session: a log, durable cursors, connections and clients, run under random
//! schedules. What is asked of the store is read at one moment and answered at another; hints come
//! late or never; sessions crash; clients leave, come back and forget.
//!
//! Checked at each step: clients apply 1, 2, 3 … and hold what the log holds; nothing durable-acked
//! is sent again unless the client asked; no cursor passes what its client applied; windows and reads
//! are bounded. At the end, when nothing happens any more, everyone has everything.

mod client;
mod world;

use proptest::prelude::*;

use world::World;

/// Something that happens. Numbers choose among what there is to choose from.
#[derive(Debug, Clone)]
enum Op {
    /// A command of this session is stored; it hears of it by [`Op::Announce`].
    Commit(u8),
    Announce,
    /// Another node stores a command; its hint may be lost.
    CommitElsewhere(u8, bool),
    /// The heads are looked at in a batch.
    Check,
    /// Something that is under way goes a step further: is read, then answered.
    Work(u8),
    /// Something that is under way fails.
    Fail(u8),
    /// A client takes frames.
    Take(u8, u8),
    /// The server takes frames of a connection.
    Hear(u8, u8),
    Ack(u8),
    AckOlder(u8, u8),
    AckBeyond(u8, u8),
    /// A client reads the log by REST.
    ReadRest(u8),
    /// A client moves its cursor by REST.
    AckRest(u8),
    Disconnect(u8, bool),
    Connect(u8, bool),
    /// A client comes back with less than it had.
    Forget(u8, u8),
    Flush,
    /// The session crashes; or with it the keeper, and cursors that are not durable yet are lost.
    Crash(bool),
    Retry,
    Trim(u8),
    Restore(u8),
}

/// Chances in a hundred of the ops that any schedule has; the rest are calamities.
fn op(calamities: bool) -> impl Strategy<Value = Op> {
    let kinds = if calamities { 104_u8 } else { 100 };
    (0..kinds, any::<u8>(), any::<u8>()).prop_map(|(kind, a, b)| match kind {
        0..8 => Op::Commit(a % 4 + 1),
        8..15 => Op::Announce,
        15..20 => Op::CommitElsewhere(a % 4 + 1, b < 128),
        20..22 => Op::Check,
        22..40 => Op::Work(a),
        40..42 => Op::Fail(a),
        42..58 => Op::Take(a, b % 8 + 1),
        58..70 => Op::Hear(a, b % 4 + 1),
        70..78 => Op::Ack(a),
        78..79 => Op::AckOlder(a, b),
        79..80 => Op::AckBeyond(a, b),
        80..82 => Op::ReadRest(a),
        82..84 => Op::AckRest(a),
        84..87 => Op::Disconnect(a, b < 128),
        87..92 => Op::Connect(a, b < 128),
        92..93 => Op::Forget(a, b),
        93..96 => Op::Flush,
        96..97 => Op::Crash(false),
        97..98 => Op::Crash(true),
        98..100 => Op::Retry,
        100..103 => Op::Trim(a),
        _ => Op::Restore(a % 8),
    })
}

fn run(devices: u8, window: u32, calamities: bool, ops: Vec<Op>) {
    let mut world = World::new(devices, window, calamities);
    for op in ops {
        world.step(&op);
        world.check();
    }
    world.settle();
}

fn schedules(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(schedules(1000))]

    /// Without calamities nobody ever has to load anew.
    #[test]
    fn every_device_applies_every_event_in_order(
        devices in 1..=3_u8,
        window in 1..=6_u32,
        ops in prop::collection::vec(op(false), 0..200),
    ) {
        run(devices, window, false, ops);
    }

    /// Where the log is trimmed and restored, a resync makes up for what is gone.
    #[test]
    fn after_a_resync_a_device_has_what_the_log_has(
        devices in 1..=3_u8,
        window in 1..=6_u32,
        ops in prop::collection::vec(op(true), 0..200),
    ) {
        run(devices, window, true, ops);
    }
}
