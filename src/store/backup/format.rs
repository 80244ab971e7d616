//! The form of a backup: lines of JSON in a gzip file.
//!
//! ```text
//! {"listen_stream_backup":1,"schema":4,"made_at":"…","engine":"sqlite","program":"0.1.0"}
//! {"table":"users","columns":[["id","uuid"],["phone","text"],…]}
//! ["01a1fb6a-…","+8613800138000",…]
//! …
//! {"rows":{"users":1,…},"sha256":"…"}
//! ```
//!
//! The last line has the number of rows of each table, and the SHA-256 of everything before it. It
//! finds damage; it does not prove who wrote the file. Owns no database and no file.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
};

use chrono::{DateTime, Utc};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::tables::{Column, known};

/// The version of this form.
const FORM: u32 = 1;

/// The longest line that is read: rows are far below it, and memory stays bounded.
const MAX_LINE: u64 = 16 << 20;

/// What stands at the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the form.
    #[serde(rename = "listen_stream_backup")]
    form: u32,
    /// The newest migration of the database.
    pub schema: i64,
    /// When it was begun: what was answered before is in it.
    pub made_at: DateTime<Utc>,
    /// Which engine it came from.
    pub engine: String,
    /// The version of the program that made it.
    pub program: String,
}

impl Header {
    pub(super) fn new(schema: i64, made_at: DateTime<Utc>, engine: &str) -> Self {
        Self {
            form: FORM,
            schema,
            made_at,
            engine: engine.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What the header of any form has.
#[derive(Deserialize)]
struct Form {
    listen_stream_backup: u32,
    #[serde(default)]
    program: String,
}

/// What stands before a table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    #[serde(rename = "table")]
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
}

/// Rows of each table.
pub(super) type Counts = BTreeMap<String, u64>;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trailer {
    rows: Counts,
    sha256: String,
}

/// Why a stream of bytes is not a backup that can be used.
#[derive(Debug)]
pub(super) enum Unsound {
    /// Something else.
    Foreign,
    /// Made by this newer program.
    TooNew(String),
    /// Not what was written.
    Damaged(String),
    /// It could not be read.
    Io(io::Error),
}

fn damaged(why: impl Into<String>) -> Unsound {
    Unsound::Damaged(why.into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A backup that is being written.
pub(super) struct Writing<W: Write> {
    to: GzEncoder<W>,
    sha: Sha256,
    rows: Counts,
    table: String,
}

impl<W: Write> Writing<W> {
    pub(super) fn start(to: W, header: &Header) -> io::Result<Self> {
        let mut writing = Self {
            to: GzEncoder::new(to, Compression::fast()),
            sha: Sha256::new(),
            rows: Counts::new(),
            table: String::new(),
        };
        writing.line(header)?;
        Ok(writing)
    }

    fn line(&mut self, content: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(content)?;
        for byte in &mut line {
            // JSON that an engine gave may be set over several lines.
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        line.push(b'\n');
        self.sha.update(&line);
        self.to.write_all(&line)
    }

    /// The rows that follow are of this table.
    pub(super) fn table(&mut self, table: &Table) -> io::Result<()> {
        self.table.clone_from(&table.name);
        self.rows.insert(table.name.clone(), 0);
        self.line(table)
    }

    pub(super) fn row(&mut self, values: &impl Serialize) -> io::Result<()> {
        if let Some(rows) = self.rows.get_mut(&self.table) {
            *rows += 1;
        }
        self.line(values)
    }

    /// Writes the end; gives back what it wrote to, and the numbers of rows.
    pub(super) fn finish(mut self) -> io::Result<(W, Counts)> {
        let trailer = Trailer {
            sha256: hex(&self.sha.finalize_reset()),
            rows: std::mem::take(&mut self.rows),
        };
        self.line(&trailer)?;
        Ok((self.to.finish()?, trailer.rows))
    }
}

/// A piece of a backup.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// The rows that follow are of this table.
    Table(Table),
    /// A JSON array of values.
    Row(&'a [u8]),
}

/// A backup that is being read. What it gave may be used only after it has given everything.
pub(super) struct Reading<R: BufRead> {
    from: BufReader<GzDecoder<R>>,
    sha: Sha256,
    line: Vec<u8>,
    rows: Counts,
    table: Option<String>,
    header: Header,
}

impl<R: BufRead> Reading<R> {
    pub(super) fn start(from: R) -> Result<Self, Unsound> {
        let mut reading = Self {
            from: BufReader::new(GzDecoder::new(from)),
            sha: Sha256::new(),
            line: Vec::new(),
            rows: Counts::new(),
            table: None,
            header: Header::new(0, DateTime::UNIX_EPOCH, ""),
        };
        match reading.line() {
            Ok(true) if reading.line.starts_with(b"{") => {}
            Err(Unsound::Io(e)) => return Err(Unsound::Io(e)),
            // Whatever is wrong with the first line: this is no backup.
            _ => return Err(Unsound::Foreign),
        }
        let form: Form = serde_json::from_slice(&reading.line).map_err(|_| Unsound::Foreign)?;
        if form.listen_stream_backup > FORM {
            return Err(Unsound::TooNew(form.program));
        }
        reading.header = serde_json::from_slice(&reading.line)
            .map_err(|_| damaged("its first line is wrong"))?;
        reading.sha.update(&reading.line);
        Ok(reading)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Rows of each table so far; all of them once [`Self::next`] has given nothing.
    pub(super) fn rows(&self) -> &Counts {
        &self.rows
    }

    /// Reads a line with its end; `false` when there is none.
    fn line(&mut self) -> Result<bool, Unsound> {
        self.line.clear();
        let read = (&mut self.from)
            .take(MAX_LINE)
            .read_until(b'\n', &mut self.line);
        match read {
            Ok(_) if self.line.last() == Some(&b'\n') => Ok(true),
            Ok(0) => Ok(false),
            Ok(_) => Err(damaged("a line has no end")),
            Err(e) => Err(unreadable(e)),
        }
    }

    /// The next piece; none after an end that fits what came before it.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>, Unsound> {
        if !self.line()? {
            return Err(damaged("its end is missing"));
        }
        match self.line.first() {
            Some(b'[') => {
                let rows = self.table.as_ref().and_then(|it| self.rows.get_mut(it));
                *rows.ok_or_else(|| damaged("a row stands before its table"))? += 1;
                self.sha.update(&self.line);
                return Ok(Some(Piece::Row(&self.line)));
            }
            Some(b'{') if self.line.starts_with(b"{\"table\"") => {}
            _ => return self.end().map(|()| None),
        }
        self.sha.update(&self.line);
        let table: Table =
            serde_json::from_slice(&self.line).map_err(|_| damaged("a table's line is wrong"))?;
        if known(&table.name).is_none() || self.rows.contains_key(&table.name) {
            return Err(damaged(format!("{} is no table for it", table.name)));
        }
        self.rows.insert(table.name.clone(), 0);
        self.table = Some(table.name.clone());
        Ok(Some(Piece::Table(table)))
    }

    fn end(&mut self) -> Result<(), Unsound> {
        let trailer: Trailer =
            serde_json::from_slice(&self.line).map_err(|_| damaged("a line is wrong"))?;
        if trailer.sha256 != hex(&self.sha.finalize_reset()) {
            return Err(damaged("its checksum is wrong"));
        }
        if trailer.rows != self.rows {
            return Err(damaged("rows are missing"));
        }
        // Reads gzip's own checksum too.
        if self.line()? || self.rest()? {
            return Err(damaged("something follows its end"));
        }
        Ok(())
    }

    /// Whether anything follows the compressed part.
    fn rest(&mut self) -> Result<bool, Unsound> {
        let rest = self.from.get_mut().get_mut().fill_buf();
        Ok(!rest.map_err(Unsound::Io)?.is_empty())
    }
}

/// What the decompression says of bad bytes is damage; anything else is the disk's.
fn unreadable(e: io::Error) -> Unsound {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it was cut short"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            damaged("it cannot be decompressed")
        }
        _ => Unsound::Io(e),
    }
}
