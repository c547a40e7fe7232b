//! The virtual table of an index.
//!
//! | column | what |
//! |---|---|
//! | the indexed column's name | the vector; `MATCH` a query vector to search |
//! | distance | of a search |
//! | the index's name, hidden | commands: `INSERT INTO i(i) VALUES('rebuild')`; a search, too: `FROM i(query, k, options)` |
//! | k, hidden | rows wanted |
//! | options, hidden | as the last argument of `knn_annoy` |
//!
//! Without MATCH it gives the rowids and vectors of the table; of groups (option `group`), all vectors of each with
//! combine=best, where a search has none to give in this column, and the means with combine=mean.
//!
//! Commands: `rebuild` reads the whole table and publishes a new file; `refresh` takes in what has changed since;
//! `auto-refresh` does so if that is at least the part `auto_refresh` of the rows, and is cheap otherwise: to be given by a
//! writer before it commits, or by a job at night. Nobody who reads ever waits for it.
//! `integrity-check` verifies every byte of the files and every vector against the table.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::names::IndexName;
use super::options::Declaration;
use super::reader::Reader;
use super::{build, catalog, create, files};
use crate::spelling::did_you_mean;
use crate::sql::knn::stream::Stream;
use crate::sql::knn::targets::Targets;
use crate::sql::knn::{QueryArgs, plan_search};
use crate::sql::quote;
use crate::sql::source::Source;
use crate::sql::vtab::{Args, Change, Constraint, Cursor, Op, Origin, Output, Plan, Table};

/// The commands.
const COMMANDS: [&str; 4] = ["rebuild", "refresh", "auto-refresh", "integrity-check"];

const VECTOR: i32 = 0;
const DISTANCE: i32 = 1;
const COMMAND: usize = 2;
const K: i32 = 3;
const OPTIONS: i32 = 4;

/// A scan of all rows, in place of a search.
const SCAN: i32 = 1 << 30;

/// An index, connected.
pub(crate) struct Index {
    index: RefCell<IndexName>,
    declaration: Declaration,
    targets: Targets,
}

impl Index {
    fn conn(&self) -> &Connection {
        self.targets.connection()
    }

    /// The indexed column, wherever its table is now.
    fn source(&self) -> Result<(Source, super::options::IndexOptions)> {
        let index = self.index.borrow();
        let settings = catalog::settings(self.conn(), &index)?;
        let table =
            catalog::tracked_table(self.conn(), &index)?.unwrap_or_else(|| settings.table.clone());
        Ok((
            catalog::source(self.conn(), &index, &settings, &table)?,
            settings.options,
        ))
    }

    fn command(&self, command: &str) -> Result<()> {
        let index = self.index.borrow().clone();
        match command {
            "rebuild" => self.rebuild(&index),
            "refresh" => self.refresh(&index),
            "auto-refresh" => {
                if self.is_due(&index)? {
                    self.refresh(&index)?;
                }
                Ok(())
            }
            "integrity-check" => match self.fault()? {
                Some(fault) => bail!("{fault}"),
                None => Ok(()),
            },
            _ => bail!(
                "unknown command '{command}': the commands are {}{}",
                COMMANDS.join(", "),
                did_you_mean(command, COMMANDS)
            ),
        }
    }

    /// Folds in what has changed; rebuilds if that is more than a part of the table, or the index is out of order.
    fn refresh(&self, index: &IndexName) -> Result<()> {
        if catalog::check(self.conn(), index).is_err() {
            return self.rebuild(index);
        }
        let reader = self
            .targets
            .index(&format!("{}.{}", index.schema, index.name))?;
        let reader = reader.borrow();
        let changed: bool = self.conn().query_row(
            &format!("SELECT EXISTS(SELECT 1 FROM {})", index.changes()),
            [],
            |row| row.get(0),
        )?;
        if !changed && reader.forest().is_some() {
            return Ok(());
        }
        let settings = reader.settings();
        let folded = build::fold(
            self.conn(),
            self.targets.session(),
            index,
            reader.source(),
            &settings.options,
            reader.parts(),
        )?;
        drop(reader);
        if folded { Ok(()) } else { self.rebuild(index) }
    }

