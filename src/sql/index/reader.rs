//! An index as a query sees it: its file, and what has changed in its table since that was built.
//!
//! Two things are read afresh for every query, in one statement, inside the query's own snapshot: which generation the
//! catalogue names, and the last change that the triggers have noted. The rows noted ([`super::pending`]) are searched
//! exactly, the files' own versions of them are hidden, and all answers are merged: what comes out is true for this
//! snapshot, whoever wrote, and after any ROLLBACK. When a file can't be used, the table answers alone.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use anyhow::{Result, anyhow, bail};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, StatementStatus, TransactionState};

use super::catalog::{self, Settings};
use super::files::Open;
use super::names::IndexName;
use super::originals::TableRows;
use super::part::{self, Part};
use super::pending::{Pending, Place, STAMP};
use crate::forest::{Ask, Budget, Hit, Originals, RowSet, Scratch, Stats, TopK, VectorStore};
use crate::spelling::did_you_mean;
use crate::sql::scan::scan_table;
use crate::sql::schema::{self, Kind, Object};
use crate::sql::source::Source;
use crate::sql::{Session, work};
use crate::vector::Metric;

/// Up to so many bytes of plane (10,000 rows of 50 dimensions, 1,700 of 384) `knn_annoy` answers exactly unless it is told
/// a budget: measured, that is then about as fast as a search of the lists.
const BREAK_EVEN: usize = 340_000;

/// A thread more for so many approximate searches: starting one takes as long as one of them.
const QUERIES_EACH: usize = 16;
/// A thread of an exact search should have this much of a plane to read: about two milliseconds.
const PLANE_EACH: usize = 32 << 20;

/// Rows of each file that are compared with the table when it is first used.
const COMPARED: usize = 16;

/// How many readers there have been.
static READERS: AtomicU64 = AtomicU64::new(0);

/// What is wanted of a search, beside what is near what.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// How many rows.
    pub(crate) k: usize,
    /// No row beyond this distance.
    pub(crate) within: f64,
    /// Rowids of which the answer must be, if not all may be.
    pub(crate) among: Option<Arc<RowSet>>,
    /// Whether such a set is met by a scan of lists even where that is not the cheapest way.
    pub(crate) scan_lists: bool,
    /// Threads; `None`: as many as have enough to do.
    pub(crate) threads: Option<usize>,
}

/// An index that queries use again and again.
pub(crate) struct Reader {
    index: IndexName,
    settings: Settings,
    metric: Metric,
    /// What the forests compare by.
    forest_metric: Metric,
    source: Source,
    session: Arc<Session>,
    probe: String,
    one_row: String,
    /// The parts the catalogue named last.
    current: Option<String>,
    /// They, open: the main one first. None: the table answers.
    parts: Vec<Part>,
    /// Why there is none although there should be.
    fault: Option<String>,
    /// Whether `current` and what follows from it have been read at all.
    looked: bool,
    /// Why changes may go unnoticed.
    untracked: Option<String>,
    /// Whether a search within a statement that writes may come before the trigger that notes a change.
    too_soon: bool,
    /// Whether the running one may: then the table answers.
    blind: bool,
    pending: Pending,
    /// Exact searches of this file so far, as far as they count.
    searched: AtomicU8,
}

/// The index with this name, which may be qualified; `None` when there is none.
pub(crate) fn find(conn: &Connection, name: &str) -> Result<Option<IndexName>> {
    let found = schema::find(conn, name, |object| is_index(conn, object))?;
    Ok(found.map(IndexName::from))
}

/// Whether it is an index with its tables.
fn is_index(conn: &Connection, object: &Object) -> Result<bool> {
    let has = |suffix: &str| {
        let table = schema::object(conn, &object.schema, &format!("{}{suffix}", object.name))?;
        Ok::<_, anyhow::Error>(table.is_some_and(|table| table.kind == Kind::Table))
    };
    Ok(object.kind == Kind::Virtual && has("_catalog")? && has("_changes")?)
}

/// Every index of every attached database.
pub(crate) fn all(conn: &Connection) -> Result<Vec<IndexName>> {
    let mut schemas = schema::schemas(conn)?;
    schemas.sort_by(|a, b| (a != "main", a).cmp(&(b != "main", b)));
    let mut indexes = Vec::new();
    for schema in schemas {
        for object in schema::virtual_tables(conn, &schema)? {
            if is_index(conn, &object)? {
                indexes.push(object.into());
            }
        }
    }
    Ok(indexes)
}

