//! Connections for tests, on whichever SQLite the features give: the private one through the loadable entry point, or
//! the bundled one.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod words;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::types::{FromSql, Value};

/// What the catalogue of every index says.
pub const CATALOGUE: [&str; 7] = [
    "table",
    "column",
    "options",
    "generation",
    "current",
    "built",
    "unique",
];

fn start() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        #[cfg(feature = "loadable")]
        private_sqlite::install(sqlite_annoy::entry::sqlite3_extension_init);
    });
}

/// A connection in memory with the extension.
pub fn memory() -> Connection {
    open(":memory:")
}

/// A connection to a file with the extension.
pub fn open(path: impl AsRef<std::path::Path>) -> Connection {
    start();
    let conn = Connection::open(path).unwrap();
    #[cfg(not(feature = "loadable"))]
    sqlite_annoy::register(&conn).unwrap();
    conn
}

/// The one value of a query.
pub fn one<T: FromSql>(conn: &Connection, sql: &str) -> T {
    match conn.query_row(sql, [], |row| row.get(0)) {
        Ok(value) => value,
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// What `annoy_stats` says of the last search.
pub fn stat<T: FromSql>(conn: &Connection, key: &str) -> T {
    one(
        conn,
        &format!("SELECT value FROM annoy_stats WHERE key = '{key}'"),
    )
}

/// All rows of a query, values as SQLite gives them.
pub fn rows(conn: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = conn.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let columns = statement.column_count();
    statement
        .query_map([], |row| (0..columns).map(|i| row.get(i)).collect())
        .and_then(Iterator::collect)
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The message of the error that `sql` ends with.
pub fn error(conn: &Connection, sql: &str) -> String {
    match conn.execute_batch(sql) {
        Ok(()) => panic!("{sql}: succeeded"),
        Err(rusqlite::Error::SqliteFailure(_, Some(message))) => message,
        Err(error) => error.to_string(),
    }
}

/// The first column of a statement: integers.
pub fn ids(conn: &Connection, sql: &str) -> Vec<i64> {
    rows(conn, sql)
        .into_iter()
        .map(|row| match row[0] {
            Value::Integer(i) => i,
            ref other => panic!("{sql}: {other:?}"),
        })
        .collect()
}

/// Runs `work` on the connection and interrupts it after a while, again and again until it ends: an interrupt that comes
/// before a statement runs is lost. Returns what it gave, and how long it went on after the first interrupt.
pub fn interrupted<T>(
    conn: &Connection,
    after: Duration,
    work: impl FnOnce() -> T,
) -> (T, Duration) {
    let handle = conn.get_interrupt_handle();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let interrupter = scope.spawn(|| {
            std::thread::sleep(after);
            let asked = Instant::now();
            // Should `work` panic, this ends, too.
            while !ended.load(Ordering::Relaxed) && asked.elapsed() < Duration::from_secs(120) {
                handle.interrupt();
                std::thread::sleep(Duration::from_millis(10));
            }
            asked
        });
        let outcome = work();
        let now = Instant::now();
        ended.store(true, Ordering::Relaxed);
        let asked = interrupter.join().expect("the interrupter");
        (outcome, now.saturating_duration_since(asked))
    })
}

/// Asserts that one attempt of five stops within a second: on a busy machine any one may be late, and work that does not look
/// for interrupts always is.
pub fn stops_soon(mut attempt: impl FnMut() -> Duration) {
    let mut late = Vec::new();
    while late.len() < 5 {
        late.push(attempt());
        if late.last() < Some(&Duration::from_secs(1)) {
            return;
        }
    }
    panic!("seconds late: {late:?}");
}