    /// Whether as many rows have changed as `auto_refresh` says.
    fn is_due(&self, index: &IndexName) -> Result<bool> {
        if catalog::check(self.conn(), index).is_err() {
            return Ok(true);
        }
        let settings = catalog::settings(self.conn(), index)?;
        let items = catalog::built(self.conn(), index).items as f64;
        let changed: i64 = self.conn().query_row(
            &format!("SELECT count(*) FROM {}", index.changes()),
            [],
            |row| row.get(0),
        )?;
        Ok(changed > 0 && changed as f64 >= settings.options.auto_refresh * items)
    }

    fn rebuild(&self, index: &IndexName) -> Result<()> {
        let (conn, session) = (self.conn(), self.targets.session());
        let again = || create::again(conn, session, index, &self.declaration);
        if let Err(damage) = catalog::check(conn, index) {
            return again().map_err(|error| error.context(damage));
        }
        let (source, mut options) = match self.source() {
            Ok(source) => source,
            // If the table has gone, that is what there is to say.
            Err(why) => return again().map_err(|_| why),
        };
        // Made anew: the table may have other UNIQUE constraints than when the index was made, or be another one.
        catalog::drop_triggers(self.conn(), index)?;
        catalog::create_triggers(self.conn(), index, &source)?;
        for (key, value) in [("table", &source.table), ("column", &source.column)] {
            catalog::put(self.conn(), index, key, value.clone())?;
        }
        options.filter.clone_from(&source.filter);
        options.group = source.group.as_ref().map(|group| group.column.clone());
        catalog::put(
            self.conn(),
            index,
            "options",
            serde_json::to_string(&options)?,
        )?;
        build::rebuild(
            self.conn(),
            self.targets.session(),
            index,
            &source,
            &options,
        )?;
        Ok(())
    }

    /// What is wrong with the index, if anything: its file, or a row of the table that file and changes do not tell.
    fn fault(&self) -> Result<Option<String>> {
        let index = self.index.borrow();
        if let Err(damage) = catalog::check(self.conn(), &index) {
            return Ok(Some(format!("{damage:#}")));
        }
        let name = format!("{}.{}", index.schema, index.name);
        let reader = self.targets.index(&name)?;
        let reader = reader.borrow();
        if let Some(fault) = reader.fault() {
            return Ok(Some(format!("index {}: {fault}", index.name)));
        }
        if reader.forest().is_none() {
            return Ok(None);
        }
        let inline = matches!(
            files::storage(self.conn(), &index)?,
            Some(files::Storage::Inline)
        );
        for part in reader.parts() {
            let Some(forest) = &part.forest else {
                continue;
            };
            // The copy that searches use says nothing of the rows it was made of.
            let verdict = if inline {
                files::read(self.conn(), &index, &part.name).and_then(|forest| forest.verify())
            } else {
                forest.verify()
            };
            if let Err(error) = verdict {
                return Ok(Some(format!("index {}: {error:#}", index.name)));
            }
        }
        let source = reader.source();
        let mut rows = 0u64;
        let mut fault = None;
        source.read(
            self.conn(),
            &source.rows_that(&format!(
                "{} NOT IN (SELECT id FROM {})",
                source.quoted_key(),
                index.changes()
            )),
            0,
            |rowid, row| {
                rows += 1;
                if fault.is_none() && !reader.has_row(rowid, row) {
                    fault = Some(format!(
                        "index {}: row {rowid} of {} is not what the file has, and no trigger noted a change; \
                         rebuild the index",
                        index.name, source.table
                    ));
                }
                Ok(())
            },
        )?;
        if fault.is_some() {
            return Ok(fault);
        }
        let live: u64 = reader.parts().iter().map(|part| part.live() as u64).sum();
        if rows != live {
            return Ok(Some(format!(
                "index {}: the file has {} rows that the table lacks, and no trigger noted that they went; rebuild the \
                 index",
                index.name,
                live.abs_diff(rows)
            )));
        }
        Ok(None)
    }
}