/// The error for an index that is not there.
pub(crate) fn no_index(conn: &Connection, name: &str) -> anyhow::Error {
    // The list is a help only: what matters is that the index is not there.
    let known: Vec<String> = all(conn)
        .unwrap_or_default()
        .into_iter()
        .map(|index| index.name)
        .collect();
    if let Ok(Some(index)) = bereft(conn, name) {
        return anyhow!(
            "index {0} has lost its tables {0}_catalog or {0}_changes; make them again with INSERT INTO {1}({1}) \
             VALUES('rebuild'), or DROP TABLE {1}",
            index,
            crate::sql::quote(&index)
        );
    }
    if known.is_empty() {
        return anyhow!(
            "no such index: {name}; there are none yet: CREATE VIRTUAL TABLE name USING annoy(table, column)"
        );
    }
    let hint = did_you_mean(name, known.iter().map(String::as_str));
    anyhow!("no such index: {name}; there is {}{hint}", known.join(", "))
}

/// The index of this name that lacks shadow tables.
fn bereft(conn: &Connection, name: &str) -> Result<Option<String>> {
    let is_ours = |object: &Object| {
        let sql = format!(
            "SELECT 1 FROM {}.sqlite_schema WHERE name = ?1 AND sql LIKE '%USING annoy%'",
            crate::sql::quote(&object.schema)
        );
        Ok(object.kind == Kind::Virtual && conn.prepare(&sql)?.exists([&object.name])?)
    };
    Ok(schema::find(conn, name, is_ours)?.map(|object| object.name))
}

impl Reader {
    /// Opens the index for queries on `conn`, and takes its state; [`Reader::look`] takes in the rows that have changed.
    /// `probes` is a view of the same connection, which may be `conn`: the statement that tells whether anything has changed
    /// is kept there.
    pub(crate) fn open(
        conn: &Connection,
        probes: &Connection,
        session: &Arc<Session>,
        index: IndexName,
    ) -> Result<Reader> {
        let settings = catalog::settings(conn, &index)?;
        let tracked = catalog::tracked_table(conn, &index)?;
        let table = tracked.clone().unwrap_or_else(|| settings.table.clone());
        let source = catalog::source(conn, &index, &settings, &table)?;
        let untracked = match &tracked {
            Some(_) => catalog::unnoticed_replace(conn, &index, &source)?,
            None => Some(format!(
                "the triggers that note changes of {} are gone, so its file may be stale",
                source.table
            )),
        };
        // A statement of this reader alone: another reader of the same index would take notice of a change in its place.
        let probe = format!(
            "SELECT (SELECT value FROM {} WHERE key = 'current'), c.seq, c.stamp
             FROM (SELECT 1) LEFT JOIN (SELECT seq, {STAMP} AS stamp FROM {} ORDER BY seq DESC LIMIT 1) AS c /* {} */",
            index.catalog(),
            index.changes(),
            READERS.fetch_add(1, Ordering::Relaxed)
        );
        let too_soon = catalog::searched_too_soon(conn, &index, &source)?;
        let mut reader = Reader {
            metric: settings.options.metric()?,
            forest_metric: settings.options.forest_metric()?,
            settings,
            one_row: source.one_row(),
            source,
            session: Arc::clone(session),
            probe,
            current: None,
            parts: Vec::new(),
            fault: None,
            looked: false,
            untracked,
            too_soon,
            blind: false,
            pending: Pending::default(),
            searched: AtomicU8::new(0),
            index,
        };
        // The statement's count of preparations begins here: a later one means that the schema has changed.
        let mut probe = probes.prepare_cached(&reader.probe)?;
        probe.query_row([], |_| Ok(()))?;
        probe.reset_status(StatementStatus::RePrepare);
        drop(probe);
        if !reader.take(conn, probes, false)? {
            bail!("the schema changes while the index is opened");
        }
        Ok(reader)
    }

    /// Takes the state of the index in the snapshot of the running statement, and the rows that have changed. `false`: the
    /// schema has changed, and the index must be opened anew.
    pub(crate) fn look(&mut self, conn: &Connection, probes: &Connection) -> Result<bool> {
        self.take(conn, probes, true)
    }

    /// Lets go of the statement that was kept: the reader will not be asked again.
    pub(crate) fn leave(&self, probes: &Connection) {
        if let Ok(probe) = probes.prepare_cached(&self.probe) {
            probe.discard();
        }
    }

