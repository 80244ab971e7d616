//! Tests of backups below the command line: the form, the schema, and rows that go from engine to
//! engine and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::PathBuf,
};

use chrono::{DateTime, SubsecRound, TimeZone, Utc};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value as Json, json};
use sqlx::{ConnectOptions, Connection};
use uuid::Uuid;

use super::{
    export::Conn,
    format::{Counts, Piece, Reading, Table, Unsound, Writing},
    restore::Restore,
    tables::{Column, Kind, MIGRATIONS, TABLES, columns, kept},
    *,
};
use crate::store::{
    Tx, migrate, on_pool,
    tests::{Bed, on_both, open},
};

on_both!(
    every_table_has_its_place,
    rows_come_back_exactly,
    older_schemas_are_brought_up,
    what_came_back_is_fit_to_be_served,
    a_row_without_its_parent_is_refused,
);

/// A backup in memory: its header's schema, and its tables with their rows.
#[derive(Debug, Clone, PartialEq)]
struct Content {
    schema: i64,
    tables: Vec<(Table, Vec<Vec<Json>>)>,
}

impl Content {
    fn write(&self) -> Vec<u8> {
        let at = Utc.timestamp_opt(1_795_000_000, 0).unwrap();
        let header = Header::new(self.schema, at, "test");
        let mut writing = Writing::start(Vec::new(), &header).unwrap();
        for (table, rows) in &self.tables {
            writing.table(table).unwrap();
            for row in rows {
                writing.row(row).unwrap();
            }
        }
        writing.finish().unwrap().0
    }

    fn read(bytes: &[u8]) -> Result<Self, Unsound> {
        let mut reading = Reading::start(bytes)?;
        let (schema, mut tables) = (reading.header().schema, Vec::new());
        while let Some(piece) = reading.next()? {
            match piece {
                Piece::Table(table) => tables.push((table, Vec::new())),
                Piece::Row(line) => {
                    let row = serde_json::from_slice(line)
                        .map_err(|e| Unsound::Damaged(e.to_string()))?;
                    tables.last_mut().unwrap().1.push(row);
                }
            }
        }
        let counts: Counts = tables
            .iter()
            .map(|(table, rows): &(Table, Vec<_>)| (table.name.clone(), rows.len() as u64))
            .collect();
        assert_eq!(*reading.rows(), counts);
        Ok(Self { schema, tables })
    }

