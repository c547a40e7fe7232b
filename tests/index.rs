//! The index follows its table: through writes of every kind, transactions, renames, restarts and damage.
//!
//! The oracle is always the same: `knn_exact` over a copy of the table that has no index, and the plain f64 distances.

mod common;

use std::path::Path;

use common::words::{Folder, INDEX, check, info, select, truth, vector, words};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rusqlite::Connection;

#[test]
fn every_kind_of_write_is_seen_at_once() {
    let mut rng = StdRng::seed_from_u64(1);
    let folder = Folder::new("writes");
    let conn = common::open(folder.database());
    words(&conn, 300, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    check(&conn, &mut rng, "built");
    for sql in [
        "INSERT INTO words SELECT 5000, 'new', vector FROM words WHERE id = 10",
        "UPDATE words SET vector = (SELECT vector FROM words WHERE id = 13) WHERE id = 16",
        "UPDATE words SET id = 6000 WHERE id = 19",
        "UPDATE words SET rowid = 6001 WHERE id = 22",
        "UPDATE words SET vector = NULL WHERE id = 25",
        "DELETE FROM words WHERE id BETWEEN 30 AND 60",
        // REPLACE removes the row with the word 'w50' by way of its UNIQUE constraint; no delete trigger runs.
        "INSERT OR REPLACE INTO words SELECT 7000, 'w50', vector FROM words WHERE id = 13",
        "REPLACE INTO words SELECT 7001, 'w51', vector FROM words WHERE id = 10",
        "UPDATE OR REPLACE words SET word = 'w60' WHERE word = 'w61'",
        "UPDATE OR REPLACE words SET id = 7000 WHERE id = 7001",
        "INSERT INTO words SELECT 10, 'up', vector FROM words WHERE id = 13 ON CONFLICT DO UPDATE SET vector = excluded.vector",
        "INSERT OR IGNORE INTO words SELECT 10, 'ignored', vector FROM words WHERE id = 13",
        "DELETE FROM words",
        "INSERT INTO words SELECT 1, 'again', zeroblob(32)",
    ] {
        conn.execute_batch(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        check(&conn, &mut rng, sql);
    }
    conn.execute_batch("INSERT INTO words_index(words_index) VALUES('rebuild')")
        .unwrap();
    check(&conn, &mut rng, "rebuilt");
    conn.execute_batch("DROP TABLE words_index").unwrap();
    assert_eq!(folder.files(), [""; 0]);
}

#[test]
fn rows_that_a_foreign_key_changes_or_removes_are_noticed() {
    let mut rng = StdRng::seed_from_u64(27);
    let folder = Folder::new("cascades");
    let conn = common::open(folder.database());
    words(&conn, 120, &mut rng);
    conn.execute_batch(
        "PRAGMA foreign_keys = on;
         CREATE TABLE keys AS SELECT * FROM words; DROP TABLE words;
         CREATE TABLE parents(id INTEGER PRIMARY KEY);
         INSERT INTO parents SELECT id FROM keys;
         CREATE TABLE words(
             id INTEGER PRIMARY KEY REFERENCES parents ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
             word TEXT UNIQUE, vector BLOB);
         INSERT INTO words SELECT * FROM keys",
    )
    .unwrap();
    conn.execute_batch(INDEX).unwrap();
    check(&conn, &mut rng, "built");
    for sql in [
        "DELETE FROM parents WHERE id % 5 = 0",
        "UPDATE parents SET id = id + 1000 WHERE id < 40",
        "SAVEPOINT s; DELETE FROM parents WHERE id > 100",
        "ROLLBACK TO s; RELEASE s",
        "REPLACE INTO parents SELECT id FROM parents WHERE id BETWEEN 100 AND 150",
        "INSERT INTO words_index(words_index) VALUES('refresh')",
        "DELETE FROM parents WHERE id > 200",
    ] {
        conn.execute_batch(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        check(&conn, &mut rng, sql);
        assert_ne!(&info(&conn, "state")[..4], "fall", "{sql}");
    }
    conn.execute_batch("INSERT INTO words_index(words_index) VALUES('integrity-check')")
        .unwrap();
}

#[test]
fn an_answer_follows_the_transaction_it_runs_in() {
    let mut rng = StdRng::seed_from_u64(2);
    let folder = Folder::new("transactions");
    let conn = common::open(folder.database());
    words(&conn, 200, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    for sql in [
        "BEGIN",
        "DELETE FROM words WHERE id % 2 = 0",
        "SAVEPOINT a",
        "UPDATE words SET vector = zeroblob(32) WHERE id < 50",
        "SAVEPOINT b",
        "DELETE FROM words WHERE id > 100",
        "ROLLBACK TO b",
        "INSERT INTO words_index(words_index) VALUES('rebuild')",
        "ROLLBACK TO a",
        "DELETE FROM words WHERE id > 300",
        "RELEASE a",
        "ROLLBACK",
        "BEGIN",
        "DELETE FROM words WHERE id > 200",
        "INSERT INTO words_index(words_index) VALUES('rebuild')",
        "COMMIT",
    ] {
        conn.execute_batch(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        check(&conn, &mut rng, sql);
    }
    assert_eq!(folder.files().len(), 1, "{:?}", folder.files());
}

#[test]
fn files_come_and_go_with_transactions() {
    let mut rng = StdRng::seed_from_u64(3);
    let folder = Folder::new("files");
    let conn = common::open(folder.database());
    words(&conn, 50, &mut rng);
    conn.execute_batch(&format!("BEGIN; {INDEX}")).unwrap();
    assert_eq!(folder.files(), ["app.db-words_index-1.annoy"]);
    conn.execute_batch("ROLLBACK").unwrap();
    assert_eq!(folder.files(), [""; 0]);
    conn.execute_batch(INDEX).unwrap();
    assert_eq!(folder.files(), ["app.db-words_index-1.annoy"]);
    conn.execute_batch("BEGIN; INSERT INTO words_index(words_index) VALUES('rebuild')")
        .unwrap();
    assert_eq!(
        folder.files(),
        ["app.db-words_index-1.annoy", "app.db-words_index-2.annoy"]
    );
    conn.execute_batch("ROLLBACK").unwrap();
    assert_eq!(folder.files(), ["app.db-words_index-1.annoy"]);
    conn.execute_batch("BEGIN; DROP TABLE words_index").unwrap();
    assert_eq!(folder.files(), ["app.db-words_index-1.annoy"]);
    conn.execute_batch("ROLLBACK").unwrap();
    check(&conn, &mut rng, "after a DROP that was rolled back");
    conn.execute_batch("ALTER TABLE words_index RENAME TO \"other-name\"")
        .unwrap();
    assert_eq!(folder.files(), ["app.db-other%2dname-1.annoy"]);
    conn.execute_batch("DROP TABLE \"other-name\"").unwrap();
    assert_eq!(folder.files(), [""; 0]);
    assert_eq!(
        common::one::<i64>(
            &conn,
            "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> 'words' OR type = 'trigger'"
        ),
        0
    );
}

#[test]
fn refresh_adds_a_part_and_takes_small_ones_in() {
    let mut rng = StdRng::seed_from_u64(16);
    let folder = Folder::new("parts");
    let conn = common::open(folder.database());
    words(&conn, 2000, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    let refresh = "INSERT INTO words_index(words_index) VALUES('refresh')";
    for (sql, parts, files) in [
        ("DELETE FROM words WHERE id BETWEEN 100 AND 200", "2", 1),
        (
            "INSERT INTO words SELECT id + 100000, 'x' || id, vector FROM words WHERE id < 1000",
            "2",
            2,
        ),
        (
            "UPDATE words SET vector = zeroblob(32) WHERE id BETWEEN 1000 AND 1060",
            "3",
            3,
        ),
        ("DELETE FROM words WHERE id BETWEEN 1030 AND 1050", "3", 3),
        ("DELETE FROM words WHERE id > 100500", "2", 2),
        ("DELETE FROM words WHERE id > 2000", "1", 1),
    ] {
        conn.execute_batch(sql).unwrap();
        check(&conn, &mut rng, sql);
        conn.execute_batch(refresh).unwrap();
        check(&conn, &mut rng, sql);
        assert_eq!(
            (&*info(&conn, "parts"), folder.files().len()),
            (parts, files),
            "{sql}"
        );
        assert_eq!(info(&conn, "state"), "current");
        assert_eq!(
            info(&conn, "items"),
            common::one::<String>(&conn, "SELECT CAST(count(vector) AS TEXT) FROM words")
        );
        conn.execute_batch("INSERT INTO words_index(words_index) VALUES('integrity-check')")
            .unwrap();
        check(&common::open(folder.database()), &mut rng, sql);
    }
    conn.execute_batch("DROP TABLE words_index").unwrap();
    assert_eq!(folder.files(), [""; 0]);
}

#[test]
fn a_part_that_is_missing_or_exchanged_makes_the_table_answer() {
    let mut rng = StdRng::seed_from_u64(17);
    let folder = Folder::new("missing-part");
    let conn = common::open(folder.database());
    words(&conn, 500, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    conn.execute_batch("UPDATE words SET vector = zeroblob(32) WHERE id < 60; INSERT INTO words_index(words_index) VALUES('refresh')")
        .unwrap();
    let files = folder.files();
    let [main, part] = &files[..] else {
        panic!("{files:?}")
    };
    let good = std::fs::read(folder.0.join(part)).unwrap();
    for bad in [None, Some(std::fs::read(folder.0.join(main)).unwrap())] {
        match bad {
            None => std::fs::remove_file(folder.0.join(part)).unwrap(),
            Some(bytes) => replace(&folder.0.join(part), &bytes),
        }
        let conn = common::open(folder.database());
        check(&conn, &mut rng, "without its part");
        assert!(info(&conn, "state").starts_with("fallback: "));
        replace(&folder.0.join(part), &good);
    }
    // The list of what the part hides.
    let conn = common::open(folder.database());
    assert_eq!(info(&conn, "state"), "current");
    conn.execute_batch(
        "UPDATE words_index_catalog SET value = x'0000000000000000' WHERE key LIKE 'hides:%'",
    )
    .unwrap();
    let conn = common::open(folder.database());
    check(&conn, &mut rng, "without its list");
    assert!(info(&conn, "state").contains("is damaged"));
}

#[test]
fn names_that_come_back_within_a_transaction_lose_no_file() {
    let mut rng = StdRng::seed_from_u64(18);
    let folder = Folder::new("names-come-back");
    let conn = common::open(folder.database());
    words(&conn, 100, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    let there_and_back =
        "ALTER TABLE words_index RENAME TO i; ALTER TABLE i RENAME TO words_index;";
    let anew = format!("DROP TABLE words_index; {INDEX};");
    for sql in [there_and_back, &anew] {
        for end in ["ROLLBACK", "COMMIT", "SAVEPOINT s; ROLLBACK TO s; COMMIT"] {
            conn.execute_batch(&format!("BEGIN; {sql} {end}")).unwrap();
            check(&conn, &mut rng, sql);
            assert_eq!(info(&conn, "state"), "current", "{sql} {end}");
            assert_eq!(folder.files().len(), 1, "{sql} {end}");
        }
        conn.execute_batch(&format!(
            "BEGIN; SAVEPOINT s; {sql} ROLLBACK TO s; {sql} COMMIT"
        ))
        .unwrap();
        assert_eq!(
            (&*info(&conn, "state"), folder.files().len()),
            ("current", 1)
        );
    }
}

#[test]
fn rows_that_replace_removes_by_way_of_any_unique_index_are_noticed() {
    let mut rng = StdRng::seed_from_u64(19);
    let folder = Folder::new("unique");
    let conn = common::open(folder.database());
    words(&conn, 100, &mut rng);
    // The index compares in another way than the column does.
    conn.execute_batch("CREATE UNIQUE INDEX other ON words(word COLLATE NOCASE)")
        .unwrap();
    conn.execute_batch(INDEX).unwrap();
    conn.execute_batch("REPLACE INTO words SELECT 9000, 'W50', vector FROM words WHERE id = 10")
        .unwrap();
    check(&conn, &mut rng, "collation");
    assert_eq!(info(&conn, "state"), "pending");
    // One that the triggers do not know yet.
    conn.execute_batch(
        "CREATE UNIQUE INDEX third ON words(length(word), lower(word), substr(word, 2))",
    )
    .unwrap();
    conn.execute_batch("REPLACE INTO words SELECT 9001, 'W51 ', vector FROM words WHERE id = 10")
        .unwrap();
    check(&conn, &mut rng, "an index over expressions");
    assert!(
        info(&conn, "state").contains("UNIQUE index"),
        "{}",
        info(&conn, "state")
    );
    conn.execute_batch("DROP INDEX third; CREATE UNIQUE INDEX third ON words(word, id)")
        .unwrap();
    check(&conn, &mut rng, "a new index");
    assert!(
        info(&conn, "state").contains("other UNIQUE indexes"),
        "{}",
        info(&conn, "state")
    );
    conn.execute_batch("INSERT INTO words_index(words_index) VALUES('refresh')")
        .unwrap();
    assert_eq!(info(&conn, "state"), "current");
    check(&conn, &mut rng, "made anew");
}

#[test]
fn what_a_trigger_sees_in_the_middle_of_a_replace_is_not_believed_afterwards() {
    let mut rng = StdRng::seed_from_u64(20);
    let conn = common::memory();
    words(&conn, 50, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    // Runs a search after the row that REPLACE removes was noted and before it is removed.
    conn.execute_batch(
        "CREATE TABLE seen(id);
         CREATE TRIGGER a_spy BEFORE INSERT ON words BEGIN
           INSERT INTO seen SELECT rowid FROM knn_annoy('words_index', new.vector, 50);
         END;",
    )
    .unwrap();
    for i in 0..20 {
        conn.execute(
            "REPLACE INTO words VALUES(?1, ?2, ?3)",
            (1000 + i, format!("w{i}"), vector(&mut rng, 8)),
        )
        .unwrap();
        check(&conn, &mut rng, "replaced");
    }
    assert!(common::one::<i64>(&conn, "SELECT count(*) FROM seen") > 900);
}

#[test]
fn a_search_in_returning_sees_the_row_that_has_just_changed() {
    let mut rng = StdRng::seed_from_u64(29);
    let folder = Folder::new("in-returning");
    let conn = common::open(folder.database());
    words(&conn, 60, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    check(&conn, &mut rng, "built");
    let (row, other) = (vector(&mut rng, 8), vector(&mut rng, 8));
    let search = [
        "SELECT rowid FROM knn_annoy('words_index', ?1, 1)",
        "SELECT rowid FROM knn_exact('words', 'vector', ?1, 1)",
        "SELECT rowid FROM words_index WHERE vector MATCH ?1 AND k = 1",
        "SELECT rowid FROM knn_annoy_batch('words_index', ?1, 1)",
    ];
    for search in search {
        let returned = |sql: &str, row: &[u8]| -> (i64, i64) {
            conn.query_row(&format!("{sql} RETURNING id, ({search})"), [row], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .unwrap()
        };
        let got = returned("INSERT INTO words VALUES(9000, 'nine', ?1)", &row);
        assert_eq!(got, (9000, 9000), "INSERT, {search}");
        let got = returned("UPDATE words SET vector = ?1 WHERE id = 9000", &other);
        assert_eq!(got, (9000, 9000), "UPDATE, {search}");
        let (gone, nearest) = returned("DELETE FROM words WHERE vector = ?1", &other);
        assert_eq!(gone, 9000, "DELETE, {search}");
        assert_ne!(nearest, 9000, "DELETE, {search}");
        check(&conn, &mut rng, search);
    }
}

#[test]
fn a_change_of_the_schema_is_noticed_under_every_name_and_among_many_indexes() {
    let folder = Folder::new("many-readers");
    let [conn, other] = [(); 2].map(|()| common::open(folder.database()));
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB, w BLOB);
         INSERT INTO t VALUES(1, vec_f32('[1,0]'), vec_f32('[0,1]')), (2, vec_f32('[0,1]'), vec_f32('[1,0]'));
         CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2)",
    )
    .unwrap();
    // Of more statements than are kept.
    let many = 100;
    for i in 0..many {
        conn.execute_batch(&format!(
            "CREATE TABLE t{i}(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO t{i} VALUES(1, zeroblob(8));
             CREATE VIRTUAL TABLE i{i} USING annoy(t{i}, v, storage=inline)"
        ))
        .unwrap();
    }
    let search_many = || {
        for i in 0..many {
            let sql = format!(
                "SELECT rowid FROM knn_annoy('i{i}', zeroblob(8), 1) UNION ALL
                 SELECT rowid FROM knn_exact('t{i}', 'v', zeroblob(8), 1)"
            );
            assert_eq!(common::ids(&conn, &sql), [1, 1]);
        }
    };
    let check = |nearest: i64, (table, column): (&str, &str), when: &str| {
        for name in ["ix", "main.ix", "IX"] {
            let sql = format!("SELECT rowid FROM knn_annoy('{name}', '[1,0]', 1)");
            assert_eq!(common::ids(&conn, &sql), [nearest], "{name}, {when}");
        }
        let sql = format!("SELECT rowid FROM knn_exact('{table}', '{column}', '[1,0]', 1)");
        assert_eq!(common::ids(&conn, &sql), [nearest], "{table}, {when}");
    };
    for evicted in [false, true] {
        let change = |sql: &str| {
            other.execute_batch(sql).unwrap();
            if evicted {
                search_many();
            }
        };
        check(1, ("t", "v"), "as made");
        change("DROP TABLE ix; CREATE VIRTUAL TABLE ix USING annoy(t, w, metric=l2)");
        check(2, ("t", "w"), "made anew");
        change("ALTER TABLE t RENAME TO u");
        check(2, ("u", "w"), "another name of the table");
        change("ALTER TABLE u RENAME COLUMN v TO x; ALTER TABLE u RENAME COLUMN w TO v");
        check(2, ("u", "v"), "other names of the columns");
        change(
            "DROP TABLE ix; ALTER TABLE u RENAME COLUMN v TO w; ALTER TABLE u RENAME COLUMN x TO v; ALTER TABLE u RENAME TO t;
             CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2)",
        );
        check(1, ("t", "v"), "as before");
    }
}

#[test]
fn rows_that_replace_removes_by_way_of_a_generated_column_are_noticed() {
    let columns = [
        "g AS (a / 2) UNIQUE",
        "g AS (a / 2) STORED UNIQUE",
        "g AS (id / 2) UNIQUE",
        "g AS (id % 7), word TEXT DEFAULT 'w', UNIQUE(word, g)",
        "g AS (id / 2 || a) UNIQUE ON CONFLICT REPLACE",
    ];
    for (columns, filter) in columns.into_iter().zip(["", ", where='a > 0'"].repeat(3)) {
        let conn = common::memory();
        conn.execute_batch(&format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT NOT NULL DEFAULT 7, v BLOB, {columns});
             WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 20)
             INSERT OR REPLACE INTO t(id, a, v) SELECT 2 * i, 2 * i, vec_f32('[' || i || ', 1]') FROM i;
             CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2{filter})"
        ))
        .unwrap();
        for write in [
            // Conflicts that are there once the default is in the place of NULL, or SQLite has chosen a rowid.
            "REPLACE INTO t(a, v) VALUES(NULL, vec_f32('[100, 1]'))",
            "UPDATE OR REPLACE t SET a = NULL WHERE id IN (2, 12)",
            "REPLACE INTO t(v) VALUES(vec_f32('[101, 1]')), (vec_f32('[102, 1]'))",
        ] {
            conn.execute_batch(write).unwrap();
            conn.execute_batch("INSERT INTO ix(ix) VALUES('integrity-check')")
                .unwrap_or_else(|error| panic!("{columns}{filter}, {write}: {error}"));
            assert_eq!(
                common::ids(
                    &conn,
                    "SELECT rowid FROM knn_annoy('ix', '[0, 1]') ORDER BY rowid"
                ),
                common::ids(&conn, "SELECT id FROM t ORDER BY id"),
                "{columns}{filter}, {write}"
            );
        }
    }
}

#[test]
fn a_search_in_a_trigger_sees_the_row_that_has_just_changed() {
    let mut rng = StdRng::seed_from_u64(28);
    let folder = Folder::new("in-triggers");
    let conn = common::open(folder.database());
    words(&conn, 60, &mut rng);
    conn.execute_batch(&format!("{INDEX}; CREATE TABLE log(what, id)"))
        .unwrap();
    check(&conn, &mut rng, "built");
    // SQLite runs temporary triggers first, and then the youngest.
    let nearest =
        |row: &str| format!("SELECT rowid FROM knn_annoy('words_index', {row}.vector, 1)");
    for kind in ["", "TEMP"] {
        for (event, row) in [("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old")] {
            conn.execute_batch(&format!(
                "CREATE {kind} TRIGGER {event}_{kind} AFTER {event} ON main.words BEGIN
                     INSERT INTO log SELECT '{event}{kind}', ({}); END",
                nearest(row)
            ))
            .unwrap();
        }
        for rebuilt in [false, true] {
            let logged = |sql: &str, row: &[u8]| -> Vec<i64> {
                conn.execute(sql, [row]).unwrap();
                let ids = common::ids(&conn, "SELECT id FROM log");
                conn.execute_batch("DELETE FROM log").unwrap();
                ids
            };
            let triggers = if kind.is_empty() { 1 } else { 2 };
            let (row, other) = (vector(&mut rng, 8), vector(&mut rng, 8));
            let got = logged("INSERT INTO words VALUES(9000, 'nine', ?1)", &row);
            assert_eq!(got, vec![9000; triggers], "INSERT {kind} {rebuilt}");
            let got = logged("UPDATE words SET vector = ?1 WHERE id = 9000", &other);
            assert_eq!(got, vec![9000; triggers], "UPDATE {kind} {rebuilt}");
            let got = logged("DELETE FROM words WHERE vector = ?1", &other);
            assert_eq!(got.len(), triggers, "DELETE {kind} {rebuilt}");
            assert!(!got.contains(&9000), "DELETE {kind} {rebuilt}");
            check(&conn, &mut rng, kind);
            conn.execute_batch("INSERT INTO words_index(words_index) VALUES('rebuild')")
                .unwrap();
        }
    }
    // Nothing is slower for a statement that writes without such triggers, or with ours the youngest.
    conn.execute_batch(
        "DROP TRIGGER INSERT_TEMP; DROP TRIGGER UPDATE_TEMP; DROP TRIGGER DELETE_TEMP",
    )
    .unwrap();
    conn.execute_batch(
        "INSERT INTO log SELECT 1, rowid FROM knn_annoy('words_index', zeroblob(32), 3)",
    )
    .unwrap();
    let by: String = common::stat(&conn, "answered_by");
    assert!(by.starts_with("index"), "{by}");
}

#[test]
fn no_byte_of_a_small_index_can_change_unnoticed() {
    let mut rng = StdRng::seed_from_u64(21);
    let folder = Folder::new("every-byte");
    let conn = common::open(folder.database());
    words(&conn, 12, &mut rng);
    conn.execute_batch("CREATE VIRTUAL TABLE words_index USING annoy(words, vector)")
        .unwrap();
    let query = vector(&mut rng, 8);
    let truth = truth(&conn, &query, "cosine");
    let file = folder.0.join(&folder.files()[0]);
    let good = std::fs::read(&file).unwrap();
    let ask = |bytes: &[u8], what: String| {
        replace(&file, bytes);
        let conn = common::open(folder.database());
        let got = select(
            &conn,
            "SELECT rowid, distance FROM knn_annoy('words_index', ?1, 12)",
            [&query],
        );
        assert_eq!(got, truth, "{what}");
        info(&conn, "state")
    };
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(
            ask(&bad, format!("byte {at}")).starts_with("fallback"),
            "byte {at}"
        );
    }
    for len in (0..good.len()).step_by(7) {
        assert!(
            ask(&good[..len], format!("{len} bytes")).starts_with("fallback"),
            "{len} bytes"
        );
    }
    assert_eq!(ask(&good, "whole".to_owned()), "current");
}

#[test]
fn changes_that_no_trigger_noted_are_noticed_at_first_use() {
    let mut rng = StdRng::seed_from_u64(22);
    for change in [
        "DELETE FROM words WHERE id = (SELECT max(id) FROM words)",
        "INSERT INTO words SELECT 9999, 'more', vector FROM words WHERE id = 10",
        "INSERT INTO words SELECT -9999, 'less', vector FROM words WHERE id = 10",
        "UPDATE words SET vector = (SELECT vector FROM words WHERE id = 10)",
        "UPDATE words SET id = id + 1000000",
    ] {
        let folder = Folder::new("unnoticed");
        let conn = common::open(folder.database());
        words(&conn, 100, &mut rng);
        conn.execute_batch(INDEX).unwrap();
        conn.execute_batch(&format!("{change}; DELETE FROM words_index_changes"))
            .unwrap();
        let conn = common::open(folder.database());
        check(&conn, &mut rng, change);
        let conn = common::open(folder.database());
        let _ = select(
            &conn,
            "SELECT rowid, distance FROM words_index WHERE vector MATCH ?1 AND k = 1",
            [vector(&mut rng, 8)],
        );
        let error = common::error(
            &conn,
            "INSERT INTO words_index(words_index) VALUES('integrity-check')",
        );
        assert!(error.contains("no trigger noted"), "{change}: {error}");
        conn.execute_batch("INSERT INTO words_index(words_index) VALUES('refresh')")
            .unwrap();
        conn.execute_batch("INSERT INTO words_index(words_index) VALUES('integrity-check')")
            .unwrap();
        assert_eq!(info(&conn, "state"), "current");
    }
}

#[test]
fn many_changes_at_once_are_searched_exactly_and_approximately() {
    let mut rng = StdRng::seed_from_u64(26);
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); CREATE VIEW bare AS SELECT id, v FROM t",
    )
    .unwrap();
    let mut put = |from: i64, to: i64| {
        conn.execute_batch("BEGIN").unwrap();
        for id in from..to {
            conn.execute("REPLACE INTO t VALUES(?1, ?2)", (id, vector(&mut rng, 64)))
                .unwrap();
        }
        conn.execute_batch("COMMIT").unwrap();
    };
    put(0, 12_000);
    conn.execute_batch("CREATE VIRTUAL TABLE ix USING annoy(t, v)")
        .unwrap();
    // Scanned; coded; with lists; changed again; gone again.
    for (from, to) in [
        (0, 1000),
        (1000, 4000),
        (11_000, 17_000),
        (500, 2000),
        (0, 0),
    ] {
        put(from, to);
        if from == to {
            conn.execute_batch("DELETE FROM t WHERE id % 3 = 0 AND id < 5000")
                .unwrap();
        }
        let (mut found, queries) = (0, 30);
        let mut other = StdRng::seed_from_u64(from as u64);
        for _ in 0..queries {
            let query = vector(&mut other, 64);
            let truth = select(
                &conn,
                "SELECT rowid, distance FROM knn_exact('bare', 'v', ?1, 10)",
                [&query],
            );
            let exact = select(
                &conn,
                "SELECT rowid, distance FROM knn_exact('t', 'v', ?1, 10)",
                [&query],
            );
            assert_eq!(exact, truth, "{from}..{to}");
            let near = select(
                &conn,
                "SELECT rowid, distance FROM knn_annoy('ix', ?1, 10)",
                [&query],
            );
            assert_eq!(near.len(), 10);
            found += near.iter().filter(|hit| truth.contains(hit)).count();
        }
        assert!(
            found * 100 >= queries * 10 * 88,
            "{from}..{to}: {found} of {}",
            queries * 10
        );
    }
}

