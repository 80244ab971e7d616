//! Asks the store again while it is away at a start.

use std::time::{Duration, Instant};

use super::BootError;
use crate::{
    domain::clock::World,
    store::{KeysError, StoreError},
};

/// How long each of the first questions of a start may take.
const BUDGET: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// Asks the store until it answers, for ten seconds: a connection that is cut in the first second of a
/// node ends its start no more than one that is cut later. `ask` may be done twice.
pub(super) async fn patiently<T>(
    world: &World,
    mut ask: impl AsyncFnMut(Instant) -> Result<T, BootError>,
) -> Result<T, BootError> {
    let deadline = world.instant() + BUDGET;
    loop {
        let away = match ask(deadline).await {
            Err(BootError::Store(e) | BootError::Keys(KeysError::Store(e))) if may_pass(e) => e,
            done => return done,
        };
        if world.instant() + PAUSE >= deadline {
            return Err(away.into());
        }
        tracing::info!(reason = %away, "waiting for the store");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Also a database that says nothing: each try has a deadline of its own.
const fn may_pass(e: StoreError) -> bool {
    matches!(
        e,
        StoreError::Unavailable | StoreError::OutcomeUnknown | StoreError::Deadline
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What came of a start's question, and how often it was asked.
    async fn asked(answers: &[Result<u8, StoreError>]) -> (Result<u8, StoreError>, usize) {
        let (mut count, world) = (0, World::system());
        let result = patiently(&world, async |_| {
            count += 1;
            answers[(count - 1).min(answers.len() - 1)].map_err(BootError::Store)
        });
        let result = result.await.map_err(|e| match e {
            BootError::Store(e) => e,
            e => panic!("{e}"),
        });
        (result, count)
    }

    #[tokio::test]
    async fn what_passes_is_waited_for_and_what_does_not_is_told() {
        let away = [
            Err(StoreError::Unavailable),
            Err(StoreError::Deadline),
            Ok(7),
        ];
        assert_eq!(asked(&away).await, (Ok(7), 3));
        let corrupt = Err(StoreError::Corrupt("keys"));
        assert_eq!(asked(&[corrupt]).await, (corrupt, 1));
    }
}
