//! Threads, by SQLite's rules: connections of their own, and one connection in serialized mode. `tests/sanitize` runs
//! this under race detectors.

#![allow(unsafe_code)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

const ROWS: i64 = 600;

/// How long each test goes on: long enough for a race, short enough for a detector that slows all down.
const LASTS: Duration = Duration::from_millis(700);

fn vector(seed: i64) -> Vec<u8> {
    (0..8i64)
        .map(|i| ((seed * 31 + i * 17) % 101 - 50) as f32)
        .flat_map(f32::to_le_bytes)
        .collect()
}

/// A table, an index, and a view that no index covers.
fn prepare(conn: &Connection, storage: &str) {
    conn.execute_batch(
        "PRAGMA journal_mode = wal; PRAGMA synchronous = off; PRAGMA busy_timeout = 60000;
         CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
         CREATE VIEW bare AS SELECT id, v FROM t;
         BEGIN",
    )
    .unwrap();
    for id in 0..ROWS {
        conn.execute("INSERT INTO t VALUES(?1, ?2)", (id, vector(id)))
            .unwrap();
    }
    conn.execute_batch(&format!(
        "COMMIT; CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2, trees=2, threads=2, storage={storage})"
    ))
    .unwrap();
}

/// Asks index and table in one statement, and so in one snapshot, whoever else uses the connection.
fn agree(conn: &Connection, seed: i64) {
    let (index, table): (String, String) = conn
        .query_row(
            "SELECT (SELECT group_concat(rowid || ' ' || distance)
                     FROM knn_annoy('ix', ?1, 10, '{\"search_k\":1000000,\"threads\":2}')),
                    (SELECT group_concat(rowid || ' ' || distance)
                     FROM knn_exact('bare', 'v', ?1, 10, '{\"metric\":\"l2\"}'))",
            [vector(seed)],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(index, table, "query {seed}");
}

/// One change, or one command to the index.
fn change(conn: &Connection, i: i64) {
    match i % 40 {
        7 => conn.execute("INSERT INTO ix(ix) VALUES('refresh')", []),
        23 => conn.execute("INSERT INTO ix(ix) VALUES('rebuild')", []),
        _ if i % 3 == 0 => conn.execute("DELETE FROM t WHERE id = ?1", [i * 13 % ROWS]),
        _ => conn.execute(
            "REPLACE INTO t VALUES(?1, ?2)",
            (i * 13 % ROWS, vector(i * 7)),
        ),
    }
    .unwrap();
}

/// Runs each of these in a thread of its own, again and again until the time is up; they get the number of the round.
fn together(deeds: &[&(dyn Fn(i64) + Sync)]) {
    let stop = AtomicBool::new(false);
    let stop = &stop;
    std::thread::scope(|scope| {
        for (n, deed) in deeds.iter().enumerate() {
            scope.spawn(move || {
                let first = n as i64 * 10_000;
                // At least a few rounds, however slow the machine.
                for i in first.. {
                    if stop.load(Ordering::Relaxed) && i >= first + 3 {
                        break;
                    }
                    deed(i);
                }
            });
        }
        std::thread::sleep(LASTS);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn connections_in_several_threads_read_write_and_rebuild_one_index() {
    read_write_and_rebuild("file");
}

/// Their copy of the index is one.
#[test]
fn connections_in_several_threads_read_write_and_rebuild_one_inline_index() {
    read_write_and_rebuild("inline");
}

fn read_write_and_rebuild(storage: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    prepare(&common::open(&file), storage);
    let deed = |each: fn(&Connection, i64)| {
        let file = &file;
        move |i| {
            thread_local! {
                static CONN: std::cell::OnceCell<Connection> = const { std::cell::OnceCell::new() };
            }
            CONN.with(|conn| {
                let conn = conn.get_or_init(|| {
                    let conn = common::open(file);
                    conn.execute_batch("PRAGMA busy_timeout = 60000").unwrap();
                    conn
                });
                each(conn, i);
            });
        }
    };
    let (write, read) = (deed(change), deed(agree));
    together(&[&read, &read, &read, &write, &write]);
    let conn = common::open(&file);
    conn.execute_batch("INSERT INTO ix(ix) VALUES('integrity-check')")
        .unwrap();
}

/// A connection in serialized mode, for several threads, and its handle: to ask rusqlite for that is not for several threads.
struct Shared(Connection, *mut rusqlite::ffi::sqlite3);

// SAFETY: opened with SQLITE_OPEN_FULLMUTEX in a SQLite that is compiled threadsafe: every call takes its mutex. Threads use
// it by `borrow` alone, so nothing of rusqlite's own is shared.
unsafe impl Sync for Shared {}

impl Shared {
    fn open(file: &std::path::Path) -> Shared {
        common::memory();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_FULL_MUTEX;
        let conn = Connection::open_with_flags(file, flags).unwrap();
        #[cfg(not(feature = "loadable"))]
        sqlite_annoy::register(&conn).unwrap();
        // SAFETY: it is used as long as the connection is open.
        let handle = unsafe { conn.handle() };
        Shared(conn, handle)
    }

    /// The same connection, as another thread sees it.
    fn borrow(&self) -> Connection {
        // SAFETY: `self` outlives it; a connection made of a handle does not close it.
        unsafe { Connection::from_handle(self.1) }.unwrap()
    }
}

#[test]
fn one_connection_is_shared_by_several_threads_in_serialized_mode() {
    let folder = tempfile::tempdir().unwrap();
    let shared = Shared::open(&folder.path().join("app.db"));
    prepare(&shared.0, "file");
    let read = |i| agree(&shared.borrow(), i);
    let write = |i| change(&shared.borrow(), i);
    together(&[&read, &read, &read, &write]);
    let info: String = common::one(
        &shared.0,
        "SELECT value FROM annoy_info('ix') WHERE key = 'state'",
    );
    assert!(!info.starts_with("fallback"), "{info}");
}

#[test]
fn a_shared_connection_is_interrupted_from_another_thread() {
    let folder = tempfile::tempdir().unwrap();
    let shared = Shared::open(&folder.path().join("app.db"));
    prepare(&shared.0, "file");
    let handle = shared.0.get_interrupt_handle();
    let is_done = AtomicBool::new(false);
    let (interrupted, finished) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                handle.interrupt();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        let outcomes: Vec<bool> = (0..40)
            .map(|_| {
                shared
                    .0
                    .execute("INSERT INTO ix(ix) VALUES('rebuild')", [])
                    .is_ok()
            })
            .collect();
        is_done.store(true, Ordering::Relaxed);
        let ok = outcomes.iter().filter(|ok| **ok).count();
        (outcomes.len() - ok, ok)
    });
    assert!(interrupted + finished == 40);
    agree(&shared.0, 5);
    let files = std::fs::read_dir(folder.path()).unwrap().flatten();
    let files: Vec<_> = files
        .map(|f| f.file_name())
        .filter(|f| f.to_string_lossy().contains(".annoy"))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
}
