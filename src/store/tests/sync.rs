use super::*;
use crate::domain::sync::Position;

on_both!(pages, holes, cursors, acks, heads, many_cursors);

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
    let cursor = async || {
        let state = bed
            .store
            .device_attach(bed.soon(), s.user.id, s.device.id)
            .await;
        state.unwrap().unwrap().acked_seq
    };
    let gone = DeviceId(bed.uuid());
    for (moves, expected) in [
        (vec![(s.device.id, 5), (gone, 7)], 5),
        (vec![(s.device.id, 3)], 5),
        (
            vec![(s.device.id, 6), (s.device.id, 8), (s.device.id, 7)],
            8,
        ),
        (vec![], 8),
    ] {
        bed.store.cursors_advance(bed.soon(), &moves).await.unwrap();
        assert_eq!(cursor().await, expected);
    }
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
    let mut moves: Vec<_> = (0..1300).map(|i| (DeviceId(bed.uuid()), i)).collect();
    moves[1250] = (s.device.id, 4);
    // Two nodes flush the same devices at the same time.
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (store, soon, moves) = (bed.store.clone(), bed.soon(), moves.clone());
            tokio::spawn(async move { store.cursors_advance(soon, &moves).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        bed.count("SELECT count(*) FROM devices WHERE acked_seq = 4")
            .await,
        1
    );
}