#[test]
fn auto_refresh_waits_until_enough_has_changed() {
    let mut rng = StdRng::seed_from_u64(23);
    let conn = common::memory();
    words(&conn, 200, &mut rng);
    conn.execute_batch(
        "CREATE VIRTUAL TABLE words_index USING annoy(words, vector, auto_refresh=0.1)",
    )
    .unwrap();
    let maybe = "INSERT INTO words_index(words_index) VALUES('auto-refresh')";
    for (changed, state) in [(1, "pending"), (19, "pending"), (20, "current")] {
        conn.execute(
            "UPDATE words SET vector = zeroblob(32) WHERE id < ?1 * 3 - 20",
            [changed],
        )
        .unwrap();
        conn.execute_batch(maybe).unwrap();
        assert_eq!(info(&conn, "state"), state, "{changed} changed");
        check(&conn, &mut rng, "auto-refresh");
    }
    assert_eq!(
        common::error(
            &conn,
            "CREATE VIRTUAL TABLE other USING annoy(words, vector, auto_refresh=2)"
        ),
        "auto_refresh must be a number from 0 to 1, got 2"
    );
}

#[test]
#[cfg(unix)]
fn a_link_that_somebody_planted_is_not_followed() {
    let mut rng = StdRng::seed_from_u64(25);
    let folder = Folder::new("planted");
    let conn = common::open(folder.database());
    words(&conn, 50, &mut rng);
    let precious = folder.0.join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let pid = std::process::id();
    for name in [
        "app.db-words_index-1.annoy".to_owned(),
        format!("app.db-words_index-1.annoy.tmp-{pid}"),
    ] {
        std::os::unix::fs::symlink(&precious, folder.0.join(name)).unwrap();
    }
    conn.execute_batch(INDEX).unwrap();
    check(&conn, &mut rng, "built");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    let files = folder.files();
    assert_eq!(files.len(), 1);
    let file = folder.0.join(&files[0]);
    assert!(!file.is_symlink());
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions())
    };
    assert_eq!(mode(&file), mode(&folder.database()));
}

