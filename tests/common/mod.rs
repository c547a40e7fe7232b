//! Connections for tests, on whichever SQLite the features give: the private one through the loadable entry point, or
//! the bundled one.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod words;

use rusqlite::Connection;
use rusqlite::types::{FromSql, Value};

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
