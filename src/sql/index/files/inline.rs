//! Parts that lie in the database: `<index>_parts(generation, chunk, bytes)`.
//!
//! ```text
//! generation  chunk  bytes
//! 3           0      the first CHUNK bytes of the file of generation 3
//! 3           1      the next ...
//! ```
//!
//! An index keeps its parts so if there is such a table; one of this name with other columns is somebody else's. A search
//! wants them in one piece, so a connection reads them into an anonymous map when it first needs them, and checks
//! every checksum on the way. Connections of one process to one database file share such a copy ([`open`]). Transactions, snapshots, copies of the database: all that is SQLite's work here.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, ensure};
use memmap2::MmapMut;
use rusqlite::Connection;

use super::{Open, Opened, Pieces, Store, step};
use crate::forest::{Forest, Image};
use crate::sql::index::names::IndexName;
use crate::sql::index::part::PartName;

/// Bytes of a row: some tens of pages in a chain, and a thousand rows for a large index.
const CHUNK: usize = 256 << 10;

/// Whether the parts of an index lie in the database.
pub(super) fn is_used(conn: &Connection, index: &IndexName) -> Result<bool> {
    let mut columns = conn.prepare_cached(
        "SELECT group_concat(name || ' ' || type || ' ' || pk, ', ')
         FROM (SELECT name, type, pk FROM pragma_table_info(?1, ?2) ORDER BY cid)",
    )?;
    let columns: Option<String> = columns
        .query_row((format!("{}_parts", index.name), &index.schema), |row| {
            row.get(0)
        })?;
    Ok(columns.as_deref() == Some("generation INTEGER 1, chunk INTEGER 2, bytes BLOB 0"))
}

/// From now on they do.
pub(super) fn begin(conn: &Connection, index: &IndexName) -> Result<()> {
    if is_used(conn, index)? {
        return Ok(());
    }
    conn.execute_batch(&format!(
        "CREATE TABLE {}(generation INTEGER, chunk INTEGER, bytes BLOB, PRIMARY KEY(generation, chunk))",
        index.parts()
    ))
    .context("cannot make the table that is to hold the index")
}

/// Removes them all.
pub(super) fn drop(conn: &Connection, index: &IndexName) -> Result<()> {
    conn.execute_batch(&format!("DROP TABLE {}", index.parts()))?;
    Ok(())
}

/// Removes all that is in them.
pub(super) fn empty(conn: &Connection, index: &IndexName) -> Result<()> {
    conn.execute_batch(&format!("DELETE FROM {}", index.parts()))?;
    Ok(())
}

/// Gives the parts to the index under its new name.
pub(super) fn rename(conn: &Connection, old: &IndexName, new: &IndexName) -> Result<()> {
    let to = new.bare("_parts");
    conn.execute_batch(&format!("ALTER TABLE {} RENAME TO {to}", old.parts()))?;
    Ok(())
}

/// Writes a part.
pub(super) fn write(
    conn: &Connection,
    index: &IndexName,
    generation: i64,
    image: &Image<'_>,
) -> Result<()> {
    let what = || {
        format!(
            "cannot write the parts of index {} into the database",
            index.name
        )
    };
    let sql = format!("INSERT INTO {} VALUES(?1, ?2, ?3)", index.parts());
    let mut insert = conn.prepare(&sql).with_context(what)?;
    let mut chunk = 0i64;
    let mut chunks = Pieces::new(CHUNK, |bytes: &[u8]| {
        step("insert")?;
        insert
            .execute((generation, chunk, bytes))
            .map_err(io::Error::other)?;
        chunk += 1;
        Ok(())
    });
    image.write_to(&mut chunks).with_context(what)?;
    chunks.flush().with_context(what)
}

/// Removes a part.
pub(super) fn remove(conn: &Connection, index: &IndexName, generation: i64) -> Result<()> {
    let sql = format!("DELETE FROM {} WHERE generation = ?1", index.parts());
    conn.execute(&sql, [generation])?;
    Ok(())
}

/// The copies that connections of this process have open, by database file, index, part and length. What another database
/// says of its own bytes opens nothing here.
static COPIES: LazyLock<Opened<(PathBuf, String, PartName, i64)>> = LazyLock::new(Opened::default);

/// The copy of a part that a connection of this process to `database` has, or a new one.
///
/// # Errors
/// As [`super::open`].
pub(super) fn open(
    conn: &Connection,
    database: &Path,
    index: &IndexName,
    part: &PartName,
) -> Result<Open> {
    let bytes = PartName {
        hides: None,
        ..*part
    };
    let len = len(conn, index, part.generation)?;
    let key = (fs::canonicalize(database)?, index.name.clone(), bytes, len);
    COPIES.get(key, || Ok(Arc::new(super::read(conn, index, part)?)))
}

/// Bytes of a part.
fn len(conn: &Connection, index: &IndexName, generation: i64) -> Result<i64> {
    let parts = index.parts();
    let sql = format!("SELECT coalesce(sum(length(bytes)), 0) FROM {parts} WHERE generation = ?1");
    Ok(conn.query_row(&sql, [generation], |row| row.get(0))?)
}

/// Reads a part into a map of its own.
pub(super) fn read(conn: &Connection, index: &IndexName, generation: i64) -> Result<Forest<Store>> {
    let parts = index.parts();
    let len = len(conn, index, generation)?;
    ensure!(len > 0, "{parts} has nothing of generation {generation}");
    let mut map = MmapMut::map_anon(usize::try_from(len)?)
        .with_context(|| format!("no memory for the {len} bytes of the index"))?;
    // As a published file has them ([`super::PIECE`]).
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let mut rest = &mut map[..];
    let mut chunks = conn.prepare(&format!(
        "SELECT bytes FROM {parts} WHERE generation = ?1 ORDER BY chunk"
    ))?;
    let mut rows = chunks.query([generation])?;
    while let Some(row) = rows.next()? {
        rest.write_all(row.get_ref(0)?.as_blob()?)?;
    }
    Forest::open(Store::Map(map.make_read_only()?))
}