    /// Rows as objects, by table, in an order of their own.
    fn rows(&self) -> BTreeMap<String, Vec<Json>> {
        let object = |table: &Table, row: &Vec<Json>| -> Json {
            let names = table.columns.iter().map(|it| it.0.clone());
            names
                .zip(row.iter().cloned())
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let sorted = |(table, rows): &(Table, Vec<Vec<Json>>)| {
            let mut rows: Vec<_> = rows.iter().map(|row| object(table, row)).collect();
            rows.sort_by_key(ToString::to_string);
            (table.name.clone(), rows)
        };
        self.tables.iter().map(sorted).collect()
    }

    fn file(&self, bed: &Bed) -> PathBuf {
        let path = bed.dir.path().join("content.lsb");
        std::fs::write(&path, self.write()).unwrap();
        path
    }
}

/// Rows without what a restore changes on purpose.
fn settled(mut rows: BTreeMap<String, Vec<Json>>) -> BTreeMap<String, Vec<Json>> {
    for (table, column) in [
        ("user_logs", "epoch"),
        ("users", "token_version"),
        ("devices", "session_version"),
        ("sms_codes", "used"),
    ] {
        for row in rows.get_mut(table).into_iter().flatten() {
            row.as_object_mut().unwrap().remove(column).unwrap();
        }
    }
    // Sorted anew: what went may have decided.
    for rows in rows.values_mut() {
        rows.sort_by_key(ToString::to_string);
    }
    rows
}

async fn exported(bed: &Bed) -> Content {
    let mut conn = Conn::reading(&bed.config.database, &bed.world)
        .await
        .unwrap();
    let (bytes, header, _) = export(&mut conn, &bed.world, Vec::new(), |e| panic!("{e}"))
        .await
        .unwrap();
    let content = Content::read(&bytes).unwrap();
    assert_eq!(header.schema, content.schema);
    content
}

async fn restored(bed: &Bed, content: &Content) -> Result<Restored, BackupError> {
    bed.store.close().await;
    let how = Restore {
        replace: true,
        ..Restore::default()
    };
    restore(&bed.config.database, &bed.world, &content.file(bed), &how).await
}

async fn every_table_has_its_place(bed: &Bed) {
    let sql = match bed.config.database {
        Database::Sqlite(_) => {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        }
        Database::Postgres(_) => {
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
        }
    };
    let there: Vec<String> = on_pool!(&bed.store.inner.db, pool => sqlx::query_scalar(sql).fetch_all(pool).await.unwrap());
    let there: BTreeSet<_> = there.iter().map(String::as_str).collect();
    let listed = TABLES.iter().map(|(name, _)| *name).chain([MIGRATIONS]);
    assert_eq!(
        there,
        listed.collect(),
        "a table is not in TABLES, or the other way round"
    );
    // Every column's type is known, and a backup of nothing names them all.
    let content = exported(bed).await;
    let named: Vec<_> = content
        .tables
        .iter()
        .map(|(table, _)| table.name.as_str())
        .collect();
    assert_eq!(named, kept().collect::<Vec<_>>());
    assert_eq!(content.tables, exported(&Bed::sqlite().await).await.tables);
}

/// The tables of a schema, from SQLite.
async fn tables_of(schema: i64) -> Vec<Table> {
    let mut conn = sqlx::sqlite::SqliteConnectOptions::new()
        .in_memory(true)
        .connect()
        .await
        .unwrap();
    migrate::run(&mut conn, Some(schema)).await.unwrap();
    let mut tx = Tx::Sqlite(conn.begin().await.unwrap());
    let mut tables = Vec::new();
    for name in kept() {
        let columns = columns(&mut tx, name).await.unwrap();
        if !columns.is_empty() {
            let name = name.to_owned();
            tables.push(Table { name, columns });
        }
    }
    tables
}

/// Any object that comes back from both engines as the same value.
fn objects() -> BoxedStrategy<Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        (-1000..1000_i32).prop_map(|n| Json::from(f64::from(n) / 4.0 + 0.125)),
        "[^\0]{0,6}".prop_map(Json::from),
    ];
    let value = leaf.prop_recursive(2, 8, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from);
        prop_oneof![list, members(inner)]
    });
    members(value.boxed()).boxed()
}

fn members(value: BoxedStrategy<Json>) -> impl Strategy<Value = Json> {
    let members = prop::collection::btree_map("[^\0]{0,6}", value, 0..4);
    members.prop_map(|it| Json::Object(it.into_iter().collect()))
}

/// Draws values; the same in every run.
struct Draw {
    runner: TestRunner,
    texts: BoxedStrategy<String>,
    objects: BoxedStrategy<Json>,
}

impl Draw {
    fn new() -> Self {
        Self {
            runner: TestRunner::new_with_rng(
                Config::default(),
                TestRng::deterministic_rng(RngAlgorithm::ChaCha),
            ),
            // Any text that PostgreSQL can hold.
            texts: "\\PC{0,20}|[\\x01-\\x1f\"\\\\\u{80}-\u{10ffff}]{0,12}".boxed(),
            objects: objects(),
        }
    }

    fn of<S: Strategy>(&mut self, strategy: S) -> S::Value {
        strategy.new_tree(&mut self.runner).unwrap().current()
    }

    fn uuid(&mut self) -> Json {
        json!(Uuid::from_u128(self.of(any::<u128>())))
    }

    fn text(&mut self) -> String {
        self.texts.new_tree(&mut self.runner).unwrap().current()
    }

    fn object(&mut self) -> Json {
        self.objects.new_tree(&mut self.runner).unwrap().current()
    }

