//! Connections and processes that meet over one index: two that build at once, and readers in old snapshots.

mod common;

use std::process::Command;
use std::time::Duration;

use common::words::{Folder, INDEX, check, info, words};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rusqlite::{Connection, ErrorCode};

const REBUILD: &str = "INSERT INTO words_index(words_index) VALUES('rebuild')";
const REFRESH: &str = "INSERT INTO words_index(words_index) VALUES('refresh')";
const STORAGES: [&str; 2] = ["file", "inline"];

/// A database in this journal mode with an index of this storage over `n` rows.
fn database(folder: &Folder, journal: &str, storage: &str, n: usize) -> Connection {
    let conn = common::open(folder.database());
    let _: String = common::one(&conn, &format!("PRAGMA journal_mode = {journal}"));
    words(&conn, n, &mut StdRng::seed_from_u64(n as u64));
    conn.execute_batch(&INDEX.replace("trees=3", &format!("trees=3, storage={storage}")))
        .unwrap();
    conn
}

/// How many files an index of one part has.
fn one_part(storage: &str) -> usize {
    usize::from(storage == "file")
}

#[test]
fn of_two_connections_that_build_one_waits_or_is_told_that_the_other_does() {
    let mut rng = StdRng::seed_from_u64(1);
    for (journal, storage) in [
        ("wal", "file"),
        ("delete", "file"),
        ("wal", "inline"),
        ("delete", "inline"),
    ] {
        let what = format!("{journal}, {storage}");
        let folder = Folder::new("builders");
        let one = database(&folder, journal, storage, 300);
        let two = common::open(folder.database());
        two.busy_timeout(Duration::ZERO).unwrap();
        check(&two, &mut rng, &what);
        one.execute_batch(&format!(
            "BEGIN; UPDATE words SET vector = zeroblob(32) WHERE id = 10; {REBUILD}"
        ))
        .unwrap();
        for sql in [
            REBUILD,
            "UPDATE words SET vector = zeroblob(32) WHERE id = 13",
            "ALTER TABLE words_index RENAME TO other",
            "DROP TABLE words_index",
        ] {
            let refused = two.execute_batch(sql).unwrap_err();
            assert_eq!(
                refused.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy),
                "{what}: {sql}: {refused}"
            );
            check(&one, &mut rng, &what);
            check(&two, &mut rng, &what);
        }
        one.execute_batch("COMMIT").unwrap();
        check(&two, &mut rng, &what);
        two.execute_batch(REBUILD).unwrap();
        check(&one, &mut rng, &what);
        // Those who wait, get their turn.
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let database = folder.database();
                std::thread::spawn(move || {
                    let conn = common::open(database);
                    conn.busy_timeout(Duration::from_secs(60)).unwrap();
                    for i in 0..8 {
                        let id = 3 * (8 * n + i) + 100;
                        // A transaction that begins as a reader may find that it can't become a writer.
                        conn.execute_batch(&format!(
                            "BEGIN IMMEDIATE; DELETE FROM words WHERE id = {id}; {}; COMMIT",
                            if i % 3 == 0 { REBUILD } else { REFRESH }
                        ))
                        .unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        for conn in [&one, &two] {
            check(conn, &mut rng, &what);
            assert_eq!(info(conn, "state"), "current", "{what}");
            conn.execute_batch("INSERT INTO words_index(words_index) VALUES('integrity-check')")
                .unwrap();
        }
        one.execute_batch(REBUILD).unwrap();
        assert_eq!(folder.files().len(), one_part(storage), "{what}");
    }
}

/// Set: this is the other process, and the database it works on.
const OTHER: &str = "ANNOY_TEST_OTHER_PROCESS";

/// Searches that an index of 3,000 rows answers.
const SEARCHES: [&str; 4] = [
    "SELECT rowid, distance FROM knn_annoy('words_index', zeroblob(32), 3, 100)",
    "SELECT * FROM knn_annoy_batch('words_index', (SELECT vec_pack(zeroblob(32))), 3)",
    "SELECT rowid, distance FROM words_index WHERE vector MATCH zeroblob(32) AND k = 3",
    "SELECT rowid, distance FROM knn_exact('words', 'vector', zeroblob(32), 3)",
];

/// Whether the index answers a search, or else the table.
fn is_by_index(conn: &Connection, sql: &str) -> bool {
    assert_eq!(common::rows(conn, sql).len(), 3, "{sql}");
    let by: String = common::one(
        conn,
        "SELECT value FROM annoy_stats() WHERE key = 'answered_by'",
    );
    assert!(by.starts_with("index") || by == "table", "{sql}: {by}");
    by.starts_with("index")
}

#[test]
fn a_reader_in_an_old_snapshot_keeps_its_generation_while_another_process_publishes() {
    if let Ok(database) = std::env::var(OTHER) {
        let conn = common::open(database);
        conn.execute_batch(&format!(
            "UPDATE words SET vector = zeroblob(32) WHERE id % 2; {REBUILD}"
        ))
        .unwrap();
        return;
    }
    let mut rng = StdRng::seed_from_u64(16);
    for storage in STORAGES {
        let folder = Folder::new("snapshot");
        drop(database(&folder, "wal", storage, 3000));
        let old = common::open(folder.database());
        let older = common::open(folder.database());
        old.execute_batch("BEGIN").unwrap();
        older.execute_batch("BEGIN").unwrap();
        check(&old, &mut rng, "before");
        assert_eq!(common::ids(&older, "SELECT count(*) FROM words"), [3000]);
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_reader_in_an_old_snapshot_keeps_its_generation_while_another_process_publishes",
            ])
            .env(OTHER, folder.database())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let files = match storage {
            "file" => vec!["app.db-words_index-2.annoy"],
            _ => vec![],
        };
        assert_eq!(folder.files(), files);
        // All forms of a search share what the connection has open, also those that come late.
        for sql in SEARCHES {
            assert!(is_by_index(&old, sql), "{sql}");
        }
        check(&old, &mut rng, "the old snapshot");
        assert_eq!(info(&old, "generation"), "1");
        assert_eq!(info(&old, "state"), "current");
        // Who never had the file open has none to keep, and answers from the table of its snapshot.
        check(&older, &mut rng, "an old snapshot, and a new reader");
        let state = info(&older, "state");
        assert_eq!(state == "current", storage == "inline", "{state}");
        for sql in SEARCHES {
            assert_eq!(is_by_index(&older, sql), storage == "inline", "{sql}");
        }
        for conn in [&old, &older] {
            conn.execute_batch("COMMIT").unwrap();
            check(conn, &mut rng, "the new snapshot");
            assert_eq!(info(conn, "generation"), "2");
            assert_eq!(info(conn, "state"), "current");
            assert!(is_by_index(conn, SEARCHES[0]));
        }
    }
}
