use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    actors::kernel::{CallError, Caps, Handle, Kernel, KernelMetrics, Place, RestartPolicy},
    domain::{
        clock::World,
        sync::{Cursor, Position},
    },
    store::tests::{Bed, NODE},
};

/// Never within a test.
const NEVER: Duration = Duration::from_hours(1);

fn keeper(bed: &Bed) -> Handle<CursorKeeper> {
    let metrics = KernelMetrics::register(&mut prometheus_client::registry::Registry::default());
    let place = Place {
        caps: Caps {
            commands: 64,
            reads: 64,
        },
        policy: RestartPolicy::ROOT,
    };
    let parts = KeeperParts {
        metrics: Arc::clone(&crate::telemetry::metrics::Metrics::new().sync),
        store: bed.store.clone(),
        attached: Arc::default(),
        sessions: Arc::<OnceLock<_>>::default(),
        period: NEVER,
    };
    Kernel::new(World::system(), metrics).start(place, move || CursorKeeper::new(parts.clone()))
}

fn soon() -> Instant {
    World::system().instant() + Duration::from_secs(10)
}

async fn view(keeper: &Handle<CursorKeeper>) -> Value {
    keeper.observe(soon()).await.unwrap()
}

async fn until(keeper: &Handle<CursorKeeper>, field: &str, value: Value) {
    let deadline = soon();
    while view(keeper).await[field] != value {
        assert!(
            World::system().instant() < deadline,
            "{field} never was {value}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A user's device, attached: its cursors by position, and a look at the stored one.
struct Phone<'b> {
    bed: &'b Bed,
    session: crate::store::Session,
    attach: crate::store::AttachState,
}

impl<'b> Phone<'b> {
    async fn new(bed: &'b Bed) -> Self {
        let session = bed.user().await;
        bed.favorites(session.user.id, 9).await;
        let (user, device) = (session.user.id, session.device.id);
        let attach = bed
            .store
            .device_attach(bed.soon(), user, device, None, NODE);
        let attach = attach.await.unwrap().unwrap();
        Self {
            bed,
            session,
            attach,
        }
    }

    fn advance(&self, seq: i64) -> Advance {
        let epoch = self.attach.log.epoch;
        Advance(Cursor {
            device: self.session.device.id,
            attach_epoch: self.attach.attach_epoch,
            position: Position { epoch, seq },
        })
    }

    async fn stored(&self) -> i64 {
        let (user, device) = (self.session.user.id, self.session.device.id);
        let cursor = self.bed.store.device_cursor(self.bed.soon(), user, device);
        cursor.await.unwrap().unwrap()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a task of the test, not of an actor"
)]
fn ask_for_flush(
    keeper: &Handle<CursorKeeper>,
) -> actix_rt::task::JoinHandle<Result<(), CallError>> {
    let keeper = keeper.clone();
    actix_rt::spawn(async move { keeper.ask(Flush, soon()).await })
}

#[actix_rt::test]
async fn who_asks_for_a_flush_waits_for_the_batch_under_way_too() {
    let bed = Bed::sqlite().await;
    let (phone, keeper) = (Phone::new(&bed).await, keeper(&bed));
    let held = bed.hold().await;
    keeper.tell(phone.advance(4)).unwrap();
    keeper.tell(Flush).unwrap();
    until(&keeper, "flushing", json!(true)).await;
    // Nothing is pending: it is all in the batch.
    let asking = ask_for_flush(&keeper);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asking.is_finished(), "answered before anything was stored");
    // And what comes after the batch began is in the answer as well.
    keeper.tell(phone.advance(6)).unwrap();
    let again = ask_for_flush(&keeper);
    tokio::task::yield_now().await;
    drop(held);
    asking.await.unwrap().unwrap();
    again.await.unwrap().unwrap();
    assert_eq!(phone.stored().await, 6);
    bed.done().await;
}

#[actix_rt::test]
async fn cursors_of_a_batch_that_failed_are_kept() {
    let bed = Bed::sqlite_with(Duration::from_millis(300)).await;
    let (phone, other) = (Phone::new(&bed).await, Phone::new(&bed).await);
    let keeper = keeper(&bed);
    let held = bed.hold().await;
    keeper.tell(phone.advance(4)).unwrap();
    keeper.tell(other.advance(5)).unwrap();
    keeper.tell(Flush).unwrap();
    until(&keeper, "flushing", json!(true)).await;
    // What comes meanwhile is newer than what comes back.
    keeper.tell(phone.advance(8)).unwrap();
    until(&keeper, "failed", json!(1)).await;
    assert_eq!(view(&keeper).await["pending"], 2);
    assert_eq!((phone.stored().await, other.stored().await), (0, 0));
    drop(held);
    keeper.ask(Flush, soon()).await.unwrap();
    assert_eq!((phone.stored().await, other.stored().await), (8, 5));
    assert_eq!(view(&keeper).await["pending"], 0);
    // Nothing is pending and nothing under way: it answers at once.
    keeper.ask(Flush, soon()).await.unwrap();
    bed.done().await;
}

#[test]
fn attached_devices_are_found_by_user_and_by_device() {
    use crate::domain::ids::{DeviceId, UserId};
    let id = |n| uuid::Uuid::from_u128(n);
    let attached = Attached::default();
    attached.set(
        UserId(id(1)),
        vec![(DeviceId(id(11)), 3), (DeviceId(id(12)), 1)],
        &Arc::default(),
    );
    let owed = Arc::default();
    attached.set(UserId(id(2)), vec![(DeviceId(id(21)), 2)], &owed);
    for (subject, users) in [
        (1, vec![UserId(id(1))]),
        (21, vec![UserId(id(2))]),
        (9, vec![]),
    ] {
        assert_eq!(attached.matching(id(subject)), users);
    }
    assert_eq!(attached.devices().len(), 3);
    attached.set(UserId(id(1)), vec![], &Arc::default());
    let (user, device) = (UserId(id(2)), DeviceId(id(21)));
    let left = AttachedDevice {
        user,
        device,
        attach_epoch: 2,
    };
    assert_eq!(attached.devices(), [left]);
}

#[test]
fn the_one_who_owes_for_longest_is_found_among_many() {
    use crate::domain::ids::{DeviceId, UserId};
    let id = |n| uuid::Uuid::from_u128(n);
    let (attached, begun) = (Attached::default(), World::system().instant());
    let after = |millis| begun + Duration::from_millis(millis);
    let owed: Vec<Arc<crate::actors::sync::Owed>> = (0..10_000)
        .map(|n| {
            let owed = Arc::default();
            let devices = vec![(DeviceId(id(n)), 1), (DeviceId(id(n + 50_000)), 1)];
            attached.set(UserId(id(n)), devices, &owed);
            attached.owed(&owed, None);
            owed
        })
        .collect();
    let standing = attached.standing(after(100));
    let (users, devices) = (standing.users, standing.devices);
    assert_eq!((users, devices), (10_000, 20_000));
    assert_eq!((standing.owing, standing.longest), (0, Duration::ZERO));
    attached.owed(&owed[7], Some(after(250)));
    attached.owed(&owed[8], Some(after(150)));
    let standing = attached.standing(after(1_150));
    assert_eq!(
        (standing.owing, standing.longest),
        (2, Duration::from_secs(1))
    );
    attached.owed(&owed[8], None);
    let standing = attached.standing(after(1_150));
    assert_eq!(standing.longest, Duration::from_millis(900));
    // One who owes since a moment that is yet to come owes nothing so far.
    assert_eq!(attached.standing(after(200)).longest, Duration::ZERO);
    attached.set(UserId(id(7)), Vec::new(), &owed[7]);
    assert_eq!(attached.standing(after(1_150)).owing, 0);
}
