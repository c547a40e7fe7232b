//! A database moves, and its index with it or without: every way there is to copy, rename, and open one, with the parts of
//! the index in files beside it and in the database itself. In each the answers are right, `annoy_info` says what is the
//! case, and the remedy it names works.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::words::{Folder, INDEX, check, info, words};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

const REBUILD: &str = "INSERT INTO words_index(words_index) VALUES('rebuild')";
const REFRESH: &str = "INSERT INTO words_index(words_index) VALUES('refresh')";
const STORAGES: [&str; 2] = ["file", "inline"];

/// CREATE VIRTUAL TABLE with this storage.
fn index(storage: &str) -> String {
    INDEX.replace("trees=3", &format!("trees=3, storage={storage}"))
}

/// A database with an index of two parts and a row that has changed since.
fn database(folder: &Folder, storage: &str, rng: &mut StdRng) -> Connection {
    let conn = common::open(folder.database());
    fill(&conn, storage, rng);
    conn
}

fn fill(conn: &Connection, storage: &str, rng: &mut StdRng) {
    words(conn, 200, rng);
    conn.execute_batch(&index(storage)).unwrap();
    conn.execute_batch(&format!(
        "UPDATE words SET vector = zeroblob(32) WHERE id < 40; {REFRESH};
         DELETE FROM words WHERE id = 100"
    ))
    .unwrap();
    check(conn, rng, storage);
    assert_eq!(info(conn, "state"), "pending", "{storage}");
    assert_eq!(info(conn, "parts"), "2", "{storage}");
    assert_eq!(info(conn, "storage"), storage);
}

/// The index answers from its table, says why, and the remedy works.
fn is_lost(conn: &Connection, rng: &mut StdRng, what: &str) {
    check(conn, rng, what);
    let state = info(conn, "state");
    assert!(state.starts_with("fallback: "), "{what}: {state}");
    conn.execute_batch("UPDATE words SET vector = zeroblob(32) WHERE id = 70")
        .unwrap();
    check(conn, rng, what);
    conn.execute_batch(&info(conn, "remedy"))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    check(conn, rng, what);
    assert_eq!(info(conn, "state"), "current", "{what}");
}

/// The index works as before, and goes on.
fn is_kept(conn: &Connection, rng: &mut StdRng, what: &str) {
    check(conn, rng, what);
    assert_eq!(info(conn, "state"), "pending", "{what}");
    conn.execute_batch("UPDATE words SET vector = zeroblob(32) WHERE id = 70")
        .unwrap();
    check(conn, rng, what);
    for command in [REFRESH, REBUILD] {
        conn.execute_batch(command)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        check(conn, rng, what);
        assert_eq!(info(conn, "state"), "current", "{what}");
    }
    let verdict: String = common::one(conn, "PRAGMA integrity_check");
    assert_eq!(verdict, "ok", "{what}");
}

/// What becomes of an index that moves without its files.
fn moved_alone(conn: &Connection, storage: &str, rng: &mut StdRng, what: &str) {
    match storage {
        "inline" => is_kept(conn, rng, what),
        _ => is_lost(conn, rng, what),
    }
    assert_eq!(info(conn, "storage"), storage, "{what}");
}

#[test]
fn vacuum_and_a_change_of_the_journal_keep_the_index() {
    let mut rng = StdRng::seed_from_u64(1);
    for storage in STORAGES {
        let folder = Folder::new("move-vacuum");
        let conn = database(&folder, storage, &mut rng);
        for sql in [
            "VACUUM",
            "PRAGMA journal_mode = wal",
            "PRAGMA page_size = 8192",
            "PRAGMA journal_mode = delete",
            "PRAGMA auto_vacuum = 1",
            "VACUUM",
        ] {
            let _ = common::rows(&conn, sql);
            check(&conn, &mut rng, sql);
            assert_eq!(info(&conn, "state"), "pending", "{sql}");
            let other = common::open(folder.database());
            check(&other, &mut rng, sql);
            assert_eq!(info(&other, "state"), "pending", "{sql}");
        }
        is_kept(&conn, &mut rng, storage);
    }
}

