//! Changes of favorites: what each does to the row that it finds, and how many are written at once.

use std::{
    collections::{BTreeMap, HashMap},
    marker::PhantomData,
    time::Instant,
};

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::{FavoriteCommand, FavoritePut, FavoriteRow};
use crate::{
    domain::{
        ids::UserId,
        library::{Favorite, FavoriteChanged, FavoriteKey, LibraryEvent},
    },
    store::{
        StoreError, Tx, Written,
        command::Command,
        error::{Failed, NoUser},
        on_tx,
        sync::{Issued, logs_append, logs_lock, pieces, rows},
    },
};

/// An id is made anew for each favorite; one that comes twice is refused.
const TWO_FAVORITES: StoreError = StoreError::Corrupt("an id of two favorites");

/// A favorite that is or was in force.
#[derive(Debug, Clone)]
pub(super) struct Row {
    favorite: Favorite,
    deleted_at: Option<DateTime<Utc>>,
}

/// What a command does to the row that it finds.
pub(super) struct Decided {
    /// The row after it; none when there never was one.
    row: Option<Row>,
    /// What happened to it, if anything.
    event: Option<What>,
}

/// Makes the event.
type What = fn(FavoriteChanged) -> LibraryEvent;

impl Decided {
    const fn unchanged(row: Option<Row>) -> Self {
        Self { row, event: None }
    }

    fn changed(favorite: Favorite, deleted_at: Option<DateTime<Utc>>, what: What) -> Self {
        Self {
            row: Some(Row {
                favorite,
                deleted_at,
            }),
            event: Some(what),
        }
    }
}

/// A kind of change.
pub(super) trait Op: Send + Sync + 'static {
    const NAME: &'static str;
    type Value: Send + 'static;
    fn decide(found: Option<Row>, command: &FavoriteCommand) -> Decided;
    /// The outcome; none if [`Self::decide`] never makes such a thing.
    fn value(decided: Decided) -> Option<Self::Value>;
}

/// Marks a thing, or finds that it is marked.
pub(super) struct Put;
/// Takes a mark away.
pub(super) struct Remove;
/// Brings a mark back.
pub(super) struct Restore;

impl Op for Put {
    const NAME: &'static str = "favorite_put";
    type Value = FavoritePut;

    fn decide(found: Option<Row>, command: &FavoriteCommand) -> Decided {
        let id = match found {
            Some(row) if row.deleted_at.is_none() => return Decided::unchanged(Some(row)),
            Some(row) => row.favorite.id,
            None => command.favorite_id,
        };
        let favorite = Favorite {
            id,
            kind: command.key.kind,
            target_id: command.key.target_id.clone(),
            created_at: command.now,
        };
        Decided::changed(favorite, None, LibraryEvent::FavoriteAdded)
    }

    fn value(decided: Decided) -> Option<FavoritePut> {
        Some(FavoritePut {
            favorite: decided.row?.favorite,
            added: decided.event.is_some(),
        })
    }
}

impl Op for Remove {
    const NAME: &'static str = "favorite_remove";
    type Value = bool;

    fn decide(found: Option<Row>, command: &FavoriteCommand) -> Decided {
        match found {
            Some(row) if row.deleted_at.is_none() => Decided::changed(
                row.favorite,
                Some(command.now),
                LibraryEvent::FavoriteRemoved,
            ),
            found => Decided::unchanged(found),
        }
    }

    fn value(decided: Decided) -> Option<bool> {
        Some(decided.row.is_some())
    }
}

impl Op for Restore {
    const NAME: &'static str = "favorite_restore";
    type Value = Option<Favorite>;

    fn decide(found: Option<Row>, _: &FavoriteCommand) -> Decided {
        match found {
            Some(row) if row.deleted_at.is_some() => {
                Decided::changed(row.favorite, None, LibraryEvent::FavoriteRestored)
            }
            found => Decided::unchanged(found),
        }
    }

    fn value(decided: Decided) -> Option<Option<Favorite>> {
        Some(decided.row.map(|row| row.favorite))
    }
}

/// One change, as the store runs it.
pub(super) struct Change<O>(FavoriteCommand, PhantomData<O>);

impl<O> Change<O> {
    pub(super) const fn new(command: FavoriteCommand) -> Self {
        Self(command, PhantomData)
    }
}

