//! What a search goes to: an index, or a bare table. Found by name once, then kept until the schema changes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Result, bail};
use rusqlite::{Connection, StatementStatus};

use super::stats::LastSearch;
use crate::forest::{Budget, Hit, Scratch, Stats, TopK, TypedScan, widened};
use crate::sql::index::reader::{Wanted, is_new};
use crate::sql::index::{self, Reader, TRIGGERS};
use crate::sql::scan::scan_table;
use crate::sql::source::Source;
use crate::sql::vector;
use crate::sql::vtab::Db;
use crate::sql::{Session, quote, work};
use crate::vector::{Element, Metric, Vector};

/// What a search goes to.
#[derive(Clone)]
pub(crate) enum Target {
    /// An index, and how to search it.
    Index(Rc<RefCell<Reader>>),
    /// A table without an index that fits.
    Table(Rc<Source>, Metric),
}

impl Target {
    /// The element type of its vectors, as far as the schema tells.
    pub(crate) fn element(&self) -> Option<Element> {
        match self {
            Target::Index(reader) => Some(reader.borrow().source().element.unwrap_or(Element::F32)),
            Target::Table(source, _) => source.element,
        }
    }

    /// The column that is searched.
    pub(crate) fn column(&self) -> String {
        match self {
            Target::Index(reader) => reader.borrow().source().column.clone(),
            Target::Table(source, _) => source.column.clone(),
        }
    }
}

/// How an index is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Way {
    /// Every row.
    Exact,
    /// The leaves that a budget allows.
    Within(Budget),
}

/// A column and how it is to be searched, as far as the statement says: table, column, metric, element type.
type Asked = (String, String, Option<Metric>, Option<Element>);

/// The targets that one virtual table has found.
pub(crate) struct Targets {
    conn: Connection,
    /// The same connection, with the statements by which it notices that a schema has changed: one for each reader, and
    /// [`WATCH`]. One that others had pushed out would tell nothing.
    probes: Connection,
    session: Arc<Session>,
    indexes: RefCell<HashMap<String, Rc<RefCell<Reader>>>>,
    /// `Session::named` when their names were looked up.
    named: Cell<u64>,
    columns: RefCell<HashMap<Asked, Target>>,
    scratch: RefCell<Scratch>,
}

/// Statements kept, some five for each index that is searched, and of the probes.
const STATEMENTS: usize = 128;
const PROBES: usize = 4096;

/// Touches the schemas whose change may give a bare name another meaning.
const WATCH: &str = "SELECT 1 FROM main.sqlite_schema, temp.sqlite_schema LIMIT 0";

impl Targets {
    pub(crate) fn new(db: Db, session: Arc<Session>) -> Result<Self> {
        Ok(Self::with(db.connection()?, db.connection()?, session))
    }

    /// For a single call.
    pub(crate) fn of(conn: &Connection, session: &Arc<Session>) -> Result<Self> {
        Targets::new(Db::of(conn), Arc::clone(session))
    }

    fn with(conn: Connection, probes: Connection, session: Arc<Session>) -> Self {
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        probes.set_prepared_statement_cache_capacity(PROBES);
        Targets {
            conn,
            probes,
            session,
            indexes: RefCell::default(),
            named: Cell::default(),
            columns: RefCell::default(),
            scratch: RefCell::default(),
        }
    }

    /// The connection, with the statements of these targets.
    pub(crate) fn connection(&self) -> &Connection {
        &self.conn
    }

    /// What the functions and tables of the connection share.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The index of this name, as the running statement's snapshot has it.
    pub(crate) fn index(&self, name: &str) -> Result<Rc<RefCell<Reader>>> {
        let known = self.indexes.borrow().get(name).cloned();
        let named = self.session.named.load(Ordering::Relaxed);
        if named != self.named.replace(named) {
            self.forget();
        } else if let Some(reader) = &known
            && !self.means_another(name, reader)?
            && self.is_current(reader)
        {
            return Ok(Rc::clone(reader));
        }
        // What it has open is kept until the new one has it.
        self.indexes.borrow_mut().remove(name);
        let Some(index) = index::find(&self.conn, name)? else {
            return Err(index::no_index(&self.conn, name));
        };
        let reader = self.opened(index)?;
        self.indexes
            .borrow_mut()
            .insert(name.to_owned(), Rc::clone(&reader));
        Ok(reader)
    }

    /// Whether a bare name may mean another index than one of an attached database by now, because somebody has made one.
    fn means_another(&self, name: &str, reader: &RefCell<Reader>) -> Result<bool> {
        let reader = reader.borrow();
        let index = reader.index();
        let is_bare = index.name.eq_ignore_ascii_case(name);
        Ok(is_bare && !["main", "temp"].contains(&&*index.schema) && self.schema_has_changed()?)
    }