#[test]
fn copies_of_the_database_alone_keep_an_inline_index_and_rebuild_one_in_files() {
    let mut rng = StdRng::seed_from_u64(2);
    for storage in STORAGES {
        let folder = Folder::new("move-copies");
        let conn = database(&folder, storage, &mut rng);
        let into = |name: &str| folder.0.join(name);
        conn.execute("VACUUM INTO ?1", [into("into.db").to_str().unwrap()])
            .unwrap();
        fs::copy(folder.database(), into("copy.db")).unwrap();
        conn.backup("main", into("backup.db"), None::<fn(_)>)
            .unwrap();
        for name in ["into.db", "copy.db", "backup.db"] {
            moved_alone(&common::open(into(name)), storage, &mut rng, name);
        }
        // Four databases in one folder, each with its own files.
        is_kept(&conn, &mut rng, "the original");
        for name in ["into.db", "copy.db", "backup.db"] {
            let copy = common::open(into(name));
            check(&copy, &mut rng, name);
            assert_eq!(info(&copy, "state"), "current", "{name}");
            let files = folder.files();
            let ours = files.iter().filter(|f| f.starts_with(name)).count();
            assert_eq!(ours, usize::from(storage == "file"), "{name}: {files:?}");
        }
    }
}

#[test]
fn a_backup_out_of_memory_and_into_it_carries_an_inline_index() {
    let mut rng = StdRng::seed_from_u64(3);
    let folder = Folder::new("move-memory");
    // In memory an index is inline whatever was said, and so are copies of it.
    let memory = common::memory();
    words(&memory, 200, &mut rng);
    memory.execute_batch(&index("file")).unwrap();
    memory
        .execute_batch("DELETE FROM words WHERE id = 100")
        .unwrap();
    assert_eq!(info(&memory, "storage"), "inline");
    memory
        .backup("main", folder.database(), None::<fn(_)>)
        .unwrap();
    let saved = common::open(folder.database());
    check(&saved, &mut rng, "out of memory");
    assert_eq!(info(&saved, "state"), "pending");
    assert_eq!(info(&saved, "storage"), "inline");
    is_kept(&saved, &mut rng, "out of memory");
    assert_eq!(folder.files(), [""; 0]);
    for storage in STORAGES {
        let folder = Folder::new("move-memory-in");
        drop(database(&folder, storage, &mut rng));
        let mut memory = common::memory();
        memory
            .restore("main", folder.database(), None::<fn(_)>)
            .unwrap();
        match storage {
            "inline" => is_kept(&memory, &mut rng, "into memory"),
            _ => is_lost(&memory, &mut rng, "into memory"),
        }
        assert_eq!(info(&memory, "storage"), "inline");
    }
}

#[test]
fn a_renamed_database_finds_its_files_when_they_are_renamed_too() {
    let mut rng = StdRng::seed_from_u64(4);
    for storage in STORAGES {
        for along in [false, true] {
            let folder = Folder::new("move-renamed");
            drop(database(&folder, storage, &mut rng));
            let new = folder.0.join("new.db");
            fs::rename(folder.database(), &new).unwrap();
            if along {
                for file in folder.files() {
                    let to = file.replace("app.db", "new.db");
                    fs::rename(folder.0.join(file), folder.0.join(to)).unwrap();
                }
            }
            let conn = common::open(&new);
            match along {
                true => is_kept(&conn, &mut rng, "renamed with its files"),
                false => moved_alone(&conn, storage, &mut rng, "renamed"),
            }
        }
    }
}

#[test]
fn a_database_that_is_renamed_while_it_is_open_is_answered_for() {
    let mut rng = StdRng::seed_from_u64(5);
    for storage in STORAGES {
        let folder = Folder::new("move-open");
        let conn = database(&folder, storage, &mut rng);
        fs::rename(folder.database(), folder.0.join("new.db")).unwrap();
        check(&conn, &mut rng, "renamed while open");
        // SQLite itself refuses to write to it on some systems; if it does not, the index follows.
        if conn
            .execute_batch("DELETE FROM words WHERE id = 70")
            .is_ok()
        {
            check(&conn, &mut rng, "changed");
            for command in [REFRESH, REBUILD] {
                conn.execute_batch(command).unwrap();
                check(&conn, &mut rng, command);
                assert_eq!(info(&conn, "state"), "current", "{command}");
            }
        }
        drop(conn);
        let conn = common::open(folder.0.join("new.db"));
        check(&conn, &mut rng, "opened again");
    }
}

