//! What CREATE VIRTUAL TABLE makes, and what makes it again from the declaration when the shadow tables are damaged.

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use rusqlite::Connection;

use super::names::IndexName;
use super::options::Declaration;
use super::{build, catalog, files, partial};
use crate::sql::source::{Column, Source, no_column};
use crate::sql::{Session, quote};

/// Makes an index: shadow tables, triggers, file. Returns the name of its column, as the table has it.
pub(super) fn create(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    declaration: &Declaration,
) -> Result<String> {
    let (table, column) = (&declaration.table, &declaration.column);
    let source = Source::find(conn, &format!("{}.{table}", index.schema), column)
        .or_else(|_| Source::find(conn, table, column))?;
    if source.schema != index.schema {
        bail!(
            "the index must be in the schema of its table: CREATE VIRTUAL TABLE {}.{} USING annoy(...)",
            quote(&source.schema),
            quote(&index.name)
        );
    }
    check_names(&index.name, &source.column)?;
    session.named.fetch_add(1, Ordering::Relaxed);
    make(conn, session, index, source, declaration, None, || {
        catalog::create(conn, index)
    })
}

/// Columns that every index has.
const COLUMNS: [&str; 4] = ["distance", "k", "options", "rowid"];

/// Refuses names of which the index would have two columns: that of the vectors, the one that has the index's own name, and
/// [`COLUMNS`].
pub(super) fn check_names(index: &str, column: &str) -> Result<()> {
    let is_taken = |name: &str| COLUMNS.iter().any(|taken| taken.eq_ignore_ascii_case(name));
    if is_taken(column) {
        bail!(
            "a column named {column} can't be indexed, because an index has columns {} of its own; rename it by ALTER TABLE",
            COLUMNS.join(", ")
        );
    }
    if is_taken(index) || index.eq_ignore_ascii_case(column) {
        bail!(
            "an index can't have the name {index}, because its columns are {column}, {}, and one that is named as the index \
             itself; give it another name",
            COLUMNS.join(", ")
        );
    }
    Ok(())
}

/// What the column of vectors is called in the index: as in the table, unless it has been renamed to what can't be.
pub(super) fn column(conn: &Connection, index: &IndexName, declaration: &Declaration) -> String {
    let now = catalog::column_now(conn, index).ok().flatten();
    now.filter(|now| check_names(&index.name, now).is_ok())
        .unwrap_or_else(|| declaration.column.clone())
}

/// Makes it again. Where its table and its column are now, and under which names its filter knows columns, is taken from
/// whatever still says so; all else from the declaration.
pub(super) fn again(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    declaration: &Declaration,
) -> Result<()> {
    let known = |key| catalog::get::<String>(conn, index, key).ok().flatten();
    let table = catalog::tracked_table(conn, index)?
        .or_else(|| known("table"))
        .unwrap_or_else(|| declaration.table.clone());
    let column = catalog::column_now(conn, index)?.or_else(|| known("column"));
    let choose = |columns: &[Column]| {
        let named = |name: &str| {
            columns
                .iter()
                .position(|c| c.name.eq_ignore_ascii_case(name))
        };
        column
            .as_deref()
            .and_then(named)
            .or_else(|| named(&declaration.column))
            .ok_or_else(|| {
                no_column(
                    &declaration.column,
                    &table,
                    columns.iter().map(|c| c.name.as_str()),
                )
            })
    };
    let source = Source::in_table(conn, &index.schema, &table, choose)?;
    let filter = partial::filter_now(conn, index)?;
    make(conn, session, index, source, declaration, filter, || {
        catalog::empty(conn, index)?;
        files::empty(conn, session, index)
    })?;
    Ok(())
}

fn make(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    mut source: Source,
    declaration: &Declaration,
    filter: Option<String>,
    tables: impl FnOnce() -> Result<()>,
) -> Result<String> {
    if source.is_view {
        bail!(
            "{} is a view, whose changes no trigger can note; index the table that the vectors are in, with where='...' for a \
             part of it",
            source.table
        );
    }
    if !source.has_stable_key {
        bail!(
            "{} needs an INTEGER PRIMARY KEY to be indexed: VACUUM may change any other rowid",
            source.table
        );
    }
    let mut options = declaration.options(source.element)?;
    if options.filter.is_some() && filter.is_some() {
        options.filter = filter;
    }
    source.element = options.element()?.or(source.element);
    source.filter.clone_from(&options.filter);
    partial::check_filter(conn, index, &source)?;
    let source = catalog::group(conn, index, source, &options)?;
    catalog::check_group(conn, &source)?;
    tables()?;
    catalog::fill(conn, index, &source, &options)?;
    build::rebuild(conn, session, index, &source, &options)?;
    Ok(source.column)
}

/// Removes all there is of an index, whatever its shadow tables say.
pub(super) fn drop(conn: &Connection, session: &Session, index: &IndexName) -> Result<()> {
    // Statements on the shadow tables would keep them locked.
    conn.flush_prepared_statement_cache();
    files::drop(conn, session, index)?;
    conn.flush_prepared_statement_cache();
    catalog::drop(conn, index)
}