impl<O: Op> Command for Change<O> {
    const NAME: &'static str = O::NAME;
    type Out = Written<O::Value>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let mut outs = Self::run_all(&[self], tx).await?;
        let out = outs.pop();
        let out = out.ok_or(StoreError::Corrupt("a change without outcome"))?;
        Ok(out.map_err(StoreError::from)?)
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }

    /// Five statements, however many changes.
    async fn run_all(
        changes: &[&Self],
        tx: &mut Tx<'_>,
    ) -> Result<Vec<Result<Self::Out, NoUser>>, Failed> {
        let commands: Vec<_> = changes.iter().map(|change| &change.0).collect();
        let users = commands.iter().map(|command| command.user).collect();
        let mut logs = logs_lock(tx, &users).await?;
        let mut known = favorites_find(tx, &commands).await?;
        let (mut outs, mut events) = (Vec::with_capacity(commands.len()), Vec::new());
        let mut dirty = BTreeMap::new();
        for command in &commands {
            let Some(log) = logs.get_mut(&command.user) else {
                outs.push((false, Err(NoUser)));
                continue;
            };
            let key = (command.user, &command.key);
            let decided = O::decide(known.remove(&key), command);
            if let (Some(row), Some(what)) = (&decided.row, decided.event) {
                log.head_seq += 1;
                let favorite = &row.favorite;
                let what = what(FavoriteChanged {
                    id: favorite.id,
                    kind: favorite.kind,
                    target_id: favorite.target_id.clone(),
                    created_at: favorite.created_at,
                    version: log.head_seq,
                });
                events.push(command.issued().event(0, log.head_seq, &what)?);
                let now = (command.user, log.head_seq, row.clone());
                let before = dirty.insert(favorite.id, now);
                // The statement below would see only the last of them.
                let is_same = |user: UserId, it: &Favorite| {
                    (user, it.kind, &it.target_id)
                        == (command.user, favorite.kind, &favorite.target_id)
                };
                if before.is_some_and(|(user, _, it)| !is_same(user, &it.favorite)) {
                    return Err(TWO_FAVORITES.into());
                }
            }
            if let Some(row) = &decided.row {
                // A later one of the same transaction finds what this one left.
                known.insert(key, row.clone());
            }
            let appended = decided.event.is_some();
            let value = O::value(decided);
            let value = value.ok_or(StoreError::Corrupt("a favorite that was put"))?;
            let out = Written {
                value,
                log: *log,
                events: Vec::new(),
                committed_at: None,
            };
            outs.push((appended, Ok(out)));
        }
        let dirty: Vec<_> = dirty.into_values().collect();
        favorites_store(tx, &dirty).await?;
        logs_append(tx, &logs, &events).await?;
        let mut events = events.into_iter();
        Ok(outs
            .into_iter()
            .map(|(appended, mut out)| {
                if let (true, Ok(out)) = (appended, &mut out) {
                    out.events.extend(events.next());
                }
                out
            })
            .collect())
    }
}

impl FavoriteCommand {
    fn issued(&self) -> Issued {
        Issued {
            user: self.user,
            origin: self.origin.clone(),
            now: self.now,
            event_id: self.event_id,
        }
    }
}

/// The rows that commands name, in force or not.
async fn favorites_find<'c>(
    tx: &mut Tx<'_>,
    commands: &[&'c FavoriteCommand],
) -> Result<HashMap<(UserId, &'c FavoriteKey), Row>, Failed> {
    #[derive(sqlx::FromRow)]
    struct Found {
        n: i64,
        #[sqlx(flatten)]
        row: FavoriteRow,
        deleted_at: Option<DateTime<Utc>>,
    }
    let mut known = HashMap::with_capacity(commands.len());
    for piece in pieces(commands) {
        let sql = format!(
            "SELECT v.column4 AS n, f.id, f.type, f.target_id, f.created_at, f.deleted_at
             FROM (VALUES {}) AS v JOIN favorites f
             ON f.user_id = v.column1 AND f.type = v.column2 AND f.target_id = v.column3",
            rows(piece.len(), 4)
        );
        let found: Vec<Found> = on_tx!(tx, conn => {
            let mut query = sqlx::query_as(AssertSqlSafe(sql));
            for (n, command) in (0_i64..).zip(piece) {
                query = query.bind(command.user).bind(command.key.kind.as_str())
                    .bind(&command.key.target_id).bind(n);
            }
            query.fetch_all(conn).await?
        });
        for it in found {
            let command = usize::try_from(it.n).ok().and_then(|n| piece.get(n));
            let command = command.ok_or(StoreError::Corrupt("a favorite nobody asked for"))?;
            let row = Row {
                favorite: it.row.into_favorite()?,
                deleted_at: it.deleted_at,
            };
            known.insert((command.user, &command.key), row);
        }
    }
    Ok(known)
}

/// Writes rows as they are now, each with its user and its version.
async fn favorites_store(tx: &mut Tx<'_>, changed: &[(UserId, i64, Row)]) -> Result<(), Failed> {
    for piece in pieces(changed) {
        let sql = format!(
            "INSERT INTO favorites (id, user_id, type, target_id, version, created_at, deleted_at)
             VALUES {} ON CONFLICT (id) DO UPDATE SET version = excluded.version,
                 created_at = excluded.created_at, deleted_at = excluded.deleted_at
             WHERE favorites.user_id = excluded.user_id AND favorites.type = excluded.type
                 AND favorites.target_id = excluded.target_id",
            rows(piece.len(), 7)
        );
        let stored = on_tx!(tx, conn => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (user, version, Row { favorite, deleted_at }) in piece {
                query = query.bind(favorite.id).bind(*user).bind(favorite.kind.as_str())
                    .bind(&favorite.target_id).bind(*version).bind(favorite.created_at)
                    .bind(*deleted_at);
            }
            query.execute(conn).await?.rows_affected()
        });
        // An id that another favorite has must not turn that one into this.
        if stored != piece.len() as u64 {
            return Err(TWO_FAVORITES.into());
        }
    }
    Ok(())
}