#[test]
fn the_index_follows_renamed_tables_columns_and_itself() {
    let mut rng = StdRng::seed_from_u64(6);
    for storage in STORAGES {
        let folder = Folder::new("move-alter");
        let conn = database(&folder, storage, &mut rng);
        let there_and_back = [
            "ALTER TABLE words RENAME TO texts",
            "ALTER TABLE texts RENAME COLUMN vector TO embedding",
            "ALTER TABLE texts RENAME COLUMN id TO nr",
            "ALTER TABLE words_index RENAME TO ix",
            "UPDATE texts SET embedding = zeroblob(32) WHERE nr = 10",
            "INSERT INTO ix(ix) VALUES('refresh')",
            "ALTER TABLE texts ADD COLUMN more",
            "ALTER TABLE ix RENAME TO words_index",
            "ALTER TABLE texts RENAME COLUMN nr TO id",
            "ALTER TABLE texts RENAME COLUMN embedding TO vector",
            "ALTER TABLE texts RENAME TO words",
        ];
        for sql in there_and_back {
            conn.execute_batch(sql)
                .unwrap_or_else(|e| panic!("{sql}: {e}"));
            let states = common::rows(&conn, "SELECT name, state FROM annoy_indexes");
            let state = format!("{states:?}");
            assert!(
                state.contains("current") || state.contains("pending"),
                "{sql}: {state}"
            );
        }
        conn.execute_batch("DELETE FROM words WHERE id = 103")
            .unwrap();
        is_kept(&conn, &mut rng, storage);
        // A rename that is rolled back never was.
        conn.execute_batch("BEGIN; ALTER TABLE words_index RENAME TO ix; ROLLBACK")
            .unwrap();
        check(&conn, &mut rng, "rolled back");
        conn.execute_batch("DROP TABLE words_index").unwrap();
        let left =
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'words_index%' OR name LIKE 'ix%'";
        assert_eq!(common::ids(&conn, left), [0], "{storage}");
        assert_eq!(folder.files(), [""; 0], "{storage}");
    }
}

#[test]
fn an_index_knows_its_column_whatever_the_columns_beside_it_do() {
    let mut rng = StdRng::seed_from_u64(16);
    for options in [
        "",
        "where='kind > 0'",
        "group=kind, combine=mean",
        "group=kind",
    ] {
        let folder = Folder::new("move-columns");
        let conn = common::open(folder.database());
        conn.execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, one, two, kind, v BLOB, other BLOB);
             CREATE INDEX by_kind ON t(kind)",
        )
        .unwrap();
        for i in 0..60 {
            conn.execute(
                "INSERT INTO t VALUES(?1, 1, 2, ?1 % 50 + 1, ?2, ?3)",
                (
                    i,
                    common::words::vector(&mut rng, 8),
                    common::words::vector(&mut rng, 8),
                ),
            )
            .unwrap();
        }
        let comma = if options.is_empty() { "" } else { ", " };
        conn.execute_batch(&format!(
            "CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2{comma}{options})"
        ))
        .unwrap();
        let query = common::words::vector(&mut rng, 8);
        let answer = |conn: &Connection| {
            common::words::select(
                conn,
                "SELECT rowid, distance FROM knn_annoy('ix', ?1, 10, 1000000)",
                [&query],
            )
        };
        let mut expected = answer(&conn);
        assert_eq!(expected.len(), 10);
        for sql in [
            "ALTER TABLE t DROP COLUMN one",
            "ALTER TABLE t RENAME COLUMN v TO \"a \"\"vector\"\"\"",
            "ALTER TABLE t RENAME COLUMN other TO v",
            "ALTER TABLE t RENAME COLUMN kind TO sort",
            "ALTER TABLE t RENAME COLUMN two TO kind",
            "ALTER TABLE t DROP COLUMN kind",
            "ALTER TABLE t DROP COLUMN v",
            "ALTER TABLE t ADD COLUMN v",
            "ALTER TABLE t ADD COLUMN kind",
            // Seen by the trigger that has been carried along.
            "UPDATE t SET \"a \"\"vector\"\"\" = NULL WHERE id = 7",
            "INSERT INTO ix(ix) VALUES('refresh')",
            "INSERT INTO ix(ix) VALUES('integrity-check')",
            "INSERT INTO ix(ix) VALUES('rebuild')",
        ] {
            if sql.starts_with("UPDATE") {
                conn.execute_batch(sql).unwrap();
                // Without triggers: what a new index of the same says.
                let (column, group) = ("\"a \"\"vector\"\"\"", options.replace("kind", "sort"));
                conn.execute_batch(&format!(
                    "CREATE VIRTUAL TABLE beside USING annoy(t, {column}, metric=l2{comma}{group})"
                ))
                .unwrap_or_else(|e| panic!("{group}: {e}"));
                expected = common::words::select(
                    &conn,
                    "SELECT rowid, distance FROM knn_annoy('beside', ?1, 10, 1000000)",
                    [&query],
                );
                conn.execute_batch("DROP TABLE beside").unwrap();
            } else {
                conn.execute_batch(sql)
                    .unwrap_or_else(|e| panic!("{options}: {sql}: {e}"));
            }
            let fresh = common::open(folder.database());
            for conn in [&conn, &fresh] {
                assert_eq!(answer(conn), expected, "{options}: {sql}");
                let state: String = common::one(
                    conn,
                    "SELECT value FROM annoy_info('ix') WHERE key = 'state'",
                );
                assert!(!state.starts_with("fallback"), "{options}: {sql}: {state}");
            }
        }
    }
}