    fn take(&mut self, conn: &Connection, probes: &Connection, rows_too: bool) -> Result<bool> {
        self.blind = conn.transaction_state(Some(&*self.index.schema))? == TransactionState::Write
            && work::is_writing(conn)
            && (self.too_soon
                || work::is_returning(conn)
                || catalog::has_temporary_trigger(conn, &self.source)?);
        let mut statement = probes.prepare_cached(&self.probe)?;
        {
            let mut rows = statement.query([])?;
            let Some(row) = rows.next()? else {
                bail!("the catalogue of index {} cannot be read", self.index.name);
            };
            // Whatever else stands there names no parts, and the table answers.
            let current = match row.get_ref(0)? {
                ValueRef::Null => None,
                ValueRef::Text(text) => Some(String::from_utf8_lossy(text)),
                other => Some(format!("something of type {}", other.data_type()).into()),
            };
            if !self.looked || current.as_deref() != self.current.as_deref() {
                self.current = current.map(Cow::into_owned);
                self.open_parts(conn)?;
                self.looked = true;
            }
            // While the statement has not ended, what else is read comes from the same snapshot.
            let dim = self.forest().map(|main| main.dim());
            if rows_too && let Some(dim) = dim {
                let last: Option<i64> = row.get(1)?;
                let place = Place {
                    conn,
                    session: &self.session,
                    index: &self.index,
                    source: &self.source,
                    metric: self.forest_metric,
                    dim,
                };
                let last = last.zip(row.get(2)?);
                self.pending.follow(&place, last, &mut self.parts)?;
            }
        }
        let is_current = !is_new(&statement);
        if !is_current {
            statement.discard();
        }
        Ok(is_current)
    }

    fn open_parts(&mut self, conn: &Connection) -> Result<()> {
        // Those that go on are not to be opened anew.
        let _old = std::mem::take(&mut self.parts);
        self.pending = Pending::default();
        self.fault = None;
        self.searched = AtomicU8::new(0);
        let Some(current) = &self.current else {
            return Ok(());
        };
        if let Some(why) = &self.untracked {
            self.fault = Some(why.clone());
        } else {
            match part::open(conn, &self.session, &self.index, current) {
                Ok(parts) => {
                    self.parts = parts;
                    self.fault = self.unnoticed_change(conn)?;
                }
                Err(error) => self.fault = Some(format!("{error:#}")),
            }
        }
        if self.fault.is_some() {
            self.parts = Vec::new();
        }
        if let Some(fault) = &self.fault {
            work::log(&format!(
                "index {} answers from its table: {fault}; repair it with INSERT INTO {1}({1}) VALUES('rebuild')",
                self.index.name,
                crate::sql::quote(&self.index.name)
            ));
        }
        Ok(())
    }

    /// Looks for changes that no trigger has noted, as far as that costs next to nothing: the ends of the table's keys and
    /// of the files' rowids, and rows in between, must have the same bytes on both sides, or
    /// the same code if the file has no vectors. `integrity-check` looks at all.
    fn unnoticed_change(&self, conn: &Connection) -> Result<Option<String>> {
        if work::is_writing(conn) {
            // A row may have changed whose trigger is about to run.
            return Ok(None);
        }
        let key = self.source.quoted_key();
        let table = self.source.quoted_table();
        // A group's column may hold anything. Texts and blobs come last; numbers that are no integers are passed over.
        let numbers = if self.source.key == self.source.row_key {
            String::new()
        } else {
            format!("WHERE {key} < ''")
        };
        let ends: [Value; 2] = conn.query_row(
            &format!(
                "SELECT (SELECT min({key}) FROM {table} {numbers}), (SELECT max({key}) FROM {table} {numbers})"
            ),
            [],
            |row| Ok([row.get(0)?, row.get(1)?]),
        )?;
        // With the place of what the files have, so that none is looked for: in a cold file that would be hundreds of pages.
        let mut looked_at: Vec<(i64, Option<(&Open, u32)>)> = Vec::new();
        for part in &self.parts {
            if let Some(forest) = &part.forest {
                let rows = forest.spread(COMPARED);
                let rows = rows.filter(|(id, _)| !part.hidden.contains(id));
                looked_at.extend(rows.map(|(id, position)| (id, Some((forest, position)))));
            }
        }
        for end in ends {
            if let Value::Integer(id) = end
                && looked_at.iter().all(|&(other, _)| other != id)
            {
                let forest = self.forest_of(id);
                let ours = forest.and_then(|forest| Some((forest, forest.position(id)?)));
                looked_at.push((id, ours));
            }
        }
        let mut one_row = conn.prepare_cached(&self.one_row)?;
        let mut noted = conn.prepare_cached(&format!(
            "SELECT 1 FROM {} WHERE id = ?1",
            self.index.changes()
        ))?;
        for (id, ours) in looked_at {
            if noted.exists([id])? {
                continue;
            }
            let mut same = ours.is_none();
            let dim = ours.map_or(0, |(forest, _)| forest.dim());
            let read = self.source.read_one(&mut one_row, id, dim, |row| {
                same = ours.is_some_and(|(forest, position)| forest.has_row_at(position, row));
            });
            if read.is_err() || !same {
                return Ok(Some(format!(
                    "row {id} of {} is not what its file has, and no trigger noted a change",
                    self.source.table
                )));
            }
        }
        Ok(None)
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
        let Some(main) = self.answering() else {
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
            self.check_dim(query, main.dim())?;
        }
        let wanted = &self.among_forests(wanted);
        self.warm(main);
        let rows = self.originals(conn)?;
        TableRows::hear(rows.as_ref(), |rows| {
            self.exact_in_parts(queries, wanted, rows, scratch, stats)
        })
    }