    fn time(&mut self) -> Json {
        // From the year 1 to 9999.
        let micros = self.of(-62_135_596_800_000_000..253_402_300_799_999_999_i64);
        json!(
            DateTime::from_timestamp_micros(micros)
                .unwrap()
                .trunc_subsecs(6)
        )
    }

    /// Any value of a type.
    fn value(&mut self, kind: Kind) -> Json {
        match kind {
            Kind::Uuid => self.uuid(),
            Kind::Text => self.text().into(),
            Kind::Bigint => self.of(any::<i64>()).into(),
            Kind::Boolean => self.of(any::<bool>()).into(),
            Kind::Timestamptz => self.time(),
            Kind::Jsonb => self.object(),
        }
    }

    /// A row with these values, and any others where there are none.
    fn row(&mut self, columns: &[Column], given: &Json) -> Vec<Json> {
        let nullable = [
            "ip_address",
            "refresh_token_hash",
            "refresh_retry_key_hash",
            "origin_device_id",
            "deleted_at",
        ];
        let mut row = Vec::new();
        for Column(name, kind) in columns {
            row.push(match given.get(name) {
                Some(value) => value.clone(),
                None if nullable.contains(&name.as_str()) && self.of(any::<bool>()) => Json::Null,
                None => self.value(*kind),
            });
        }
        row
    }

    /// A whole database of some users.
    fn content(&mut self, schema: i64, tables: Vec<Table>, users: usize) -> Content {
        let mut rows: BTreeMap<&str, Vec<Json>> = BTreeMap::new();
        let mut put = |table: &'static str, given: Json| rows.entry(table).or_default().push(given);
        for n in 0..users {
            let (user, device) = (self.uuid(), self.uuid());
            let events = self.of(0..7_i64);
            let floor = self.of(0..1000_i64);
            put(
                "users",
                json!({"id": user, "phone": format!("+{n}"), "role": "USER",
                "token_version": 1}),
            );
            put(
                "user_logs",
                json!({"user_id": user, "epoch": self.uuid(),
                "head_seq": floor + events, "floor_seq": floor}),
            );
            for seq in floor + 1..=floor + events {
                put("sync_events", json!({"user_id": user, "seq": seq}));
                let kind = ["song", "album", "artist", "mv"][usize::try_from(seq % 4).unwrap()];
                put(
                    "favorites",
                    json!({"user_id": user, "type": kind,
                    "target_id": format!("{seq}{}", self.text())}),
                );
            }
            put(
                "devices",
                json!({"id": device, "user_id": user, "platform": "tv",
                "session_version": 3, "acked_seq": floor + self.of(0..=events),
                "attach_epoch": self.of(0..i64::MAX)}),
            );
            put(
                "sms_codes",
                json!({"phone": format!("+{n}"), "tries_left": self.of(0..i64::MAX)}),
            );
            put("revocations", json!({"subject": device}));
        }
        put("secret_keys", json!({"kid": "one", "purpose": "root"}));
        let mut filled = Vec::new();
        for table in tables {
            let given = rows.remove(table.name.as_str()).unwrap_or_default();
            let rows = given
                .iter()
                .map(|it| self.row(&table.columns, it))
                .collect();
            filled.push((table, rows));
        }
        Content {
            schema,
            tables: filled,
        }
    }
}

async fn rows_come_back_exactly(bed: &Bed) {
    let newest = migrate::newest();
    // More events than one statement takes.
    let content = Draw::new().content(newest, tables_of(newest).await, 220);
    assert!(content.rows()["sync_events"].len() > 500);
    let expected = settled(content.rows());
    let done = restored(bed, &content).await.unwrap();
    assert_eq!(done.summary.of("users"), 220);
    let there = exported(bed).await;
    assert_eq!(settled(there.rows()), expected);

    // From there into the other engine, and back into this one.
    let other = match bed.config.database {
        Database::Sqlite(_) => Bed::postgres().await,
        Database::Postgres(_) => Bed::sqlite().await,
    };
    restored(&other, &there).await.unwrap();
    let there = exported(&other).await;
    assert_eq!(settled(there.rows()), expected);
    other.done().await;
    restored(bed, &there).await.unwrap();
    assert_eq!(settled(exported(bed).await.rows()), expected);
    open(&bed.config).await.unwrap().close().await;
}