#[test]
fn a_column_that_was_renamed_unseen_is_an_error_and_not_another_column() {
    let mut rng = StdRng::seed_from_u64(19);
    let folder = Folder::new("move-unseen");
    let conn = database(&folder, "file", &mut rng);
    // A table made anew takes its triggers with it.
    conn.execute_batch(
        "CREATE TABLE anew(id INTEGER PRIMARY KEY, word TEXT UNIQUE, other BLOB, v BLOB);
         INSERT INTO anew SELECT id, word, zeroblob(32), vector FROM words;
         DROP TABLE words; ALTER TABLE anew RENAME TO words",
    )
    .unwrap();
    for sql in [
        "SELECT * FROM knn_annoy('words_index', zeroblob(32), 3)",
        REBUILD,
    ] {
        let lost = common::error(&conn, sql);
        assert!(
            lost.starts_with("no such column: vector in words; its columns are id, word, other, v"),
            "{sql}: {lost}"
        );
    }
}

#[test]
fn a_name_that_no_file_can_have_is_refused_with_a_remedy() {
    let mut rng = StdRng::seed_from_u64(20);
    let folder = Folder::new("move-long");
    let conn = common::open(folder.database());
    words(&conn, 20, &mut rng);
    let create = |storage: &str| {
        let name = "\u{6570}".repeat(30);
        format!("CREATE VIRTUAL TABLE {name} USING annoy(words, vector, storage={storage})")
    };
    let refused = common::error(&conn, &create("file"));
    assert!(
        refused.contains("and 255 are possible") && refused.ends_with("or storage=inline"),
        "{refused}"
    );
    assert_eq!(folder.files(), [""; 0]);
    conn.execute_batch(&create("inline")).unwrap();
}

#[test]
fn a_table_that_is_dropped_and_made_again_is_answered_for() {
    let mut rng = StdRng::seed_from_u64(7);
    for storage in STORAGES {
        let folder = Folder::new("move-drop");
        let conn = database(&folder, storage, &mut rng);
        conn.execute_batch("CREATE TABLE kept AS SELECT * FROM words; DROP TABLE words")
            .unwrap();
        let lost = common::error(
            &conn,
            "SELECT * FROM knn_annoy('words_index', zeroblob(32), 3)",
        );
        assert!(
            lost.starts_with("no such table: words, which index"),
            "{lost}"
        );
        let listed = common::rows(&conn, "SELECT state FROM annoy_indexes");
        assert!(
            format!("{listed:?}").contains("no such table: words"),
            "{listed:?}"
        );
        conn.execute_batch(
            "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT UNIQUE, vector BLOB);
             INSERT INTO words SELECT * FROM kept WHERE id % 2",
        )
        .unwrap();
        is_lost(&conn, &mut rng, "another table of the name");
        // The index itself, dropped and made again, also within one transaction that comes to nothing.
        let again = format!("DROP TABLE words_index; {}", index(storage));
        conn.execute_batch(&format!("BEGIN; {again}; ROLLBACK"))
            .unwrap();
        check(&conn, &mut rng, "rolled back");
        assert_eq!(info(&conn, "state"), "current");
        conn.execute_batch(&again).unwrap();
        conn.execute_batch("DELETE FROM words WHERE id = 103")
            .unwrap();
        is_kept(&conn, &mut rng, "again");
    }
}