    /// The same of parts and changed rows: without the table, and so on any thread, unless the files have no vectors.
    pub(crate) fn exact_in_parts(
        &self,
        queries: &[&[f32]],
        wanted: &Wanted,
        rows: Option<&dyn Originals>,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> Vec<Vec<Hit>> {
        let mut best = Self::best(queries, wanted);
        for part in &self.parts {
            self.exact_in(part, queries, (wanted, rows), &mut best, scratch, stats);
        }
        self.with_pending(queries, wanted, None, best, scratch, stats)
    }

    /// What reads the vectors that the files do not hold; `None`: they hold them.
    pub(crate) fn originals<'a>(&'a self, conn: &'a Connection) -> Result<Option<TableRows<'a>>> {
        let mut forests = self.parts.iter().filter_map(|part| part.forest.as_ref());
        if forests.all(|forest| forest.store() != VectorStore::None) {
            return Ok(None);
        }
        TableRows::new(conn, &self.index, &self.source, &self.one_row).map(Some)
    }

    /// The first search may be the only one; from the second on it pays to have the pages at hand.
    fn warm(&self, main: &Open) {
        if self.searched.load(Ordering::Relaxed) < 2
            && self.searched.fetch_add(1, Ordering::Relaxed) == 1
        {
            main.bytes().bring_near(&main.exact_parts());
        }
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
        let Some(main) = self.answering() else {
            return self.exact(conn, queries, wanted, scratch, stats);
        };
        if budget == Budget::Default && main.plane_bytes() <= BREAK_EVEN {
            return self.exact(conn, queries, wanted, scratch, stats);
        }
        for query in queries {
            self.check_dim(query, main.dim())?;
        }
        let wanted = &self.among_forests(wanted);
        if wanted.among.is_some() {
            // It may look at rows of the set wherever they are.
            self.warm(main);
        }
        let rows = self.originals(conn)?;
        TableRows::hear(rows.as_ref(), |rows| {
            self.approximate_in_parts(queries, wanted, budget, rows, scratch, stats)
        })
    }

    /// The same of parts and changed rows: as [`Reader::exact_in_parts`].
    pub(crate) fn approximate_in_parts(
        &self,
        queries: &[&[f32]],
        wanted: &Wanted,
        budget: Budget,
        rows: Option<&dyn Originals>,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> Vec<Vec<Hit>> {
        let mut best = Self::best(queries, wanted);
        for part in &self.parts {
            let Some(forest) = &part.forest else {
                continue;
            };
            if budget == Budget::Default && forest.plane_bytes() <= BREAK_EVEN {
                self.exact_in(part, queries, (wanted, rows), &mut best, scratch, stats);
                continue;
            }
            let (k, hidden) = (wanted.k, &part.hidden);
            let counted = stats.rows + (forest.len() * queries.len()) as u64;
            let found = match queries {
                [query] => {
                    let ask = Ask {
                        within: wanted.within,
                        among: wanted.among.as_deref(),
                        scan_lists: wanted.scan_lists,
                        originals: rows,
                        ..Ask::nearest(k, hidden)
                    };
                    vec![forest.search_with(query, budget, &ask, scratch, stats)]
                }
                _ => {
                    let threads = wanted
                        .threads
                        .unwrap_or_else(|| work::threads(0).min(queries.len() / QUERIES_EACH));
                    let ask = Ask {
                        threads,
                        originals: rows,
                        ..Ask::nearest(k, hidden)
                    };
                    forest.search_many(queries, budget, &ask, stats)
                }
            };
            // An exact search that took over has counted them.
            stats.rows = counted;
            add(&mut best, found);
        }
        self.with_pending(queries, wanted, Some(budget), best, scratch, stats)
    }

    /// The rowids of all rows that parts and changed rows have, in no order.
    pub(crate) fn rowids(&self) -> Vec<i64> {
        let mut ids = Vec::new();
        for part in &self.parts {
            let all = part.forest.iter().flat_map(|forest| forest.ids());
            ids.extend(all.filter(|id| !part.hidden.contains(id)));
        }
        ids.extend(self.pending.rowids());
        ids
    }

    /// What is wanted, by distances of the forests' metric.
    fn among_forests<'a>(&self, wanted: &'a Wanted) -> Cow<'a, Wanted> {
        if self.metric == self.forest_metric || wanted.within == f64::INFINITY {
            return Cow::Borrowed(wanted);
        }
        // The roots of whole numbers, which come in the same order.
        let within = match wanted.within.floor() {
            bits if bits >= 0.0 => bits.sqrt(),
            _ => f64::NEG_INFINITY,
        };
        Cow::Owned(Wanted {
            within,
            ..wanted.clone()
        })
    }

