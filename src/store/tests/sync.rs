use super::*;
use crate::domain::sync::{Cursor, Position};

on_both!(
    pages,
    holes,
    cursors,
    guarded_cursors,
    acks,
    heads,
    many_cursors,
    attaching,
    attaching_at_once,
    attach_epochs,
);

/// Where a device stands, and its newest connection.
async fn stands(bed: &Bed, s: &Session) -> AttachState {
    let state = bed
        .store
        .device_attach(bed.soon(), s.user.id, s.device.id, Some(0), NODE)
        .await;
    state.unwrap().unwrap()
}

async fn attach(bed: &Bed, s: &Session) -> AttachState {
    let state = bed
        .store
        .device_attach(bed.soon(), s.user.id, s.device.id, None, NODE)
        .await;
    state.unwrap().unwrap()
}

fn cursor(device: DeviceId, attach_epoch: i64, epoch: Epoch, seq: i64) -> Cursor {
    Cursor {
        device,
        attach_epoch,
        position: Position { epoch, seq },
    }
}

async fn pages(bed: &Bed) {
    let user = bed.user().await.user.id;
    bed.favorites(user, 10).await;
    let page = async |after, limit| {
        bed.store
            .log_page(bed.soon(), user, after, limit)
            .await
            .unwrap()
            .unwrap()
    };
    let seqs = |page: &LogPage| page.events.iter().map(|e| e.seq).collect::<Vec<_>>();
    assert_eq!(seqs(&page(0, 4).await), [1, 2, 3, 4]);
    assert_eq!(seqs(&page(8, 4).await), [9, 10]);
    assert_eq!(seqs(&page(10, 4).await), [] as [i64; 0]);
    assert_eq!(seqs(&page(99, 4).await), [] as [i64; 0]);
    assert_eq!(page(0, 4).await.log.head_seq, 10);
    let nobody = bed
        .store
        .log_page(bed.soon(), UserId(bed.uuid()), 0, 4)
        .await;
    assert_eq!(nobody, Ok(None));
}

async fn holes(bed: &Bed) {
    let user = bed.user().await.user.id;
    bed.favorites(user, 6).await;
    bed.sql("DELETE FROM sync_events WHERE seq = 3")
        .await
        .unwrap();
    let page = async |after, limit| bed.store.log_page(bed.soon(), user, after, limit).await;
    let corrupt = Err(StoreError::Corrupt("a log with a missing event"));
    assert_eq!(page(0, 10).await, corrupt);
    assert_eq!(page(2, 10).await, corrupt);
    assert!(page(0, 2).await.is_ok());
    assert!(page(3, 10).await.is_ok());
    // Below the floor events may be gone: the caller judges.
    bed.sql("UPDATE user_logs SET floor_seq = 3").await.unwrap();
    assert_eq!(page(0, 10).await.unwrap().unwrap().log.floor_seq, 3);
    assert!(page(3, 10).await.is_ok());
    bed.sql("DELETE FROM sync_events WHERE seq = 6")
        .await
        .unwrap();
    assert_eq!(page(3, 10).await, corrupt);
}

async fn cursors(bed: &Bed) {
    let s = bed.user().await;
    bed.favorites(s.user.id, 9).await;
    let AttachState {
        attach_epoch, log, ..
    } = attach(bed, &s).await;
    let at = |device, seq| cursor(device, attach_epoch, log.epoch, seq);
    let (device, gone) = (s.device.id, DeviceId(bed.uuid()));
    for (moves, expected) in [
        (vec![at(device, 5), at(gone, 7)], 5),
        (vec![at(device, 3)], 5),
        (vec![at(device, 6), at(device, 8), at(device, 7)], 8),
        (vec![], 8),
        (vec![at(device, 10)], 8),
        (vec![at(device, 9)], 9),
    ] {
        let superseded = bed.store.cursors_advance(bed.soon(), &moves).await;
        assert_eq!(superseded, Ok(vec![]));
        assert_eq!(stands(bed, &s).await.acked_seq, expected, "{moves:?}");
    }
}

async fn guarded_cursors(bed: &Bed) {
    let (s, other) = (bed.user().await, bed.user().await);
    bed.favorites(s.user.id, 9).await;
    bed.favorites(other.user.id, 9).await;
    let first = attach(bed, &s).await;
    let second = attach(bed, &s).await;
    let theirs = attach(bed, &other).await;
    let (epoch, device) = (first.log.epoch, s.device.id);
    let newer = Superseded {
        device,
        attach_epoch: second.attach_epoch,
    };
    let advance = async |moves: &[Cursor]| {
        let superseded = bed.store.cursors_advance(bed.soon(), moves).await.unwrap();
        (superseded, stands(bed, &s).await.acked_seq)
    };
    // A connection that was replaced moves nothing, and is named; others in its batch move.
    let old = cursor(device, first.attach_epoch, epoch, 4);
    let neighbour = cursor(other.device.id, theirs.attach_epoch, theirs.log.epoch, 6);
    assert_eq!(advance(&[old, neighbour]).await, (vec![newer], 0));
    assert_eq!(stands(bed, &other).await.acked_seq, 6);
    // One that the database does not know moves nothing either.
    let unknown = cursor(device, second.attach_epoch + 1, epoch, 4);
    assert_eq!(advance(&[unknown]).await, (vec![], 0));
    // A position of another life of the log means nothing here.
    let foreign = cursor(device, second.attach_epoch, Epoch(bed.uuid()), 4);
    assert_eq!(advance(&[foreign]).await, (vec![], 0));
    // Of two cursors of a device the newer connection's counts.
    let new = cursor(device, second.attach_epoch, epoch, 2);
    assert_eq!(advance(&[new, old]).await, (vec![], 2));
    // By REST the device itself speaks, whichever connection it has.
    let position = Position { epoch, seq: 3 };
    let acked = bed
        .store
        .cursor_ack(bed.soon(), s.user.id, device, position)
        .await;
    assert_eq!(acked, Ok(CursorAck::Acked(3)));
}

