//! Files that nobody names: what crashes have left, and when it may go.
//!
//! A process that ends between the commit of DROP, RENAME, 'rebuild' or 'refresh' and the removal of the old files, or in the
//! middle of a build, leaves files behind. The next one that builds or drops an index of the same database removes them, by
//! these rules:
//!
//! * It holds the write lock of the database, so it sees the last state of the schema, and nobody else is about to publish.
//! * A name tells its database, index and generation ([`FileName`]); other databases' files are never looked at.
//! * Of its own index, all go but the parts that the catalogue names.
//! * Of other indexes, unfinished files go, and all that belongs to a name which no table of the database has. Such a file
//!   must also begin as ours do: a file of somebody else's with such a name stays.
//! * What the open transaction has published or retired is the ledger's: it may be rolled back.
//!
//! A file that goes takes no answer along: a reader in an old snapshot keeps its map, and one that comes too late is answered
//! from its table.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rusqlite::Connection;

use super::{folder_of, ledger, remove};
use crate::forest::MAGIC;
use crate::sql::index::names::{FileName, IndexName, file_safe};
use crate::sql::index::part::PartName;
use crate::sql::{Session, quote};

/// The files beside a database that have names as of its indexes.
fn files(database: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let entries = fs::read_dir(folder_of(database))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)))
        .filter(|(_, name)| FileName::parse(database, name).is_some())
        .collect())
}

/// Those of one index.
pub(super) fn files_of(database: &Path, index: &IndexName) -> io::Result<Vec<PathBuf>> {
    let ours = index.in_files();
    Ok(files(database)?
        .into_iter()
        .filter(|(_, name)| FileName::parse(database, name).is_some_and(|name| name.index == ours))
        .map(|(path, _)| path)
        .collect())
}

/// Removes strays, as the module page says. `current` are the parts of `index` that count.
pub(super) fn sweep(
    conn: &Connection,
    session: &Session,
    database: &Path,
    index: &IndexName,
    current: &[PartName],
) -> Result<()> {
    let tables = tables(conn, &index.schema)?;
    let ours = index.in_files();
    let ledger = ledger(session);
    // Of a folder that can't be read nothing is known.
    for (path, file) in files(database).unwrap_or_default() {
        let Some(name) = FileName::parse(database, &file) else {
            continue;
        };
        let is_stray = if name.index == ours {
            name.is_temporary
                || !current
                    .iter()
                    .any(|part| part.generation == name.generation)
        } else {
            let lives = tables
                .iter()
                .any(|table| table.eq_ignore_ascii_case(name.index));
            (name.is_temporary || !lives) && begins_as_ours(&path)
        };
        if is_stray && !ledger.concerns(file.as_ref()) {
            remove(&path);
        }
    }
    Ok(())
}

/// The names of all tables, as names of files have them.
fn tables(conn: &Connection, schema: &str) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT name FROM {}.sqlite_schema WHERE type = 'table'",
        quote(schema)
    );
    let names = conn
        .prepare(&sql)?
        .query_map([], |row| row.get(0).map(|name: String| file_safe(&name)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(names)
}

/// Whether a file begins as those of indexes do, as far as it goes.
fn begins_as_ours(path: &Path) -> bool {
    // Before it is opened: opening a pipe would wait.
    if !fs::symlink_metadata(path).is_ok_and(|it| it.is_file()) {
        return false;
    }
    let mut start = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    read.is_ok() && MAGIC.starts_with(&start)
}