    /// Whether what the names of tables meant may have changed since this was asked; nothing is known of them then.
    fn schema_has_changed(&self) -> Result<bool> {
        let watch = &mut self.probes.prepare_cached(WATCH)?;
        watch.query([])?.next()?;
        let has_changed = is_new(watch);
        if has_changed {
            watch.reset_status(StatementStatus::RePrepare);
            self.forget();
        }
        Ok(has_changed)
    }

    /// Forgets what names meant.
    fn forget(&self) {
        self.columns.borrow_mut().clear();
        self.indexes.borrow_mut().clear();
        self.probes.flush_prepared_statement_cache();
    }

    fn opened(&self, index: index::IndexName) -> Result<Rc<RefCell<Reader>>> {
        let mut reader = Reader::open(&self.conn, &self.probes, &self.session, index)?;
        if !reader.look(&self.conn, &self.probes)? {
            bail!("the schema changes while the index is opened");
        }
        Ok(Rc::new(RefCell::new(reader)))
    }

    /// Whether what is known of an index still holds. An error, such as a dropped shadow table, means it does not.
    fn is_current(&self, reader: &RefCell<Reader>) -> bool {
        let mut reader = reader.borrow_mut();
        reader.look(&self.conn, &self.probes).unwrap_or(false)
    }

    /// A column of a table: an index of this metric over all of it, or the table itself. Without a metric, hamming for bits
    /// and else cosine. `element` is what a column that is not declared to be of an element type is taken for.
    pub(crate) fn column(
        &self,
        table: &str,
        column: &str,
        metric: Option<Metric>,
        element: Option<Element>,
    ) -> Result<Target> {
        let key = (table.to_owned(), column.to_owned(), metric, element);
        // What it has open is kept until a new one has it.
        let known = self.columns.borrow().get(&key).cloned();
        if !self.schema_has_changed()? {
            match &known {
                Some(Target::Index(reader)) if self.is_current(reader) => {
                    return Ok(Target::Index(Rc::clone(reader)));
                }
                Some(target @ Target::Table(..)) => return Ok(target.clone()),
                _ => {}
            }
        }
        let mut source = Source::find(&self.conn, table, column)?;
        source.element = source.element.or(element);
        let metric = match (source.element, metric) {
            (Some(Element::Bit), None) => Metric::Hamming,
            (Some(Element::Bit), Some(metric)) if metric != Metric::Hamming => bail!(
                "Cannot calculate {} distance between two bitvectors.",
                metric.name()
            ),
            (_, metric) => metric.unwrap_or(Metric::Cosine),
        };
        let schema = source.schema.clone();
        let target = match self.index_over(&source, metric)? {
            Some(reader) => Target::Index(reader),
            None => Target::Table(Rc::new(source), metric),
        };
        // The watch does not see attached databases.
        if schema == "main" || schema == "temp" || matches!(target, Target::Index(_)) {
            self.columns.borrow_mut().insert(key, target.clone());
        }
        Ok(target)
    }