/// What the sqlite3 shell prints for `.dump`: tables with their rows as they come in the schema, virtual ones as rows of
/// the schema, then all else.
fn dump(conn: &Connection) -> String {
    let mut out = String::from("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n");
    let text = |sql: &str| -> Vec<[String; 4]> {
        let mut statement = conn.prepare(sql).unwrap();
        let rows = statement.query_map([], |r| Ok([r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?]));
        rows.unwrap().map(Result::unwrap).collect()
    };
    let quote = |s: &str| format!("'{}'", s.replace('\'', "''"));
    let mut has_virtual = false;
    for [_, name, table, sql] in text(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE type = 'table' AND sql NOT NULL ORDER BY rowid",
    ) {
        if sql.starts_with("CREATE VIRTUAL TABLE") {
            if !has_virtual {
                out.push_str("PRAGMA writable_schema=ON;\n");
                has_virtual = true;
            }
            let values = [quote(&name), quote(&table), "0".to_owned(), quote(&sql)].join(",");
            writeln!(out, "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table',{values});")
                .unwrap();
            continue;
        }
        writeln!(
            out,
            "{};",
            sql.replacen("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)
        )
        .unwrap();
        let mut statement = conn.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..columns)
                .map(|i| match row.get_ref(i).unwrap() {
                    ValueRef::Null => "NULL".to_owned(),
                    ValueRef::Integer(i) => i.to_string(),
                    ValueRef::Real(x) => format!("{x:e}"),
                    ValueRef::Text(t) => quote(std::str::from_utf8(t).unwrap()),
                    ValueRef::Blob(b) => {
                        let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
                        format!("X'{hex}'")
                    }
                })
                .collect();
            writeln!(out, "INSERT INTO \"{name}\" VALUES({});", values.join(",")).unwrap();
        }
    }
    for [_, _, _, sql] in text(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE type IN ('index','trigger','view') AND sql NOT NULL",
    ) {
        writeln!(out, "{sql};").unwrap();
    }
    if has_virtual {
        out.push_str("PRAGMA writable_schema=OFF;\n");
    }
    out.push_str("COMMIT;\n");
    out
}

#[test]
fn a_dump_that_is_loaded_again_carries_an_inline_index() {
    let mut rng = StdRng::seed_from_u64(8);
    for storage in STORAGES {
        let folder = Folder::new("move-dump");
        let conn = database(&folder, storage, &mut rng);
        let dumped = dump(&conn);
        let path = folder.0.join("loaded.db");
        let loading = common::open(&path);
        loading.execute_batch(&dumped).unwrap();
        drop(loading);
        let loaded = common::open(&path);
        moved_alone(&loaded, storage, &mut rng, "dumped");
        // And over the original, whose files are still there.
        let more = format!("{};", "DELETE FROM words WHERE id = 109");
        conn.execute_batch(&more).unwrap();
        let dumped = dump(&conn);
        drop(conn);
        fs::remove_file(folder.database()).unwrap();
        common::open(folder.database())
            .execute_batch(&dumped)
            .unwrap();
        is_kept(
            &common::open(folder.database()),
            &mut rng,
            "over the original",
        );
    }
}

#[test]
fn the_shell_dumps_and_loads_without_the_extension() {
    let shell = |database: &Path, input: &str| -> Option<String> {
        let child = Command::new("sqlite3")
            .arg("-batch")
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: there is no sqlite3 shell");
            return None;
        };
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success());
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let mut rng = StdRng::seed_from_u64(9);
    for storage in STORAGES {
        let folder = Folder::new("move-shell");
        let conn = database(&folder, storage, &mut rng);
        let Some(dumped) = shell(&folder.database(), ".dump\n") else {
            return;
        };
        let path = folder.0.join("loaded.db");
        shell(&path, &format!(".dbconfig defensive off\n{dumped}"));
        let loaded = common::open(&path);
        moved_alone(&loaded, storage, &mut rng, "shell");
        // A program that does not know the extension changes the table, and copies the database.
        let edit = "DELETE FROM words WHERE id = 130; VACUUM;\n.backup backup.db\n";
        let edit = edit.replace("backup.db", folder.0.join("backup.db").to_str().unwrap());
        shell(&folder.database(), &edit);
        is_kept(&conn, &mut rng, "changed by the shell");
        let copy = common::open(folder.0.join("backup.db"));
        moved_alone(&copy, storage, &mut rng, "copied by the shell");
    }
}

