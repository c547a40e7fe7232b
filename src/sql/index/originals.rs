//! The rows of the table, for searches of files that hold no vectors (option `store=none`).
//!
//! They are read in the snapshot of the running statement, on the thread that holds the connection, where the
//! codes leave a few rows to be looked at. A row that cannot be read ends in an error, never in an answer without it.

use std::cell::RefCell;
use std::fmt;

use anyhow::{Error, Result, anyhow};
use rusqlite::{CachedStatement, Connection};

use super::names::IndexName;
use crate::forest::Originals;
use crate::sql::quote;
use crate::sql::source::Source;

/// See the module page.
pub(crate) struct TableRows<'a> {
    index: &'a IndexName,
    source: &'a Source,
    one_row: RefCell<CachedStatement<'a>>,
    /// Why a row could not be read: the first one.
    error: RefCell<Option<Error>>,
}

impl<'a> TableRows<'a> {
    /// `one_row` is the statement of [`Source::one_row`].
    pub(super) fn new(
        conn: &'a Connection,
        index: &'a IndexName,
        source: &'a Source,
        one_row: &str,
    ) -> Result<Self> {
        Ok(TableRows {
            index,
            source,
            one_row: RefCell::new(conn.prepare_cached(one_row)?),
            error: RefCell::new(None),
        })
    }

    /// Runs a search that reads these rows, if it is given some.
    ///
    /// # Errors
    /// When a row that it wanted could not be read.
    pub(crate) fn hear<T>(
        rows: Option<&Self>,
        search: impl FnOnce(Option<&dyn Originals>) -> T,
    ) -> Result<T> {
        let found = search(rows.map(|rows| rows as &dyn Originals));
        match rows.and_then(|rows| rows.error.take()) {
            Some(error) => Err(error),
            None => Ok(found),
        }
    }

    fn read(&self, rowid: i64, out: &mut [f32]) -> Result<()> {
        let (dim, mut found) = (out.len(), false);
        let mut one_row = self.one_row.borrow_mut();
        let each = |row: &[f32]| {
            out.copy_from_slice(row);
            found = true;
        };
        let read = self.source.read_one(&mut one_row, rowid, dim, each);
        match read {
            Ok(()) if found => return Ok(()),
            Ok(()) => {}
            // An interrupt, or a database that can't be read.
            Err(error) if error.is::<rusqlite::Error>() => return Err(error),
            Err(error) => return Err(error.context(self.remedy())),
        }
        Err(anyhow!(
            "row {rowid} of {} has no vector any more, and no trigger noted a change",
            self.source.table
        )
        .context(self.remedy()))
    }
}

impl fmt::Debug for TableRows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableRows")
            .field("index", self.index)
            .finish_non_exhaustive()
    }
}

impl TableRows<'_> {
    fn remedy(&self) -> String {
        format!(
            "index {0} takes vectors from its table (store=none), and needs INSERT INTO {1}({1}) VALUES('rebuild')",
            self.index.name,
            quote(&self.index.name)
        )
    }
}

impl Originals for TableRows<'_> {
    fn fetch(&self, rowid: i64, out: &mut [f32]) -> bool {
        let mut first = self.error.borrow_mut();
        if first.is_none() {
            *first = self.read(rowid, out).err();
        }
        // After an error the answer is worth nothing, so no more is read.
        first.is_none()
    }
}
