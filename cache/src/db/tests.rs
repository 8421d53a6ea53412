use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;

use super::*;
use crate::images::tests::store_image;
use crate::testing::{TempDir, TestStore, commit_file, open};
use crate::{CacheKey, MutableKind, NewRecord, Snapshot, Store};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/store");

/// A row in each table that is worth one.
fn fill(store: &Store) {
    let base = commit_file(store, &Snapshot::empty(), "a", "1");
    let outputs = [commit_file(store, &base, "b", "2")];
    let new = NewRecord {
        key: CacheKey([1; 32]),
        content_key: Some(CacheKey([2; 32])),
        outputs: &outputs,
        description: "RUN make",
        trace: b"trace",
        file_lists: &[[3; 32]],
        project: "app",
        ..NewRecord::default()
    };
    store.records().insert(&new).unwrap();
    store.git_mirror(&CacheKey([4; 32]), "https://example.com/app.git").unwrap();
    let target = store_image(store, "{}");
    store.images().put(&"app".parse().unwrap(), &target, &outputs).unwrap();
}

/// Fails unless everything of [`fill`] can be read.
#[track_caller]
fn assert_filled(store: &Store) {
    let found = store.records().lookup(CacheKey([1; 32])).unwrap().unwrap();
    assert_eq!((found.description.as_str(), found.outputs[0].layers.len()), ("RUN make", 2));
    assert!(store.records().lookup_content(CacheKey([2; 32])).unwrap().is_some());
    assert_eq!(store.images().list().unwrap()[0].snapshots, found.outputs);
    let mirrors = store.0.db.read("list", |db| store.read_mutables(db)).unwrap();
    assert_eq!(
        (mirrors[0].kind, mirrors[0].name.as_str()),
        (MutableKind::GitMirror, "https://example.com/app.git")
    );
}

/// A store whose tables are made by these statements.
fn store_of(sql: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new();
    let root = directory.path().join("store");
    drop(open(&root));
    for name in ["metadata.db", "metadata.db-wal", "metadata.db-shm"] {
        drop(fs::remove_file(root.join(name)));
    }
    Connection::open(root.join("metadata.db")).unwrap().execute_batch(sql).unwrap();
    (directory, root)
}

/// What tables and indexes there are, without the words' layout.
fn tables(path: &Path) -> Vec<(String, String)> {
    let db = Connection::open(path).unwrap();
    let mut statement =
        db.prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").unwrap();
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).unwrap();
    let plain = |sql: &str| {
        let lines = sql.lines().map(|line| line.split("--").next().unwrap_or(line));
        lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
    };
    rows.map(|row| row.map(|(name, sql)| (name, plain(&sql))).unwrap()).collect()
}

#[test]
fn every_released_version_is_read() {
    let fresh = TestStore::new();
    for version in FIRST_VERSION..=SCHEMA_VERSION {
        let sql = fs::read_to_string(format!("{FIXTURES}/tables-{version}.sql")).unwrap();
        let (_directory, root) = store_of(&sql);
        assert_filled(&open(&root));
        let made = tables(&fresh.root().join("metadata.db"));
        assert_eq!(tables(&root.join("metadata.db")), made, "tables {version}: see the rule in db.rs");
    }
}

#[test]
fn parts_that_version_7_made_are_not_made_again() {
    let mut sql = fs::read_to_string(format!("{FIXTURES}/tables-7.sql")).unwrap();
    for (layer, part, diff_id) in [(1, 0, "0a"), (1, 1, "0b"), (2, 0, "0c")] {
        sql += &format!(
            "INSERT INTO layer_archive (layer, diff_id, size_bytes, made, part, part_size_bytes)
             VALUES ({layer}, x'{diff_id}', 512, 1, {part}, 4096);\n"
        );
    }
    let (_directory, root) = store_of(&sql);
    let store = open(&root);
    let made = store.0.db.read("list", |db| {
        let mut statement = db.prepare("SELECT made FROM layer_archive ORDER BY diff_id")?;
        let rows = statement.query_map((), |row| row.get::<_, bool>(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    });
    assert_eq!(made.unwrap(), [false, false, true]);
}

#[test]
fn other_versions_are_refused() {
    for version in [0, FIRST_VERSION - 1, SCHEMA_VERSION + 1] {
        let (_directory, root) = store_of(&format!("PRAGMA user_version = {version}"));
        let refused = Store::open(&root, &crate::testing::OPTIONS);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(&format!("`tables {version}`")), "{text}");
    }
}

#[test]
fn migrations_run_from_the_version_that_is_there() {
    let migrations = ["CREATE TABLE one (id)", "CREATE TABLE two (id)"];
    for (found, expected) in [(0, vec!["one", "two"]), (1, vec!["two"]), (2, vec![])] {
        let mut db = Connection::open_in_memory().unwrap();
        db.pragma_update(None, "user_version", FIRST_VERSION + found).unwrap();
        let transaction = db.transaction().unwrap();
        migrate(&transaction, &migrations).unwrap();
        assert_eq!(version(&transaction).unwrap(), FIRST_VERSION + 2);
        let mut names = transaction.prepare("SELECT name FROM sqlite_master ORDER BY name").unwrap();
        let names: Vec<String> = names.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn only_a_durable_write_waits_for_the_disk() {
    let store = TestStore::new();
    let synchronous =
        |db: &Connection| Ok(db.query_row("PRAGMA synchronous", (), |row| row.get::<_, i64>(0))?);
    let (normal, full) = (1, 2);
    let durably = || store.0.db.write_durably("read", |db| synchronous(db));
    for _ in 0..2 {
        assert_eq!(durably().unwrap(), full);
        assert_eq!(store.0.db.write("read", |db| synchronous(db)).unwrap(), normal);
        let failed =
            |_: &Transaction<'_>| -> Result<(), Failure> { Err(rusqlite::Error::InvalidQuery.into()) };
        store.0.db.write_durably("fail", failed).unwrap_err();
        assert_eq!(store.0.db.read("read", synchronous).unwrap(), normal);
    }
}

/// `cargo test -p rbuild-cache --lib -- --ignored writes_the_fixture_of_this_version`
#[test]
#[ignore = "writes testdata/store, once for each version"]
fn writes_the_fixture_of_this_version() {
    let store = TestStore::new();
    fill(&store);
    let db = Connection::open(store.root().join("metadata.db")).unwrap();
    let path = format!("{FIXTURES}/tables-{SCHEMA_VERSION}.sql");
    fs::write(path, dump(&db)).unwrap();
}

/// The statements that make a database.
fn dump(db: &Connection) -> String {
    let mut text = String::from("PRAGMA foreign_keys = OFF;\n");
    let mut statement =
        db.prepare("SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL").unwrap();
    let objects: Vec<(String, String, String)> = statement
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (name, kind, sql) in objects {
        if name != "sqlite_sequence" {
            text += &format!("{sql};\n");
        }
        if kind == "table" {
            text += &inserts(db, &name);
        }
    }
    text + &format!("PRAGMA user_version = {SCHEMA_VERSION};\n")
}

fn inserts(db: &Connection, table: &str) -> String {
    let mut statement = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        (0..columns).map(|column| row.get(column)).collect::<Result<Vec<Value>, _>>()
    };
    let rows = statement.query_map((), row).unwrap();
    rows.map(|row| {
        let values: Vec<String> = row.unwrap().iter().map(literal).collect();
        format!("INSERT INTO {table} VALUES ({});\n", values.join(", "))
    })
    .collect()
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => {
            format!("x'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
    }
}
