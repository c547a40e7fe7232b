//! An index as a query sees it: its file, and what has changed in its table since that was built.
//!
//! Two things are read afresh for every query, in one statement, inside the query's own snapshot: which generation the
//! catalogue names, and whether the triggers have noted changes. The rows noted are searched exactly in the table, the
//! file's own version of them is hidden, and both answers are merged: what comes out is true for this snapshot,
//! whoever wrote, and after any ROLLBACK. When the file can't be used, the table answers alone.

use std::cell::Cell;
use std::sync::Arc;

use anyhow::{Result, bail};
use rusqlite::{Connection, OptionalExtension, StatementStatus};
use rustc_hash::FxHashSet;

use super::catalog::{self, Settings};
use super::files::{self, Open};
use super::names::IndexName;
use crate::forest::{Ask, Budget, Hit, RowScan, Scratch, Stats, TopK};
use crate::sql::scan::scan_table;
use crate::sql::source::Source;
use crate::sql::{Session, work};
use crate::vector::Metric;

/// Below this number of rows `knn_annoy` answers exactly unless it is told a budget: measured, an exact search of the
/// codes is then as fast as one through the trees.
const BREAK_EVEN: usize = 10_000;

/// A thread of an exact search should have this much of a plane to read: about two milliseconds.
const PLANE_EACH: usize = 32 << 20;

/// What is wanted of a search, beside what is near what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// How many rows.
    pub(crate) k: usize,
    /// No row beyond this distance.
    pub(crate) within: f64,
    /// Threads; `None`: as many as have enough to do.
    pub(crate) threads: Option<usize>,
}

/// An index that queries use again and again.
pub(crate) struct Reader {
    index: IndexName,
    settings: Settings,
    metric: Metric,
    source: Source,
    session: Arc<Session>,
    probe: String,
    pending_rows: String,
    one_row: String,
    /// The generation the catalogue named last.
    current: Option<String>,
    forest: Option<Open>,
    /// Why there is no forest although there should be one.
    fault: Option<String>,
    /// Whether `current` and what follows from it have been read at all.
    looked: bool,
    /// Whether the triggers are in place.
    tracked: bool,
    pending: Pending,
    /// Exact searches of this file so far, as far as two.
    searched: Cell<u8>,
}

/// What has changed since the file was built.
#[derive(Default)]
struct Pending {
    /// Rowids the file must not answer with.
    hidden: FxHashSet<i64>,
    /// Rowids of those that are in the table now.
    ids: Vec<i64>,
    /// Their vectors, one after the other.
    rows: Vec<f32>,
}

/// The index with this name, which may be qualified; `None` when there is none.
pub(crate) fn find(conn: &Connection, name: &str) -> Result<Option<IndexName>> {
    let mut statement = conn.prepare_cached(
        "SELECT schema, substr(name, 1, length(name) - length('_catalog')) AS i FROM pragma_table_list
         WHERE (name = ?1 || '_catalog' COLLATE NOCASE OR schema || '.' || name = ?1 || '_catalog' COLLATE NOCASE)
           AND EXISTS(SELECT 1 FROM pragma_table_list AS c
                      WHERE c.schema = pragma_table_list.schema AND c.name = i || '_changes')
         ORDER BY i <> ?1, CASE schema WHEN 'temp' THEN 0 WHEN 'main' THEN 1 ELSE 2 END",
    )?;
    Ok(statement
        .query_row([name], |row| {
            Ok(IndexName {
                schema: row.get(0)?,
                name: row.get(1)?,
            })
        })
        .optional()?)
}