#[test]
fn attached_and_temporary_databases_have_indexes_as_main_has() {
    let mut rng = StdRng::seed_from_u64(10);
    for storage in STORAGES {
        let folder = Folder::new("move-attached");
        drop(database(&folder, storage, &mut rng));
        let conn = common::memory();
        let attach = |name: &str| {
            conn.execute_batch(&format!(
                "ATTACH '{}' AS {name}",
                folder.database().to_str().unwrap()
            ))
            .unwrap();
        };
        attach("one");
        check(&conn, &mut rng, "attached");
        assert_eq!(info(&conn, "state"), "pending");
        conn.execute_batch("DETACH one").unwrap();
        attach("two");
        is_kept(&conn, &mut rng, "attached by another name");
        conn.execute_batch("DETACH two").unwrap();
        let files = usize::from(storage == "file");
        assert_eq!(folder.files().len(), files, "{storage}");
        // A temporary database has no file.
        let conn = common::open(folder.0.join("other.db"));
        conn.execute_batch(
            "CREATE TEMP TABLE words(id INTEGER PRIMARY KEY, word TEXT UNIQUE, vector BLOB)",
        )
        .unwrap();
        conn.execute(
            "ATTACH ?1 AS from_it",
            [folder.database().to_str().unwrap()],
        )
        .unwrap();
        conn.execute_batch("INSERT INTO temp.words SELECT * FROM from_it.words; DETACH from_it")
            .unwrap();
        conn.execute_batch(&index(storage).replace("TABLE ", "TABLE temp."))
            .unwrap();
        conn.execute_batch("DELETE FROM words WHERE id = 133")
            .unwrap();
        assert_eq!(info(&conn, "storage"), "inline");
        is_kept(&conn, &mut rng, "temporary");
        assert_eq!(folder.files().len(), files, "{storage}");
    }
}

#[test]
fn what_cannot_be_written_is_searched_and_says_so() {
    let mut rng = StdRng::seed_from_u64(11);
    for storage in STORAGES {
        let folder = Folder::new("move-readonly");
        drop(database(&folder, storage, &mut rng));
        let before = folder.files();
        for how in ["mode=ro", "immutable=1"] {
            let conn = common::open(format!("file:{}?{how}", folder.database().display()));
            check(&conn, &mut rng, how);
            assert_eq!(info(&conn, "state"), "pending", "{how}");
            for sql in [REBUILD, REFRESH, "DROP TABLE words_index"] {
                let refused = common::error(&conn, sql);
                assert_eq!(refused, "attempt to write a readonly database", "{sql}");
            }
            check(&conn, &mut rng, how);
        }
        // `query_only` is the host's own promise.
        let conn = common::open(folder.database());
        conn.execute_batch("PRAGMA query_only = on").unwrap();
        check(&conn, &mut rng, "query_only");
        common::error(&conn, REBUILD);
        conn.execute_batch("PRAGMA query_only = off").unwrap();
        assert_eq!(folder.files(), before);
        // A folder that takes no file (tests may run as root, whom permissions do not stop): something is in the way.
        let way = |n| {
            folder.0.join(format!(
                "app.db-words_index-{n}.annoy.tmp-{}",
                std::process::id()
            ))
        };
        for n in 3..6 {
            fs::create_dir_all(way(n).join("in the way")).unwrap();
        }
        conn.execute_batch("UPDATE words SET vector = zeroblob(32) WHERE id = 70")
            .unwrap();
        for sql in [REBUILD, REFRESH] {
            if storage == "file" {
                let refused = common::error(&conn, sql);
                assert!(
                    refused.contains("the folder of the database must be writable"),
                    "{refused}"
                );
                check(&conn, &mut rng, "as it was");
                assert_eq!(info(&conn, "state"), "pending");
            } else {
                conn.execute_batch(sql).unwrap();
                check(&conn, &mut rng, "no file needed");
                conn.execute_batch("UPDATE words SET vector = zeroblob(32) WHERE id = 130")
                    .unwrap();
            }
        }
        (3..6).for_each(|n| fs::remove_dir_all(way(n)).unwrap());
        conn.execute_batch("DELETE FROM words WHERE id = 133")
            .unwrap();
        is_kept(&conn, &mut rng, "out of the way");
    }
}

