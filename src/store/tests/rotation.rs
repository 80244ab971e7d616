use super::*;
use crate::domain::identity::{Presented, RefreshToken};

on_both!(
    rotation,
    repeat,
    reuse,
    concurrent_rotation,
    login_ends_family
);

fn rotate(bed: &Bed, token: RefreshToken, key: Option<&str>, at: DateTime<Utc>) -> Rotate {
    Rotate {
        token,
        presented: Presented {
            family: token.family,
            counter: token.counter,
            token_hash: Secrets::sha256(&token.seal(&bed.secrets)),
            retry_key_hash: key.map(Into::into),
        },
        now: at,
        revocation_life: chrono::Duration::minutes(15),
        secrets: bed.secrets.clone(),
    }
}

async fn run(bed: &Bed, token: RefreshToken, key: Option<&str>, at: i64) -> RotateOutcome {
    let rotate = rotate(bed, token, key, t(at));
    bed.store.refresh_rotate(bed.soon(), rotate).await.unwrap()
}

fn fresh(outcome: RotateOutcome) -> Session {
    match outcome {
        RotateOutcome::Fresh(session) => *session,
        other => panic!("not rotated: {other:?}"),
    }
}

async fn rotation(bed: &Bed) {
    let s = bed.user().await;
    let first = fresh(run(bed, s.refresh, None, 10).await);
    assert_eq!(first.refresh.counter, 1);
    assert_eq!(first.made_at, t(10));
    assert_eq!(first.device.last_active_at, t(10));
    assert_eq!(first.device_version, s.device_version);
    assert_eq!(first.user, s.user);
    let second = fresh(run(bed, first.refresh, None, 20).await);
    assert_eq!(second.refresh.counter, 2);
    let stranger = RefreshToken {
        user: UserId(bed.uuid()),
        ..second.refresh
    };
    assert_eq!(run(bed, stranger, None, 21).await, RotateOutcome::Invalid);
}

async fn repeat(bed: &Bed) {
    let s = bed.user().await;
    let first = fresh(run(bed, s.refresh, Some("key"), 10).await);
    for later in [11, 50] {
        let again = fresh(run(bed, s.refresh, Some("key"), later).await);
        assert_eq!(
            again.refresh.seal(&bed.secrets),
            first.refresh.seal(&bed.secrets)
        );
        assert_eq!(again.made_at, first.made_at);
        assert_eq!(again.device_version, first.device_version);
    }
    fresh(run(bed, first.refresh, None, 60).await);
    // Two rotations back, no key helps.
    assert!(matches!(
        run(bed, s.refresh, Some("key"), 61).await,
        RotateOutcome::Reused(_)
    ));
}

async fn reuse(bed: &Bed) {
    let s = bed.user().await;
    let first = fresh(run(bed, s.refresh, Some("key"), 10).await);
    let RotateOutcome::Reused(revocation) = run(bed, s.refresh, Some("other"), 11).await else {
        panic!("a used token was taken");
    };
    assert_eq!(
        (revocation.subject, revocation.min_version),
        (s.device.id.0, 2)
    );
    let stored = bed
        .store
        .revocations_since(bed.soon(), t(11))
        .await
        .unwrap();
    assert_eq!(stored, [revocation]);
    // The whole family is closed, for the thief and for the owner.
    assert_eq!(
        run(bed, first.refresh, None, 12).await,
        RotateOutcome::Invalid
    );
    assert_eq!(
        run(bed, s.refresh, Some("key"), 12).await,
        RotateOutcome::Invalid
    );
}

async fn concurrent_rotation(bed: &Bed) {
    let s = bed.user().await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let rotate = rotate(bed, s.refresh, Some("key"), t(10));
            let (store, soon) = (bed.store.clone(), bed.soon());
            tokio::spawn(async move { store.refresh_rotate(soon, rotate).await.unwrap() })
        })
        .collect();
    for task in tasks {
        assert_eq!(fresh(task.await.unwrap()).refresh.counter, 1);
    }
}

async fn login_ends_family(bed: &Bed) {
    let s = bed.user().await;
    let again = bed.session(&s.user.phone, "phone-1", t(100)).await;
    assert_eq!(run(bed, s.refresh, None, 101).await, RotateOutcome::Invalid);
    fresh(run(bed, again.refresh, None, 102).await);
}
