//! `CREATE VIRTUAL TABLE i USING annoy(table, column, ...)`: an index that follows its table.
//!
//! ```text
//! table --triggers (plain SQL)--> i_changes          i_catalog --names--> app.db-i-3.annoy
//!   |                                 |                                        |
//!   +--------------- rows ------------+-------- reader: merges both -----------+--> answers
//! ```
//!
//! * [`options`]: what CREATE VIRTUAL TABLE says.
//! * [`names`]: what everything of an index is called.
//! * [`catalog`]: the shadow tables and the triggers.
//! * [`files`]: the files, and how they come and go with transactions.
//! * [`mod@create`]: what CREATE makes, and makes again.
//! * [`build`]: from the rows of the table to a published file.
//! * [`originals`]: the rows of the table, for files without vectors.
//! * [`part`]: the files an index consists of.
//! * [`partial`]: the expression of a partial index.
//! * [`pending`]: the rows that have changed since.
//! * [`reader`]: what a query sees.
//! * [`unique`]: the UNIQUE indexes, by way of which REPLACE removes rows.
//! * [`table`]: the virtual table itself: commands, DROP, RENAME, and the MATCH form of a search.
//!
//! Invariant: the catalogue names a file only in the transaction that published it; a rowid whose row differs from
//! what the files say is in `i_changes`. So in every snapshot files + changes = table.

mod build;
mod catalog;
mod create;
pub(crate) mod files;
mod names;
mod options;
pub(crate) mod originals;
pub(crate) mod part;
mod partial;
mod pending;
pub(crate) mod reader;
mod table;
mod unique;

pub(crate) use build::Rows;
pub(crate) use catalog::{Built, built};
pub(crate) use names::{IndexName, TRIGGERS};
pub(crate) use options::METRICS;
pub(crate) use reader::{Reader, all, find, no_index};

use std::sync::Arc;

use rusqlite::Connection;

use super::{Session, vtab};

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    vtab::register::<files::Files>(conn, c"annoy_files", session)?;
    vtab::register::<table::Index>(conn, c"annoy", session)
}
