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
pub(crate) fn all_or_nothing<T>(
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

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn connection() -> Connection {
        let conn = crate::sql::testing::in_memory();
        conn.execute_batch("CREATE TABLE t(x)").unwrap();
        conn
    }

    #[test]
    fn an_interrupt_between_statements_undoes_all_and_leaves_no_transaction_open() {
        for body_fails in [false, true] {
            let conn = connection();
            // As when called from a function: a statement is running, so the interrupt stays in force.
            let mut outer = conn.prepare("VALUES (1), (2)").unwrap();
            let mut rows = outer.query([]).unwrap();
            rows.next().unwrap();
            let outcome = all_or_nothing(&conn, "main", || {
                conn.execute_batch("INSERT INTO t VALUES(1)")?;
                conn.get_interrupt_handle().interrupt();
                if body_fails {
                    bail!("the body's own error");
                }
                Ok(())
            });
            assert!(outcome.is_err());
            drop(rows);
            drop(outer);
            assert!(conn.is_autocommit());
            let n: i64 = conn
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap();
            assert_eq!(n, 0);
        }
    }

    #[test]
    fn an_error_undoes_the_body_and_nothing_else() {
        let conn = connection();
        conn.execute_batch("BEGIN; INSERT INTO t VALUES(1)")
            .unwrap();
        let outcome: Result<()> = all_or_nothing(&conn, "main", || {
            conn.execute_batch("INSERT INTO t VALUES(2)")?;
            bail!("no")
        });
        assert_eq!(outcome.unwrap_err().to_string(), "no");
        conn.execute_batch("COMMIT").unwrap();
        let sum: i64 = conn
            .query_row("SELECT sum(x) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sum, 1);
    }
}
