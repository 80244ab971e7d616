//! Reading a database into a backup: one snapshot, row by row.
//!
//! Never waits for the servers that work on the database, and never makes them wait: SQLite reads
//! beside its writer, PostgreSQL keeps the old rows.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqliteConnection,
    sqlite::SqliteConnectOptions,
};

use super::{
    BackupError, Header,
    format::{Counts, Table, Writing},
    swap,
    tables::{Column, Kind, columns, kept, schema_version},
    value::{Value, row_values},
};
use crate::{
    domain::clock::World,
    store::{Database, OpenError, Tx, migrate, on_tx, open},
};

/// What PostgreSQL shows of a backup's connection.
const NAME: &str = "listen-stream backup";

/// A connection of its own to either engine.
pub(super) enum Conn {
    Sqlite(SqliteConnection, Place),
    Postgres(PgConnection),
}

impl Conn {
    /// Connects to what is there, for reading only.
    pub(super) async fn reading(database: &Database, world: &World) -> Result<Self, BackupError> {
        match database {
            Database::Sqlite(path) => {
                let place = Place::of(path)?;
                let conn = sqlite(path).await;
                // What was opened may be what a restore is about to take away.
                place.check()?;
                Ok(Self::Sqlite(conn?, place))
            }
            Database::Postgres(url) => {
                let conn = open::postgres_alone(url, NAME, world).await?;
                Ok(Self::Postgres(conn))
            }
        }
    }

    pub(super) const fn engine(&self) -> &'static str {
        match self {
            Self::Sqlite(..) => "sqlite",
            Self::Postgres(_) => "postgresql",
        }
    }

    /// Where an SQLite file was found.
    fn place(&self) -> Option<Place> {
        match self {
            Self::Sqlite(_, place) => Some(place.clone()),
            Self::Postgres(_) => None,
        }
    }

    /// Begins the snapshot: the first read fixes what all later ones see.
    async fn snapshot(&mut self) -> sqlx::Result<Tx<'_>> {
        Ok(match self {
            Self::Sqlite(conn, _) => Tx::Sqlite(conn.begin().await?),
            Self::Postgres(conn) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Tx::Postgres(conn.begin_with(begin).await?)
            }
        })
    }
}

/// The SQLite file that stood under a name, to see whether a restore put another there.
///
/// A restore takes the write-ahead log away before the file: who opened the file before may read
/// it without its log.
#[derive(Debug, Clone)]
pub(super) struct Place {
    path: PathBuf,
    file: (u64, u64),
}

impl Place {
    fn of(path: &Path) -> Result<Self, BackupError> {
        let file = match identity(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Between two renames of a restore there is none.
                swap::check_settled(path)?;
                return Err(BackupError::NoDatabase(path.to_path_buf()));
            }
            Err(e) => return Err(BackupError::file(path)(e)),
        };
        swap::check_settled(path)?;
        let path = path.to_path_buf();
        Ok(Self { path, file })
    }

    /// Refuses what was read if a restore has begun to put another file here.
    fn check(&self) -> Result<(), BackupError> {
        let replaced = || BackupError::Replaced(self.path.clone());
        swap::check_settled(&self.path).map_err(|e| match e {
            BackupError::Unfinished(_) => replaced(),
            e => e,
        })?;
        match identity(&self.path) {
            Ok(file) if file == self.file => Ok(()),
            Ok(_) => Err(replaced()),
            Err(e) => Err(BackupError::file(&self.path)(e)),
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

async fn sqlite(path: &Path) -> Result<SqliteConnection, BackupError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .disable_statement_logging();
    let connected = options.connect().await;
    Ok(connected.map_err(|e| OpenError::Connect {
        place: path.display().to_string(),
        reason: e.to_string(),
    })?)
}

/// Writes everything of one moment into `to`.
pub(super) async fn export<W: Write>(
    conn: &mut Conn,
    world: &World,
    to: W,
    unwritable: impl Fn(std::io::Error) -> BackupError,
) -> Result<(W, Header, Counts), BackupError> {
    let unreadable = |what: &'static str| BackupError::database(what);
    let (engine, place, made_at) = (conn.engine(), conn.place(), world.now());
    let mut tx = conn
        .snapshot()
        .await
        .map_err(unreadable("cannot begin to read"))?;
    let schema = schema_version(&mut tx).await;
    // First: a file without its log may be anything.
    if let Some(place) = place {
        place.check()?;
    }
    let schema = schema
        .map_err(unreadable("cannot read the schema"))?
        .ok_or(BackupError::NoSchema)?;
    let knows = migrate::newest();
    if schema > knows {
        // It may have tables that would be left out without a word.
        let needs = schema;
        return Err(BackupError::SchemaTooNew { needs, knows });
    }
    let header = Header::new(schema, made_at, engine);
    let mut writing = Writing::start(to, &header).map_err(&unwritable)?;
    for name in kept() {
        let failed = || BackupError::database(format!("cannot read {name}"));
        let columns = columns(&mut tx, name).await.map_err(failed())?;
        if columns.is_empty() {
            continue;
        }
        let table = Table {
            name: name.to_owned(),
            columns,
        };
        writing.table(&table).map_err(&unwritable)?;
        let sql = format!("SELECT {} FROM {name}", names(&table.columns));
        on_tx!(&mut tx, conn => {
            let mut rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch(conn);
            while let Some(row) = rows.try_next().await.map_err(failed())? {
                let values = row_values!(&row, &table.columns).map_err(failed())?;
                writing.row(&values).map_err(&unwritable)?;
            }
        });
    }
    let (to, rows) = writing.finish().map_err(unwritable)?;
    Ok((to, header, rows))
}

/// The columns' names as SQL takes them.
pub(super) fn names(columns: &[Column]) -> String {
    let names: Vec<_> = columns.iter().map(|it| format!("\"{}\"", it.0)).collect();
    names.join(", ")
}
