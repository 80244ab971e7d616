//! Public playlists, as everybody reads them who has a link.
//!
//! Owns what this node remembers of them for a few seconds. Handlers ask it, so that a stranger starts no
//! user's session; many that ask for the same cost the store one read. Sessions tell it [`Forget`] after
//! each change, so that on the node of the change nothing older is shown; other nodes show it until it is
//! [`LIFE`] old. It holds no truth, and must never show a playlist that the store does not call public.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use crate::{
    actors::{
        Failure,
        kernel::{Cx, Handle, Public, Reply, Serve, Unit, asks, view},
    },
    domain::{
        ids::PlaylistId,
        library::{Bounds, Look, PublicPlaylist, Published, SongPage},
    },
    store::{SongQuery, Store, StoreError},
    telemetry::metrics::Counters,
};

/// For how long an answer is remembered.
pub const LIFE: Duration = Duration::from_secs(5);

/// A public playlist. None: there is none.
#[derive(Debug)]
pub struct ReadPublicPlaylist(pub PlaylistId);

/// A page of a public playlist's songs. None: there is no such playlist.
#[derive(Debug)]
pub struct ReadPublicSongs {
    /// Which playlist.
    pub id: PlaylistId,
    /// At most so many.
    pub limit: u32,
    /// Only behind the entry of this rank.
    pub after: Option<i64>,
}

/// The playlist was changed: what is remembered of it is old.
#[derive(Debug)]
pub struct Forget(pub PlaylistId);

asks! {
    Read ReadPublicPlaylist -> Result<Option<Arc<PublicPlaylist>>, Failure>;
    Read ReadPublicSongs -> Result<Option<Arc<SongPage>>, Failure>;
    Control Forget -> ();
}

/// Waits for a change of a playlist, and tells [`Forget`] unless it surely changed nothing: also when it is
/// not known what became of it, and when nobody waits for it any more.
pub(in crate::actors) async fn forget_after<T>(
    public: Handle<PublicPlaylists>,
    id: PlaylistId,
    work: impl Future<Output = Result<T, StoreError>>,
    changed: impl FnOnce(&T) -> bool,
) -> Result<T, StoreError> {
    let mut old = Old {
        public,
        id,
        surely_not: false,
    };
    let result = work.await;
    old.surely_not = result.as_ref().is_ok_and(|value| !changed(value));
    result
}

/// What is remembered of a playlist, and is old when this ends.
struct Old {
    public: Handle<PublicPlaylists>,
    id: PlaylistId,
    surely_not: bool,
}

impl Drop for Old {
    fn drop(&mut self) {
        if !self.surely_not {
            // Where it is lost, what is remembered ends by itself in a moment.
            let _ = self.public.tell(Forget(self.id));
        }
    }
}

/// What the actor counts; clones share the numbers.
#[derive(Debug, Clone)]
pub struct PublicMetrics {
    reads: Counters,
}

impl PublicMetrics {
    /// Makes the families and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            reads: Counters::register(
                registry,
                "public_playlist_reads",
                "Reads of public playlists, by where the answer came from",
                "from",
                ["memory", "other_read", "store"],
            ),
        }
    }
}

/// What is asked of a playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Piece {
    Itself,
    Songs { limit: u32, after: Option<i64> },
}

type Key = (PlaylistId, Piece);

/// What the store says; a playlist that is not there or not public is remembered, too.
#[derive(Debug, Clone)]
enum Found {
    Nothing,
    Playlist(Arc<PublicPlaylist>),
    Songs(Arc<SongPage>),
}

impl Found {
    /// About as many songs as have room where this has.
    fn weight(&self) -> usize {
        match self {
            Self::Nothing => 1,
            Self::Playlist(_) => 4,
            Self::Songs(page) => 1 + page.entries.len(),
        }
    }
}

type Waiting = oneshot::Sender<Result<Found, StoreError>>;

/// See the module.
#[derive(Debug)]
pub struct PublicPlaylists {
    store: Store,
    metrics: PublicMetrics,
    known: Published<PlaylistId, Key, Found>,
    /// Who waits for an answer of the store, by the number of the asking.
    waiting: HashMap<u64, Vec<Waiting>>,
}

view! {
    /// What the actor shows of itself.
    pub struct PublicPlaylistsView {
        answers: Public<usize>,
        weight: Public<usize>,
        asking: Public<usize>,
    }
}

