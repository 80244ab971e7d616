//! Putting the rows of a backup into tables that are there and empty.
//!
//! Takes columns by their names and types, and refuses a backup whose columns are not those of the
//! schema at its version. Runs in the caller's transaction.

use std::{collections::BTreeMap, fmt::Write as _, io::BufRead};

use serde_json::value::RawValue;
use sqlx::AssertSqlSafe;

use super::{
    export::names,
    format::{Piece, Reading, Table, Unsound},
    tables::{Column, columns, kept},
    value::{Value, bind_value},
};
use crate::store::{Tx, on_tx};

/// Rows that one statement puts in.
const ROWS: usize = 500;
/// Bytes of text that one statement puts in, and some.
const BYTES: usize = 1 << 20;

/// Why rows were not put in.
#[derive(Debug)]
pub(super) enum NotPut {
    Unsound(Unsound),
    /// The database failed at a table.
    Sql(String, sqlx::Error),
}

impl From<Unsound> for NotPut {
    fn from(it: Unsound) -> Self {
        Self::Unsound(it)
    }
}

fn damaged(why: String) -> NotPut {
    NotPut::Unsound(Unsound::Damaged(why))
}

fn sql(table: &str) -> impl FnOnce(sqlx::Error) -> NotPut {
    let table = table.to_owned();
    move |e| NotPut::Sql(table, e)
}

/// Puts everything in that `from` has.
pub(super) async fn import<R: BufRead>(
    tx: &mut Tx<'_>,
    from: &mut Reading<R>,
) -> Result<(), NotPut> {
    let mut schema = BTreeMap::new();
    for name in kept() {
        let columns = columns(tx, name).await.map_err(sql(name))?;
        if !columns.is_empty() {
            schema.insert(name, columns);
        }
    }
    empty(tx, schema.keys().copied()).await?;
    let mut batch: Option<Batch> = None;
    loop {
        match from.next()? {
            Some(Piece::Row(line)) => {
                let Some(batch) = &mut batch else { continue };
                batch.take(line)?;
                if batch.is_full() {
                    batch.put(tx).await?;
                }
            }
            Some(Piece::Table(table)) => {
                if let Some(mut done) = batch.take() {
                    done.put(tx).await?;
                }
                let there = schema.remove(table.name.as_str());
                if !there.is_some_and(|there| same(&there, &table.columns)) {
                    return Err(damaged(format!(
                        "its table {} is not that of its schema",
                        table.name
                    )));
                }
                batch = Some(Batch::of(table));
            }
            None => break,
        }
    }
    if let Some(mut last) = batch {
        last.put(tx).await?;
    }
    match schema.keys().next() {
        None => Ok(()),
        Some(missing) => Err(damaged(format!("its table {missing} is missing"))),
    }
}

/// Takes out what migrations may have put in: the backup has those rows too.
async fn empty<'a>(tx: &mut Tx<'_>, tables: impl Iterator<Item = &'a str>) -> Result<(), NotPut> {
    let there: Vec<_> = tables.collect();
    let mut children_first: Vec<_> = kept().filter(|it| there.contains(it)).collect();
    children_first.reverse();
    for name in children_first {
        let delete = AssertSqlSafe(format!("DELETE FROM {name}"));
        on_tx!(&mut *tx, conn => sqlx::query(delete).persistent(false).execute(conn).await.map(|_| ()))
            .map_err(sql(name))?;
    }
    Ok(())
}

/// Whether these are the same columns, in whatever order.
fn same(one: &[Column], other: &[Column]) -> bool {
    one.len() == other.len() && one.iter().all(|it| other.contains(it))
}

/// Rows of one table that wait for their statement.
struct Batch {
    table: Table,
    rows: Vec<Vec<Value>>,
    bytes: usize,
}

impl Batch {
    const fn of(table: Table) -> Self {
        Self {
            table,
            rows: Vec::new(),
            bytes: 0,
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), NotPut> {
        let wrong = || damaged(format!("a row of {} is wrong", self.table.name));
        let texts: Vec<&RawValue> = serde_json::from_slice(line).map_err(|_| wrong())?;
        if texts.len() != self.table.columns.len() {
            return Err(wrong());
        }
        let values: Result<Vec<Value>, _> = std::iter::zip(&self.table.columns, texts)
            .map(|(column, text)| Value::parse(column.1, text))
            .collect();
        self.rows.push(values.map_err(|_| wrong())?);
        self.bytes += line.len();
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= ROWS || self.bytes >= BYTES
    }

    async fn put(&mut self, tx: &mut Tx<'_>) -> Result<(), NotPut> {
        if self.rows.is_empty() {
            return Ok(());
        }
        // A full one comes again and again with the same text; any other is not worth keeping.
        let keep = self.rows.len() == ROWS;
        let text = AssertSqlSafe(self.statement());
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        on_tx!(&mut *tx, conn => {
            let mut query = sqlx::query(text).persistent(keep);
            for value in rows.into_iter().flatten() {
                query = bind_value!(query, value);
            }
            query.execute(conn).await.map(|_| ())
        })
        .map_err(sql(&self.table.name))
    }

    fn statement(&self) -> String {
        let Table { name, columns } = &self.table;
        let mut text = format!("INSERT INTO {name} ({}) VALUES ", names(columns));
        for row in 0..self.rows.len() {
            text.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..columns.len() {
                let comma = if column == 0 { "" } else { ", " };
                // Writing to a String cannot fail.
                let _ = write!(text, "{comma}${}", row * columns.len() + column + 1);
            }
            text.push(')');
        }
        text
    }
}
