use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{future::join_all, poll};
use prometheus_client::{encoding::text::encode, registry::Registry};
use uuid::Uuid;

use super::*;
use crate::{
    actors::kernel::{Caps, Handle, Kernel, KernelMetrics, Place, RestartPolicy},
    domain::{
        clock::World,
        ids::{EventId, PlaylistId},
        library::{NewPlaylist, PlaylistName, PlaylistUpdate},
    },
    store::{Issued, PlaylistCommand, StoreError, tests::Bed},
};

/// A public playlist and who shows it.
struct Show<'b> {
    bed: &'b Bed,
    public: Handle<PublicPlaylists>,
    registry: Registry,
    command: PlaylistCommand,
}

fn soon() -> Instant {
    World::system().instant() + Duration::from_secs(10)
}

impl<'b> Show<'b> {
    async fn new(bed: &'b Bed) -> Self {
        let (session, world) = (bed.user().await, World::system());
        let command = PlaylistCommand {
            issued: Issued {
                user: session.user.id,
                origin: None,
                now: world.now(),
                event_id: EventId(world.uuid().unwrap()),
            },
            id: PlaylistId(world.uuid().unwrap()),
            expected: None,
        };
        let new = NewPlaylist {
            name: PlaylistName::parse("x").unwrap(),
            cover_url: None,
            is_public: true,
        };
        let made = bed
            .store
            .playlist_create(bed.soon(), command.clone(), new, None);
        made.await.unwrap();
        let mut registry = Registry::default();
        let metrics = PublicMetrics::register(&mut registry);
        let kernel = Kernel::new(world, KernelMetrics::register(&mut Registry::default()));
        let place = Place {
            caps: Caps {
                commands: 1,
                reads: 1024,
            },
            policy: RestartPolicy::ROOT,
        };
        let store = bed.store.clone();
        let public = kernel.start(place, move || {
            PublicPlaylists::new(store.clone(), metrics.clone())
        });
        Self {
            bed,
            public,
            registry,
            command,
        }
    }

    async fn is_shown(&self) -> bool {
        let ask = ReadPublicPlaylist(self.command.id);
        self.public
            .ask(ask, soon())
            .await
            .unwrap()
            .unwrap()
            .is_some()
    }

    /// Reads of the store so far.
    fn reads(&self) -> usize {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.contains("from=\"store\""));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    async fn publish(&self, is_public: bool) {
        let update = PlaylistUpdate {
            is_public: Some(is_public),
            ..PlaylistUpdate::default()
        };
        let mut command = self.command.clone();
        command.issued.event_id = EventId(World::system().uuid().unwrap());
        let written = self
            .bed
            .store
            .playlist_update(self.bed.soon(), command, update);
        written.await.unwrap().value.unwrap();
    }
}

#[actix_rt::test]
async fn those_who_ask_at_once_share_one_read() {
    let bed = Bed::sqlite().await;
    let show = Show::new(&bed).await;
    let shown = join_all((0..50).map(|_| show.is_shown())).await;
    assert!(shown.iter().all(|shown| *shown));
    assert_eq!(show.reads(), 1);
    assert!(show.is_shown().await);
    assert_eq!(show.reads(), 1);
    // What is not there is remembered, too.
    let nobody = PlaylistId(Uuid::nil());
    for _ in 0..3 {
        let ask = ReadPublicSongs {
            id: nobody,
            limit: 1,
            after: None,
        };
        assert_eq!(show.public.ask(ask, soon()).await.unwrap().unwrap(), None);
    }
    assert_eq!(show.reads(), 2);
    bed.done().await;
}

#[actix_rt::test]
async fn what_was_asked_before_a_change_is_not_remembered_after_it() {
    let bed = Bed::sqlite().await;
    let show = Show::new(&bed).await;
    let mut early = Box::pin(show.is_shown());
    assert!(poll!(&mut early).is_pending());
    show.public.tell(Forget(show.command.id)).unwrap();
    // Whatever it says.
    early.await;
    assert_eq!(show.reads(), 1);
    show.publish(false).await;
    assert!(!show.is_shown().await);
    show.publish(true).await;
    // Nobody told: another node did it.
    assert!(!show.is_shown().await);
    show.public.tell(Forget(show.command.id)).unwrap();
    assert!(show.is_shown().await);
    assert_eq!(show.reads(), 3);
    bed.done().await;
}

#[actix_rt::test]
async fn only_what_surely_changed_nothing_leaves_what_is_remembered() {
    let bed = Bed::sqlite().await;
    let show = Show::new(&bed).await;
    let (public, id) = (|| show.public.clone(), show.command.id);
    assert!(show.is_shown().await);
    show.publish(false).await;
    // Another node did it; a change that was refused here says nothing of it.
    let refused = forget_after(public(), id, async { Ok(()) }, |()| false);
    assert_eq!(refused.await, Ok(()));
    assert!(show.is_shown().await);
    // The answer to the commit was lost.
    let unknown = async { Err::<(), _>(StoreError::OutcomeUnknown) };
    let unknown = forget_after(public(), id, unknown, |()| false);
    assert_eq!(unknown.await, Err(StoreError::OutcomeUnknown));
    assert!(!show.is_shown().await);
    // Whoever waited is gone.
    show.publish(true).await;
    let mut left = Box::pin(forget_after(public(), id, std::future::pending(), |()| {
        false
    }));
    assert!(poll!(&mut left).is_pending());
    assert!(!show.is_shown().await);
    drop(left);
    assert!(show.is_shown().await);
    // It was done.
    show.publish(false).await;
    assert_eq!(
        forget_after(public(), id, async { Ok(()) }, |()| true).await,
        Ok(())
    );
    assert!(!show.is_shown().await);
    bed.done().await;
}

#[actix_rt::test]
async fn a_store_that_fails_is_told_and_not_remembered() {
    let bed = Bed::sqlite().await;
    let show = Show::new(&bed).await;
    bed.sql("ALTER TABLE playlists RENAME TO elsewhere")
        .await
        .unwrap();
    let ask = || show.public.ask(ReadPublicPlaylist(show.command.id), soon());
    let refused = ask().await.unwrap();
    assert!(refused.is_err(), "{refused:?}");
    bed.sql("ALTER TABLE elsewhere RENAME TO playlists")
        .await
        .unwrap();
    assert!(show.is_shown().await);
    let again = Arc::strong_count(&ask().await.unwrap().unwrap().unwrap());
    assert!(again > 1, "it is remembered now");
    bed.done().await;
}