impl PublicPlaylists {
    /// Answers of the store are of no use later than that.
    const BUDGET: Duration = Duration::from_secs(5);
    /// Some 10 MB.
    const BOUNDS: Bounds = Bounds {
        answers: 4096,
        weight: 40_000,
    };

    /// Remembers nothing.
    #[must_use]
    pub fn new(store: Store, metrics: PublicMetrics) -> Self {
        Self {
            store,
            metrics,
            known: Published::new(LIFE, Self::BOUNDS),
            waiting: HashMap::new(),
        }
    }

    fn find<T: 'static>(
        &mut self,
        key: Key,
        cx: &mut Cx<'_, Self>,
        take: fn(Found) -> Option<T>,
    ) -> Reply<Self, Result<Option<T>, Failure>> {
        let (from, asking) = match self.known.look(cx.world.instant(), &key.0, &key) {
            Look::Known(found) => {
                self.metrics.reads.inc("memory");
                return Reply::Now(Ok(take(found)));
            }
            Look::Asked(asking) => ("other_read", asking),
            Look::Ask(asking) => {
                self.ask_store(key, asking, cx);
                ("store", asking)
            }
        };
        self.metrics.reads.inc(from);
        let (answer, answered) = oneshot::channel();
        self.waiting.entry(asking).or_default().push(answer);
        // The other end is dropped only with the actor, and this future with it.
        let answered = answered.map(|it| it.unwrap_or(Err(StoreError::Unavailable)));
        Reply::later(answered, move |_, found, _| Ok(take(found?)))
    }

    fn ask_store(&self, key: Key, asking: u64, cx: &mut Cx<'_, Self>) {
        let (store, deadline) = (self.store.clone(), cx.world.instant() + Self::BUDGET);
        cx.spawn(read(store, deadline, key), move |it, found, cx| {
            let value = found.as_ref().ok().cloned();
            let value = value.map(|value| (value.clone(), value.weight()));
            it.known.answered(cx.world.instant(), &key, asking, value);
            for waiting in it.waiting.remove(&asking).unwrap_or_default() {
                // Who asked may be gone.
                let _ = waiting.send(found.clone());
            }
        });
    }

    fn drop_old(&mut self, cx: &mut Cx<'_, Self>) {
        self.known.drop_old(cx.world.instant());
    }
}

async fn read(store: Store, deadline: Instant, (id, piece): Key) -> Result<Found, StoreError> {
    let found = match piece {
        Piece::Itself => {
            let found = store.playlist_fetch(deadline, id, None).await?;
            found.map(|(it, _)| Found::Playlist(Arc::new(it.into())))
        }
        Piece::Songs { limit, after } => {
            let query = SongQuery {
                id,
                user: None,
                limit,
                after,
            };
            let found = store.playlist_songs(deadline, query).await?;
            found.map(|it| Found::Songs(Arc::new(it)))
        }
    };
    Ok(found.unwrap_or(Found::Nothing))
}

impl Unit for PublicPlaylists {
    const KIND: &'static str = "public_playlists";
    type View = PublicPlaylistsView;

    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        // Where nobody asks any more, memory is given back all the same.
        cx.every(LIFE, Self::drop_old);
    }

    fn view(&self, _: Instant) -> PublicPlaylistsView {
        PublicPlaylistsView {
            answers: Public(self.known.len()),
            weight: Public(self.known.weight()),
            asking: Public(self.waiting.len()),
        }
    }
}

impl Serve<ReadPublicPlaylist> for PublicPlaylists {
    fn serve(
        &mut self,
        it: ReadPublicPlaylist,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<Option<Arc<PublicPlaylist>>, Failure>> {
        self.find((it.0, Piece::Itself), cx, |found| match found {
            Found::Playlist(it) => Some(it),
            Found::Nothing | Found::Songs(_) => None,
        })
    }
}

impl Serve<ReadPublicSongs> for PublicPlaylists {
    fn serve(
        &mut self,
        it: ReadPublicSongs,
        cx: &mut Cx<'_, Self>,
    ) -> Reply<Self, Result<Option<Arc<SongPage>>, Failure>> {
        let ReadPublicSongs { id, limit, after } = it;
        self.find(
            (id, Piece::Songs { limit, after }),
            cx,
            |found| match found {
                Found::Songs(it) => Some(it),
                Found::Nothing | Found::Playlist(_) => None,
            },
        )
    }
}

impl Serve<Forget> for PublicPlaylists {
    fn serve(&mut self, it: Forget, _: &mut Cx<'_, Self>) -> Reply<Self, ()> {
        self.known.forget(&it.0);
        Reply::Now(())
    }
}