    /// An index over this very column.
    fn index_over(&self, source: &Source, metric: Metric) -> Result<Option<Rc<RefCell<Reader>>>> {
        let mut statement = self.conn.prepare(&format!(
            "SELECT substr(name, 1, length(name) - length(?2)) FROM {}.sqlite_schema
             WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE AND substr(name, -length(?2)) = ?2 ORDER BY 1",
            quote(&source.schema)
        ))?;
        let names: Vec<String> = statement
            .query_map([&source.table, TRIGGERS[0]], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for name in names {
            let Some(index) = index::find(&self.conn, &format!("{}.{name}", source.schema))? else {
                continue;
            };
            let reader = match self.opened(index) {
                Ok(reader) => reader,
                // The table needs none; whatever else is wrong, it meets as well.
                Err(error) => {
                    work::log(&format!("index {name} is left out: {error:#}"));
                    continue;
                }
            };
            let fits = {
                let reader = reader.borrow();
                reader.source() == source && reader.metric() == metric && reader.fault().is_none()
            };
            if fits {
                return Ok(Some(reader));
            }
            reader.borrow().leave(&self.probes);
        }
        Ok(None)
    }

    /// The nearest rows of a target to a query of its element type.
    pub(crate) fn search_one(
        &self,
        target: &Target,
        way: Way,
        query: &Vector<'_>,
        wanted: &Wanted,
    ) -> Result<Vec<Hit>> {
        let mut wide = Vec::new();
        let floats = match (target, query) {
            (_, Vector::F32(query)) => query.as_ref(),
            (Target::Table(source, metric), query) => {
                return self.search_typed(source, *metric, query, wanted);
            }
            (Target::Index(_), query) => {
                query.write_f32(&mut wide);
                &wide
            }
        };
        let mut found = self.search(target, way, &[floats], wanted)?;
        Ok(found.pop().unwrap_or_default())
    }

    /// The nearest rows of a table to a query that is not float32.
    fn search_typed(
        &self,
        source: &Source,
        metric: Metric,
        query: &Vector<'_>,
        wanted: &Wanted,
    ) -> Result<Vec<Hit>> {
        let began = Instant::now();
        let wide = widened(query);
        let mut scan = TypedScan::new(metric, query, &wide)?;
        let mut best = TopK::within(wanted.k, wanted.within);
        let read = source.values(&self.conn, wanted.among.as_deref(), |rowid, value| {
            let row = vector::row(value, query.element())
                .map_err(|error| source.no_vector(rowid, &error))?;
            if row.dim() != query.dim() {
                bail!(
                    "Dimension mismatch for query vector for the \"{}\" column. Expected {} dimensions but received {}.",
                    source.column,
                    row.dim(),
                    query.dim()
                );
            }
            scan.push(rowid, &row, &mut best)
                .map_err(|error| source.no_vector(rowid, &error))
        })?;
        let found = best.into_sorted();
        self.session.note_search(LastSearch {
            by: "table",
            queries: 1,
            answers: found.len(),
            stats: Stats {
                rows: read.vectors,
                reranked: read.vectors,
                bytes_read: read.vectors * query.bytes().len() as u64,
                ..Stats::default()
            },
            took: began.elapsed(),
        });
        Ok(found)
    }

    /// The dimension of a target's vectors; `None` when it has none.
    pub(crate) fn dim(&self, target: &Target) -> Result<Option<usize>> {
        let first = |source: &Source| -> Result<Option<usize>> {
            let column = quote(&source.column);
            let sql = format!(
                "{} LIMIT 1",
                source.rows_that(&format!("{column} IS NOT NULL"))
            );
            let mut dim = None;
            source.scan(&self.conn, &sql, 0, |_, row| {
                dim = Some(row.len());
                Ok(())
            })?;
            Ok(dim)
        };
        match target {
            Target::Table(source, _) => first(source),
            Target::Index(reader) => {
                let reader = reader.borrow();
                match reader.forest() {
                    Some(forest) => Ok(Some(forest.dim())),
                    None => first(reader.source()),
                }
            }
        }
    }

    /// The nearest rows of a target, or groups of them, for each query.
    pub(crate) fn search(
        &self,
        target: &Target,
        way: Way,
        queries: &[&[f32]],
        wanted: &Wanted,
    ) -> Result<Vec<Vec<Hit>>> {
        if let Target::Index(reader) = target
            && reader.borrow().source().best().is_some()
        {
            let groups = |query: &&[f32]| self.search_groups(target, reader, way, query, wanted);
            return queries.iter().map(groups).collect();
        }
        self.search_rows(target, way, queries, wanted)
    }

    /// The nearest rows of a target, for each query.
    pub(super) fn search_rows(
        &self,
        target: &Target,
        way: Way,
        queries: &[&[f32]],
        wanted: &Wanted,
    ) -> Result<Vec<Vec<Hit>>> {
        let began = Instant::now();
        let mut stats = Stats::default();
        let (found, by) = match target {
            Target::Table(source, metric) => (
                scan_table(
                    &self.conn,
                    &self.session,
                    source,
                    *metric,
                    queries,
                    wanted,
                    &mut stats,
                )?,
                "table",
            ),
            Target::Index(reader) => {
                let reader = reader.borrow();
                let scratch = &mut self.scratch.borrow_mut();
                let stats = &mut stats;
                let conn = &self.conn;
                match way {
                    _ if reader.answering().is_none() => (
                        reader.exact(conn, queries, wanted, scratch, stats)?,
                        "table",
                    ),
                    Way::Exact => (
                        reader.exact(conn, queries, wanted, scratch, stats)?,
                        "index, exactly",
                    ),
                    Way::Within(budget) => (
                        reader.approximate(conn, queries, wanted, budget, scratch, stats)?,
                        "index",
                    ),
                }
            }
        };
        let by = match by {
            // An exact search was as cheap, or had to complete the answer.
            "index" if stats.leaves == 0 && stats.by_position == 0 => "index, exactly",
            _ if stats.by_position == 0 => by,
            "table" => "table, rows of the filter",
            _ => "index, rows of the filter",
        };
        self.session.note_search(LastSearch {
            by,
            queries: queries.len(),
            answers: found.iter().map(Vec::len).sum(),
            stats,
            took: began.elapsed(),
        });
        Ok(found)
    }
}