impl Table for Index {
    type Cursor = IndexCursor;
    const STORED: bool = true;
    const WRITABLE: bool = true;

    fn connect(origin: Origin<'_>) -> Result<(Self, String)> {
        let index = IndexName {
            schema: origin.schema.to_owned(),
            name: origin.name.to_owned(),
        };
        let declaration = Declaration::parse(&origin.args)?;
        let targets = Targets::new(origin.db, origin.session)?;
        let conn = targets.connection();
        let column = if origin.create {
            create::create(conn, targets.session(), &index, &declaration)?
        } else {
            create::column(conn, &index, &declaration)
        };
        let columns = format!(
            "CREATE TABLE x({}, distance REAL, {} HIDDEN, k HIDDEN, options HIDDEN)",
            quote(&column),
            quote(&index.name)
        );
        Ok((
            Index {
                index: RefCell::new(index),
                declaration,
                targets,
            },
            columns,
        ))
    }

    fn best_index(&self, plan: &mut Plan<'_>) -> Result<bool> {
        let constraints = plan.constraints();
        // Also `FROM i(query, k, options)`, which is how SQLite says that the hidden columns are equal to these.
        let asks = |c: &&Constraint| match c.op {
            Op::Match => c.column == VECTOR || c.column == COMMAND as i32,
            Op::Eq => c.column == COMMAND as i32,
            _ => false,
        };
        if let Some(query) = constraints.iter().find(asks) {
            let arguments = [(query.column, query.op), (K, Op::Eq), (OPTIONS, Op::Eq)];
            return Ok(plan_search(plan, DISTANCE, &arguments, 1));
        }
        let by_rowid = constraints
            .iter()
            .find(|c| c.column == -1 && c.op == Op::Eq && c.usable);
        if let Some(&c) = by_rowid {
            plan.take(c, true);
            plan.number(SCAN | 1);
            // Much for one row: two sides of an OR beside a MATCH must not look cheaper than the one search that meets both.
            plan.cost(4_000.0, 1);
        } else {
            // As many as when it was built; each is read from its table.
            let built = catalog::built(self.conn(), &self.index.borrow());
            let rows = built.items.clamp(1_000, 1 << 48) as i64;
            plan.number(SCAN);
            plan.cost(10.0 * rows as f64, rows);
        }
        Ok(true)
    }

    fn open(&self) -> Result<IndexCursor> {
        Ok(IndexCursor::default())
    }

    fn update(&self, change: Change<'_>) -> Result<i64> {
        let index = self.index.borrow().name.clone();
        match change {
            Change::Insert(columns) => match columns.get(COMMAND) {
                ValueRef::Text(command) => {
                    self.command(std::str::from_utf8(command)?)?;
                    Ok(0)
                }
                _ => bail!(
                    "rows go into the table that {index} follows, not into the index; commands are given as INSERT \
                     INTO {0}({0}) VALUES('rebuild')",
                    quote(&index)
                ),
            },
            Change::Update | Change::Delete => {
                bail!("rows are changed in the table that {index} follows, not in the index")
            }
        }
    }

    fn destroy(&self) -> Result<()> {
        let index = self.index.borrow();
        create::drop(self.conn(), self.targets.session(), &index)
    }

