//! Runs `smoke.sql` and prints its rows as the sqlite3 shell would in list mode.

use anyhow::Result;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::Value;
use rusqlite::{Batch, Connection};

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let conn = Connection::open(folder.path().join("smoke.db"))?;
    sqlite_annoy::register(&conn)?;
    let mut batch = Batch::new(&conn, include_str!("../../smoke.sql"));
    while let Some(mut statement) = batch.next()? {
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let cells: Vec<String> = (0..columns)
                .map(|i| Ok(text(row.get(i)?)))
                .collect::<Result<_>>()?;
            println!("{}", cells.join("|"));
        }
    }
    Ok(())
}

/// A value as text; `smoke.sql` rounds its numbers, so that any host writes them alike.
fn text(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => format!("{x:?}"),
        Value::Text(text) => text,
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}