#[test]
#[cfg(unix)]
fn a_database_behind_a_symbolic_link_has_its_files_beside_itself() {
    let mut rng = StdRng::seed_from_u64(12);
    for storage in STORAGES {
        let folder = Folder::new("move-linked");
        let conn = database(&folder, storage, &mut rng);
        let other = Folder::new("move-links");
        std::os::unix::fs::symlink(folder.database(), other.database()).unwrap();
        let linked = common::open(other.database());
        is_kept(&linked, &mut rng, "by way of a link");
        assert_eq!(other.files(), [""; 0]);
        check(&conn, &mut rng, "rebuilt by way of a link");
        assert_eq!(info(&conn, "state"), "current");
    }
}

#[test]
fn damage_to_an_inline_index_is_noticed_in_every_byte() {
    let mut rng = StdRng::seed_from_u64(13);
    let folder = Folder::new("move-damage");
    // Whoever opens the index while its copy lives shares that.
    database(&folder, "inline", &mut rng)
        .execute_batch(REBUILD)
        .unwrap();
    let writer = common::open(folder.database());
    let bytes: Vec<u8> = common::one(&writer, "SELECT bytes FROM words_index_parts");
    let put = |bytes: &[u8]| {
        writer
            .execute("UPDATE words_index_parts SET bytes = ?1", [bytes])
            .unwrap();
    };
    let mut damaged: Vec<(String, Vec<u8>)> = Vec::new();
    for at in (0..bytes.len()).step_by(97) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        damaged.push((format!("byte {at}"), bytes));
    }
    for len in [0, 1, 64, bytes.len() / 2, bytes.len() - 1] {
        damaged.push((format!("{len} bytes"), bytes[..len].to_vec()));
    }
    damaged.push(("longer".to_owned(), [&bytes[..], &[0]].concat()));
    for (what, damaged) in &damaged {
        put(damaged);
        let fresh = common::open(folder.database());
        check(&fresh, &mut rng, what);
        assert!(info(&fresh, "state").starts_with("fallback: "), "{what}");
        common::error(
            &fresh,
            "INSERT INTO words_index(words_index) VALUES('integrity-check')",
        );
    }
    // A connection that has its copy finds it too.
    put(&bytes);
    let conn = common::open(folder.database());
    check(&conn, &mut rng, "undamaged");
    put(&damaged[0].1);
    check(&conn, &mut rng, "from the copy");
    assert_eq!(info(&conn, "state"), "current");
    let found = common::error(
        &conn,
        "INSERT INTO words_index(words_index) VALUES('integrity-check')",
    );
    assert!(found.contains("index words_index: "), "{found}");
    put(&bytes);
    for sql in [
        "DELETE FROM words_index_parts",
        "UPDATE words_index_parts SET bytes = 'text'",
        "UPDATE words_index_parts SET bytes = NULL",
        "UPDATE words_index_parts SET generation = 99",
        "INSERT INTO words_index_parts SELECT generation, 1, x'00' FROM words_index_parts",
        "DROP TABLE words_index_parts",
    ] {
        conn.execute_batch(sql).unwrap();
        let fresh = common::open(folder.database());
        is_lost(&fresh, &mut rng, sql);
    }
    conn.execute_batch("DROP TABLE words_index_parts; DROP TABLE words_index")
        .unwrap();
    conn.execute_batch(&index("inline")).unwrap();
    check(&conn, &mut rng, "made again");
}

/// Bytes of the anonymous maps that are only read: copies of inline parts.
#[cfg(target_os = "linux")]
fn copied() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (range, mode, inode) = (fields.next()?, fields.next()?, fields.nth(2)?);
            if mode != "r--p" || inode != "0" || fields.next().is_some() {
                return None;
            }
            let (from, to) = range.split_once('-')?;
            let number = |hex| usize::from_str_radix(hex, 16).ok();
            Some(number(to)? - number(from)?)
        })
        .sum()
}

