//! The corpus: a column of text in a table or view, one document a row.

use anyhow::{Result, bail};
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use crate::sql::quote;
use crate::sql::source::{find_table, no_column, no_table};
use crate::sql::work::Look;

/// Hands every row of `column` in `table` to `each`, in rowid order where there are rowids: the rowid (`None` where there
/// is none), the text, and a function to call now and then, whose error ends the reading. NULL is no document.
///
/// # Errors
/// No such table or column, a value that is no text (the row is named), or what SQLite says.
pub(super) fn read(
    conn: &Connection,
    table: &str,
    column: &str,
    mut each: impl FnMut(Option<i64>, &str, &mut dyn FnMut() -> Result<()>) -> Result<()>,
) -> Result<()> {
    let Some((schema, table)) = find_table(conn, table)? else {
        return Err(no_table(conn, table));
    };
    let column = find_column(conn, &schema, &table, column)?;
    let (from, text) = (
        format!("{}.{}", quote(&schema), quote(&table)),
        quote(&column),
    );
    // Views and WITHOUT ROWID tables have no rowid; some views give NULL. A view's column `id` stands for it.
    let mut statement = match key_of_view(conn, &schema, &table)? {
        Some(key) => conn.prepare(&format!("SELECT {text}, {} FROM {from}", quote(&key)))?,
        None => conn
            .prepare(&format!("SELECT {text}, rowid FROM {from} ORDER BY rowid"))
            .or_else(|_| conn.prepare(&format!("SELECT {text}, NULL FROM {from}")))?,
    };
    let mut look = Look::new(conn)?;
    let mut rows = statement.query([])?;
    let mut n = 0u64;
    while let Some(row) = rows.next()? {
        n += 1;
        // Rows are few steps of SQLite's machine, and may be long work: a host that counts steps would wait for minutes.
        look.now_and_then()?;
        let place = || match row.get_ref(1) {
            Ok(ValueRef::Integer(rowid)) => format!("{table}.{column} of row {rowid}"),
            _ => format!("{table}.{column} of row number {n}"),
        };
        match row.get_ref(0)? {
            ValueRef::Null => {}
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => {
                    let rowid = match row.get_ref(1)? {
                        ValueRef::Integer(rowid) => Some(rowid),
                        _ => None,
                    };
                    each(rowid, text, &mut || look.now_and_then())?;
                }
                Err(e) => bail!(
                    "the text in {} is not UTF-8 at byte {}: correct it, or leave the row out by a view",
                    place(),
                    e.valid_up_to() + 1
                ),
            },
            other => bail!(
                "the value in {} is {}: expected text or NULL; cast it, or leave the row out by a view",
                place(),
                match other.data_type() {
                    Type::Blob => "a BLOB",
                    Type::Integer => "an integer",
                    _ => "a real number",
                }
            ),
        }
    }
    Ok(())
}

/// The column of a view that its rows are known by, as `source` has it.
fn key_of_view(conn: &Connection, schema: &str, table: &str) -> Result<Option<String>> {
    Ok(conn
        .prepare_cached(
            "SELECT c.name FROM pragma_table_list AS t, pragma_table_xinfo(t.name, t.schema) AS c
             WHERE t.schema = ?1 AND t.name = ?2 AND t.type = 'view' AND lower(c.name) IN ('rowid', 'id')
             ORDER BY lower(c.name) DESC",
        )?
        .query_row([schema, table], |row| row.get(0))
        .optional()?)
}

/// The column as it is spelled. Asked of the schema, because a quoted name that is no column would be taken for a text.
fn find_column(conn: &Connection, schema: &str, table: &str, name: &str) -> Result<String> {
    let all: Vec<String> = conn
        .prepare_cached("SELECT name FROM pragma_table_xinfo(?1, ?2)")?
        .query_map([table, schema], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    match all.iter().find(|c| c.eq_ignore_ascii_case(name)) {
        Some(column) => Ok(column.clone()),
        None => Err(no_column(name, table, all.iter().map(String::as_str))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sql::testing::{in_memory, with_handler};

    #[test]
    fn a_progress_handler_that_counts_in_thousands_ends_the_reading() {
        const ROWS: usize = 1000;
        let conn = in_memory();
        conn.execute_batch(&format!(
            "CREATE TABLE t(body TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS})
             INSERT INTO t SELECT 'a text' FROM n"
        ))
        .unwrap();
        // Within long documents, and between short ones.
        for calls_pause in [true, false] {
            let mut n = 0;
            let outcome = with_handler(&conn, 10_000, 3, || {
                read(&conn, "t", "body", |_, _, pause| {
                    n += 1;
                    for _ in 0..if calls_pause { ROWS } else { 1 } {
                        std::thread::sleep(Duration::from_millis(11));
                        if calls_pause {
                            pause()?;
                        }
                    }
                    Ok(())
                })
            });
            assert!(outcome.is_err(), "all {n} rows were read");
            assert_eq!(n == 1, calls_pause, "{n} rows");
        }
    }
}