    fn rename(&self, name: &str) -> Result<()> {
        let old = self.index.borrow().clone();
        let new = IndexName {
            schema: old.schema.clone(),
            name: name.to_owned(),
        };
        catalog::check(self.conn(), &old)?;
        let (source, _) = self.source()?;
        // Or else it could not be opened any more.
        create::check_names(name, &source.column)?;
        create::check_names(name, &self.declaration.column)?;
        let parts = build::current(self.conn(), &old);
        files::rename(self.conn(), self.targets.session(), &old, &new, &parts)?;
        self.conn().flush_prepared_statement_cache();
        catalog::drop_triggers(self.conn(), &old)?;
        for suffix in ["_catalog", "_changes"] {
            self.conn().execute_batch(&format!(
                "ALTER TABLE {} RENAME TO {}",
                old.quoted(suffix),
                new.bare(suffix)
            ))?;
        }
        catalog::create_triggers(self.conn(), &new, &source)?;
        *self.index.borrow_mut() = new;
        self.targets.session().named.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn integrity(&self) -> Result<Option<String>> {
        self.fault()
    }

    fn is_shadow(suffix: &str) -> bool {
        ["catalog", "parts"]
            .iter()
            .any(|table| suffix.eq_ignore_ascii_case(table))
    }
}

/// A scan of an [`Index`]: a search, or all rows.
#[derive(Default)]
pub(crate) struct IndexCursor {
    stream: Stream,
    /// (rowid, vector) of a scan without MATCH, backwards.
    rows: Option<Vec<(i64, Vec<u8>)>>,
    /// The index that a search went to.
    reader: Option<Rc<RefCell<Reader>>>,
}

impl IndexCursor {
    fn rowid(&self) -> Option<i64> {
        match &self.rows {
            Some(rows) => rows.last().map(|row| row.0),
            None => self.stream.current().map(|hit| hit.rowid),
        }
    }
}

impl Cursor for IndexCursor {
    type Table = Index;

    fn filter(&mut self, table: &Index, number: i32, _: &str, args: &Args<'_>) -> Result<()> {
        self.stream.stop();
        self.rows = None;
        if number & SCAN != 0 {
            let (source, _) = table.source()?;
            let mut rows = Vec::new();
            let one = if number & 1 != 0 {
                let Some(&rowid) = args.set(0)?.first() else {
                    self.rows = Some(rows);
                    return Ok(());
                };
                Some(rowid)
            } else {
                None
            };
            let mut statement = table.conn().prepare_cached(&source.listing(one))?;
            let mut selected = statement.query([])?;
            while let Some(row) = selected.next()? {
                let rowid = source.key_of(row.get_ref(0)?)?;
                if let Some(vector) = source.bytes(rowid, row.get_ref(1)?)? {
                    rows.push((rowid, vector));
                }
            }
            rows.reverse();
            self.rows = Some(rows);
            return Ok(());
        }
        let name = {
            let index = table.index.borrow();
            format!("{}.{}", index.schema, index.name)
        };
        let reader = table.targets.index(&name)?;
        self.reader = Some(Rc::clone(&reader));
        let args = QueryArgs::new(number, args, 0, "vector MATCH query AND k = n");
        match args.index(reader)? {
            Some(request) => self.stream.start(&table.targets, request),
            None => Ok(()),
        }
    }

    fn next(&mut self, table: &Index) -> Result<()> {
        match &mut self.rows {
            Some(rows) => {
                rows.pop();
                Ok(())
            }
            None => self.stream.advance(&table.targets),
        }
    }

    fn eof(&self) -> bool {
        self.rowid().is_none()
    }

    fn column(&self, table: &Index, i: usize, out: &mut Output<'_>) -> Result<()> {
        let Some(rowid) = self.rowid() else {
            return Ok(());
        };
        if i == DISTANCE as usize {
            if let Some(hit) = self.stream.current() {
                out.real(hit.distance);
            }
        } else if i == VECTOR as usize {
            match (
                self.rows.as_ref().and_then(|rows| rows.last()),
                &self.reader,
            ) {
                (Some((_, vector)), _) => out.blob(vector),
                (None, None) => {}
                (None, Some(reader)) => {
                    let reader = reader.borrow();
                    if reader.source().best().is_some() {
                        // A group has several vectors.
                        return Ok(());
                    }
                    let mut statement = table.conn().prepare_cached(reader.one_row())?;
                    statement
                        .query_row([rowid], |row| {
                            out.value(row.get_ref(1)?);
                            Ok(())
                        })
                        .optional()?
                        .with_context(|| {
                            format!(
                                "row {rowid} was deleted while the search ran; read all of its rows before any is changed"
                            )
                        })?;
                }
            }
        }
        Ok(())
    }

    fn rowid(&self) -> i64 {
        IndexCursor::rowid(self).unwrap_or(0)
    }
}