#[cfg(target_os = "linux")]
#[test]
fn connections_of_a_process_share_one_copy_of_an_inline_index() {
    let mut rng = StdRng::seed_from_u64(17);
    let folder = Folder::new("move-share");
    let conn = common::open(folder.database());
    words(&conn, 20_000, &mut rng);
    conn.execute_batch(&index("inline")).unwrap();
    let bytes: usize =
        common::one::<i64>(&conn, "SELECT sum(length(bytes)) FROM words_index_parts") as usize;
    check(&conn, &mut rng, "the first");
    let before = copied();
    assert!(before >= bytes, "{before} {bytes}");
    let others: Vec<_> = (0..12)
        .map(|i| {
            let other = common::open(folder.database());
            check(&other, &mut rng, "another");
            assert_eq!(info(&other, "state"), "current", "{i}");
            other
        })
        .collect();
    // Tests beside this one have copies, too: two or three at a time that are as large.
    let after = copied();
    assert!(
        after < before + 6 * bytes,
        "{before} and then {after} for {bytes} bytes"
    );
    // The copy goes on when the one who made it has gone, or has a newer one.
    conn.execute_batch(REBUILD).unwrap();
    drop(conn);
    for other in &others {
        check(other, &mut rng, "alone");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_database_that_claims_the_inline_index_of_another_gets_nothing_of_it() {
    let mut rng = StdRng::seed_from_u64(18);
    let (theirs, ours) = (Folder::new("move-claimed"), Folder::new("move-claims"));
    let conn = database(&theirs, "inline", &mut rng);
    conn.execute("VACUUM INTO ?1", [ours.database().to_str().unwrap()])
        .unwrap();
    check(&conn, &mut rng, "its copy is open");
    let hostile = common::open(ours.database());
    hostile
        .execute_batch("UPDATE words_index_parts SET bytes = zeroblob(length(bytes))")
        .unwrap();
    is_lost(&hostile, &mut rng, "claimed");
}

#[test]
fn a_table_that_has_the_name_of_the_parts_is_left_alone() {
    let mut rng = StdRng::seed_from_u64(14);
    let folder = Folder::new("move-parts");
    let conn = common::open(folder.database());
    words(&conn, 50, &mut rng);
    conn.execute_batch(
        "CREATE TABLE words_index_parts(mine); INSERT INTO words_index_parts VALUES(1)",
    )
    .unwrap();
    let refused = common::error(&conn, &index("inline"));
    assert!(
        refused.contains("\"words_index_parts\" already exists"),
        "{refused}"
    );
    conn.execute_batch(&index("file")).unwrap();
    conn.execute_batch(REBUILD).unwrap();
    check(&conn, &mut rng, "beside it");
    conn.execute_batch("DROP TABLE words_index").unwrap();
    assert_eq!(
        common::ids(&conn, "SELECT mine FROM words_index_parts"),
        [1]
    );
}

#[test]
fn an_inline_index_of_many_chunks_follows_transactions() {
    let mut rng = StdRng::seed_from_u64(15);
    let folder = Folder::new("move-chunks");
    let conn = common::open(folder.database());
    let _: String = common::one(&conn, "PRAGMA journal_mode = wal");
    words(&conn, 20_000, &mut rng);
    conn.execute_batch(&index("inline")).unwrap();
    check(&conn, &mut rng, "many chunks");
    let chunks = common::ids(&conn, "SELECT count(*) FROM words_index_parts");
    assert!(chunks[0] > 4, "{chunks:?}");
    let generations = "SELECT DISTINCT generation FROM words_index_parts";
    let reader = common::open(folder.database());
    reader.execute_batch("BEGIN").unwrap();
    check(&reader, &mut rng, "before");
    conn.execute_batch(&format!(
        "BEGIN; UPDATE words SET vector = zeroblob(32) WHERE id % 7 = 0; SAVEPOINT s; {REFRESH}; SAVEPOINT t; {REBUILD}"
    ))
    .unwrap();
    check(&conn, &mut rng, "rebuilt");
    assert_eq!(common::ids(&conn, generations), [3]);
    conn.execute_batch("ROLLBACK TO t").unwrap();
    check(&conn, &mut rng, "back to the refresh");
    assert_eq!(common::ids(&conn, generations), [1, 2]);
    conn.execute_batch("ROLLBACK TO s").unwrap();
    check(&conn, &mut rng, "back to the changes");
    assert_eq!(info(&conn, "state"), "pending");
    conn.execute_batch(&format!("{REBUILD}; COMMIT")).unwrap();
    assert_eq!(common::ids(&conn, generations), [2]);
    check(&conn, &mut rng, "committed");
    // The snapshot has its own generation, also for a connection that has not read it yet.
    check(&reader, &mut rng, "the old snapshot");
    assert_eq!(info(&reader, "state"), "current");
    assert_eq!(info(&reader, "generation"), "1");
    assert_eq!(folder.files(), [""; 0]);
}