    /// An empty answer for each query.
    fn best(queries: &[&[f32]], wanted: &Wanted) -> Vec<TopK> {
        vec![TopK::within(wanted.k, wanted.within); queries.len()]
    }

    /// Searches a part exactly; what is better goes to `best`.
    fn exact_in(
        &self,
        part: &Part,
        queries: &[&[f32]],
        (wanted, rows): (&Wanted, Option<&dyn Originals>),
        best: &mut [TopK],
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) {
        let Some(forest) = &part.forest else {
            return;
        };
        let ask = Ask {
            k: wanted.k,
            // No query wants a row beyond what all have.
            within: best
                .iter()
                .map(TopK::limit)
                .fold(f64::NEG_INFINITY, f64::max),
            threads: wanted.threads.unwrap_or_else(|| {
                work::threads(0).min(forest.plane_bytes() * queries.len() / PLANE_EACH)
            }),
            hidden: &part.hidden,
            among: wanted.among.as_deref(),
            scan_lists: false,
            originals: rows,
        };
        let found = match queries {
            [query] => vec![forest.exact_with(query, &ask, scratch, stats)],
            _ => forest.exact_many(queries, &ask, stats),
        };
        add(best, found);
    }

    /// The answers, with the rows that have changed.
    fn with_pending(
        &self,
        queries: &[&[f32]],
        wanted: &Wanted,
        budget: Option<Budget>,
        mut best: Vec<TopK>,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> Vec<Vec<Hit>> {
        if !self.pending.is_empty() {
            for (query, best) in queries.iter().zip(&mut best) {
                let among = wanted.among.as_deref();
                self.pending.search(
                    (self.forest_metric, query),
                    among,
                    budget,
                    best,
                    scratch,
                    stats,
                );
            }
        }
        let mut found: Vec<_> = best.into_iter().map(TopK::into_sorted).collect();
        if self.metric != self.forest_metric {
            for hit in found.iter_mut().flatten() {
                hit.distance = (hit.distance * hit.distance).round();
            }
        }
        found
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

    /// The forest of the main file, if all files can be used.
    pub(crate) fn forest(&self) -> Option<&Open> {
        self.parts.first().and_then(|main| main.forest.as_ref())
    }

    /// The forest of the main file, unless the table answers.
    pub(crate) fn answering(&self) -> Option<&Open> {
        self.forest().filter(|_| !self.blind)
    }

    /// The parts, the main one first; none if a file can't be used.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The forest that answers for a row.
    fn forest_of(&self, rowid: i64) -> Option<&Open> {
        self.parts
            .iter()
            .filter(|part| !part.hidden.contains(&rowid))
            .filter_map(|part| part.forest.as_ref())
            .find(|forest| forest.contains(rowid))
    }

    /// Whether a part that answers for a row was made of this vector, as far as its file tells.
    pub(crate) fn has_row(&self, rowid: i64, vector: &[f32]) -> bool {
        self.forest_of(rowid)
            .is_some_and(|forest| forest.has_row(rowid, vector))
    }

    /// Why the file can't be used.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The parts, as the catalogue calls them.
    pub(crate) fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }
}

/// Whether a cached statement that has just run was prepared since it ran before: the schema has changed, or others have
/// taken its place in the cache meanwhile, so that nobody knows.
pub(crate) fn is_new(statement: &rusqlite::Statement<'_>) -> bool {
    statement.get_status(StatementStatus::RePrepare) > 0
        || statement.get_status(StatementStatus::Run) == 1
}

/// Adds what a part has found.
fn add(best: &mut [TopK], found: Vec<Vec<Hit>>) {
    for (best, hits) in best.iter_mut().zip(found) {
        hits.into_iter().for_each(|hit| best.push(hit));
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