#[test]
fn a_build_sweeps_what_crashes_left_and_nothing_else() {
    let mut rng = StdRng::seed_from_u64(15);
    let folder = Folder::new("sweep");
    let conn = common::open(folder.database());
    words(&conn, 50, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    conn.execute_batch("INSERT INTO words_index(words_index) VALUES('rebuild')")
        .unwrap();
    let strays = [
        "app.db-words_index-1.annoy",
        "app.db-words_index-9.annoy",
        "app.db-words_index-3.annoy.tmp-77",
    ];
    let others = [
        "app.db-words-1.annoy",
        "app.db-words_index-x.annoy",
        "other.db-words_index-1.annoy",
    ];
    for name in strays.iter().chain(&others) {
        std::fs::write(folder.0.join(name), "left behind").unwrap();
    }
    conn.execute_batch(
        "BEGIN; INSERT INTO words_index(words_index) VALUES('rebuild');
         SAVEPOINT a; INSERT INTO words_index(words_index) VALUES('rebuild'); ROLLBACK TO a",
    )
    .unwrap();
    check(&conn, &mut rng, "in the transaction");
    conn.execute_batch("ROLLBACK").unwrap();
    check(&conn, &mut rng, "rolled back");
    let mut expected: Vec<_> = others.iter().map(ToString::to_string).collect();
    expected.push("app.db-words_index-2.annoy".into());
    expected.sort();
    assert_eq!(folder.files(), expected);
}

#[test]
fn the_index_follows_its_table_through_renames() {
    let mut rng = StdRng::seed_from_u64(4);
    let folder = Folder::new("renames");
    let conn = common::open(folder.database());
    words(&conn, 100, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    conn.execute_batch("ALTER TABLE words RENAME TO renamed; DELETE FROM renamed WHERE id < 30")
        .unwrap();
    conn.execute_batch(
        "ALTER TABLE renamed RENAME COLUMN vector TO v; DELETE FROM renamed WHERE id < 60",
    )
    .unwrap();
    conn.execute_batch(
        "ALTER TABLE renamed RENAME TO words; ALTER TABLE words RENAME COLUMN v TO vector",
    )
    .unwrap();
    check(&conn, &mut rng, "there and back");
    conn.execute_batch("ALTER TABLE words RENAME TO things; ALTER TABLE words_index RENAME TO i")
        .unwrap();
    conn.execute_batch("DELETE FROM things WHERE id < 90; INSERT INTO i(i) VALUES('rebuild')")
        .unwrap();
    conn.execute_batch("ALTER TABLE i RENAME TO words_index; ALTER TABLE things RENAME TO words")
        .unwrap();
    check(&conn, &mut rng, "renamed, rebuilt, renamed");
}

#[test]
fn a_second_connection_reads_the_same_file_and_the_same_rows() {
    let mut rng = StdRng::seed_from_u64(5);
    let folder = Folder::new("second");
    let writer = common::open(folder.database());
    writer.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    words(&writer, 200, &mut rng);
    writer.execute_batch(INDEX).unwrap();
    let reader = common::open(folder.database());
    check(&reader, &mut rng, "opened");
    reader.execute_batch("BEGIN").unwrap();
    let query = vector(&mut rng, 8);
    let before = truth(&reader, &query, "cosine");
    writer
        .execute_batch("DELETE FROM words WHERE id < 200; INSERT INTO words_index(words_index) VALUES('rebuild')")
        .unwrap();
    // The old snapshot has the old rows, and its file has gone: the table answers.
    check(&reader, &mut rng, "old snapshot");
    assert_eq!(truth(&reader, &query, "cosine"), before);
    reader.execute_batch("COMMIT").unwrap();
    check(&reader, &mut rng, "new snapshot");
    assert_ne!(truth(&reader, &query, "cosine"), before);
}

#[test]
fn a_missing_or_damaged_file_is_answered_from_the_table() {
    let mut rng = StdRng::seed_from_u64(6);
    let folder = Folder::new("damage");
    words(&common::open(folder.database()), 100, &mut rng);
    common::open(folder.database())
        .execute_batch(INDEX)
        .unwrap();
    let file = folder.0.join(&folder.files()[0]);
    let good = std::fs::read(&file).unwrap();
    let state = |what: &str, expected: &str, rng: &mut StdRng| {
        let conn = common::open(folder.database());
        check(&conn, rng, what);
        let state: String = common::one(
            &conn,
            "SELECT value FROM annoy_info('words_index') WHERE key = 'state'",
        );
        assert!(state.starts_with(expected), "{what}: {state}");
    };
    state("whole", "current", &mut rng);
    replace(&file, &good[..good.len() / 2]);
    state("truncated", "fallback: ", &mut rng);
    replace(&file, &[]);
    state("empty", "fallback: ", &mut rng);
    let mut foreign = good.clone();
    foreign[9] ^= 0x40;
    replace(&file, &foreign);
    state("header damaged", "fallback: ", &mut rng);
    std::fs::remove_file(&file).unwrap();
    state("missing", "fallback: ", &mut rng);
    common::open(folder.database())
        .execute_batch("INSERT INTO words_index(words_index) VALUES('refresh')")
        .unwrap();
    state("repaired", "current", &mut rng);
}

/// As a careful program replaces a file: never in place.
fn replace(file: &Path, bytes: &[u8]) {
    let temporary = file.with_extension("new");
    std::fs::write(&temporary, bytes).unwrap();
    std::fs::rename(temporary, file).unwrap();
}

#[test]
fn integrity_check_finds_what_triggers_could_not_note() {
    let mut rng = StdRng::seed_from_u64(7);
    let folder = Folder::new("integrity");
    let conn = common::open(folder.database());
    words(&conn, 100, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    conn.execute_batch("DELETE FROM words WHERE id = 10; INSERT INTO words_index(words_index) VALUES('integrity-check')").unwrap();
    assert_eq!(common::one::<String>(&conn, "PRAGMA integrity_check"), "ok");
    conn.execute_batch("DELETE FROM words_index_changes")
        .unwrap();
    let message = common::error(
        &conn,
        "INSERT INTO words_index(words_index) VALUES('integrity-check')",
    );
    assert!(
        message.contains("the file has 1 rows that the table lacks"),
        "{message}"
    );
    assert!(
        common::one::<String>(&conn, "PRAGMA integrity_check").contains("that the table lacks")
    );
    conn.execute_batch("INSERT INTO words_index(words_index) VALUES('rebuild'); DROP TRIGGER words_index_annoy_update; UPDATE words SET vector = zeroblob(32) WHERE id = 13").unwrap();
    // Without its trigger the file is not trusted at all.
    check(&conn, &mut rng, "trigger dropped");
    let state: String = common::one(
        &conn,
        "SELECT value FROM annoy_info('words_index') WHERE key = 'state'",
    );
    assert!(state.starts_with("fallback: the triggers"), "{state}");
}

#[test]
fn an_empty_table_is_indexed_and_filled_later() {
    let mut rng = StdRng::seed_from_u64(8);
    let conn = common::memory();
    conn.execute_batch("CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT UNIQUE, vector BLOB)")
        .unwrap();
    conn.execute_batch(INDEX).unwrap();
    check(&conn, &mut rng, "empty");
    conn.execute_batch("INSERT INTO words VALUES(1, 'a', zeroblob(32)), (2, 'b', NULL)")
        .unwrap();
    check(&conn, &mut rng, "one row");
    conn.execute_batch("INSERT INTO words_index(words_index) VALUES('refresh')")
        .unwrap();
    check(&conn, &mut rng, "refreshed");
    assert_eq!(
        common::rows(&conn, "SELECT name, items, state FROM annoy_indexes()").len(),
        1
    );
}

/// A database in memory, and `aux` in the folder.
fn beside_another(conn: Connection, folder: &Folder) -> Connection {
    let other = folder.0.join("other.db");
    conn.execute("ATTACH ?1 AS aux", [other.to_str().unwrap()])
        .unwrap();
    conn
}

#[test]
fn indexes_live_in_memory_temporary_and_attached_databases() {
    let folder = Folder::new("attached");
    let conn = beside_another(common::memory(), &folder);
    for schema in ["main", "temp", "aux"] {
        conn.execute_batch(&format!(
            "CREATE TABLE {schema}.t(id INTEGER PRIMARY KEY, v BLOB);
             INSERT INTO {schema}.t VALUES(1, zeroblob(8)), (2, x'0000803f00000000'), (3, x'000000000000803f');
             CREATE VIRTUAL TABLE {schema}.{schema}_i USING annoy(t, v, metric=l2);"
        ))
        .unwrap_or_else(|e| panic!("{schema}: {e}"));
        let rows = select(
            &conn,
            &format!("SELECT rowid, distance FROM knn_annoy('{schema}_i', '[1, 0.25]', 2)"),
            [],
        );
        assert_eq!(rows, [(2, 0.25), (1, 1.0625f64.sqrt())], "{schema}");
        let state: String = common::one(
            &conn,
            &format!("SELECT value FROM annoy_info('{schema}.{schema}_i') WHERE key = 'state'"),
        );
        assert_eq!(state, "current", "{schema}");
    }
    assert_eq!(folder.files(), ["other.db-aux_i-1.annoy"]);
}

#[test]
fn a_bare_name_means_the_index_that_sqlite_would_mean() {
    let folder = Folder::new("bare-names");
    let conn = beside_another(common::open(folder.database()), &folder);
    let found = || common::ids(&conn, "SELECT rowid FROM knn_annoy('ix', '[1, 0]', 1)");
    for (i, schema) in ["aux", "main", "temp"].into_iter().enumerate() {
        conn.execute_batch(&format!(
            "CREATE TABLE {schema}.t(id INTEGER PRIMARY KEY, v BLOB);
             INSERT INTO {schema}.t VALUES({i}, x'0000803f00000000');
             CREATE VIRTUAL TABLE {schema}.iy USING annoy(t, v)"
        ))
        .unwrap();
        if schema == "main" {
            conn.execute_batch(
                "DROP TABLE main.iy; CREATE VIRTUAL TABLE main.ix USING annoy(t, v)",
            )
            .unwrap();
        } else {
            conn.execute_batch(&format!("ALTER TABLE {schema}.iy RENAME TO ix"))
                .unwrap();
        }
        assert_eq!(found(), [i as i64], "{schema}");
    }
    // Also one that another connection makes.
    conn.execute_batch("DROP TABLE temp.ix; DROP TABLE main.ix")
        .unwrap();
    assert_eq!(found(), [0]);
    common::open(folder.database())
        .execute_batch("CREATE VIRTUAL TABLE ix USING annoy(t, v)")
        .unwrap();
    assert_eq!(found(), [1]);
    conn.execute_batch("CREATE VIRTUAL TABLE temp.ix USING annoy(t, v)")
        .unwrap();
    for (i, schema) in [(2, "temp"), (1, "main"), (0, "aux")] {
        assert_eq!(found(), [i]);
        conn.execute_batch(&format!("DROP TABLE {schema}.ix"))
            .unwrap();
    }
}

#[test]
fn an_interrupt_ends_a_build_soon_and_leaves_nothing() {
    let mut rng = StdRng::seed_from_u64(11);
    let folder = Folder::new("interrupt");
    let conn = common::open(folder.database());
    words(&conn, 20_000, &mut rng);
    common::stops_soon(|| {
        let (outcome, late) =
            common::interrupted(&conn, std::time::Duration::from_millis(300), || {
                conn.execute_batch(
                    "CREATE VIRTUAL TABLE words_index USING annoy(words, vector, trees=10000)",
                )
            });
        let error = outcome.unwrap_err();
        assert_eq!(
            error.sqlite_error_code(),
            Some(rusqlite::ErrorCode::OperationInterrupted),
            "{error}"
        );
        assert_eq!(folder.files(), [""; 0]);
        assert_eq!(
            common::one::<i64>(
                &conn,
                "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> 'words'"
            ),
            0
        );
        late
    });
    conn.execute_batch(INDEX).unwrap();
    check(&conn, &mut rng, "built after all");
}

#[test]
fn a_read_only_database_is_searched_and_not_written() {
    let mut rng = StdRng::seed_from_u64(12);
    let folder = Folder::new("readonly");
    {
        let conn = common::open(folder.database());
        words(&conn, 100, &mut rng);
        conn.execute_batch(INDEX).unwrap();
    }
    let uri = format!("file:{}?mode=ro", folder.database().display());
    let conn = common::open(uri);
    check(&conn, &mut rng, "read only");
    for sql in [
        "INSERT INTO words_index(words_index) VALUES('rebuild')",
        "CREATE VIRTUAL TABLE other USING annoy(words, vector)",
        "DROP TABLE words_index",
        "ALTER TABLE words_index RENAME TO other",
    ] {
        assert_eq!(
            common::error(&conn, sql),
            "attempt to write a readonly database",
            "{sql}"
        );
    }
    assert_eq!(folder.files(), ["app.db-words_index-1.annoy"]);
    check(&conn, &mut rng, "still there");
}

#[test]
fn a_host_in_defensive_mode_can_write_to_the_table() {
    let mut rng = StdRng::seed_from_u64(13);
    let folder = Folder::new("defensive");
    let conn = common::open(folder.database());
    words(&conn, 100, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)
        .unwrap();
    conn.set_db_config(
        rusqlite::config::DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA,
        false,
    )
    .unwrap();
    conn.execute_batch("DELETE FROM words WHERE id < 100")
        .unwrap();
    check(&conn, &mut rng, "deleted");
    conn.execute_batch("INSERT INTO words_index(words_index) VALUES('rebuild')")
        .unwrap();
    check(&conn, &mut rng, "rebuilt");
    assert!(
        common::error(&conn, "DELETE FROM words_index_catalog").contains("may not be modified")
    );
    conn.execute_batch("ALTER TABLE words_index RENAME TO i; ALTER TABLE i RENAME TO words_index")
        .unwrap();
    check(&conn, &mut rng, "renamed");
    conn.execute_batch("DROP TABLE words_index").unwrap();
}

#[test]
fn a_program_without_the_extension_writes_and_the_index_notices() {
    let mut rng = StdRng::seed_from_u64(14);
    let folder = Folder::new("foreign");
    let conn = common::open(folder.database());
    words(&conn, 100, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    check(&conn, &mut rng, "before");
    // A connection that loses the module knows no more of annoy than one that never had it.
    let foreign = common::open(folder.database());
    for module in [c"annoy", c"annoy_files", c"knn_exact", c"knn_annoy"] {
        remove_module(&foreign, module);
    }
    assert!(common::error(&foreign, "SELECT * FROM words_index").contains("no such module: annoy"));
    foreign
        .execute_batch("DELETE FROM words WHERE id < 50; REPLACE INTO words SELECT 1, 'w60', vector FROM words WHERE id = 100")
        .unwrap();
    check(&conn, &mut rng, "after");
    let _ = foreign.execute_batch("VACUUM");
    check(&conn, &mut rng, "after VACUUM");
}

#[allow(unsafe_code)]
fn remove_module(conn: &Connection, name: &std::ffi::CStr) {
    // SAFETY: an open connection; a null module removes the one of that name.
    let code = unsafe {
        rusqlite::ffi::sqlite3_create_module_v2(
            conn.handle(),
            name.as_ptr(),
            std::ptr::null(),
            std::ptr::null_mut(),
            None,
        )
    };
    assert_eq!(code, 0);
}

#[test]
fn closing_a_connection_with_an_open_index_succeeds() {
    let mut rng = StdRng::seed_from_u64(10);
    let folder = Folder::new("close");
    let conn = common::open(folder.database());
    words(&conn, 50, &mut rng);
    conn.execute_batch(INDEX).unwrap();
    check(&conn, &mut rng, "before closing");
    conn.close().map_err(|(_, e)| e).unwrap();
}