async fn older_schemas_are_brought_up(bed: &Bed) {
    // The first three made the tables; backups came later, but may come from any of them.
    for schema in (3..=migrate::newest()).filter(|n| migrate::knows(*n)) {
        let mut content = Draw::new().content(schema, tables_of(schema).await, 2);
        let done = restored(bed, &content).await.unwrap();
        assert_eq!(done.summary.header.schema, schema);
        let there = exported(bed).await;
        assert_eq!(there.schema, migrate::newest());
        // What the migrations since have added is there beside it.
        let (old, new) = (settled(content.rows()), settled(there.rows()));
        for (table, rows) in old {
            assert_eq!(new[&table].len(), rows.len(), "{table}");
            for row in rows {
                let members = row.as_object().unwrap();
                let same = |it: &Json| members.iter().all(|(name, value)| it[name] == *value);
                assert!(new[&table].iter().any(same), "{table} lacks {row}");
            }
        }
        open(&bed.config).await.unwrap().close().await;

        // Its columns must be those of its schema.
        let mut other = content.clone();
        other.tables[1].0.columns[0].0 = "other".into();
        let refused = restored(bed, &other).await.unwrap_err();
        assert!(
            refused.to_string().contains("not that of its schema"),
            "{refused}"
        );
        content.tables.pop();
        let refused = restored(bed, &content).await.unwrap_err();
        assert!(refused.to_string().contains("is missing"), "{refused}");
        assert_eq!(exported(bed).await.rows(), there.rows());
    }
    let mut content = Draw::new().content(1, Vec::new(), 0);
    for (schema, said) in [(migrate::newest() + 1, "is newer"), (-1, "no schema -1")] {
        content.schema = schema;
        let refused = restored(bed, &content).await.unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}

async fn what_came_back_is_fit_to_be_served(bed: &Bed) {
    let newest = migrate::newest();
    let mut content = Draw::new().content(newest, tables_of(newest).await, 5);
    // As a cursor could be that was stored without its events.
    for (table, rows) in &mut content.tables {
        if table.name == "devices" {
            let acked = table
                .columns
                .iter()
                .position(|it| it.0 == "acked_seq")
                .unwrap();
            rows[0][acked] = json!(1_000_000);
        }
    }
    let before = content.rows();
    restored(bed, &content).await.unwrap();
    let after = exported(bed).await.rows();
    let all = |rows: &BTreeMap<String, Vec<Json>>, table: &str, column: &str| -> Vec<Json> {
        rows[table].iter().map(|row| row[column].clone()).collect()
    };
    let epochs = |rows| -> BTreeSet<String> {
        let epochs = all(rows, "user_logs", "epoch");
        epochs.iter().map(ToString::to_string).collect()
    };
    assert_eq!(epochs(&after).len(), 5);
    assert!(epochs(&after).is_disjoint(&epochs(&before)));
    let heads: BTreeMap<String, i64> = after["user_logs"]
        .iter()
        .map(|it| (it["user_id"].to_string(), it["head_seq"].as_i64().unwrap()))
        .collect();
    for device in &after["devices"] {
        let head = heads[&device["user_id"].to_string()];
        assert!(device["acked_seq"].as_i64().unwrap() <= head, "{device}");
    }
    assert!(
        all(&after, "sms_codes", "used")
            .iter()
            .all(|it| *it == true)
    );

    // Every version is beyond what was handed out before, also after the next restore.
    let lowest = |rows: &BTreeMap<String, Vec<Json>>| {
        let versions = all(rows, "users", "token_version").into_iter();
        let versions = versions.chain(all(rows, "devices", "session_version"));
        versions.map(|it| it.as_i64().unwrap()).min().unwrap()
    };
    let first = lowest(&after);
    assert!(first > 1_000_000);
    while bed.world.now().timestamp_millis() <= first {
        tokio::task::yield_now().await;
    }
    restored(bed, &content).await.unwrap();
    let second = lowest(&exported(bed).await.rows());
    assert!(second > first);

    // The same again without a restore, and everybody out.
    let logs = epochs_renew(&bed.config.database, &bed.world, true).await;
    assert_eq!(logs.unwrap(), 5);
    let last = exported(bed).await.rows();
    assert!(lowest(&last) > second);
    for user in &last["users"] {
        let of_user = |it: &&Json| it["subject"] == user["id"];
        let revoked = last["revocations"].iter().find(of_user).unwrap();
        assert_eq!(revoked["min_version"], user["token_version"]);
    }
    let hashes = all(&last, "devices", "refresh_token_hash");
    assert!(hashes.iter().all(Json::is_null));
}

async fn a_row_without_its_parent_is_refused(bed: &Bed) {
    let newest = migrate::newest();
    let mut content = Draw::new().content(newest, tables_of(newest).await, 3);
    let before = exported(bed).await;
    let (table, rows) = &mut content.tables[1];
    assert_eq!(table.name, "users");
    rows.pop();
    let refused = restored(bed, &content).await.unwrap_err().to_string();
    assert!(refused.contains("cannot restore user_logs"), "{refused}");
    assert_eq!(exported(bed).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_program_is_left_alone() {
    let bed = Bed::postgres().await;
    let newest = migrate::newest();
    let content = Draw::new().content(newest, tables_of(newest).await, 1);
    bed.sql("DROP TABLE schema_support").await.unwrap();
    let refused = restored(&bed, &content).await.unwrap_err();
    assert!(
        refused.to_string().contains("not listen-stream's"),
        "{refused}"
    );
    bed.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_came_during_the_restore_is_not_restored_under() {
    let bed = Bed::postgres().await;
    let newest = migrate::newest();
    let content = Draw::new().content(newest, tables_of(newest).await, 3);
    restored(&bed, &content).await.unwrap();
    let before = exported(&bed).await;
    let Database::Postgres(url) = &bed.config.database else {
        unreachable!()
    };
    let connect = |name| crate::store::open::postgres_alone(url, name, &bed.world);
    // The restore has counted and waits for this reader; then a server comes.
    let mut reader = connect("psql").await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE users IN ACCESS SHARE MODE")
        .execute(&mut *reading)
        .await
        .unwrap();
    let come = async {
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
             WHERE NOT granted AND application_name = 'listen-stream restore'
                 AND datname = current_database()";
        let mut beside = connect("psql").await.unwrap();
        loop {
            let n: i64 = sqlx::query_scalar(waiting)
                .fetch_one(&mut beside)
                .await
                .unwrap();
            if n > 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        let server = connect("listen-stream").await.unwrap();
        reading.rollback().await.unwrap();
        server
    };
    let (refused, server) = tokio::join!(restored(&bed, &content), come);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, BackupError::InUse(1)), "{refused}");
    assert_eq!(exported(&bed).await, before);
    server.close().await.unwrap();
    restored(&bed, &content).await.unwrap();
    bed.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_meets_a_restore_is_refused() {
    let bed = Bed::sqlite().await;
    let newest = migrate::newest();
    let content = Draw::new().content(newest, tables_of(newest).await, 1);
    let Database::Sqlite(path) = &bed.config.database else {
        unreachable!()
    };
    let failed = async |conn: &mut Conn| {
        let made = export(conn, &bed.world, Vec::new(), |e| panic!("{e}")).await;
        let refused = made.map(|_| ()).unwrap_err();
        assert!(matches!(refused, BackupError::Replaced(_)), "{refused}");
        assert!(refused.to_string().contains("try again"), "{refused}");
    };
    // Done since the file was opened.
    let mut conn = Conn::reading(&bed.config.database, &bed.world)
        .await
        .unwrap();
    restored(&bed, &content).await.unwrap();
    failed(&mut conn).await;
    // Decided, and not done yet.
    let mut conn = Conn::reading(&bed.config.database, &bed.world)
        .await
        .unwrap();
    let mut decided = path.clone().into_os_string();
    decided.push(".restored-7");
    std::fs::write(&decided, "").unwrap();
    failed(&mut conn).await;
    std::fs::remove_file(&decided).unwrap();
    exported(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_anywhere_is_found() {
    let newest = migrate::newest();
    let content = Draw::new().content(newest, tables_of(newest).await, 1);
    let whole = content.write();
    assert_eq!(Content::read(&whole).unwrap(), content);
    for length in 0..whole.len() {
        let cut = Content::read(&whole[..length]).unwrap_err();
        let said = matches!(cut, Unsound::Foreign | Unsound::Damaged(_));
        assert!(said, "cut to {length}: {cut:?}");
    }
    let (mut damaged, mut unnoticed) = (whole.clone(), 0);
    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            damaged[at] ^= bit;
            match Content::read(&damaged) {
                // The damage may be in the number of the form.
                Err(Unsound::Foreign | Unsound::TooNew(_) | Unsound::Damaged(_)) => {}
                // gzip has a few bits that mean nothing, in its header and before its end.
                Ok(read) => {
                    assert!(read == content, "byte {at}");
                    unnoticed += 1;
                }
                Err(e) => panic!("byte {at}: {e:?}"),
            }
            damaged[at] ^= bit;
        }
    }
    assert!(unnoticed < 20, "{unnoticed}");
    for tail in [&b"x"[..], &whole] {
        let longer = [&whole, tail].concat();
        assert!(matches!(Content::read(&longer), Err(Unsound::Damaged(_))));
    }
}

fn packed(text: &str) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    gz.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_edited_and_packed_again_is_found() {
    let newest = migrate::newest();
    let content = Draw::new().content(newest, tables_of(newest).await, 2);
    let whole = content.write();
    let mut text = String::new();
    GzDecoder::new(&whole[..])
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(Content::read(&packed(&text)).unwrap(), content);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (last, before) = lines.split_last().unwrap();
    let at = before.iter().position(|it| it.contains("+1")).unwrap();
    let mut without = before.to_vec();
    without.remove(at);
    let mut swapped = before.to_vec();
    swapped.swap(at, at - 1);
    let headless = [&[before[at]], before].concat();
    for (what, edited) in [
        ("another phone", text.replacen("\"+1\"", "\"+2\"", 1)),
        ("a row less", without.concat() + last),
        ("another order", swapped.concat() + last),
        ("no end", before.concat()),
        ("two ends", text.clone() + last),
        ("a row first", headless.concat() + last),
    ] {
        assert_ne!(edited, text, "{what}");
        let refused = Content::read(&packed(&edited));
        let found = matches!(refused, Err(Unsound::Damaged(_) | Unsound::Foreign));
        assert!(found, "{what}: {refused:?}");
    }
}

#[test]
fn newer_forms_are_told_from_damaged_ones() {
    let newer = "{\"listen_stream_backup\":2,\"program\":\"9.0\",\"more\":[]}\n";
    let refused = Reading::start(&packed(newer)[..]).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Unsound::TooNew(program) if program == "9.0"));
    for foreign in [
        "",
        "{}\n",
        "hello\n",
        "[1]\n",
        "{\"listen_stream_backup\":1",
    ] {
        let refused = Reading::start(&packed(foreign)[..]).map(|_| ());
        assert!(matches!(refused, Err(Unsound::Foreign)), "{foreign}");
    }
    // A line that does not end must not fill the memory.
    let endless = format!("{{\"listen_stream_backup\":1{}", " ".repeat(17 << 20));
    let refused = Reading::start(&packed(&endless)[..]).map(|_| ());
    assert!(matches!(refused, Err(Unsound::Foreign)));
}