/// Every index of every attached database.
pub(crate) fn all(conn: &Connection) -> Result<Vec<IndexName>> {
    let mut statement = conn.prepare(
        "SELECT a.schema, substr(a.name, 1, length(a.name) - length('_catalog')) AS i
         FROM pragma_table_list a JOIN pragma_table_list b ON b.schema = a.schema AND b.name = i || '_changes'
         WHERE a.name LIKE '%\\_catalog' ESCAPE '\\' ORDER BY a.schema <> 'main', a.schema, i",
    )?;
    let indexes = statement
        .query_map([], |row| {
            Ok(IndexName {
                schema: row.get(0)?,
                name: row.get(1)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(indexes)
}

impl Reader {
    /// Opens the index for queries on `conn`, and takes its state.
    pub(crate) fn open(
        conn: &Connection,
        session: &Arc<Session>,
        index: IndexName,
    ) -> Result<Reader> {
        let settings = catalog::settings(conn, &index)?;
        let tracked = catalog::tracked_table(conn, &index)?;
        let table = tracked.clone().unwrap_or_else(|| settings.table.clone());
        let source = catalog::source(conn, &index, &settings, &table)?;
        let probe = format!(
            "SELECT (SELECT value FROM {} WHERE key = 'current'), EXISTS(SELECT 1 FROM {})",
            index.catalog(),
            index.changes()
        );
        let pending_rows = format!(
            "SELECT t.{}, t.{} FROM {} AS c CROSS JOIN {} AS t ON t.{} = c.id",
            source.quoted_key(),
            crate::sql::quote(&source.column),
            index.changes(),
            source.quoted_table(),
            source.quoted_key()
        );
        let mut reader = Reader {
            metric: settings.options.metric()?,
            settings,
            one_row: source.one_row(),
            source,
            session: Arc::clone(session),
            probe,
            pending_rows,
            current: None,
            forest: None,
            fault: None,
            looked: false,
            tracked: tracked.is_some(),
            pending: Pending::default(),
            searched: Cell::new(0),
            index,
        };
        // The statement's count of preparations begins here: a later one means that the schema has changed.
        let mut probe = conn.prepare_cached(&reader.probe)?;
        probe.query_row([], |_| Ok(()))?;
        probe.reset_status(StatementStatus::RePrepare);
        drop(probe);
        if !reader.look(conn)? {
            bail!("the schema changes while the index is opened");
        }
        Ok(reader)
    }

    /// Takes the state of the index in the snapshot of the running statement. `false`: the schema has changed, and the
    /// index must be opened anew.
    pub(crate) fn look(&mut self, conn: &Connection) -> Result<bool> {
        let mut statement = conn.prepare_cached(&self.probe)?;
        {
            let mut rows = statement.query([])?;
            let Some(row) = rows.next()? else {
                bail!("the catalogue of index {} cannot be read", self.index.name);
            };
            let current = row.get_ref(0)?.as_str_or_null()?;
            if !self.looked || current != self.current.as_deref() {
                self.current = current.map(str::to_owned);
                self.open_forest(conn);
                self.looked = true;
            }
            // While the statement has not ended, what else is read comes from the same snapshot.
            if row.get::<_, bool>(1)? || !self.pending.hidden.is_empty() {
                self.read_pending(conn)?;
            }
        }
        Ok(statement.get_status(StatementStatus::RePrepare) == 0)
    }

    fn open_forest(&mut self, conn: &Connection) {
        self.forest = None;
        self.fault = None;
        self.searched.set(0);
        let Some(current) = &self.current else {
            return;
        };
        if !self.tracked {
            self.fault = Some(format!(
                "the triggers that note changes of {} are gone, so its file may be stale",
                self.source.table
            ));
        } else {
            match files::open(conn, &self.session, &self.index, current) {
                Ok(forest) => self.forest = Some(forest),
                Err(error) => self.fault = Some(format!("{error:#}")),
            }
        }
        if let Some(fault) = &self.fault {
            work::log(&format!(
                "index {} answers from its table: {fault}; repair it with INSERT INTO {1}({1}) VALUES('rebuild')",
                self.index.name,
                crate::sql::quote(&self.index.name)
            ));
        }
    }

    fn read_pending(&mut self, conn: &Connection) -> Result<()> {
        let Pending { hidden, ids, rows } = &mut self.pending;
        hidden.clear();
        ids.clear();
        rows.clear();
        let Some(forest) = &self.forest else {
            return Ok(());
        };
        let mut statement =
            conn.prepare_cached(&format!("SELECT id FROM {}", self.index.changes()))?;
        let mut changes = statement.query([])?;
        while let Some(row) = changes.next()? {
            hidden.insert(row.get(0)?);
        }
        self.source
            .read(conn, &self.pending_rows, forest.dim(), |id, row| {
                ids.push(id);
                rows.extend_from_slice(row);
                Ok(())
            })?;
        Ok(())
    }

    /// The nearest rows of each query, exactly.
    pub(crate) fn exact(
        &self,
        conn: &Connection,
        queries: &[&[f32]],
        wanted: &Wanted,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> Result<Vec<Vec<Hit>>> {
        let Some(forest) = &self.forest else {
            return scan_table(
                conn,
                &self.session,
                &self.source,
                self.metric,
                queries,
                wanted,
                stats,
            );
        };
        for query in queries {
            self.check_dim(query, forest.dim())?;
        }
        // The first search may be the only one; from the second on it pays to have the pages at hand.
        if self.searched.get() < 2 {
            self.searched.set(self.searched.get() + 1);
            if self.searched.get() == 2 {
                forest.bytes().bring_near(&forest.exact_parts());
            }
        }
        let ask = Ask {
            k: wanted.k,
            within: wanted.within,
            threads: wanted.threads.unwrap_or_else(|| {
                work::threads(0).min(forest.plane_bytes() * queries.len() / PLANE_EACH)
            }),
            hidden: &self.pending.hidden,
        };
        let found = match queries {
            [query] => vec![forest.exact_with(query, &ask, scratch, stats)],
            _ => forest.exact_many(queries, &ask, stats),
        };
        Ok(self.merge_all(queries, wanted, found))
    }

    /// The nearest rows of each query as far as the budget finds them.
    pub(crate) fn approximate(
        &self,
        conn: &Connection,
        queries: &[&[f32]],
        wanted: &Wanted,
        budget: Budget,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> Result<Vec<Vec<Hit>>> {
        let Some(forest) = &self.forest else {
            return self.exact(conn, queries, wanted, scratch, stats);
        };
        if budget == Budget::Default && forest.len() <= BREAK_EVEN {
            return self.exact(conn, queries, wanted, scratch, stats);
        }
        for query in queries {
            self.check_dim(query, forest.dim())?;
        }
        stats.rows += (forest.len() * queries.len()) as u64;
        let (k, hidden) = (wanted.k, &self.pending.hidden);
        let found = match queries {
            [query] => vec![forest.search(query, k, budget, hidden, scratch)],
            _ => {
                let threads = wanted.threads.unwrap_or(1);
                forest.search_many(queries, k, budget, hidden, threads)
            }
        };
        Ok(self.merge_all(queries, wanted, found))
    }

    /// The hits of the file and the pending rows, together.
    fn merge_all(
        &self,
        queries: &[&[f32]],
        wanted: &Wanted,
        found: Vec<Vec<Hit>>,
    ) -> Vec<Vec<Hit>> {
        if self.pending.ids.is_empty() {
            return found;
        }
        let merge = |(query, hits): (&&[f32], Vec<Hit>)| {
            let mut best = TopK::within(wanted.k, wanted.within);
            hits.into_iter().for_each(|hit| best.push(hit));
            let scan = RowScan::new(self.metric, *query);
            let rows = self.pending.rows.chunks_exact(query.len());
            for (&rowid, row) in self.pending.ids.iter().zip(rows) {
                let finite = scan.push(rowid, row, &mut best);
                debug_assert!(finite, "checked when it was read");
            }
            best.into_sorted()
        };
        queries.iter().zip(found).map(merge).collect()
    }

    fn check_dim(&self, query: &[f32], dim: usize) -> Result<()> {
        check_dim(query, dim, &self.source.column)
    }

    /// The column that is indexed.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The statement that gives (rowid, vector) of the row whose rowid is bound to ?1.
    pub(crate) fn one_row(&self) -> &str {
        &self.one_row
    }

    /// The metric of the index.
    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    /// How the index was declared.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The index itself.
    pub(crate) fn index(&self) -> &IndexName {
        &self.index
    }

    /// The open forest, if its file can be used.
    pub(crate) fn forest(&self) -> Option<&Open> {
        self.forest.as_ref()
    }

    /// Why the file can't be used.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// What the catalogue calls the current generation.
    pub(crate) fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }
}

/// sqlite-vec's words for a query of the wrong length.
pub(crate) fn check_dim(query: &[f32], dim: usize, column: &str) -> Result<()> {
    if query.len() != dim {
        bail!(
            "Dimension mismatch for query vector for the \"{column}\" column. Expected {dim} dimensions but received {}.",
            query.len()
        );
    }
    Ok(())
}
