//! All or nothing, also when the host interrupts.
//!
//! Once `sqlite3_interrupt` was called, no statement starts until the one the function runs in has ended: not even
//! ROLLBACK TO. A savepoint opened here would stay open, with half the work in it. But an interrupted statement that
//! writes makes SQLite itself roll back the whole transaction; so one is kept ready for that case. It writes the
//! `user_version` that the database has.

use anyhow::Result;
use rusqlite::Connection;

use crate::sql::quote;

/// Runs `body` in a savepoint: its changes stay if it succeeds, and go if it fails.
///
/// # Errors
/// Those of `body` and of SQLite.
pub(super) fn all_or_nothing<T>(
    conn: &Connection,
    schema: &str,
    body: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let schema = quote(schema);
    let version: i64 = conn.query_row(&format!("PRAGMA {schema}.user_version"), [], |row| {
        row.get(0)
    })?;
    let mut last_resort = conn.prepare(&format!("PRAGMA {schema}.user_version = {version}"))?;
    let mut begin = conn.prepare("SAVEPOINT sqlite_annoy_train")?;
    let mut undo = conn.prepare("ROLLBACK TO sqlite_annoy_train")?;
    let mut end = conn.prepare("RELEASE sqlite_annoy_train")?;
    begin.execute([])?;
    let outcome = body().and_then(|value| {
        end.execute([])?;
        Ok(value)
    });
    if outcome.is_err() && undo.execute([]).and_then(|_| end.execute([])).is_err() {
        // Either fails and takes the transaction with it, or the transaction was gone already and nothing changes.
        let _ = last_resort.execute([]);
    }
    outcome
}