async fn attaching(bed: &Bed) {
    let s = bed.user().await;
    bed.favorites(s.user.id, 3).await;
    let first = attach(bed, &s).await;
    assert_eq!((first.acked_seq, first.log.head_seq), (0, 3));
    let second = attach(bed, &s).await;
    assert!(second.attach_epoch > first.attach_epoch);
    // Who holds one raises nothing, and sees whether it is superseded.
    assert_eq!(stands(bed, &s).await, second);
    assert_eq!(stands(bed, &s).await, second);
    for held in [None, Some(1)] {
        for (user, device) in [
            (s.user.id, DeviceId(bed.uuid())),
            (bed.user().await.user.id, s.device.id),
        ] {
            let nobody = bed
                .store
                .device_attach(bed.soon(), user, device, held, NODE)
                .await;
            assert_eq!(nobody, Ok(None));
        }
    }
    assert_eq!(stands(bed, &s).await, second);
    let cursor = async |device| {
        bed.store
            .device_cursor(bed.soon(), s.user.id, device)
            .await
            .unwrap()
    };
    assert_eq!(cursor(s.device.id).await, Some(0));
    assert_eq!(cursor(DeviceId(bed.uuid())).await, None);
}

async fn attaching_at_once(bed: &Bed) {
    let s = bed.user().await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (store, soon) = (bed.store.clone(), bed.soon());
            let (user, device) = (s.user.id, s.device.id);
            tokio::spawn(async move { store.device_attach(soon, user, device, None, NODE).await })
        })
        .collect();
    let mut epochs = Vec::new();
    for task in tasks {
        epochs.push(task.await.unwrap().unwrap().unwrap().attach_epoch);
    }
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 20, "two connections are one: {epochs:?}");
    assert_eq!(stands(bed, &s).await.attach_epoch, epochs[19]);
}

async fn attach_epochs(bed: &Bed) {
    let (a, b) = (bed.user().await, bed.user().await);
    attach(bed, &b).await;
    let newest = attach(bed, &b).await.attach_epoch;
    let mut devices: Vec<_> = (0..1200).map(|_| DeviceId(bed.uuid())).collect();
    devices[3] = a.device.id;
    devices[1100] = b.device.id;
    let epochs = bed.store.attach_epochs(bed.soon(), &devices).await.unwrap();
    assert_eq!(epochs, [(a.device.id, 0), (b.device.id, newest)]);
    assert_eq!(bed.store.attach_epochs(bed.soon(), &[]).await, Ok(vec![]));
}

async fn acks(bed: &Bed) {
    let s = bed.user().await;
    bed.favorites(s.user.id, 5).await;
    let heads = bed.store.log_heads(bed.soon(), &[s.user.id]).await.unwrap();
    let epoch = heads[0].1.epoch;
    let ack = async |seq| {
        let position = Position { epoch, seq };
        bed.store
            .cursor_ack(bed.soon(), s.user.id, s.device.id, position)
            .await
            .unwrap()
    };
    assert_eq!(ack(3).await, CursorAck::Acked(3));
    assert_eq!(ack(1).await, CursorAck::Acked(3));
    assert_eq!(ack(5).await, CursorAck::Acked(5));
    assert_eq!(ack(6).await, CursorAck::BeyondHead(5));
    let other = Position {
        epoch: Epoch(bed.uuid()),
        seq: 1,
    };
    let changed = bed
        .store
        .cursor_ack(bed.soon(), s.user.id, s.device.id, other)
        .await;
    assert_eq!(changed, Ok(CursorAck::EpochChanged(epoch)));
    let gone = DeviceId(bed.uuid());
    let nobody = bed
        .store
        .cursor_ack(bed.soon(), s.user.id, gone, other)
        .await;
    assert_eq!(nobody, Ok(CursorAck::NoDevice));
}

async fn heads(bed: &Bed) {
    let a = bed.user().await.user.id;
    let b = bed.user().await.user.id;
    bed.favorites(b, 2).await;
    let mut users: Vec<_> = (0..1200).map(|_| UserId(bed.uuid())).collect();
    users[3] = a;
    users[1100] = b;
    let heads = bed.store.log_heads(bed.soon(), &users).await.unwrap();
    let heads: Vec<_> = heads
        .iter()
        .map(|(user, log)| (*user, log.head_seq))
        .collect();
    assert_eq!(heads, [(a, 0), (b, 2)]);
    assert_eq!(bed.store.log_heads(bed.soon(), &[]).await, Ok(vec![]));
}

async fn many_cursors(bed: &Bed) {
    let s = bed.user().await;
    bed.favorites(s.user.id, 5).await;
    let AttachState {
        attach_epoch, log, ..
    } = attach(bed, &s).await;
    let at = |device, seq| cursor(device, attach_epoch, log.epoch, seq);
    let mut moves: Vec<_> = (0..1300).map(|i| at(DeviceId(bed.uuid()), i)).collect();
    moves[1250] = at(s.device.id, 4);
    // Two nodes flush the same devices at the same time.
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (store, soon, moves) = (bed.store.clone(), bed.soon(), moves.clone());
            tokio::spawn(async move { store.cursors_advance(soon, &moves).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), []);
    }
    assert_eq!(stands(bed, &s).await.acked_seq, 4);
}
